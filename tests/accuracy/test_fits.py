"""Known outcomes on their own hardware: what ran must be feasible, what ran out of memory must not look safe."""

from __future__ import annotations

from tests.accuracy.fits import runs
from tests.accuracy.report_fits import lines

MISSED = {"zai-org/GLM-4.7-Flash"}
"""The one out-of-memory case that is called feasible; the page says so."""


def test_what_ran_is_feasible() -> None:
    ran = [run for run in runs() if run.ran]
    assert len(ran) >= 30
    assert [run.statement for run in ran if not run.right] == []


def test_what_ran_out_of_memory_is_tight_or_infeasible() -> None:
    oom = [run for run in runs() if not run.ran]
    assert len([run for run in oom if run.right]) >= 8
    assert {run.request["model"] for run in oom if not run.right} == MISSED


def test_every_run_has_a_source_and_stands_on_the_page() -> None:
    page = "\n".join(lines())
    for run in runs():
        assert run.source
        assert run.statement in page
