"""What working one step ahead would gain: each gain named is there when it is asked for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from advisor.advise import Advice, advise, explain
from advisor.request import parse_request

FLAG = "--rollout-placement separate-async: "


def ask(**answers: Any) -> Advice:
    base = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "grpo", "gpus_per_node": 8, "tuning": "full"}
    return explain(advise(parse_request({**base, **answers})))


def _gains(advice: Advice) -> list[str]:
    return [text for row in advice.ranking for text in row.unseated_by if text.startswith(FLAG)]


def test_what_is_named_is_gained() -> None:
    (text,) = _gains(ask())
    name, after, before = re.findall(r": (\S+) ([\d.]+) s a step instead of ([\d.]+)", text)[0]
    asked = ask(rollout_placement="separate-async", framework=name)
    assert asked.ranking[0].plan.rollout_placement == "separate-async"
    assert f"{asked.ranking[0].time.extra['seconds_per_step']:.3g}" == after
    assert float(after) < float(before)
    assert not _gains(asked)


@pytest.mark.parametrize(
    "answers",
    [
        {"tuning": "lora", "model": "Qwen/Qwen3-0.6B", "gpus_per_node": 1},
        {"rollout_placement": "colocated"},
        {"rollout_gpus": 2},
        {"method": "sft"},
    ],
)
def test_nothing_is_named_where_it_is_settled(answers: dict[str, Any]) -> None:
    assert not _gains(ask(**answers))
