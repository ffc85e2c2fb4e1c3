"""What smoke.sh tells checkpoint.py of a plan, and what the second reward is for."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.frameworks import NAMES, framework
from advisor.starter.build import checkpoint_arguments, smoke_of
from tests.frameworks.helpers import job_for, plan_for

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
MIXTURE = "Qwen/Qwen3-30B-A3B"


@pytest.mark.parametrize(
    ("name", "model", "changes", "expected"),
    [
        ("trl", "Qwen/Qwen3-8B", {"lora_rank": 8}, ["--adapter", *ALL, "--rank", "8"]),
        ("trl", "Qwen/Qwen3-8B", {"tuning": "full"}, []),
        ("trl", "Qwen/Qwen3-8B", {"tuning": "dora"}, ["--adapter", *ALL, "--rank", "16", "--magnitude"]),
        ("trl", "Qwen/Qwen3-8B", {"method": "rm"}, ["--adapter", *ALL, "--rank", "16", "--head"]),
        ("trl", MIXTURE, {}, ["--adapter", *ATTENTION, "--rank", "16"]),
        (
            "trl",
            MIXTURE,
            {"lora_targets": ("experts",)},
            ["--adapter", *ATTENTION, "--rank", "16", "--experts"],
        ),
        ("llamafactory", "Qwen/Qwen3-8B", {"tuning": "freeze"}, ["--last-layers", "2"]),
        ("axolotl", "Qwen/Qwen3-8B", {"tuning": "freeze"}, ["--layers", "1"]),
        ("ms-swift", "Qwen/Qwen3-8B", {"tuning": "freeze"}, ["--layers", "1"]),
        (
            "verl",
            MIXTURE,
            {"backend": "megatron", "method": "sft", "lora_targets": ("experts",), "gpus_per_node": 8},
            ["--adapter", *ATTENTION, "--rank", "16"],
        ),
    ],
)
def test_what_must_be_found_trained(
    name: str, model: str, changes: dict[str, Any], expected: list[str]
) -> None:
    plan = plan_for(name, **changes)
    job = job_for(plan, model)
    smoke = smoke_of(framework(name), plan, job)
    assert checkpoint_arguments(smoke.trained or plan, job, smoke.layers) == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name != "llamafactory"])
def test_a_rule_that_scores_alone_gets_a_second_reward(name: str) -> None:
    plan = plan_for(name, method="grpo")
    assert not _second(name, plan, job_for(plan, reward_model="some/model"))
    assert not _second(name, plan_for(name), job_for(plan))
    # Unsloth's rewards stand in train.py itself: its smoke run says where no gradient came.
    assert _second(name, plan, job_for(plan)) == (name != "unsloth")


def _second(name: str, plan: Any, job: Any) -> bool:
    return any("longer" in file for file in smoke_of(framework(name), plan, job).files)


@pytest.mark.parametrize("name", ["trl", "axolotl", "llamafactory"])
def test_what_a_cpu_leaves_out_of_a_quantized_plan(name: str) -> None:
    plan = plan_for(name, tuning="qlora", quantization="4bit")
    trained = smoke_of(framework(name), plan, job_for(plan)).trained
    assert trained is not None
    assert (trained.tuning, trained.quantization) == ("lora", "none")
