"""Conditions: what is refused before it runs, and the three outcomes kept apart."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.rules.checker import check
from advisor.rules.expressions import APPLIES, PASSES, UNDECIDED, ExpressionError, Scope, decide
from advisor.rules.names import ROOTS, examples

ALL = tuple(ROOTS)

SOUND = [
    ("plan.packing", {"plan.packing"}),
    ("!plan.packing && plan.seq_len > 4096", {"plan.packing", "plan.seq_len"}),
    ('request.method in ["grpo", "ppo"]', {"request.method"}),
    ('"all-linear" in plan.lora_targets', {"plan.lora_targets"}),
    ('plan.lora_targets.exists(t, t.endsWith("_proj"))', {"plan.lora_targets"}),
    ("size(plan.lora_targets) > 1 || plan.lora_targets.size() == 1", {"plan.lora_targets"}),
    ("model.heads % plan.tensor_parallel != 0", {"model.heads", "plan.tensor_parallel"}),
    ("model.billions * 2.0 > cluster.gpu_memory_gib", {"model.billions", "cluster.gpu_memory_gib"}),
    ("double(plan.seq_len) / 2.0 > 10.0", {"plan.seq_len"}),
    ("memory.headroom > 0", {"memory.headroom"}),
    ("has(request.max_hours) && request.max_hours < 2.0", {"request.max_hours"}),
    ('(plan.packing ? "a" : "b") == "a"', {"plan.packing"}),
    ("-plan.nodes < 0 && plan.lora_targets[0] != 'x'", {"plan.nodes", "plan.lora_targets"}),
    ("framework.name in request.avoid", {"framework.name", "request.avoid"}),
    ("plan.zero_stage in [2, 3]", {"plan.zero_stage"}),
]

UNSOUND = [
    ("plan.pakcing", "unknown name 'plan.pakcing', did you mean 'packing'?"),
    ('modle.id == "x"', "unknown name 'modle', did you mean 'model'?"),
    ('"x" == packing', "unknown name 'packing'"),
    ("plan.method > 3", "plan.method is of type string and 3 is of type int"),
    ("plan.packing == 1", "plan.packing is of type bool and 1 is of type int"),
    ("plan.packing > false", "plan.packing (bool) has no order"),
    ('framework.version >= "1.9"', "framework.version (string) has no order"),
    ("plan.packing // always", "expected a value, found '/' at column 15"),
    ("plan.nodes", "this is of type int"),
    ("0.", "expected '('"),
    ("plan.packing && plan.nodes", "plan.nodes is of type int, && needs type bool"),
    ("!plan.nodes", "plan.nodes is of type int, ! needs type bool"),
    ("-plan.method == 1", "plan.method is of type string, - needs a number"),
    ("plan.nodes * 2.0 > 1.0", "plan.nodes is of type int and 2.0 is of type double"),
    ("plan.epochs % 2.0 == 0.0", "plan.epochs is of type double: % cannot use it"),
    ("plan.method + 1 == 2", "+ takes two alike"),
    ('plan.method in "sft"', "`in` needs a list on its right"),
    ("plan.method in [1, 2]", "plan.method is of type string and the list is of type int"),
    ('plan.method in ["sft", 2]', "a list must hold one type"),
    ('plan.method == "sfft"', "plan.method is never 'sfft', did you mean 'sft'?"),
    ('request.method in ["sft", "grop"]', "request.method is never 'grop'"),
    ('memory.fits == "maybe"', "memory.fits is never 'maybe' (known: fits, tight, no)"),
    ('framework.name == "axolot"', "framework.name is never 'axolot', did you mean 'axolotl'?"),
    ('"unslot" in request.avoid', "request.avoid is never 'unslot', did you mean 'unsloth'?"),
    ("plan.zero_stage == 4", "plan.zero_stage is never 4"),
    ("plan.method.startswith('s')", "unknown function 'startswith', did you mean 'startsWith'?"),
    ("plan.nodes.startsWith('s')", "plan.nodes is of type int"),
    ("max(plan.nodes, 2) > 2", "unknown function 'max'"),
    ("has(plan.nodes > 1)", "has() asks about one name"),
    ("plan.nodes.exists(x, x)", "needs a list"),
    ("plan.nodes[0] == 1", "it has no items"),
    ("size(plan.nodes) > 1", "it has no size"),
    ("int(plan.packing) == 1", "int() cannot convert it"),
    ("plan.packing ? 1 : 2.0", "both sides of ? : must be alike"),
    ("plan.packing &&", "expected a value, found the end at column 16"),
    ("(plan.packing", "expected ')', found the end"),
    ("plan.packing plan.fsdp", "expected nothing more, found 'plan' at column 14"),
    ("plan", "expected '.'"),
    ("plan.packing = true", "unexpected '=' at column 14"),
    ('{"a": 1}.a == 1', "unexpected '{'"),
    ("__import__('os')", "unknown function '__import__'"),
    ("(" * 500 + "true" + ")" * 500, "nested more than 30 levels deep"),
    ("!" * 500 + "true", "nested more than 30 levels deep"),
    ("plan.nodes > 99999999999999999999", "parse"),
    ("", "expected a value"),
]


@pytest.mark.parametrize(("text", "paths"), SOUND)
def test_sound_expressions_report_the_names_they_read(text: str, paths: set[str]) -> None:
    assert check(text, ALL) == paths


@pytest.mark.parametrize(("text", "message"), UNSOUND)
def test_unsound_expressions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        check(text, ALL)
    assert message in str(caught.value)


WORDS = re.findall(
    r"\S+",
    """&& || ! == != < in + - * % ? : . , ( ) [ ] plan . packing nodes method lora_targets has size x true 1
    2.5 "sft" exists plan.packing plan.nodes plan.method plan.lora_targets memory.fits""",
)


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)))
def test_any_text_is_sound_or_refused_and_what_is_sound_can_be_decided(text: str) -> None:
    try:
        check(text, ALL)
    except ExpressionError:
        return
    assert decide(text, Scope(**examples(ALL))).outcome in (APPLIES, PASSES, UNDECIDED)


def test_only_the_given_roots_may_be_named() -> None:
    with pytest.raises(ExpressionError, match="cannot speak of 'request'"):
        check('request.method == "sft"', ("plan", "model"))


SCOPE = Scope(
    plan={"packing": True, "seq_len": 4096, "epochs": 2, "lora_targets": ["q_proj"]},
    cluster={"gpu": "x", "compute_capability": None},
)


@pytest.mark.parametrize(
    ("text", "outcome", "why"),
    [
        ("plan.packing", APPLIES, ""),
        ("plan.seq_len > 8192", PASSES, ""),
        ("plan.epochs * 2.0 == 4.0", APPLIES, ""),
        ("cluster.compute_capability < 8.0", UNDECIDED, "cluster.compute_capability not known"),
        ("cluster.compute_capability != 8.0", UNDECIDED, "cluster.compute_capability not known"),
        ("memory.fits == 'no'", UNDECIDED, "memory.fits not known"),
        ("cluster.vendor == 'amd' && plan.packing", UNDECIDED, "cluster.vendor not known"),
        ("cluster.vendor == 'amd' && !plan.packing", PASSES, ""),
        ("cluster.vendor == 'amd' || plan.packing", APPLIES, ""),
        ("has(cluster.compute_capability)", PASSES, ""),
        ("plan.seq_len / 0 == 1", UNDECIDED, "cannot be computed"),
    ],
)
def test_three_outcomes(text: str, outcome: str, why: str) -> None:
    check(text, ALL)
    verdict = decide(text, SCOPE)
    assert verdict.outcome == outcome
    assert why in verdict.why
    assert bool(verdict.why) == (outcome == UNDECIDED)


def test_a_scope_copies_what_it_is_given() -> None:
    given = {"packing": True, "seq_len": 1}
    scope = Scope(plan=given)
    decide("plan.packing", scope)
    scope.names["plan"]["packing"] = False
    assert given == {"packing": True, "seq_len": 1}


def test_deciding_does_not_load_the_command_line_of_the_library() -> None:
    program = (
        "import sys; from advisor.rules.expressions import Scope, decide;"
        "assert decide('plan.packing', Scope(plan={'packing': True})).outcome == 'applies';"
        "assert 'prompt_toolkit' not in sys.modules and 'yaml' not in sys.modules;"
        "import cel; assert cel.evaluate('1 + 1') == 2"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
