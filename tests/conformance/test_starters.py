"""Everything the advisor emits, judged by the real frameworks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.errors import AdvisorError
from advisor.frameworks import NAMES
from advisor.plan import METHODS, TUNINGS
from tests.conformance.record import keep_parsed, recording
from tests.conformance.starters import answers_for, judge_all, starter

pytestmark = pytest.mark.conformance

CELLS = yaml.safe_load(Path(__file__).with_name("cells.yaml").read_text("utf-8"))


def requests(name: str) -> Iterator[dict[str, Any]]:
    """Every method x tuning x shape of one framework; what it cannot do is refused by the advice."""
    for method in METHODS:
        for tuning in TUNINGS:
            for shape in CELLS["shapes"]:
                yield {"method": method, "tuning": tuning, **shape}
    for journey in CELLS["journeys"]:
        if journey["framework"] == name:
            yield {key: value for key, value in journey.items() if key != "framework"}


@pytest.mark.parametrize("name", NAMES)
def test_everything_emitted_is_accepted(name: str, tmp_path: Path) -> None:
    repos: list[Path] = []
    refused: Counter[str] = Counter()
    for number, changes in enumerate(requests(name)):
        folder = tmp_path / f"{number:03d}"
        advice = starter(folder, answers_for(name, **changes))
        if advice.best is not None:
            repos.append(folder)
            continue
        row = next(row for row in advice.rejected if row.framework == name)
        assert row.reasons, f"{changes} was refused without a reason"
        refused[row.reasons[0].rule] += 1
    problems = {path: found for path, found in judge_all(name, repos).items() if found}
    print(f"\n{name}: {len(repos)} starter repos judged, {len(problems)} files refused by the framework")
    print(f"{name}: {sum(refused.values())} requests refused by the advisor: {dict(refused.most_common())}")
    assert repos, f"nothing was emitted for {name}"
    assert not problems
    if recording():
        print(f"{name}: {keep_parsed(name, repos)} kinds of plan recorded as parsed")


def test_refusals_are_errors_of_ours_with_a_reason() -> None:
    with pytest.raises(AdvisorError):
        starter(Path("unused"), answers_for("trl", method="sft", gpu="no-such-gpu"))
