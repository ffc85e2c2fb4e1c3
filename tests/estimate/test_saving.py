"""What saving takes of a node's host memory, by the way a framework saves; and reports of runs that ran out of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from advisor.estimate.memory import estimate_memory
from advisor.estimate.model_sums import model_sums
from advisor.estimate.saving import gathered_bytes, host_bytes
from advisor.estimate.stage import make_setting
from advisor.facts.models import load_model
from advisor.facts.saving import saving_of
from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import GIB, cluster, full, lora

FSDP: dict[str, Any] = {"fsdp": True, "zero_stage": 3, "gpus_per_node": 8}
P = m.QWEN25_72B.total_parameters


def _saving(plan: Plan, framework: str | None = None, model: ModelFacts = m.QWEN25_72B) -> float:
    """Bytes on a node's host."""
    return estimate_memory(model, plan, cluster(), framework=framework).host_parts["saving"] * GIB


def test_the_first_process_gathers_weights_and_then_optimizer_states() -> None:
    plan = full(**FSDP, param_dtype="fp32")
    for framework in ("trl", "llamafactory", "ms-swift", "unsloth"):
        assert _saving(plan, framework) == pytest.approx(8 * P, rel=1e-6)
    assert _saving(plan, "verl") == 0


def test_shards_are_copied_by_each_process_of_the_node() -> None:
    plan = full(**FSDP, nodes=4)
    assert _saving(plan) == pytest.approx(
        4 * P / 4, rel=1e-6
    )  # AdamW's states in bf16 are more than the weights
    copies = full(**FSDP, nodes=4, fsdp_replicas=4)
    assert _saving(copies) == pytest.approx(4 * P, rel=1e-6)


def test_axolotl_joins_what_it_saved_in_shards() -> None:
    """Above 50 billion parameters it saves shards, and joins them in 16 bit when training ends."""
    plan = full(**FSDP, nodes=4)
    assert _saving(plan, "axolotl") == pytest.approx(2 * P, rel=1e-6)
    assert _saving(plan, "axolotl", m.QWEN3_8B) == pytest.approx(4 * m.QWEN3_8B.total_parameters, rel=1e-6)


def test_without_sharded_weights_every_process_copies_the_model() -> None:
    one = full(zero_stage=2, gpus_per_node=8)
    assert _saving(one, "trl", m.QWEN3_8B) == pytest.approx(8 * 2 * m.QWEN3_8B.total_parameters, rel=1e-6)
    # An adapter's frozen base too, which is not written.
    adapter = lora(zero_stage=2, gpus_per_node=8)
    assert _saving(adapter, "trl", m.QWEN3_8B) > 8 * 2 * m.QWEN3_8B.total_parameters


def test_an_adapter_is_gathered_with_its_base_under_fsdp_and_alone_under_zero_3() -> None:
    under_fsdp, under_zero = lora(**FSDP), lora(zero_stage=3, gpus_per_node=8)
    assert _saving(under_fsdp, "trl") > 2 * P
    assert _saving(under_zero, "trl") < 0.02 * P
    assert _saving(under_fsdp, "unsloth") < 0.03 * P


def test_one_process_holds_one_file() -> None:
    plan = full(gpus_per_node=8)
    assert _saving(plan, "trl", m.QWEN3_8B) == pytest.approx(2 * m.QWEN3_8B.total_parameters, rel=1e-6)
    assert _saving(plan, "ms-swift", m.QWEN3_8B) == pytest.approx(5e9)


def test_megatron_stages_a_nodes_share_before_it_writes() -> None:
    """Reported for a model of 744 billion parameters, TP 8, PP 4 and DP 2 on machines of four GPUs, fp32 masters, Adam
    moments and bf16 weights: about 650 GB a node, which ended the run (radixark/Megatron-LM, pull request 61)."""
    glm = load_model("zai-org/GLM-5")
    assert glm.total_parameters == pytest.approx(744e9, rel=0.02)
    plan = full(
        backend="megatron", nodes=16, gpus_per_node=4, tensor_parallel=8, pipeline_parallel=4, expert_parallel=8,
        zero_stage=1, master_weights=True,
    )  # fmt: skip
    assert _saving(plan, None, glm) / 1e9 == pytest.approx(650, rel=0.03)


def test_a_node_that_cannot_save_does_not_fit() -> None:
    plan = full(**FSDP, param_dtype="fp32", nodes=4)
    small = replace(cluster(), cpu_memory_gib=512.0)
    found = estimate_memory(m.QWEN25_72B, plan, small, framework="trl")
    assert found.total < found.capacity_gib
    assert found.fits == "no"
    assert any("while saving" in note and "gathers the whole model" in note for note in found.notes)
    assert estimate_memory(m.QWEN25_72B, plan, small, framework="verl").fits != "no"


def test_what_is_offloaded_stays_while_weights_are_gathered() -> None:
    plan = full(zero_stage=3, gpus_per_node=8, offload="optimizer", precision="bf16")
    parts = estimate_memory(m.QWEN25_72B, plan, cluster()).host_parts
    assert parts["saving"] * GIB == pytest.approx(2 * P, rel=1e-6)
    host = estimate_memory(m.QWEN25_72B, plan, cluster()).host_gib
    assert host == pytest.approx(parts["processes"] + parts["offloading"] + parts["saving"])


def test_experts_that_rest_on_the_host_are_not_gathered_to_save() -> None:
    model = load_model("deepseek-ai/DeepSeek-R1-0528")
    plan = lora(**{**FSDP, "gpus_per_node": 4}, lora_targets=("all-linear", "experts"), offload="experts")
    s = make_setting(model_sums(model), plan)
    way = saving_of(plan, model.total_parameters, "llamafactory")
    assert gathered_bytes(s, way) <= 4 * model.vocab * model.hidden
    assert host_bytes(s, way) < 4 * 0.1 * model.total_parameters
