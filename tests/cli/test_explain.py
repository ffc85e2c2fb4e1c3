"""`explain`: every word that the interface uses has a text with a source."""

from __future__ import annotations

import re

import pytest

from advisor import plan as plans
from advisor.cli.explain import plan_docs
from advisor.cli.terms import find, terms
from advisor.plan import Plan
from advisor.request import Request
from tests.cli.conftest import Advisor

WORDS = (
    *plans.METHODS, *plans.TUNINGS, *plans.PRECISIONS, *plans.ATTENTIONS, "zero-0", "zero-1", "zero-2", "zero-3",
    "dp", "ddp", "fsdp", "offload", "tp", "sp", "pp", "ep", "cp", "3d parallelism", "packing",
    "gradient checkpointing", "ZeRO 3", "adamw_8bit", "liger", "megatron", "moe", "rollout", "chunked loss",
)  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_the_interface_is_explained(run: Advisor, word: str) -> None:
    ran = run("explain", *word.split())
    assert ran.code == 0
    assert "Source:" in ran.out


def test_terms_are_whole() -> None:
    names = [name for term in terms().values() for name in (term["id"], *term["aliases"])]
    assert len(names) == len(set(names))
    for term in terms().values():
        assert all(term[key] for key in ("title", "what", "use", "cost", "source")), term["id"]
        assert re.search(r"arXiv \d{4}\.\d{4,5}|documentation|advisor/|rules/", term["source"]), term["id"]
        assert all(find(other) for other in term["see"]), term["id"]


@pytest.mark.parametrize("field", sorted(Plan.__dataclass_fields__))
def test_every_plan_field(run: Advisor, field: str) -> None:
    assert plan_docs()[field]
    assert f"{field} (plan field)" in run("explain", field).out


@pytest.mark.parametrize("field", sorted(Request.model_fields))
def test_every_request_field(run: Advisor, field: str) -> None:
    ran = run("explain", field.replace("_", "-"))
    assert f"{field} (request field)" in ran.out
    assert "--" + field.replace("_", "-") in ran.out


def test_memory_prints_the_rule_of_thumb(run: Advisor) -> None:
    ran = run("explain", "memory", "--params", "100e9")
    assert ran.code == 0
    for figure in ("1,600", "412", "103"):
        assert figure in ran.out
    assert "How the estimate here differs" in ran.out
    assert run("explain", "memory", "--params", "8B", "--output", "json").json()["full_gb"] == 128
    assert run("explain", "memory", "--params", "many").code == 2


def test_rules_and_capabilities(run: Advisor) -> None:
    rule = run("explain", "gate.pinned").out
    assert "Because:" in rule
    assert "Source:" in rule
    row = run("explain", "trl.sft", "--output", "json").json()["entries"][0]
    assert row["supported"] is True
    assert row["source"]


def test_unknown_topics_offer_close_ones(run: Advisor) -> None:
    ran = run("explain", "gspoo")
    assert ran.code == 2
    assert "close: gspo" in ran.err
    assert run("explain", "xyzzyxyzzy").code == 2


def test_without_a_topic_topics_are_listed(run: Advisor) -> None:
    ran = run("explain")
    assert ran.code == 0
    assert "zero-3" in ran.out
    assert "micro_batch_size" in ran.out
