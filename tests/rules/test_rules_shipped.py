"""The rules that are shipped: every row's own cases are run, and the files keep to their schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from advisor.paths import rules_root
from advisor.rules import APPLIES, PASSES, UNDECIDED, framework_names, load_framework, load_policy
from advisor.rules.expressions import decide
from advisor.rules.names import LIMIT_ROOTS, ROOTS
from advisor.rules.schema import case_scope
from advisor.rules.source import Node, read_yaml
from advisor.rules.store import compile_documents, sources

OUTCOMES = {
    "refused": APPLIES,
    "allowed": PASSES,
    "applies": APPLIES,
    "passes": PASSES,
    "undecided": UNDECIDED,
}


def rows_with_cases() -> Iterator[Any]:
    for name, path in sources(rules_root()):
        top = read_yaml(path, name).value
        section = "limits" if name.startswith("frameworks/") else "rules"
        roots = LIMIT_ROOTS if section == "limits" else tuple(ROOTS)
        for row in top[section].items() if section in top else []:
            yield pytest.param(row.value, roots, id=row.value["id"].value)


@pytest.mark.parametrize(("row", "roots"), list(rows_with_cases()))
def test_own_cases(row: dict[str, Node], roots: tuple[str, ...]) -> None:
    ran = 0
    for group, cases in row["cases"].value.items():
        for case in cases.items():
            verdict = decide(row["when"].text(), case_scope(case, roots))
            assert verdict.outcome == OUTCOMES[group], f"{group} {case.plain()}: {verdict}"
            ran += 1
    assert ran >= 2


def test_all_files_compile() -> None:
    compiled = compile_documents(rules_root())
    assert compiled["digest"]
    assert len(compiled["selection"]) == 3


def test_row_ids_are_unique() -> None:
    ids = [row.id for name in framework_names() for row in load_framework(name).rows]
    ids += [rule.id for rule in load_policy().rules]
    assert len(ids) == len(set(ids))


def test_every_row_says_why_and_from_where() -> None:
    for name in framework_names():
        rules = load_framework(name)
        assert rules.releases
        for row in rules.rows:
            assert row.evidence, row.id
            assert getattr(row, "because", "") or getattr(row, "text", ""), row.id
    for rule in load_policy().rules:
        assert rule.because, rule.id
        assert rule.source, rule.id


def test_every_absence_has_a_proof() -> None:
    """tests/conformance/test_absences.py looks each of them up in the installed framework."""
    unproven = [
        row.id
        for name in framework_names()
        for rules in [load_framework(name)]
        for row in (*rules.capabilities, *rules.only)
        if not (row.proof or getattr(row, "value", False))
    ]
    assert not unproven
