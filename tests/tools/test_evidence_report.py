"""docs/evidence.md is what the rows of rules/evidence give today, and a claim without one is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from advisor.facts.models import load_model
from advisor.frameworks import NAMES
from advisor.judging import digest_of
from advisor.plan import Plan
from advisor.rules import load_framework
from advisor.rules.evidence import Proof, cell_of
from tools.evidence_report import PAGE, not_run, outlived, page, runs_table

RULES = load_framework("trl")
CLAIM = "trl.experimental-preference claims ran_cpu"
"""ORPO, SimPO and CPO are said to have trained on a CPU."""


def proof(**changes: Any) -> Proof:
    """A run of ORPO as it would be recorded today."""
    plan, model = Plan(method="orpo"), load_model("Qwen/Qwen3-8B")
    row = Proof(
        kind="ran_cpu",
        cell=cell_of(plan, model),
        digests=(digest_of(RULES, plan, model),),
        model=model.id,
        plan={"method": "orpo"},
        versions={"trl": RULES.version},
        date="2026-11-24",
        run="orpo-lora",
    )
    return replace(row, **changes)


def test_page_is_fresh() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python tools/evidence_report.py`"


def test_a_claim_with_a_current_run_stands() -> None:
    assert not [line for line in outlived(RULES, [proof()]) if line.startswith(CLAIM)]


@pytest.mark.parametrize(
    "changes",
    [
        {"digests": ("000000000000",)},
        {"versions": {"trl": "1.0.0"}},
        {"kind": "parsed"},
        {"plan": {"method": "dpo"}},
    ],
    ids=["stale", "another release", "only parsed", "another method"],
)
def test_a_claim_outlives_its_evidence(changes: dict[str, Any]) -> None:
    assert [line for line in outlived(RULES, [proof(**changes)]) if line.startswith(CLAIM)]


def test_a_stale_run_is_shown_as_such() -> None:
    fresh, stale = runs_table(RULES, [proof(), proof(digests=("000000000000",))])[2:]
    assert "**stale**" not in fresh
    assert "`orpo-lora` **stale**" in stale


def test_what_was_not_run_is_not_dropped() -> None:
    listed = {"a": {}, "b": {"outcome": "cannot", "line": "no CPU"}, "c": {}}
    assert not_run(listed, {"c"})[:2] == [
        "- `a`: on the list, not recorded",
        "- `b`: no CPU can run it: `no CPU`",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_framework_is_on_the_page(name: str) -> None:
    assert f"## {load_framework(name).title} {load_framework(name).version}\n" in PAGE.read_text("utf-8")
