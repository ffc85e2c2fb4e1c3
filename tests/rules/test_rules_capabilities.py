"""What a framework can do, asked of a made-up framework that uses every kind of row."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor import rules as engine
from advisor.errors import InputError
from advisor.plan import BACKENDS, METHODS, PRECISIONS, QUANTIZATIONS, TUNINGS, Plan
from advisor.rules import APPLIES, PASSES, UNDECIDED, FrameworkRules
from advisor.rules.capabilities import build_framework, of_release
from advisor.rules.schema import framework_document
from advisor.rules.source import read_yaml

FILE = Path(__file__).parent / "demo" / "frameworks" / "demo.yaml"
FACTS: dict[str, dict[str, Any]] = {"cluster": {"compute_capability": 9.0}}


@pytest.fixture(scope="module")
def demo() -> FrameworkRules:
    return build_framework(framework_document(read_yaml(FILE, FILE.name), {}))


def ids(reasons: Any) -> list[str]:
    return [reason.rule for reason in reasons]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, []),
        ({"method": "dpo", "tuning": "dora"}, []),
        ({"method": "sft", "tuning": "dora"}, ["demo.unlisted"]),
        ({"method": "grpo"}, ["demo.unlisted"]),
        ({"backend": "megatron"}, ["demo.unlisted"]),
        ({"precision": "fp8"}, ["demo.no-fp8"]),
        ({"method": "grpo", "precision": "fp8"}, ["demo.no-fp8"]),
        ({"pipeline_parallel": 2, "gpus_per_node": 2}, ["demo.no-pipeline"]),
        ({"tuning": "qlora", "quantization": "4bit", "zero_stage": 3}, ["demo.zero-without-quantization"]),
        ({"zero_stage": 3}, []),
        ({"lora_targets": ("attention",)}, []),
        ({"lora_targets": ("attention", "experts")}, ["demo.targets"]),
        ({"packing": True, "context_parallel": 2, "gpus_per_node": 2}, ["demo.packing-context-parallel"]),
        (
            {"method": "rm", "pipeline_parallel": 2, "gpus_per_node": 2},
            ["demo.unlisted", "demo.no-pipeline"],
        ),
    ],
)
def test_refusals(demo: FrameworkRules, changes: dict[str, Any], refused: list[str]) -> None:
    plan = replace(Plan(), **changes)
    assert ids(engine.refusals(demo, plan, FACTS)) == refused
    # Remembered cells answer the same.
    assert ids(engine.refusals(demo, plan, FACTS)) == refused


def test_what_is_done_at_all_is_apart_from_how(demo: FrameworkRules) -> None:
    plan = Plan(method="rm", pipeline_parallel=2, gpus_per_node=2)
    assert ids(engine.capability_refusals(demo, plan)) == ["demo.unlisted"]
    assert engine.capability_refusals(demo, replace(plan, method="sft")) == ()


def test_a_refusal_says_why_and_from_where(demo: FrameworkRules) -> None:
    (reason,) = engine.cheap_refusals(demo, Plan(precision="fp8"))
    assert reason.as_dict() == {
        "rule": "demo.no-fp8",
        "effect": "refuse",
        "because": "There is no fp8 path.",
        "source": "demo-trainer==2.1.0:demo/args.py:40",
    }
    (unlisted,) = engine.cheap_refusals(demo, Plan(method="grpo", tuning="qlora", quantization="4bit"))
    assert "Demo Trainer 2.1.0 is known to do grpo with qlora tuning over a 4bit base" in unlisted.because


@pytest.mark.parametrize(("capability", "outcome"), [(7.5, APPLIES), (8.0, PASSES), (None, UNDECIDED)])
def test_a_limit_has_three_outcomes(demo: FrameworkRules, capability: float | None, outcome: str) -> None:
    plan, facts = Plan(attention="flash"), {"cluster": {"compute_capability": capability}}
    verdicts = {row.id: verdict for row, verdict in engine.limit_verdicts(demo, plan, facts)}
    assert verdicts["demo.flash-card"].outcome == outcome
    assert bool(engine.limit_refusals(demo, plan, facts)) == (outcome == APPLIES)
    unchecked = engine.unchecked_limits(demo, plan, facts)
    assert bool(unchecked) == (outcome == UNDECIDED)
    if unchecked:
        assert "not checked, cluster.compute_capability not known" in unchecked[0].because


@pytest.mark.parametrize(
    ("field", "context", "values"),
    [
        ("pipeline_parallel", {}, (1,)),
        ("zero_stage", {}, None),
        ("zero_stage", {"tuning": "lora"}, None),
        ("zero_stage", {"tuning": "qlora"}, (0, 1, 2)),
        ("tensor_parallel", {"tuning": "qlora"}, None),
    ],
)
def test_allowed_values(demo: FrameworkRules, field: str, context: dict[str, Any], values: Any) -> None:
    assert engine.allowed_values(demo, field, context) == values


def test_habits_of_later_rows_win(demo: FrameworkRules) -> None:
    assert engine.habit_values(demo, Plan(tuning="full")) == {}
    assert engine.habit_values(demo, Plan()) == {"param_dtype": "fp32", "attention": "sdpa"}
    both = engine.habit_values(demo, Plan(packing=True))
    assert both == {"param_dtype": "fp32", "attention": "flash", "lora_targets": ("attention",)}
    assert replace(Plan(packing=True), **both).attention == "flash"


def test_evidence_and_traps(demo: FrameworkRules) -> None:
    assert [row.id for row in engine.cell_evidence(demo, Plan())] == ["demo.sft"]
    assert [row.note for row in engine.cell_evidence(demo, Plan(method="dpo"))] == [
        "No reference model on a second device."
    ]
    assert [row.id for row in engine.traps(demo, Plan(method="dpo"))] == ["demo.dpo-memory"]
    assert engine.traps(demo, Plan()) == ()
    assert demo.version == "2.1.0"


def test_facts_are_unchanged_after_a_run(demo: FrameworkRules) -> None:
    facts: dict[str, Any] = {
        "cluster": {"compute_capability": 7.5},
        "model": {"billions": 8, "experts": None},
    }
    plan, before = Plan(attention="flash", packing=True), deepcopy(facts)
    described = plan.as_dict()
    engine.refusals(demo, plan, facts)
    engine.unchecked_limits(demo, plan, facts)
    engine.habit_values(demo, plan)["attention"] = "eager"
    assert facts == before
    assert plan.as_dict() == described
    assert engine.habit_values(demo, plan)["attention"] == "flash"


@given(
    method=st.sampled_from(METHODS),
    tuning=st.sampled_from(TUNINGS),
    quantization=st.sampled_from(QUANTIZATIONS),
    backend=st.sampled_from(BACKENDS),
    precision=st.sampled_from(PRECISIONS),
)
def test_a_cell_is_supported_iff_a_row_says_so_and_none_objects(**changes: str) -> None:
    demo = build_framework(framework_document(read_yaml(FILE, FILE.name), {}))
    plan = Plan(**changes)  # pyright: ignore[reportArgumentType]
    supported = bool(engine.cell_evidence(demo, plan)) and plan.precision != "fp8"
    assert (not engine.cheap_refusals(demo, plan)) == supported


def test_an_unknown_framework_is_refused() -> None:
    with pytest.raises(InputError, match="no rules for 'nothing'"):
        engine.load_framework("nothing")


def test_rows_hold_for_their_releases() -> None:
    document = framework_document(read_yaml(FILE, FILE.name), {})
    for row in document["capabilities"]:
        if row["id"] == "demo.dpo":
            row["since"] = "2.1.0"
        if row["id"] == "demo.no-fp8":
            row["until"] = "2.1.0"
    rules = build_framework(document)

    def rows(version: str | None) -> set[str]:
        return {row.id for row in of_release(rules, version).capabilities}

    assert rows("2.1.0") == rows(None) == {"demo.sft", "demo.dpo"}
    assert rows("2.0.0") == rows("1.9") == {"demo.sft", "demo.no-fp8"}


def test_a_release_that_is_not_in_the_rules_is_known_by_its_schema_alone(demo: FrameworkRules) -> None:
    old, listed = of_release(demo, "1.9.0"), of_release(demo, "2.0.0")
    assert (old.version, listed.version, demo.version) == ("1.9.0", "2.0.0", "2.1.0")
    assert (old.releases[0].proven, listed.releases[0].proven) == (False, True)
    assert old.proof.startswith("schema only")
    assert ids(engine.refusals(old, Plan(method="grpo"), FACTS)) == ["demo.unlisted"]
