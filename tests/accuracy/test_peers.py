"""Pipeline stages against two independent estimators of Megatron's memory, and the five questions answered."""

from __future__ import annotations

import pytest

from tests.accuracy.peers import CASES, STATES, State, answers, ours


@pytest.mark.parametrize("row", STATES, ids=lambda row: f"{row.case}{row.stage}")
def test_stage_state_within_one_percent_of_both(row: State) -> None:
    state = ours(row.case).stages[row.stage]["state"]
    assert state == pytest.approx(row.simumax, rel=0.01)
    assert state == pytest.approx(row.iseekyan, rel=0.01)


@pytest.mark.parametrize("case", CASES)
def test_every_question_has_a_range(case: str) -> None:
    memory = ours(case)
    assert memory.low < memory.allocated < memory.total < memory.high
    outside = memory.total - memory.shown("reserved")  # CUDA context and NCCL, which `low` leaves out
    assert (memory.high - memory.low - outside) / 2 <= 0.2 * memory.total
    assert memory.host_gib > 0


def test_every_peer_is_asked_the_same() -> None:
    for row in answers():
        assert row["source"]
        assert all(row[case] for case in CASES)
