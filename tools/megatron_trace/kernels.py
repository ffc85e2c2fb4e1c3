"""Transformer Engine's layers as what they keep for backward and what they allocate.

Transformer Engine cannot be installed without CUDA. Its Python says what each autograd function saves; file and line
refer to NVIDIA/TransformerEngine v2.16.1, transformer_engine/pytorch/. Kernels themselves are `empty`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed import ProcessGroup

MAP_COLUMNS = 2
"""int32 entries per token and expert of a row-id map, and one more (triton/permutation.py:52)."""


def gathered(local: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """The whole of a tensor whose first dimension is split over `group`."""
    ranks = group.size() if group is not None else 1
    return local if ranks == 1 else local.new_empty(local.shape[0] * ranks, *local.shape[1:])


def scattered(whole: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """This rank's part of a reduce-scatter along the first dimension."""
    ranks = group.size() if group is not None else 1
    return whole if ranks == 1 else whole.new_empty(whole.shape[0] // ranks, *whole.shape[1:])


class NormLinear(torch.autograd.Function):
    """RMSNorm and a column-parallel product (module/layernorm_linear.py:396-495): the input, the reciprocal root and,
    where the weight trains, the normalised input of this rank. It is gathered for the product and again for the
    weight's gradient (737), and both are dropped at once."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gain: torch.Tensor, weight: torch.Tensor, group: ProcessGroup | None
    ) -> torch.Tensor:
        normed = torch.empty_like(x)
        roots = x.new_empty(x.shape[:-1], dtype=torch.float32)
        whole = gathered(normed, group)
        out = whole.new_empty(*whole.shape[:-1], weight.shape[0])
        ctx.save_for_backward(x, gain, weight, normed if weight.requires_grad else None, roots)
        ctx.group = group
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        _, gain, weight, normed, _ = ctx.saved_tensors
        whole = gathered(normed, ctx.group) if normed is not None else None
        grad_whole = grad.new_empty(*grad.shape[:-1], weight.shape[1])
        grad_normed = scattered(grad_whole, ctx.group)
        del grad_whole
        grad_weight = torch.empty_like(weight) if whole is not None else None
        del whole, normed
        grad_x = torch.empty_like(grad_normed)
        return grad_x, torch.empty_like(gain) if gain.requires_grad else None, grad_weight, None


class Norm(torch.autograd.Function):
    """RMSNorm: its contiguous input and the reciprocal root (ops/basic/rmsnorm.py)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, gain, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, gain, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(gain) if gain.requires_grad else None


class ColumnLinear(torch.autograd.Function):
    """A column-parallel product without a norm (module/linear.py): this rank's part of its input, if the weight
    trains; gathered for the product and for the weight's gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
        whole = gathered(x, group)
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        ctx.group = group
        return whole.new_empty(*whole.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        whole = gathered(x, ctx.group) if x is not None else None
        grad_whole = grad.new_empty(*grad.shape[:-1], weight.shape[1])
        grad_x = scattered(grad_whole, ctx.group)
        del grad_whole
        return grad_x, torch.empty_like(weight) if whole is not None else None, None


class RowLinear(torch.autograd.Function):
    """A row-parallel product (module/linear.py): its input, if the weight trains. The output is reduced into this
    rank's part of the sequence; the output's gradient is gathered."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        ctx.group = group
        return scattered(x.new_empty(*x.shape[:-1], weight.shape[0]), group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        whole = gathered(grad, ctx.group)
        grad_x = whole.new_empty(*whole.shape[:-1], weight.shape[1])
        return grad_x, torch.empty_like(weight) if x is not None else None, None


class GroupedLinear(torch.autograd.Function):
    """One product per expert in one output (module/grouped_linear.py:185-262): the input, if the weights train. Without
    fused accumulation all weight gradients are made in one packed tensor (460)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x if weights[0].requires_grad else None, *weights)
        return x.new_empty(x.shape[0], weights[0].shape[0])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, *weights = ctx.saved_tensors
        grad_x = grad.new_empty(grad.shape[0], weights[0].shape[1])
        if x is None:
            return grad_x, *(None for _ in weights)
        packed = grad.new_empty(len(weights), *weights[0].shape)
        return grad_x, *packed.unbind(0)


class Attention(torch.autograd.Function):
    """FlashAttention-2 under TE: contiguous query, key and value (attention/dot_product_attention/backends.py:873),
    the output and the fp32 log-sum-exp. Backward as in advisor.trace.fake.attention."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: int
    ) -> torch.Tensor:
        query, key, value = (t.contiguous() for t in (query, key, value))
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.groups = groups
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, _, sums = ctx.saved_tensors
        wide = [t.new_empty(*query.shape[:-1], t.shape[-1]) for t in (key, value) if ctx.groups > 1]
        temporaries = [torch.empty_like(sums), torch.empty_like(query, dtype=torch.float32), *wide]
        grads = [torch.empty_like(t) for t in (query, key, value)]
        del temporaries
        return *grads, None


class Permute(torch.autograd.Function):
    """moe_permute_with_probs (permutation.py:519): a row-id map, nothing of the tokens."""

    @staticmethod
    def forward(
        ctx: Any, tokens: torch.Tensor, probs: torch.Tensor, routing: torch.Tensor, rows: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        count, experts = routing.shape
        places = tokens.new_empty(count, experts * MAP_COLUMNS + 1, dtype=torch.int32)
        ctx.save_for_backward(places)
        ctx.shapes = tokens.shape, probs.shape
        ctx.mark_non_differentiable(places)
        return tokens.new_empty(rows, tokens.shape[1]), probs.new_empty(rows), places

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, grad_probs: torch.Tensor, _: Any) -> tuple[Any, ...]:
        tokens, probs = ctx.shapes
        return grad.new_empty(tokens), grad_probs.new_empty(probs), None, None


class Unpermute(torch.autograd.Function):
    """moe_unpermute without probs (permutation.py:808): the row-id map alone."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, places: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.rows = rows.shape
        return rows.new_empty(shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        return grad.new_empty(ctx.rows), None, None


class SortChunks(torch.autograd.Function):
    """moe_sort_chunks_by_index (permutation.py:1250): a row-id map."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, probs: torch.Tensor | None) -> Any:
        ctx.save_for_backward(rows.new_empty(rows.shape[0], dtype=torch.int32))
        out = torch.empty_like(rows)
        return out if probs is None else (out, torch.empty_like(probs))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, grad_probs: torch.Tensor | None = None) -> tuple[Any, ...]:
        return torch.empty_like(grad), None if grad_probs is None else torch.empty_like(grad_probs)
