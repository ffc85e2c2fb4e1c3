"""Five questions that other estimators were asked, and what they answered (peers.csv, GiB per GPU)."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from advisor.estimate.memory import estimate_memory
from advisor.estimate.types import MemoryEstimate
from advisor.explicit import explicit_plan
from advisor.request import parse_request

PEERS = Path(__file__).with_name("peers.csv")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a": (
        "Llama-3.1-8B full, 8 GPUs, ZeRO-3, 1 x 4096, checkpointing",
        {
            "model": "meta-llama/Llama-3.1-8B", "tuning": "full", "gpus_per_node": 8, "zero": 3, "seq_len": 4096,
            "attention": "flash", "packing": True,
        },
    ),
    "b": (
        "Llama-3.1-8B LoRA r16 on all linears, 1 GPU, 2 x 2048",
        {
            "model": "meta-llama/Llama-3.1-8B", "tuning": "lora", "lora_rank": 16, "seq_len": 2048,
            "micro_batch_size": 2, "attention": "flash", "packing": True,
        },
    ),
    "c": (
        "Qwen2.5-72B QLoRA, 1 GPU, 1 x 2048",
        {"model": "Qwen/Qwen2.5-72B", "tuning": "qlora", "seq_len": 2048, "attention": "flash", "packing": True},
    ),
    "d": (
        "Qwen3-235B-A22B full, 128 GPUs, TP4 PP8 EP8, 1 x 8192, full recompute",
        {
            "model": "Qwen/Qwen3-235B-A22B", "tuning": "full", "gpus_per_node": 8, "nodes": 16, "tensor_parallel": 4,
            "pipeline_parallel": 8, "expert_parallel": 8, "recompute": "full", "seq_len": 8192, "packing": True,
        },
    ),
    "e": (
        "DeepSeek-V3 full, 1024 GPUs, PP16 EP64, 1 x 4096, full recompute",
        {
            "model": "deepseek-ai/DeepSeek-V3", "tuning": "full", "gpus_per_node": 8, "nodes": 128,
            "pipeline_parallel": 16, "expert_parallel": 64, "recompute": "full", "seq_len": 4096, "packing": True,
        },
    ),
}  # fmt: skip


class State(NamedTuple):
    """Weights, fp32 gradients and distributed optimizer of one pipeline stage, GiB."""

    case: str
    stage: int
    simumax: float
    iseekyan: float


STATES = (
    State("d", 0, 40.12, 40.07),
    State("d", 3, 42.35, 42.29),
    State("d", -1, 40.12, 40.07),
    State("e", 0, 15.43, 15.43),
    State("e", 8, 17.18, 17.14),
    State("e", -1, 13.9, 13.9),
)
"""MooreThreads/SimuMax@4dcaae5 and ISEEKYAN/mbridge@10cb17f, run on cases d and e; written independently, they agree
within 0.2 %."""


@cache
def ours(case: str) -> MemoryEstimate:
    """The estimate of one case, as `advisor estimate` gives it."""
    explicit = explicit_plan(parse_request({"method": "sft", "gpu": "h100", **CASES[case][1]}))
    return estimate_memory(explicit.resolved.model, explicit.plan, explicit.resolved.cluster)


def answers() -> list[dict[str, str]]:
    with PEERS.open(newline="") as lines:
        return list(csv.DictReader(lines))
