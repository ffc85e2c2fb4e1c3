"""What a framework decides by itself: the values of plan fields that a user or a table does not set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

from advisor.plan import Plan
from advisor.rules.capabilities import allowed, fits, habit_values
from advisor.rules.types import FrameworkRules


def implied_values(rules: FrameworkRules, plan: Plan) -> Mapping[str, Any]:
    """Field -> value: the framework's habits, then the first allowed value of a field that is restricted here.

    A habit has its way only where the restrictions allow it.
    """
    return _index(rules).values(plan)


class _Index:
    """Remembers the answers: thousands of plans differ in few of the fields that the rows look at."""

    def __init__(self, rules: FrameworkRules) -> None:
        self.rules = rules
        read = {field for row in (*rules.habits, *rules.only) for field in row.match}
        # Always two or more, so that attrgetter returns a tuple.
        read |= {row.field for row in rules.only} | {"method", "tuning"}
        self.read = attrgetter(*sorted(read))
        self.known: dict[Any, Mapping[str, Any]] = {}

    def values(self, plan: Plan) -> Mapping[str, Any]:
        key = self.read(plan)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = _values(self.rules, plan)
        return found


@lru_cache(maxsize=64)
def _index(rules: FrameworkRules) -> _Index:
    return _Index(rules)


def _values(rules: FrameworkRules, plan: Plan) -> Mapping[str, Any]:
    values = habit_values(rules, plan)
    for row in rules.only:
        if not fits(row.match, plan):
            continue
        current = values.get(row.field, getattr(plan, row.field))
        if not allowed(current, row.values):
            values[row.field] = (row.values[0],) if isinstance(current, tuple) else row.values[0]
    return values
