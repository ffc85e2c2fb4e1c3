"""`explain --for`: every term and plan field says what it is in the user's own plan, in its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.cli.applied import about_field, about_term, load_plan
from advisor.cli.terms import meaning, term_of, terms
from advisor.plan import Plan
from advisor.planner.here import FACTS
from tests.cli.conftest import Advisor

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STARTERS = sorted(path.parent for path in EXAMPLES.glob("*/advice.json"))


@pytest.mark.parametrize("field", sorted(Plan.__dataclass_fields__))
def test_every_plan_field_says_when_to_use_it_and_its_cost(run: Advisor, field: str) -> None:
    entries = run("explain", field, "--output", "json").json()["entries"]
    (entry,) = [entry for entry in entries if entry["kind"] == "plan field"]
    assert entry["what"]
    assert entry["use"]
    assert entry["cost"]


@pytest.mark.parametrize("folder", STARTERS, ids=lambda folder: folder.name)
def test_every_field_and_term_is_applied(folder: Path) -> None:
    here = load_plan(folder)
    for field in Plan.__dataclass_fields__:
        (line,) = about_field(here, field)
        assert line.startswith(f"{field} = "), line
        assert len(line) > len(field) + 20, line
    for term in terms().values():
        lines = about_term(here, term)
        assert all(lines), term["id"]
        assert bool(lines) == bool(term.get("fields")), term["id"]


def test_terms_are_about_known_topics() -> None:
    for term in terms().values():
        assert set(term.get("fields", ())) <= set(FACTS), term["id"]
        assert set(meaning(term)) <= set(Plan.__dataclass_fields__), term["id"]
    assert all(term_of(field) for field in Plan.__dataclass_fields__)


def test_the_plan_of_a_starter_repo_in_its_numbers(run: Advisor) -> None:
    ran = run("explain", "tp", "--for", str(EXAMPLES / "journey-qwen3-235b-sft"))
    plan = json.loads((EXAMPLES / "journey-qwen3-235b-sft" / "advice.json").read_text("utf-8"))["plan"]
    degree = plan["tensor_parallel"]
    assert ran.code == 0
    text = " ".join(ran.out.split())
    assert f"Here: tensor_parallel = {degree} (chosen by the search): TP = {degree} slices" in text
    assert f"with tensor_parallel = {degree // 2}" in text
    assert "a GPU holds" in text


def test_a_value_that_the_plan_does_not_take(run: Advisor) -> None:
    ran = run("explain", "grpo", "--for", str(EXAMPLES / "journey-qwen3-235b-sft"))
    assert "not in this plan; method = sft" in ran.out


def test_answers_are_planned_first(run: Advisor, tmp_path: Path) -> None:
    answers = tmp_path / "answers.yaml"
    answers.write_text(
        "model: Qwen/Qwen3-8B\ngpu: h100\ngpus_per_node: 8\nmethod: sft\ntuning: full\n", "utf-8"
    )
    ran = run("explain", "zero_stage", "--for", str(answers), "--output", "json")
    (entry,) = [entry for entry in ran.json()["entries"] if entry["kind"] == "plan field"]
    assert len(entry["here"]) == 1
    assert "with zero_stage = " in entry["here"][0]


def test_an_advice_and_an_estimate_are_read_as_they_stand(run: Advisor, tmp_path: Path) -> None:
    request = ("--model", "Qwen/Qwen3-8B", "--gpu", "h100", "--method", "sft")
    for name, command in (
        ("advice", ("recommend", *request)),
        ("estimate", ("estimate", *request, "--zero", "2")),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(run(*command, "--output", "json").out, "utf-8")
        ran = run("explain", "zero", "--for", str(path))
        assert ran.code == 0
        assert ("zero_stage = 2 (--zero)" in ran.out) == (name == "estimate")


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (
            "model: Qwen/Qwen3-235B-A22B\ngpu: rtx-4090\nmethod: sft\ntuning: full\n",
            3,
            "nothing fits these answers",
        ),
        ("model: Qwen/Qwen3-8B\ngpu: rtx-4090\nmethod: dance\n", 2, "method"),
        ("- a list\n", 2, "field: value"),
    ],
)
def test_what_has_no_plan(run: Advisor, tmp_path: Path, content: str, code: int, text: str) -> None:
    answers = tmp_path / "answers.yaml"
    answers.write_text(content, "utf-8")
    ran = run("explain", "tp", "--for", str(answers))
    assert ran.code == code
    assert text in ran.err
    assert run("explain", "tp", "--for", str(tmp_path)).code == 2
