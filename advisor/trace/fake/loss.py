"""The fused head and cross-entropy, as Liger's fused_linear_cross_entropy allocates it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def _power_of_two(value: int) -> int:
    return 1 << max(value - 1, 0).bit_length()


class _FusedLoss(torch.autograd.Function):
    """Chunks of tokens so that a chunk's logits are about as large as all hidden states; gradients of input and
    head are made in forward (liger_kernel 0.8.4: ops/fused_linear_cross_entropy.py, chunk sizes and buffers).
    The product for the head's gradient is accumulated in place and allocates nothing."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        tokens, width = hidden.shape
        parts = -(-weight.shape[0] // width)
        size = min(_power_of_two(-(-tokens // parts)), tokens)
        grad_input = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        loss = hidden.new_zeros(tokens, dtype=torch.float32)
        logits = hidden.new_empty(size, weight.shape[0])
        for start in range(0, tokens, size):
            rows = min(size, tokens - start)
            grad_input[start : start + rows] = logits[:rows] @ weight.to(hidden.dtype)
        ctx.save_for_backward(grad_input, grad_weight)
        return loss.sum()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return tuple(ctx.saved_tensors)


def fuse_loss(model: nn.Module) -> None:
    """The head hands on hidden states and the loss multiplies by its weight."""
    head = model.get_output_embeddings()
    head.forward = lambda hidden: hidden

    def loss(logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        hidden = logits.reshape(-1, logits.shape[-1])
        if torch.is_autocast_enabled("cuda"):
            hidden = hidden.to(torch.bfloat16)
        return _FusedLoss.apply(hidden, head.weight)

    model.loss_function = loss
