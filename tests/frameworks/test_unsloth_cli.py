"""unsloth.yaml, the file of `unsloth train`: when there is one, and that every release takes its keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from advisor import schemas
from advisor.frameworks import framework
from advisor.frameworks.table import Job
from advisor.frameworks.unsloth import cli
from advisor.plan import Plan
from advisor.rendering import render
from tests.frameworks.helpers import job_for, plan_for, rendered

NAME = "unsloth"
MOE = "Qwen/Qwen3-30B-A3B"
RELEASES = schemas.versions(NAME)


def plan_and_job(changes: dict[str, Any], **more: Any) -> tuple[Plan, Job]:
    plan = plan_for(NAME, **changes)
    model = more.pop("model", "Qwen/Qwen3-8B")
    return plan, job_for(plan, model, **more)


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tuning": "full"},
        {"tuning": "qlora", "quantization": "4bit", "packing": True},
        {"method": "cpt", "tuning": "full", "gradient_checkpointing": False},
        {"tuning": "dora"},
    ],
)
@pytest.mark.parametrize("tracker", ["none", "wandb", "tensorboard"])
def test_every_release_takes_the_keys(version: str, changes: dict[str, Any], tracker: str) -> None:
    plan, job = plan_and_job(changes, version=version, tracker=tracker)
    if not cli.speaks(plan, job):
        assert plan.tuning == "dora"
        assert version == "2026.6.9"
        return
    assert schemas.problems(NAME, version, "cli", cli.document(plan, job).mapping()) == []


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"method": "dpo"}, {}),
        ({"gpus_per_node": 8}, {}),
        ({"tuning": "qlora", "quantization": "8bit"}, {}),
        ({"epochs": 0.5}, {}),
        ({"precision": "fp16"}, {}),
        ({}, {"model": MOE}),
        ({}, {"hub": "modelscope"}),
        ({}, {"tracker": "swanlab"}),
    ],
)
def test_what_the_command_has_no_words_for(changes: dict[str, Any], more: dict[str, Any]) -> None:
    assert not cli.speaks(*plan_and_job(changes, **more))


def test_the_file_says_what_the_plan_says() -> None:
    plan, job = plan_and_job({"epochs": 2.0, "lora_rank": 8, "micro_batch_size": 4}, rows=1000)
    found = cli.document(plan, job).mapping()
    assert found["lora"]["lora_r"] == 8
    assert found["training"]["num_epochs"] == 2
    assert found["training"]["batch_size"] == 4
    assert found["training"]["warmup_steps"] == round(2 * 250 * 0.03)
    assert found["data"] == {"local_dataset": [job.data_path], "format_type": "chatml"}


def test_what_it_does_otherwise_is_said_on_top() -> None:
    plan, job = plan_and_job({"lr_scheduler": "cosine"})
    text = render(
        "unsloth/unsloth.yaml.jinja",
        job=job,
        document=cli.document(plan, job),
        differences=cli.differences(plan),
    )
    assert "lr_scheduler linear (cosine in train.py)" in text
    assert yaml.safe_load(text) == cli.document(plan, job).mapping()
    same = replace(plan, optimizer="adamw_8bit", lr_scheduler="linear")
    assert cli.differences(same) == []


def test_it_stands_beside_the_script() -> None:
    plan, job = plan_and_job({})
    paths = [file.path for file in framework(NAME).files(plan, job, rendered(NAME, plan, job))]
    assert paths[:2] == ["train.py", cli.FILE]
