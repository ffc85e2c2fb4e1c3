"""What would put another framework first: a preference, or a rule of the policy left out.

Only scores are computed again. The plans stay: no preference and no rule moves the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.judging import Ranked
from advisor.rules import Judgement, Policy, Scope, evaluate
from advisor.rules.names import REQUEST

PREFERENCES = ("prefer", "hub", "launcher", "tracker")
"""Request fields that nothing but rules read when frameworks are compared."""
LEVEL = 0.005


def unseated_by(ranking: Sequence[Ranked], policy: Policy) -> tuple[str, ...]:
    """Each single change that takes the first place, or, when there is none, what carries the lead."""
    if len(ranking) < 2:
        return ()
    found = [*_level(ranking), *_by_preference(ranking, policy), *_by_rule(ranking)]
    return tuple(found) or (_carried(ranking),)


def _level(ranking: Sequence[Ranked]) -> list[str]:
    names = [row.framework for row in ranking[1:] if ranking[0].score - row.score <= LEVEL]
    return [f"level: {', '.join(names)}, after {ranking[0].framework} by name only"] if names else []


def _by_preference(ranking: Sequence[Ranked], policy: Policy) -> list[str]:
    found: list[str] = []
    for field in PREFERENCES:
        asking = Policy(tuple(rule for rule in policy.rules if f"request.{field}" in rule.when))
        if not asking.rules:
            continue
        for value in REQUEST[field].choices:
            scores = {row.framework: _score_with(row, asking, {field: value}) for row in ranking}
            first = _first(scores)
            if first and first != ranking[0].framework:
                found.append(f"--{field} {value}: {first}")
    return found


def _score_with(row: Ranked, asking: Policy, changes: Mapping[str, Any]) -> float | None:
    """The row's score when the request says otherwise; None when a gate then rejects it."""
    names = row.scope.names if row.scope else {}
    scope = Scope(**{**names, "request": {**names.get("request", {}), **changes}})
    again = {judgement.rule.id: judgement for judgement in evaluate(asking, scope)}
    judged = [again.get(judgement.rule.id, judgement) for judgement in row.judged]
    return None if any(judgement.rejects for judgement in judged) else sum(j.points for j in judged)


def _by_rule(ranking: Sequence[Ranked]) -> list[str]:
    """Rules without which another one is first; a tie goes by name, which is said."""
    found: list[str] = []
    best = ranking[0]
    moving = dict.fromkeys(judgement.rule.id for row in ranking for judgement in _moving(row.judged))
    for rule in moving:
        scores = {row.framework: row.score - _points(row, rule) for row in ranking}
        first = _first(scores)
        if first and first != best.framework:
            behind = (scores[first] or 0.0) - (scores[best.framework] or 0.0)
            lead = f"{behind:.1f} points ahead" if behind > LEVEL else "level, and first by name"
            found.append(f"without rule {rule}: {first} {lead}")
    return found


def _moving(judged: Sequence[Judgement]) -> list[Judgement]:
    return [judgement for judgement in judged if judgement.points]


def _points(row: Ranked, rule: str) -> float:
    return sum(judgement.points for judgement in row.judged if judgement.rule.id == rule)


def _first(scores: Mapping[str, float | None]) -> str:
    kept = [(-score, name) for name, score in scores.items() if score is not None]
    return min(kept)[1] if kept else ""


def _carried(ranking: Sequence[Ranked]) -> str:
    best, second = ranking[0], ranking[1]
    lead = best.score - second.score
    rules = [j.rule.id for j in _moving(best.judged) if j.points > _points(second, j.rule.id)]
    rules += [j.rule.id for j in _moving(second.judged) if j.points < 0 and not _points(best, j.rule.id)]
    carried = f", carried by {', '.join(rules)}" if rules else ""
    return f"no single rule or preference: {second.framework} is {lead:.1f} points behind{carried}"
