"""Checkpointing whose layer inputs wait in host memory, as Unsloth's does it (unsloth_zoo==2026.10.9,
gradient_checkpointing.py: UnslothCheckpointFunction): what is on the GPU when, without streams and events.

The input of every layer but the last goes to the host in 16 bit and comes back, in turns, through two buffers that are
made once and stay; the layer then runs again inside the backward of its autograd function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class _Store:
    """The buffers of one model, and which of its layers comes next."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.turn = 0
        self.buffers: list[torch.Tensor] = []

    def away(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """The copy on the host; None for the last layer, whose input backward takes first."""
        self.turn += 1
        if self.turn % self.layers == 0:
            return None
        kept = torch.bfloat16 if hidden.dtype == torch.float32 else hidden.dtype
        if not self.buffers:
            self.buffers = [torch.empty_like(hidden, dtype=kept) for _ in range(2)]
        return torch.empty_like(hidden, dtype=kept, device="cpu").copy_(hidden)

    def back(self, away: torch.Tensor, turn: int, dtype: torch.dtype) -> torch.Tensor:
        return self.buffers[turn % 2].copy_(away).to(dtype)


class _Checkpoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], store: _Store, hidden: torch.Tensor) -> Any:
        ctx.run, ctx.store, ctx.dtype = run, store, hidden.dtype
        ctx.autocast = {
            "enabled": torch.is_autocast_enabled("cuda"),
            "dtype": torch.get_autocast_dtype("cuda"),
        }
        ctx.away = store.away(hidden)
        ctx.turn = store.turn
        ctx.save_for_backward(*([hidden] if ctx.away is None else []))
        with torch.no_grad():
            return run(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden = ctx.saved_tensors[0] if ctx.away is None else ctx.store.back(ctx.away, ctx.turn, ctx.dtype)
        ctx.maybe_clear_saved_tensors()
        hidden = hidden.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast("cuda", **ctx.autocast):
            out = ctx.run(hidden)
        torch.autograd.backward(out[0] if isinstance(out, tuple) else out, grads[0])
        return None, None, hidden.grad


def offload_inputs(model: nn.Module, layers: int) -> None:
    """Have the model checkpoint its decoder layers that way."""
    store = _Store(layers)

    def checkpoint(run: Callable[..., Any], hidden: torch.Tensor, *rest: Any) -> Any:
        return _Checkpoint.apply((lambda h: run(h, *rest)) if rest else run, store, hidden)

    model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=checkpoint)
