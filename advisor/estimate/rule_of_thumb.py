"""The rule of thumb people know, beside what a finer estimate adds."""

from __future__ import annotations

from typing import Any

FP32_BYTES = 4
ADAM_BYTES = 8
GRADIENT_BYTES = 4
LORA_TRAINABLE_SHARE = 0.01
QLORA_SHARE = 0.25

DIFFERENCES = (
    "Precision: the rule holds everything in fp32. Trainers hold frozen weights in 16 bit (2 bytes, not 4), "
    "and full tuning takes 8 bytes a parameter in pure bf16, 16 with fp32 masters.",
    "Activations: the rule has none. They grow with tokens and layers and decide long contexts; "
    "checkpointing keeps one hidden state per layer instead.",
    "Logits: 12 bytes x tokens x vocabulary at the loss is often the largest term of LoRA on small models; "
    "fused or chunked cross-entropy removes most of it.",
    "Peak, not sum: gradients are complete only when activations are gone, so the estimate takes the worst "
    "moment of a step.",
    "Quantization: 4-bit storage is a quarter of 16 bit, but embedding, head and norms stay in 16 or 32 bit, "
    "and so do the experts of an MoE where the framework does not pack them.",
    "Sharding: dividing by the number of GPUs misses the gathered layers, reduction buffers and what each "
    "parallelism leaves whole.",
    "Overhead: CUDA context, NCCL and fragmentation take 1 to 4 GiB a GPU.",
)
"""Where the finer estimate differs and why."""


def rule_of_thumb(parameters: float) -> dict[str, Any]:
    """Memory in GB (10^9 bytes) by the usual rule for P parameters.

    Full in fp32: weights 4 + gradients 4 + Adam 8 = 16 P bytes. LoRA with 99 % frozen: weights 4 P, gradients
    and Adam of 1 %: 4 P + 0.01 x 12 P. QLoRA: a quarter of that. For 100e9: 1600, 412, 103 GB.
    """
    full = (FP32_BYTES + GRADIENT_BYTES + ADAM_BYTES) * parameters / 1e9
    lora = (FP32_BYTES + LORA_TRAINABLE_SHARE * (ADAM_BYTES + GRADIENT_BYTES)) * parameters / 1e9
    return {
        "parameters": parameters,
        "full_gb": full,
        "lora_gb": lora,
        "qlora_gb": lora * QLORA_SHARE,
        "formulas": {
            "full_gb": "(4 weights + 4 gradients + 8 Adam) bytes x parameters, fp32",
            "lora_gb": "4 bytes x parameters + 1 % x (8 Adam + 4 gradients) bytes x parameters",
            "qlora_gb": "a quarter of LoRA",
        },
        "differences": list(DIFFERENCES),
    }
