"""What would admit a rejected framework: every flip is a request that, planned anew, ranks that framework."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from advisor.advise import Advice, advise, explain
from advisor.flips import METHODS, MOST_FLIPS, MOST_SEARCHES, Flipper
from advisor.plan import METHODS as KNOWN_METHODS
from advisor.planner.search import Searcher
from advisor.request import parse_request
from advisor.rules import FrameworkRules, load_policy

BASE = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft"}


def ask(**answers: Any) -> Advice:
    return explain(advise(parse_request({**BASE, **answers})))


def flips(name: str, /, **answers: Any) -> tuple[str, ...]:
    (row,) = [row for row in ask(**answers).rejected if row.framework == name]
    return row.flips


@pytest.mark.parametrize(
    ("framework", "answers", "expected"),
    [
        ("trl", {"model": "Qwen/Qwen3-32B", "tuning": "full"}, "tuning lora: "),
        ("trl", {"method": "ppo", "gpus_per_node": 8}, "method grpo: "),
        ("axolotl", {"framework": "trl"}, "without --framework trl: "),
        ("axolotl", {"avoid": ("axolotl",)}, "without --avoid axolotl: "),
        ("trl", {"samples": 100_000, "max_hours": 3.0}, "--max-hours "),
        (
            "trl",
            {"tuning": "full", "gpus_per_node": 8, "backend": "megatron"},
            "without --backend megatron: ",
        ),
        ("verl", {"model": "deepseek-ai/DeepSeek-R1-0528", "method": "grpo", "tuning": "full", "nodes": 2,
                  "gpus_per_node": 8}, "128 GPUs (16 x 8): "),
    ],
)  # fmt: skip
def test_the_lever_that_helps_is_named(framework: str, answers: dict[str, Any], expected: str) -> None:
    found = flips(framework, **answers)
    assert any(flip.startswith(expected) for flip in found), found
    assert all(re.search(r": (fits|tight) at \d+ of \d+ GiB a GPU$", flip) for flip in found)


@pytest.mark.parametrize(
    "answers",
    [
        {"model": "Qwen/Qwen3-32B", "tuning": "full"},
        {"model": "Qwen/Qwen3-14B", "gpu": "rtx-4090", "method": "dpo", "tuning": "lora", "seq_len": 8192},
        {"samples": 100_000, "max_hours": 3.0},
    ],
)
def test_each_flip_run_as_it_stands_ranks_the_framework(
    answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[tuple[str, dict[str, Any]]] = []
    plan = Flipper._plan

    def spy(self: Flipper, change: Any, framework: str) -> Any:
        row = plan(self, change, framework)
        if row[0]:
            named.append((framework, dict(change.request)))
        return row

    monkeypatch.setattr(Flipper, "_plan", spy)
    advice = ask(**answers)
    assert len(named) == sum(len(row.flips) for row in advice.rejected) > 0
    for framework, request in named[:4]:
        assert framework in [row.framework for row in advise(parse_request(request)).ranking]


def test_another_kind_of_data_is_offered_only_when_it_serves(tmp_path: Path) -> None:
    assert not any("method dpo" in flip for flip in flips("llamafactory", method="grpo", gpus_per_node=8))
    rows = tmp_path / "pairs.jsonl"
    pair = {"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "5"}
    rows.write_text("".join(json.dumps(pair) + "\n" for _ in range(20)), "utf-8")
    found = flips("verl", method="dpo", data=(str(rows),))
    assert not any("grpo" in flip for flip in found)


def test_methods_are_known() -> None:
    assert set(METHODS) <= set(KNOWN_METHODS)
    assert {other for others in METHODS.values() for other in others} <= set(KNOWN_METHODS)


def test_the_searches_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = advise(parse_request({**BASE, "model": "Qwen/Qwen3-235B-A22B", "tuning": "full"}))
    counted: list[str] = []
    search = Searcher.search

    def spy(self: Searcher, rules: FrameworkRules) -> Any:
        found = search(self, rules)
        if found.examined:
            counted.append(rules.framework)
        return found

    monkeypatch.setattr(Searcher, "search", spy)
    flipper = Flipper(advice.resolved, load_policy())
    for row in advice.rejected:
        assert len(flipper.flips(row)) <= MOST_FLIPS
        assert counted.count(row.framework) <= MOST_SEARCHES
