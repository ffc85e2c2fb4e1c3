"""advisor/frameworks/digest.py: what counts as the same configuration."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.facts.models import load_model
from advisor.judging import digest_of
from advisor.rules import load_framework
from tests.frameworks.helpers import plan_for


def digest(name: str = "trl", model: str = "Qwen/Qwen3-8B", **changes: Any) -> str:
    return digest_of(load_framework(name), plan_for(name, **changes), load_model(model))


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 3e-5},
        {"seed": 7},
        {"seq_len": 512},
        {"micro_batch_size": 4, "gradient_accumulation_steps": 2},
        {"lora_rank": 64, "lora_alpha": 128},
    ],
)
def test_rates_and_sizes_do_not_count(changes: dict[str, Any]) -> None:
    assert digest(**changes) == digest()


def test_neither_does_the_model_of_a_family() -> None:
    assert digest(model="Qwen/Qwen3-14B") == digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adafactor"},
        {"attention": "flash"},
        {"gradient_checkpointing": False},
        {"tuning": "dora"},
        {"lr_scheduler": "linear"},
        {"zero_stage": 2, "gpus_per_node": 8},
    ],
)
def test_keys_and_enumerated_values_count(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


@pytest.mark.parametrize("name", ["axolotl", "llamafactory", "ms-swift", "unsloth", "verl"])
def test_every_framework_has_one(name: str) -> None:
    one, other = digest(name), digest(name, learning_rate=1e-6)
    assert len(one) == 12
    assert one == other
    assert one != digest(name, tuning="full")


def test_a_plan_that_cannot_be_written_has_none() -> None:
    assert digest(tuning="freeze") == ""
