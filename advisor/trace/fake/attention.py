"""Attention kernels that no CPU has, as what they keep and what they need for a moment.

Both are registered with transformers under names of their own, so the models call them as they would call
the real ones. `eager` is transformers' own code and needs nothing here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad

FLASH, SDPA = "advisor_fa2", "advisor_sdpa"
"""Names without `flash`, which transformers would look up as a hub kernel."""


def backward_temporaries(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
    """What the backward holds beside its results: an fp32 accumulator of the query's gradient and, where heads share
    keys, the keys' and values' gradients of every query head before they are summed (flash_api.cpp mha_bwd: dq_accum,
    dk_expanded, dv_expanded)."""
    shared = (key, value) if query.shape[1] != key.shape[1] else ()
    wide = [tensor.new_empty(*query.shape[:3], tensor.shape[-1]) for tensor in shared]
    return [torch.empty_like(query, dtype=torch.float32), *wide]


class _Fused(torch.autograd.Function):
    """FlashAttention-2's tensors: saved are query, key, value, output and the fp32 log-sum-exp of each row. torch's
    sdpa runs the same kernel for equal head sizes."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        batch, heads, length, _ = query.shape
        out = query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
        sums = query.new_empty(batch, heads, length, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _, sums = ctx.saved_tensors
        row_sums = torch.empty_like(sums)
        temporaries = backward_temporaries(query, key, value)
        grads = [torch.empty_like(t) for t in (query, key, value)]
        del temporaries, row_sums, grad
        return tuple(grads)


def _half(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """FlashAttention takes 16-bit inputs only; transformers casts an fp32 stream down before it."""
    return [t.to(torch.bfloat16) if t.dtype == torch.float32 else t for t in tensors]


def _flash(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """transformers pads values to the head size of the queries (MLA) and crops the output
    (integrations/flash_attention.py), and hands FlashAttention (batch, length, heads, size)."""
    query, key, value = _half(query, key, value)
    size = value.shape[-1]
    if size != query.shape[-1]:
        value = pad(value, [0, query.shape[-1] - size])
    out = _Fused.apply(query, key, value).transpose(1, 2)
    return (out[..., :size] if size != query.shape[-1] else out), None


def _sdpa(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Without padding there is no mask, and heads that share keys stay shared. Unequal head sizes (MLA) go to
    the memory-efficient kernel, which saves the same tensors. Autocast casts fp32 inputs."""
    if torch.is_autocast_enabled("cuda"):
        query, key, value = _half(query, key, value)
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not key.shape[-1] == value.shape[-1] <= 256:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


def _no_mask(*_: Any, **__: Any) -> None:
    """Without padding neither kernel gets a mask."""


def register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, function in ((FLASH, _flash), (SDPA, _sdpa)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, _no_mask)
