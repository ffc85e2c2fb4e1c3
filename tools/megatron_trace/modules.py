"""Modules in the places of Transformer Engine's, with the arguments that Megatron-Core hands them.

Megatron-Core builds its layers from a provider of classes (megatron/core/extensions/transformer_engine_spec_provider.py);
this one yields classes around `kernels`. Everything between them is Megatron-Core's own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from megatron.core import parallel_state
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.models.gpt import gpt_layer_specs, moe_module_specs
from megatron.core.transformer import multi_latent_attention
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.experts import TEGroupedMLP
from torch import nn

from tools.megatron_trace import kernels


def _weight(*shape: int, expert: bool = False) -> nn.Parameter:
    weight = nn.Parameter(torch.empty(*shape, dtype=torch.bfloat16, device="cuda"))
    weight.allreduce = not expert  # what DistributedDataParallel sorts parameters by
    return weight


class _Linear(nn.Module):
    """What all products share: whom the sequence is split over, and the size of this rank's slice."""

    def __init__(self, inputs: int, outputs: int, *, config: Any, tp_group: Any = None, **_: Any) -> None:
        super().__init__()
        group = tp_group or parallel_state.get_tensor_model_parallel_group()
        self.ranks = group.size()
        self.group = group if config.sequence_parallel and self.ranks > 1 else None
        self.build(inputs, outputs)

    def build(self, inputs: int, outputs: int) -> None:
        self.weight = _weight(outputs // self.ranks, inputs)


class NormLinear(_Linear):
    def build(self, inputs: int, outputs: int) -> None:
        super().build(inputs, outputs)
        self.layer_norm_weight = _weight(inputs)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return kernels.NormLinear.apply(x, self.layer_norm_weight, self.weight, self.group), None


class ColumnLinear(_Linear):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return kernels.ColumnLinear.apply(x, self.weight, self.group), None


class WholeLinear(_Linear):
    """`parallel_mode="duplicated"`: the same on every rank."""

    def build(self, inputs: int, outputs: int) -> None:
        self.weight, self.group = _weight(outputs, inputs), None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return kernels.ColumnLinear.apply(x, self.weight, None), None


class RowLinear(_Linear):
    def build(self, inputs: int, outputs: int) -> None:
        self.weight = _weight(outputs, inputs // self.ranks)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return kernels.RowLinear.apply(x, self.weight, self.group), None


class _GroupedLinear(nn.Module):
    def __init__(self, experts: int, inputs: int, outputs: int, *, pg_collection: Any, **_: Any) -> None:
        super().__init__()
        for index in range(experts):
            shape = self.shape(inputs, outputs, pg_collection.expt_tp.size())
            setattr(self, f"weight{index}", _weight(*shape, expert=True))

    def forward(self, x: torch.Tensor, _: Any) -> tuple[torch.Tensor, None]:
        return kernels.GroupedLinear.apply(x, *self.parameters()), None


class ColumnGroupedLinear(_GroupedLinear):
    @staticmethod
    def shape(inputs: int, outputs: int, ranks: int) -> tuple[int, int]:
        return outputs // ranks, inputs


class RowGroupedLinear(_GroupedLinear):
    @staticmethod
    def shape(inputs: int, outputs: int, ranks: int) -> tuple[int, int]:
        return outputs, inputs // ranks


class Norm(nn.Module):
    def __init__(self, config: Any, hidden_size: int, **_: Any) -> None:
        super().__init__()
        self.weight = _weight(hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return kernels.Norm.apply(x, self.weight)


class Attention(nn.Module):
    def __init__(self, config: Any, **_: Any) -> None:
        super().__init__()

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
    ) -> torch.Tensor:
        groups = query.shape[-2] // key.shape[-2]
        out = kernels.Attention.apply(query, key, value, groups)
        return out.reshape(*out.shape[:-2], -1)


class Provider(LocalSpecProvider):
    def linear(self) -> type:
        return WholeLinear

    def column_parallel_linear(self) -> type:
        return ColumnLinear

    def row_parallel_linear(self) -> type:
        return RowLinear

    def fuse_layernorm_and_linear(self) -> bool:
        return True

    def column_parallel_layer_norm_linear(self) -> type:
        return NormLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False) -> type:
        return Norm

    def core_attention(self) -> type:
        return Attention

    def grouped_mlp_modules(self, *_: Any) -> tuple[type, MLPSubmodules]:
        return TEGroupedMLP, MLPSubmodules(linear_fc1=ColumnGroupedLinear, linear_fc2=RowGroupedLinear)


@contextmanager
def provided() -> Iterator[None]:
    """Where Megatron-Core would find Transformer Engine's classes."""
    answers: list[tuple[Any, str, Any]] = [
        (gpt_layer_specs, "TESpecProvider", Provider),
        (moe_module_specs, "TESpecProvider", Provider),
        (multi_latent_attention, "TELinear", WholeLinear),
        (multi_latent_attention, "TEColumnParallelLinear", ColumnLinear),
    ]
    with ExitStack() as stack:
        for owner, name, value in answers:
            stack.enter_context(patch.object(owner, name, value, create=True))
        yield
