"""The questions people come with, answered as their published experience says."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.estimate.memory import estimate_memory
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import RTX_4090, cluster, full, lora


def _megatron(**changes: Any) -> Plan:
    defaults: dict[str, Any] = {
        "backend": "megatron", "recompute": "full", "sequence_parallel": True, "gpus_per_node": 8,
        "packing": True, "precision": "bf16", "master_weights": True, "seq_len": 8192,
        "gradient_accumulation_steps": 8, "tensor_parallel": 4, "expert_parallel": 8,
    }  # fmt: skip
    return full(**{**defaults, **changes})


def test_235b_full_needs_eight_nodes() -> None:
    """Published: full tuning of Qwen3-235B-A22B needs 64 x 80 GiB."""
    plan = _megatron(nodes=8, pipeline_parallel=8, pipeline_first_layers=11, pipeline_last_layers=11)
    assert estimate_memory(m.QWEN3_235B, plan, cluster(8, 8)).fits in ("fits", "tight")


def test_235b_full_on_four_nodes_needs_offload() -> None:
    split = {"nodes": 4, "pipeline_parallel": 4, "pipeline_first_layers": 23, "pipeline_last_layers": 23}
    assert estimate_memory(m.QWEN3_235B, _megatron(**split), cluster(8, 4)).fits == "no"
    moved = estimate_memory(m.QWEN3_235B, _megatron(offload="optimizer", **split), cluster(8, 4))
    assert moved.fits == "fits"
    assert moved.host_gib > 600


def test_235b_lora_fits_one_node() -> None:
    """Published: LoRA of Qwen3-235B-A22B takes 8 x 80 GiB with TP4 EP8, 8 x 2048 tokens: all of it."""
    plan = lora(
        backend="megatron", recompute="full", sequence_parallel=True, gpus_per_node=8, lora_rank=8,
        micro_batch_size=8, tensor_parallel=4, expert_parallel=8,
    )  # fmt: skip
    estimate = estimate_memory(m.QWEN3_235B, plan, cluster())
    assert estimate.fits in ("fits", "tight")
    assert estimate.high > 75


@pytest.mark.parametrize("offload", ["none", "optimizer"])
def test_r1_full_is_far_from_one_node(offload: str) -> None:
    estimate = estimate_memory(m.DEEPSEEK_R1, _megatron(tensor_parallel=8, offload=offload), cluster())
    assert estimate.fits == "no"
    assert estimate.total > 5 * estimate.capacity_gib


def test_qlora_on_a_24_gb_card() -> None:
    for dtype in ("bf16", "fp32"):
        plan = lora(tuning="qlora", quantization="4bit", param_dtype=dtype)
        assert estimate_memory(m.QWEN3_8B, plan, cluster(1, 1, RTX_4090, 64.0)).fits == "fits"


def test_full_7b_on_one_card() -> None:
    card = cluster(1, 1, None, 256.0)
    assert estimate_memory(m.QWEN25_7B, full(precision="bf16", param_dtype="fp32"), card).fits == "no"
    assert estimate_memory(m.QWEN25_7B, full(precision="bf16", master_weights=True), card).fits == "no"
    assert estimate_memory(m.QWEN25_7B, full(), card).fits == "fits"
    assert estimate_memory(m.QWEN25_7B, full(optimizer="adamw_8bit"), card).fits == "fits"
