"""A 4-bit base in bitsandbytes' layout, without bitsandbytes.

Every linear weight of the layers becomes what `Params4bit` holds under double quantization (bitsandbytes
0.50: functional.py quantize_4bit, block 64, nested block 256): two codes a byte, one 8-bit scale for each 64
weights, one fp32 scale for each 256 of those, two code books. `_MatMul` keeps and allocates what MatMul4Bit does
for more rows than its GEMV takes: the weight in 16 bit for the product in forward and again in backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BLOCK, NESTED_BLOCK = 64, 256


class _MatMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, linear: Linear4bit) -> torch.Tensor:
        ctx.linear = linear
        return nn.functional.linear(rows, linear.unpacked(rows.dtype))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.matmul(grad, ctx.linear.unpacked(grad.dtype)), None


class Linear4bit(nn.Linear):
    """Packed weight of an nn.Linear (a subclass, so that peft puts its own adapter on it); computes in bf16
    and returns the input's dtype, as bitsandbytes' Linear4bit with compute_dtype bf16 does."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        device, count = linear.weight.device, linear.weight.numel()
        self.shape = tuple(linear.weight.shape)

        def kept(size: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(size, dtype=dtype, device=device)

        self.weight = nn.Parameter(kept(-(-count // 2), torch.uint8), requires_grad=False)
        self.bias = linear.bias
        self.blocks = -(-count // BLOCK)
        self.register_buffer("absmax", kept(self.blocks, torch.uint8))
        self.register_buffer("nested_absmax", kept(-(-self.blocks // NESTED_BLOCK), torch.float32))
        self.register_buffer("code", kept(16, torch.float32))
        self.register_buffer("nested_code", kept(256, torch.float32))

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight in `dtype`; its scales are unpacked to fp32 first."""
        scales = torch.empty(self.blocks, dtype=torch.float32, device=self.weight.device)
        del scales
        return torch.empty(self.shape, dtype=dtype, device=self.weight.device)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", enabled=False):
            out = _MatMul.apply(input.to(torch.bfloat16), self)
            if self.bias is not None:
                out = out + self.bias.to(out.dtype)
            return out.to(input.dtype)


def quantize(model: nn.Module) -> None:
    """Replace every nn.Linear of the model but the output head, as transformers does for bitsandbytes."""
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module is not head:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], Linear4bit(module))


def prepare(model: nn.Module) -> None:
    """peft's prepare_model_for_kbit_training: freeze, and hold what stayed in 16 bit in fp32; a tied head stays
    tied."""
    cast: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None and weight.dtype == torch.bfloat16:
                if weight not in cast:
                    cast[weight] = nn.Parameter(weight.detach().float(), requires_grad=False)
                setattr(module, name, cast[weight])
