"""Routed experts in host memory: what leaves the GPU, what the host holds, and that the processor sets the pace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.estimate.host_experts import host_expert_bytes, on_gpus
from advisor.estimate.memory import estimate_memory
from advisor.estimate.model_sums import model_sums
from advisor.estimate.parameters import trainable_parameters
from advisor.estimate.time import step_time
from advisor.facts.models import load_model
from advisor.plan import Plan
from tests.estimate.samples import cluster

GIB = 2**30
MODEL = load_model("Qwen/Qwen3-235B-A22B")
SUMS = model_sums(MODEL)
PLAN = Plan(
    method="sft", tuning="lora", lora_rank=8, lora_targets=("experts",), param_dtype="fp32", seq_len=2048,
    gpus_per_node=2, zero_stage=3, fsdp=True, offload="experts",
)  # fmt: skip
EXPERTS = 94 * 128 * 3 * 4096 * 1536
"""Layers, experts, matrices, hidden and intermediate size of Qwen3-235B-A22B."""


def test_the_gpus_hold_the_rest_of_the_model() -> None:
    here = estimate_memory(MODEL, PLAN, cluster(2))
    assert on_gpus(SUMS, PLAN).expert_per_layer == 0
    rest = 2.0 * (SUMS.total - EXPERTS) / 2 / GIB
    assert here.terms["weights"] == pytest.approx(rest, rel=0.05)
    on_the_gpus = estimate_memory(MODEL, replace(PLAN, offload="none"), cluster(2))
    assert on_the_gpus.terms["weights"] - here.terms["weights"] > 0.95 * 2.0 * EXPERTS / 2 / GIB


def test_the_host_holds_them_in_bf16_with_their_adapters() -> None:
    resident, working = host_expert_bytes(SUMS, PLAN)
    adapters = 8 * 3 * (4096 + 1536) * 128 * 94  # rank x (in + out) of gate, up and down, each
    assert trainable_parameters(SUMS, PLAN)[1] == adapters
    assert resident == 2.0 * EXPERTS + 8.0 * adapters
    assert working > 2.0 * EXPERTS / 94
    assert estimate_memory(MODEL, PLAN, cluster(2)).host_gib > (resident + working) / GIB


def test_a_longer_pass_reads_the_weights_no_more_often() -> None:
    """Twice the tokens take less than twice the time, and the processor takes most of it."""
    short, long = (
        step_time(SUMS, replace(PLAN, seq_len=length), cluster(2), length, 989.0) for length in (512, 1024)
    )
    assert short.offload < long.offload < 2 * short.offload
    assert long.offload > 0.5 * long.total


def test_more_gpus_do_not_hurry_the_processor() -> None:
    """Tokens of all ranks are computed by the one machine."""
    two, four = (
        step_time(SUMS, replace(PLAN, gpus_per_node=count), cluster(count), 2048, 989.0) for count in (2, 4)
    )
    assert four.offload > 1.7 * two.offload
