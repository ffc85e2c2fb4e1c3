"""The time model puts placements of the rollout engine in the published order."""

from __future__ import annotations

from tests.accuracy.placements import rows


def test_the_published_order() -> None:
    found = list(rows())
    assert len(found) == 2
    for row in found:
        assert row.order(row.ours) == row.order(row.published)


def test_within_the_stated_range() -> None:
    """Generation is within a factor of 2 to 3, training and the whole step closer."""
    for row in rows():
        for placement, seconds in row.published.items():
            assert 0.5 < row.ours[placement] / seconds < 2
