"""Balanced routing for the all-to-all dispatcher, whose sizes come from the content of tensors, and the fused
permutations in Transformer Engine's place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from megatron.core.fusions import fused_bias_swiglu
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.moe.token_dispatcher import MoEAlltoAllTokenDispatcher

from tools.megatron_trace import kernels


def _preprocess(self: Any, routing_map: torch.Tensor) -> torch.Tensor:
    """The sizes that MoEAlltoAllTokenDispatcher.preprocess finds when every expert gets as many tokens."""
    rows = routing_map.size(0) * self.config.moe_router_topk
    self.num_out_tokens = rows
    each = rows * self.tp_size * self.ep_size // (self.num_experts // self.num_local_experts)
    self.input_splits = self.output_splits = [rows // self.ep_size] * self.ep_size
    self.output_splits_tp = None  # the same of every rank
    self.num_global_tokens_per_local_expert = torch.full(
        (self.ep_size, self.num_local_experts), each, device="cpu"
    )
    return torch.zeros(self.num_local_experts, dtype=torch.long, device="cpu")


class _Counts(list):
    """Rows per expert where Megatron-Core expects a tensor on the host."""

    def tolist(self) -> list[int]:
        return list(self)


def _synchronize(self: Any, point: str, tokens: Any = None) -> Any:
    return tokens if tokens is None else _Counts([0] * self.num_local_experts)


def _permute(tokens: Any, probs: Any, routing: Any, num_out_tokens: int) -> Any:
    return kernels.Permute.apply(tokens, probs, routing, num_out_tokens)


def _unpermute(rows: Any, places: Any, merging_probs: Any = None, restore_shape: Any = None) -> Any:
    return kernels.Unpermute.apply(rows, places, tuple(restore_shape))


def _sort(rows: Any, *_: Any) -> Any:
    return kernels.SortChunks.apply(rows, None)


def _sort_with_probs(rows: Any, probs: Any, *_: Any) -> Any:
    return kernels.SortChunks.apply(rows, probs)


def _product(
    a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype, layout: str = "TN", **_: Any
) -> list[torch.Tensor]:
    """general_gemm's result: no copies of its inputs in another type."""
    rows, columns = {
        "TN": (b.shape[0], a.shape[0]),
        "NN": (b.shape[0], a.shape[1]),
        "NT": (b.shape[1], a.shape[1]),
    }[layout]
    return [b.new_empty(rows, columns, dtype=dtype)]


def _swiglu(y: torch.Tensor, *_: Any) -> torch.Tensor:
    return y.new_empty(*y.shape[:-1], y.shape[-1] // 2)


def _swiglu_back(grad: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(y)


def _weighted_back(
    grad: torch.Tensor, y: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(y), torch.empty_like(weights)


@contextmanager
def balanced() -> Iterator[None]:
    """Routing, permutations and the compiled SwiGLU kernels, which make nothing but their results."""
    answers: list[tuple[Any, str, Any]] = [
        (MoEAlltoAllTokenDispatcher, "preprocess", _preprocess),
        (MoEAlltoAllTokenDispatcher, "_maybe_dtoh_and_synchronize", _synchronize),
        (moe_utils, "HAVE_TE", True),
        (moe_utils, "fused_permute", _permute),
        (moe_utils, "fused_permute_with_probs", _permute),
        (moe_utils, "fused_unpermute", _unpermute),
        (moe_utils, "fused_sort_chunks_by_index", _sort),
        (moe_utils, "fused_sort_chunks_by_index_with_probs", _sort_with_probs),
        (moe_utils, "te_general_gemm", _product),
        (fused_bias_swiglu, "swiglu", _swiglu),
        (fused_bias_swiglu, "swiglu_back", _swiglu_back),
        (fused_bias_swiglu, "weighted_swiglu", _swiglu),
        (fused_bias_swiglu, "weighted_swiglu_back", _weighted_back),
    ]
    with ExitStack() as stack:
        for owner, name, value in answers:
            stack.enter_context(patch.object(owner, name, value, create=True))
        yield
