"""Nothing is emitted that the real framework would refuse: the whole matrix, judged by the six frameworks."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from advisor.frameworks import NAMES
from tests.conformance.matrix import judged_matrix
from tests.conformance.record import keep_parsed, recording

pytestmark = pytest.mark.conformance

WANTED = 300
"""Cases emitted per framework that differ in a key's presence or an enumerated value."""


@pytest.mark.parametrize("name", NAMES)
def test_every_emitted_case_is_accepted(name: str, tmp_path: Path) -> None:
    start = time.monotonic()
    matrix = judged_matrix(name, tmp_path, WANTED)
    emitted = [case for case in matrix.outcomes if not case.cause]
    refused = Counter(case.cause for case in matrix.outcomes if case.cause)
    distinct = {case.signature for case in emitted}
    wrong = {str(case.folder): case.problems for case in emitted if case.problems}
    print(
        f"\n{name}: {len(matrix.outcomes)} cases generated in {matrix.arrays} covering arrays "
        f"({matrix.possible} of {matrix.pairs} pairs of levels possible), {len(emitted)} emitted, "
        f"{len(distinct)} distinct, {len(emitted)} judged, {len(emitted) - len(wrong)} accepted, "
        f"{time.monotonic() - start:.0f} s"
    )
    print(f"{name}: {sum(refused.values())} refused by the advisor: {dict(refused.most_common())}")
    for folder, problems in wrong.items():
        case = next(case for case in emitted if str(case.folder) == folder)
        print(f"{folder}: {case.given}: {problems}")
    assert len(distinct) >= WANTED
    assert not wrong
    if recording():
        kinds = keep_parsed(name, [case.folder for case in emitted if case.folder])
        print(f"{name}: {kinds} kinds of plan recorded as parsed")
