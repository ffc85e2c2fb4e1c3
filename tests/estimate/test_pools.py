"""GPUs that only generate: what leaves the training GPUs, what theirs hold, and what a step takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from advisor.estimate.memory import estimate_memory
from advisor.estimate.model_sums import model_sums
from advisor.estimate.rollout import LEAST_CACHE, engine_weights
from advisor.estimate.time import estimate_time, step_time
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import cluster, full

APART: dict[str, Any] = {
    "method": "grpo", "rollout_engine": "vllm", "rollout_memory_fraction": 0.9, "beta": 0.0, "gpus_per_node": 6,
    "seq_len": 2048, "response_len": 1024, "prompt_len": 1024, "generations": 8, "micro_batch_size": 8,
    "rollout_placement": "separate", "rollout_gpus": 2, "zero_stage": 3, "fsdp": True,
}  # fmt: skip


def test_the_engine_takes_nothing_of_the_gpus_that_train() -> None:
    plan = full(**APART)
    beside = replace(plan, rollout_placement="colocated", rollout_gpus=0)
    memory = estimate_memory(m.QWEN3_8B, plan, cluster())
    assert memory.terms["rollout"] == 0
    assert memory.total < estimate_memory(m.QWEN3_8B, beside, cluster()).total


def test_a_gpu_that_generates_holds_weights_and_a_cache() -> None:
    plan = full(**APART)
    memory = estimate_memory(m.QWEN3_8B, plan, cluster())
    assert memory.pool_gib == LEAST_CACHE * engine_weights(model_sums(m.QWEN3_8B), plan) / 2**30
    assert memory.as_dict()["generating_gpu_gib"]["needed"] == round(memory.pool_gib, 2)
    small = estimate_memory(m.QWEN3_8B, replace(plan, rollout_memory_fraction=0.1), cluster())
    assert small.fits == "no"
    assert small.excess > memory.excess


def _step(plan: Plan) -> Any:
    return step_time(model_sums(m.QWEN3_8B), plan, cluster(), 1500.0, 989.0)


def test_generation_hides_behind_training_only_where_they_overlap() -> None:
    waits, beside = _step(full(**APART)), _step(full(**{**APART, "rollout_placement": "separate-async"}))
    training = waits.update + waits.log_probs
    assert waits.total == training + waits.rollout + waits.sync
    assert abs(beside.total - (max(training, waits.rollout) + waits.sync)) < 1e-9


def test_more_gpus_that_generate_shorten_generation_and_cost_gpu_hours() -> None:
    two, four = full(**APART), full(**{**APART, "rollout_gpus": 4})
    assert _step(four).rollout < _step(two).rollout
    time = estimate_time(m.QWEN3_8B, two, cluster(), 1000, None)
    assert time.hours is not None
    assert time.gpu_hours == time.hours * 8
