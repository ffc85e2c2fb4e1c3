"""The first plan: one builder, whether it is searched from or estimated as it stands."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.explicit import explicit_plan
from advisor.planner.space import skeletons
from advisor.planner.start import tunings
from advisor.request import parse_request
from advisor.resolve import resolve

SAME = (
    "method", "tuning", "quantization", "precision", "lora_rank", "lora_alpha", "lora_targets", "seq_len", "epochs",
    "learning_rate", "beta", "prompt_len", "response_len", "generations", "nodes", "gpus_per_node", "optimizer",
)  # fmt: skip


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"tuning": "full", "gpus_per_node": 8, "optimizer": "adamw_8bit", "learning_rate": 3e-6},
        {"tuning": "lora", "lora_rank": 8, "lora_targets": "q_proj,v_proj", "seq_len": 4096, "epochs": 2},
        {"quantization": "8bit", "method": "dpo"},
        {"method": "grpo", "prompt_len": 512, "response_len": 2048, "generations": 4},
    ],
)
def test_the_search_and_the_estimate_start_from_the_same_plan(answers: dict[str, Any]) -> None:
    request = parse_request({"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", **answers})
    searched = next(skeletons(resolve(request))).plan
    spelled_out = explicit_plan(request).plan
    assert {name: getattr(searched, name) for name in SAME} == {
        name: getattr(spelled_out, name) for name in SAME
    }


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, (("lora", "none"), ("qlora", "4bit"))),
        ({"method": "cpt"}, (("full", "none"), ("lora", "none"), ("qlora", "4bit"))),
        ({"quantization": "8bit"}, (("qlora", "8bit"),)),
        ({"tuning": "lora", "quantization": "4bit"}, (("qlora", "4bit"),)),
        ({"tuning": "qlora"}, (("qlora", "4bit"),)),
        # Asked for together, kept together: it is for the frameworks' tables to refuse.
        ({"tuning": "dora", "quantization": "4bit"}, (("dora", "4bit"),)),
        ({"tuning": "full"}, (("full", "none"),)),
    ],
)
def test_tunings(answers: dict[str, Any], expected: tuple[tuple[str, str], ...]) -> None:
    assert tunings(parse_request({"method": "sft", **answers})) == expected


def test_projected_gradients_mean_full_tuning() -> None:
    asked = parse_request(
        {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", "optimizer": "galore_adamw"}
    )
    assert tunings(asked) == (("full", "none"),)
