"""What a framework decides by itself: the values of plan fields that a user or a table does not set."""

from __future__ import annotations

from typing import Any

from advisor.plan import Plan
from advisor.rules.capabilities import allowed, fits, habit_values
from advisor.rules.types import FrameworkRules


def implied_values(rules: FrameworkRules, plan: Plan) -> dict[str, Any]:
    """Field -> value: the framework's habits, then the first allowed value of a field that is restricted here.

    A habit has its way only where the restrictions allow it.
    """
    values = habit_values(rules, plan)
    for row in rules.only:
        if not fits(row.match, plan):
            continue
        current = values.get(row.field, getattr(plan, row.field))
        if not allowed(current, row.values):
            values[row.field] = (row.values[0],) if isinstance(current, tuple) else row.values[0]
    return values
