"""The table itself: what is written for a release, and what is read back of values that stand for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from advisor.errors import CannotExpress
from advisor.facts.models import load_model
from advisor.frameworks.keys import flatten, table_keys
from advisor.frameworks.table import Case, Choice, Const, Job, Key, Table, mapped
from advisor.plan import Plan

TABLE = Table(
    "demo",
    (
        Key("seq_len", "max_seq_length", "", until="2.0"),
        Key("seq_len", "max_length", "", since="2.0"),
        Key("micro_batch_size", "batch", "", document="launch"),
        Key("optimizer", "optim", "", codec=mapped({"adamw": "adam", "adafactor": "ada"})),
        Key("seed", "seed", "", since="2.1"),
        Choice(
            ("packing",),
            (
                Case((True,), {"packing": True}, until="2.0"),
                Case((True,), {"packing.on": True}, since="2.0"),
                Case((False,), {}),
            ),
        ),
        Const("log.every", 1, "", since="2.0"),
    ),
)


def job(version: str) -> Job:
    return Job(load_model("Qwen/Qwen3-8B"), "m", "d", True, "messages", version=version)


def nothing(plan: Plan) -> Mapping[str, Any]:
    return {}


@pytest.mark.parametrize(
    ("version", "written"),
    [
        ("1.9.0", {"max_seq_length": 512, "optim": "adam", "packing": True}),
        ("2.0", {"max_length": 512, "optim": "adam", "packing.on": True, "log.every": 1}),
        ("2.1.3", {"max_length": 512, "optim": "adam", "seed": 42, "packing.on": True, "log.every": 1}),
    ],
)
def test_a_release_gets_its_own_keys(version: str, written: dict[str, Any]) -> None:
    plan = Plan(seq_len=512, packing=True)
    documents = TABLE.render(plan, job(version), nothing).flat()
    assert documents["train"] == written
    parsed, leftovers = TABLE.parse(documents, nothing, version)
    assert (parsed, leftovers) == (plan.normalised(), {})


def test_a_field_that_a_release_has_no_key_for_is_refused() -> None:
    with pytest.raises(CannotExpress, match="seed: no key for 7; it is always 42 here"):
        TABLE.render(Plan(seed=7), job("2.0"), nothing)


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ({"max_length": "long"}, {"max_length": "long"}),
        ({"max_length": True}, {"max_length": True}),
        ({"optim": "sgd"}, {"optim": "sgd"}),
        ({"optim": ["adam"]}, {"optim": ["adam"]}),
        ({"packing.on": "yes"}, {"packing.on": "yes"}),
        ({"max_seq_length": 512}, {"max_seq_length": 512}),
        ({"max_length": 512, "log.every": 5}, {}),
    ],
)
def test_values_that_stand_for_nothing_are_left_over(content: dict[str, Any], left: dict[str, Any]) -> None:
    plan, leftovers = TABLE.parse({"train": content}, nothing, "2.1")
    assert leftovers.get("train", {}) == left
    assert plan == Plan(seq_len=512 if content.get("max_length") == 512 else 2048).normalised()


def test_keys_by_document_and_nested_values_as_keys() -> None:
    keys = table_keys(TABLE)
    assert keys["launch"] == {"batch"}
    assert keys["train"] == {
        "max_seq_length",
        "max_length",
        "optim",
        "seed",
        "packing",
        "packing.on",
        "log.every",
    }
    nested = {"packing": {"on": True}, "log": {"every": 1, "where": {"to": 2}}, "other": {"a": 1}}
    assert flatten(nested, keys["train"]) == {
        "packing.on": True,
        "log.every": 1,
        "log.where": {"to": 2},
        "other": {"a": 1},
    }
