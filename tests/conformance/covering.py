"""A covering array under constraints: every pair of levels that can stand together stands together in some row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

Row = dict[str, str]
"""Axis -> level."""
Pair = tuple[tuple[str, str], tuple[str, str]]

MOST_STEPS = 4000
"""Choices tried for one row before its pair counts as impossible."""


@dataclass
class Constraint:
    """A statement about a few axes, asked once for each choice of their levels."""

    axes: tuple[str, ...]
    fits: Callable[[Row], bool]
    known: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def allows(self, row: Mapping[str, str]) -> bool:
        levels = tuple(row[axis] for axis in self.axes)
        if levels not in self.known:
            self.known[levels] = self.fits(dict(zip(self.axes, levels)))
        return self.known[levels]


@dataclass(frozen=True)
class Array:
    rows: list[Row]
    pairs: int
    """Pairs of levels there are."""
    possible: int
    """Those that stand in some row; no row was found for the others."""


def covering_array(axes: Mapping[str, Sequence[str]], constraints: Sequence[Constraint], seed: int) -> Array:
    """Greedy: each row starts at a pair still missing and takes, axis by axis, the level that covers most."""
    return _Builder(axes, constraints, random.Random(seed)).build()


class _Builder:
    def __init__(
        self, axes: Mapping[str, Sequence[str]], constraints: Sequence[Constraint], chance: random.Random
    ) -> None:
        self.order = list(axes)
        self.levels = {axis: chance.sample(list(levels), len(levels)) for axis, levels in axes.items()}
        self.place = {axis: number for number, axis in enumerate(self.order)}
        self.about: dict[str, list[Constraint]] = {axis: [] for axis in axes}
        for constraint in constraints:
            for axis in constraint.axes:
                self.about[axis].append(constraint)
        self.missing: dict[Pair, None] = {}
        for one, other in combinations(self.order, 2):
            self.missing |= {
                ((one, a), (other, b)): None for a in self.levels[one] for b in self.levels[other]
            }
        shuffled = list(self.missing)
        chance.shuffle(shuffled)
        self.missing = dict.fromkeys(shuffled)
        self.chance = chance
        self.steps = 0

    def build(self) -> Array:
        rows: list[Row] = []
        total, impossible = len(self.missing), 0
        while self.missing:
            pair = next(iter(self.missing))
            row = self._row(dict(pair))
            if row is None:
                del self.missing[pair]
                impossible += 1
                continue
            rows.append({axis: row[axis] for axis in self.order})
            for covered in self._pairs(row):
                self.missing.pop(covered, None)
        return Array(rows, total, total - impossible)

    def _pairs(self, row: Row) -> Iterator[Pair]:
        items = [(axis, row[axis]) for axis in self.order]
        yield from combinations(items, 2)

    def _row(self, start: Row) -> Row | None:
        """A whole row that holds the start, or None."""
        self.steps = 0
        if not all(self._fits(axis, start) for axis in start):
            return None
        return self._complete(start, [axis for axis in self.order if axis not in start])

    def _complete(self, row: Row, rest: list[str]) -> Row | None:
        if not rest:
            return row
        axis = rest[0]
        for level in self._best_first(axis, row):
            self.steps += 1
            if self.steps > MOST_STEPS:
                return None
            row[axis] = level
            if self._fits(axis, row):
                found = self._complete(row, rest[1:])
                if found is not None:
                    return found
            del row[axis]
        return None

    def _best_first(self, axis: str, row: Row) -> list[str]:
        gains = {level: self._gain(axis, level, row) for level in self.levels[axis]}
        mixed = self.chance.sample(self.levels[axis], len(self.levels[axis]))
        return sorted(mixed, key=lambda level: -gains[level])

    def _gain(self, axis: str, level: str, row: Row) -> int:
        mine, here = (axis, level), self.place[axis]
        return sum(
            ((mine, item) if here < self.place[item[0]] else (item, mine)) in self.missing
            for item in row.items()
        )

    def _fits(self, axis: str, row: Row) -> bool:
        return all(
            constraint.allows(row)
            for constraint in self.about[axis]
            if all(other in row for other in constraint.axes)
        )
