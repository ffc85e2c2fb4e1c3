"""Traced steps of an earlier tool, another implementation than `advisor.trace`: a third set beside the two
halves of traced_rows.csv. The figure is the peak of allocated memory of real transformers, peft and FSDP2 code
on fake tensors (torch 2.13.0, transformers 5.23.0, peft 0.21.2). It is a little high in backward: it counted copies
that a CPU build of PyTorch makes where a GPU has one kernel (SiLU's backward) and sums of gradients as not in place.
`python -m tests.accuracy.traced_earlier` prints it.
"""

from __future__ import annotations

from advisor.estimate.memory import estimate_memory
from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import cluster, full, lora

FSDP = {"gpus_per_node": 8, "fsdp": True, "zero_stage": 3, "precision": "bf16", "param_dtype": "fp32"}
QV = ("q_proj", "v_proj")
PURE = {"precision": "bf16-pure"}
OPEN = {"gradient_checkpointing": False}

ROWS: list[tuple[str, ModelFacts, Plan, float]] = [
    ("llama-8b full bf16 1x2048", m.LLAMA_8B, full(seq_len=2048), 59.846),
    ("llama-8b full fsdp8 1x32768", m.LLAMA_8B, full(seq_len=32768, **FSDP), 69.567),
    ("llama-8b full fsdp8 1x32768 fused loss", m.LLAMA_8B, full(seq_len=32768, loss="fused", **FSDP), 33.994),
    ("qwen3-30b-a3b full fsdp8 1x4096", m.QWEN3_30B, full(seq_len=4096, **FSDP), 64.204),
    ("llama-8b full foreach 1x2048", m.LLAMA_8B, full(seq_len=2048, optimizer="adamw_foreach"), 74.787),
    (
        "qwen3-8b qlora 2x2048",
        m.QWEN3_8B,
        lora(tuning="qlora", quantization="4bit", seq_len=2048, micro_batch_size=2),
        18.891,
    ),
    ("llama-8b full eager 1x4096 kept", m.LLAMA_8B, full(seq_len=4096, attention="eager", **OPEN), 172.872),
    ("qwen3-30b-a3b 4 layers full 1x128", m.QWEN3_30B_4L, full(seq_len=128), 23.215),
    (
        "llama-3b lora q,v 4x768 kept",
        m.LLAMA_3B,
        lora(lora_rank=32, lora_targets=QV, micro_batch_size=4, seq_len=768, **PURE, **OPEN),
        19.71,
    ),
    ("llama-3b full 4x768 kept", m.LLAMA_3B, full(micro_batch_size=4, seq_len=768, **OPEN), 32.94),
    ("llama-3b full 2x4096 kept", m.LLAMA_3B, full(micro_batch_size=2, seq_len=4096, **OPEN), 57.91),
    ("llama-3b full 2x4096 fused", m.LLAMA_3B, full(micro_batch_size=2, seq_len=4096, loss="fused"), 25.49),
    (
        "llama-8b lora r8 2x2048 fused",
        m.LLAMA_8B,
        lora(lora_rank=8, micro_batch_size=2, seq_len=2048, loss="fused"),
        17.72,
    ),
    ("qwen-7b lora r64 1x256", m.QWEN_7B, lora(lora_rank=64, seq_len=256), 16.90),
    ("qwen-7b lora r64 1x2048", m.QWEN_7B, lora(lora_rank=64, seq_len=2048), 20.18),
    ("qwen-7b lora r64 1x8192", m.QWEN_7B, lora(lora_rank=64, seq_len=8192), 32.21),
    (
        "qwen-7b qlora r64 1x8192",
        m.QWEN_7B,
        lora(tuning="qlora", quantization="4bit", lora_rank=64, seq_len=8192, **PURE),
        23.26,
    ),
    ("qwen2.5-7b full 1x2048", m.QWEN25_7B, full(seq_len=2048), 56.75),
    ("qwen2.5-7b lora r8 1x2048", m.QWEN25_7B, lora(lora_rank=8, seq_len=2048), 18.30),
    ("qwen2.5-14b full fsdp8 1x8192", m.QWEN25_14B, full(seq_len=8192, **FSDP), 42.04),
    ("llama-8b full fsdp8 2x8192", m.LLAMA_8B, full(seq_len=8192, micro_batch_size=2, **FSDP), 41.57),
    ("qwen3-30b-a3b lora attention 1x4096", m.QWEN3_30B, lora(seq_len=4096), 64.8),
    ("qwen3-30b-a3b lora experts 1x4096", m.QWEN3_30B, lora(seq_len=4096, lora_targets=("experts",)), 71.8),
]


def errors() -> list[tuple[str, float, float, str, float]]:
    """(row, estimate, traced, moment, relative error)."""
    found: list[tuple[str, float, float, str, float]] = []
    for name, model, plan, traced in ROWS:
        estimate = estimate_memory(model, plan, cluster())
        found.append((name, estimate.allocated, traced, estimate.moment, estimate.allocated / traced - 1))
    return found


def report() -> str:
    return "\n".join(f"{n:45} {e:8.2f} {t:8.2f} {w:10} {100 * d:+6.1f} %" for n, e, t, w, d in errors())


if __name__ == "__main__":
    print(report())
