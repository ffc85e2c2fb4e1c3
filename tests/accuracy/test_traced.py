"""Estimates against traced real training steps: allocated memory at the peak of a steady step.

The committed rows (traced_rows.csv) are split by a hash of their id, decided before any comparison: formulas may be
worked on with the `fit` half in sight, the `held-out` half only counts.
"""

from __future__ import annotations

from statistics import median

import pytest

from tests.accuracy import traced_megatron
from tests.accuracy.traced_earlier import errors, report
from tests.accuracy.traced_rows import cases, compared, median_error, of_split, table, worst
from tools import trace_megatron

MEDIAN, WORST = 0.03, 0.08
"""Limits of the held-out half."""


def test_every_case_has_its_row_and_its_split() -> None:
    rows = {row.id: row.split for row in compared()}
    assert rows == {case.id: case.split for case in cases()}


def test_what_the_cases_cover() -> None:
    rows = compared()
    assert len(rows) >= 60
    assert len(of_split("held-out")) >= 40
    assert {row.kind for row in rows} == {"dense", "MoE", "MLA"}
    assert {row.tuning for row in rows} >= {"full", "lora", "qlora"}
    for split in ("fit", "held-out"):
        assert {row.sharded for row in of_split(split)} == {True, False}


@pytest.mark.parametrize("split", ["fit", "held-out"])
def test_errors_stay_within_the_limits(split: str) -> None:
    rows = of_split(split)
    assert median_error(rows) <= MEDIAN, table(rows)
    assert abs(worst(rows).error) <= WORST, table(rows)


def test_every_megatron_case_has_its_row_and_its_split() -> None:
    known = {" ".join(pair): pair[0] in trace_megatron.FIT for pair in trace_megatron.cases()}
    rows = traced_megatron.compared()
    assert {row.id: row.split == "fit" for row in rows} == known
    assert {row.kind for row in rows} == {"dense", "MoE", "MLA"}
    assert len(traced_megatron.of_split("held-out")) >= 40


@pytest.mark.parametrize("split", ["fit", "held-out"])
def test_megatron_stays_within_its_limits(split: str) -> None:
    rows = traced_megatron.of_split(split)
    assert median_error(rows) <= 0.01, table(rows)
    assert abs(worst(rows).error) <= 0.03, table(rows)


def test_rows_of_an_earlier_tool() -> None:
    off = [abs(row[4]) for row in errors()]
    assert median(off) <= 0.02, report()
    assert max(off) <= 0.10, report()
