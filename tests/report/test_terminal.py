"""advisor/report/terminal.py: what is said of a plan."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.report.terminal import proven_text

NONE: dict[str, Any] = {"parsed": None, "ran_cpu": None, "ran_gpu": None}
PROOF = {"version": "1.0", "date": "2026-11-24", "stale": False}
NEAREST = {
    "kind": "ran_cpu",
    "version": "1.0",
    "date": "2026-11-24",
    "differs": {"sharding": {"plan": "zero-1", "run": "none"}},
}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (NONE, "nothing yet"),
        (
            NONE | {"parsed": PROOF, "ran_cpu": PROOF | {"stale": True}},
            "its parser accepts it (1.0, 2026-11-24); "
            "trained on a CPU (1.0, 2026-11-24, some values have changed since)",
        ),
        (
            NONE | {"nearest": NEAREST},
            "the nearest run had sharding none for zero-1 (1.0, 2026-11-24)",
        ),
    ],
)
def test_what_was_proven(evidence: dict[str, Any], expected: str) -> None:
    assert proven_text(evidence) == expected
