"""Every published row that a plan can say, estimated and laid beside what was measured."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from advisor.errors import AdvisorError
from advisor.estimate.memory import estimate_memory
from tests.accuracy.published_filter import EXACT, Row, published_gib, shows, why_loose
from tests.accuracy.published_request import Unsayable, explicit_of, software_beneath

ROWS = Path(__file__).with_name("published.csv")


class Compared(NamedTuple):
    row: Row
    loose: str
    """Why it is not strict; empty when it is."""
    estimate: float
    low: float
    high: float
    total: float
    published: float
    outside: float
    """CUDA context and NCCL: of `total`, not of `low`, because PyTorch's counters do not see them."""

    @property
    def error(self) -> float:
        return self.estimate / self.published - 1

    @property
    def inside(self) -> bool:
        return self.low <= self.published <= self.high

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2 / self.total

    @property
    def uncertain(self) -> float:
        """The half-width without what `low` leaves out."""
        return (self.high - self.low - self.outside) / 2 / self.total


def read_rows() -> list[Row]:
    with ROWS.open(newline="") as lines:
        return list(csv.DictReader(lines))


@cache
def compared() -> tuple[tuple[Compared, ...], tuple[tuple[Row, str], ...]]:
    """(rows that a plan can say, the others with the reason)."""
    found: list[Compared] = []
    left: list[tuple[Row, str]] = []
    for row in read_rows():
        try:
            explicit = explicit_of(row)
            resolved = explicit.resolved
            software = software_beneath(row)
            estimate = estimate_memory(resolved.model, explicit.plan, resolved.cluster, software=software)
        except (Unsayable, AdvisorError) as error:
            left.append((row, str(error)))
            continue
        found.append(
            Compared(
                row, why_loose(row), estimate.shown(shows(row)), estimate.low, estimate.high, estimate.total,
                published_gib(row), estimate.total - estimate.shown("reserved"),
            )
        )  # fmt: skip
    return tuple(found), tuple(left)


def strict() -> list[Compared]:
    return [row for row in compared()[0] if not row.loose]


def known_length() -> list[Compared]:
    """Strict or not, of every source: the rows whose length is a length and not a cap."""
    return [row for row in compared()[0] if row.row["seq_note"].startswith(EXACT)]


def mean_error(rows: list[Compared]) -> float:
    return mean(abs(row.error) for row in rows)


def share_inside(rows: list[Compared]) -> float:
    return sum(row.inside for row in rows) / len(rows)
