"""Moments outside a training step: rollout, log-probabilities, weight sync, save; and the checkpoint on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from advisor.estimate.memory import estimate_memory
from advisor.estimate.model_sums import model_sums
from advisor.estimate.moments import Alive
from advisor.estimate.phases import LOGPROB_BYTES, other_moments
from advisor.estimate.rollout import extras
from advisor.estimate.saving import gathered_bytes
from advisor.estimate.stage import make_setting, stage_parts
from advisor.facts.models import load_model
from advisor.facts.saving import saving_of
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import GIB, cluster, full, lora

GRPO: dict[str, Any] = {
    "method": "grpo", "rollout_engine": "vllm", "rollout_memory_fraction": 0.5, "rollout_sleep": True, "beta": 0.0,
    "gpus_per_node": 8, "seq_len": 2048, "response_len": 1024, "prompt_len": 1024,
}  # fmt: skip


def _moments(plan: Plan, framework: str | None = None) -> dict[str, Alive]:
    s = make_setting(model_sums(m.QWEN3_8B), plan)
    part = stage_parts(s, 0, m.QWEN3_8B.layers, True, True, 1)
    way = saving_of(plan, m.QWEN3_8B.total_parameters, framework)
    found = other_moments(s, part, extras(s, part, None, 79.2, True), way)
    return {moment.moment: moment for moment in found}


def test_every_phase_of_online_rl_is_a_moment() -> None:
    assert list(_moments(full(**GRPO, fsdp=True, zero_stage=3))) == [
        "rollout",
        "log-probs",
        "weight sync",
        "save",
    ]
    assert list(_moments(full())) == ["save"]
    without = full(**{**GRPO, "rollout_engine": "hf", "rollout_memory_fraction": 0.0})
    assert "weight sync" not in _moments(without)


def test_log_probs_hold_whole_logits_and_no_graph() -> None:
    found = _moments(full(**GRPO, fsdp=True, zero_stage=3))["log-probs"]
    assert found.logits == pytest.approx(LOGPROB_BYTES * 1024 * m.QWEN3_8B.vocab)
    assert found.rollout == 0
    assert found.activations < GIB


def test_at_weight_sync_the_engine_has_its_weights_again() -> None:
    plan = full(**GRPO, fsdp=True, zero_stage=3, rollout_tensor_parallel=2)
    found = _moments(plan)
    assert found["weight sync"].rollout == pytest.approx(m.QWEN3_8B.total_parameters)
    assert found["rollout"].rollout == pytest.approx(0.5 * 79.2 * GIB)


def test_a_megatron_trainer_that_offloads_all_leaves_the_gpu_to_the_rollout() -> None:
    plan = full(
        **GRPO, backend="megatron", recompute="full", tensor_parallel=2, master_weights=True, offload="all"
    )
    away, kept = _moments(plan), _moments(replace(plan, offload="optimizer"))
    assert away["rollout"].weights == away["rollout"].gradients == 0
    assert kept["rollout"].weights > 0
    assert kept["rollout"].gradients > 0
    assert away["weight sync"].weights == kept["weight sync"].weights
    assert away["weight sync"].gradients == 0


def test_the_save_holds_states_and_what_is_gathered() -> None:
    whole = _moments(full())["save"]
    assert whole.gradients == 0
    assert whole.buffers == 0
    sums = model_sums(m.QWEN3_8B)
    plan = full(gpus_per_node=8, fsdp=True, zero_stage=3)
    assert _moments(plan)["save"].buffers == 0  # each rank saves its shard
    assert _moments(plan, "trl")["save"].buffers == 2 * sums.largest_parameter
    assert sums.largest_parameter == sums.vocab * sums.hidden


def test_zero_3_gathers_a_module_at_a_time() -> None:
    """Fused experts are one module: all experts of a layer come to each GPU."""
    moe = load_model("Qwen/Qwen3-30B-A3B")
    plan = full(gpus_per_node=8, zero_stage=3)
    s = make_setting(model_sums(moe), plan)
    assert gathered_bytes(s, saving_of(plan, moe.total_parameters)) == 2 * 128 * 3 * 2048 * 768


def test_fused_experts_are_copied_on_the_gpu_that_writes_them_one_by_one() -> None:
    moe = load_model("Qwen/Qwen3-30B-A3B")
    plan = full()
    s = make_setting(model_sums(moe), plan)
    experts = 48 * 128 * 3 * 2048 * 768
    assert gathered_bytes(s, saving_of(plan, moe.total_parameters)) == pytest.approx(2 * experts * 2 / 3)
    oss = load_model("openai/gpt-oss-20b")
    assert gathered_bytes(make_setting(model_sums(oss), plan), saving_of(plan, oss.total_parameters)) == 0


def test_a_checkpoint_on_disk() -> None:
    """Axolotl's gpt-oss-120b example: up to 720 GB each, bf16 weights and AdamW states in bf16."""
    model = load_model("openai/gpt-oss-120b")
    plan = full(gpus_per_node=8, fsdp=True, zero_stage=3)
    size = estimate_memory(model, plan, cluster(), framework="axolotl").checkpoint_gib
    assert size * GIB / 1e9 == pytest.approx(720, rel=0.05)
    adapters = estimate_memory(m.QWEN3_8B, lora(), cluster(1)).checkpoint_gib
    assert adapters * GIB == pytest.approx(43_646_976 * 12)
