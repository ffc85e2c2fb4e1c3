"""Real runs from starter repos: the named ones of runs.yaml, each of which touches a framework and a method."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.record import keep, recording
from tests.conformance.run_list import Run, execute, read_runs

pytestmark = pytest.mark.conformance

NAMED = [run for run in read_runs() if run.ci]


@pytest.mark.parametrize("run", NAMED, ids=lambda run: run.id)
def test_it_trains_what_the_plan_says(run: Run, tmp_path: Path) -> None:
    result = execute(run, tmp_path / "starter")
    print(f"\n{run.id}: {result.said} ({result.seconds:.0f} s) {result.found}")
    assert result.good, f"{result.said}\n{result.output[-4000:]}"
    if recording():
        keep(run.framework, result.proofs)
