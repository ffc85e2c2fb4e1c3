"""What would unseat the first: each change named does, when the advice is asked for again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.advise import advise, explain
from advisor.request import parse_request

BASE = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft"}
LEFT_OUT = "title: Without one\nwithout: [{rule}]\nrules: []\n"


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"method": "grpo", "gpus_per_node": 8},
        {"tuning": "full", "gpus_per_node": 8},
        {"prefer": "community"},
    ],
)
def test_each_change_puts_the_named_framework_first(answers: dict[str, Any], tmp_path: Path) -> None:
    asked = {**BASE, **answers}
    best = explain(advise(parse_request(asked))).best
    assert best is not None
    assert best.unseated_by
    for change in best.unseated_by:
        what, _, who = change.partition(": ")
        if " s a step instead of " in who:
            continue  # a shorter step, not another framework: tests/test_ahead.py
        if what.startswith("--"):
            field, value = what[2:].split()
            changed = {**asked, field: value}
        elif what.startswith("without rule "):
            house = tmp_path / "house.yaml"
            house.write_text(LEFT_OUT.format(rule=what.removeprefix("without rule ")), "utf-8")
            changed = {**asked, "rules": (str(house),)}
        else:
            assert what in ("no single rule or preference", "level")
            continue
        first = advise(parse_request(changed)).ranking[0].framework
        assert first == who.split()[0], change
        assert first != best.framework


def test_alone_nothing_unseats() -> None:
    advice = explain(advise(parse_request({**BASE, "framework": "trl"})))
    assert advice.best is not None
    assert advice.best.unseated_by == ()
    assert "unseated_by" not in advice.best.as_dict()


def test_a_tie_is_said() -> None:
    best = explain(advise(parse_request(BASE))).best
    assert best is not None
    assert (best.framework, best.unseated_by[0]) == (
        "axolotl",
        "level: llamafactory, after axolotl by name only",
    )
