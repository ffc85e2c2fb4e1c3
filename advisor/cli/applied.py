"""`advisor explain TOPIC --for PATH`: a topic applied to the user's own plan, in that plan's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from advisor.cli.terms import Term, meaning
from advisor.errors import InputError, NothingFeasible
from advisor.estimate.memory import estimate_memory
from advisor.plan import Plan
from advisor.planner.contrast import contrast, with_change
from advisor.planner.here import Here, fact
from advisor.request import parse_request
from advisor.resolve import resolve
from advisor.rules import load_framework


def load_plan(path: Path) -> Here:
    """The plan of a starter repo, of an advice or estimate in JSON or YAML, or the best one for an answers file.

    Raises InputError for what is none of these, NothingFeasible when no plan fits the answers.
    """
    from advisor.starter.answers import read_answers

    if path.is_dir():
        path = path / "advice.json"
        if not path.is_file():
            raise InputError(
                "for", f"{path.parent} holds no advice.json; give a starter repo, an advice or answers"
            )
    content = read_answers(path)
    if "request" not in content:
        return _from_answers(content)
    row = content
    if "plan" not in row and content.get("ranking"):
        row = content["ranking"][0]
    if not isinstance(row.get("plan"), dict):
        raise NothingFeasible(f"{path} holds no plan: nothing was feasible")
    return _from_advice(content["request"], row["plan"], row.get("framework"))


def _from_answers(answers: Mapping[str, Any]) -> Here:
    from advisor.advise import advise

    advice = advise(parse_request(answers))
    if not advice.ranking:
        raise NothingFeasible("nothing fits these answers; advisor recommend --answers FILE says what would")
    best = advice.ranking[0]
    return Here(advice.resolved, best.plan, best.memory, load_framework(best.framework))


def _from_advice(request: Mapping[str, Any], plan: Mapping[str, Any], framework: str | None) -> Here:
    """The request stands there complete: the data, which may lie elsewhere, is not read again."""
    resolved = resolve(parse_request({k: v for k, v in request.items() if k != "data"}))
    resolved = replace(resolved, origins=dict(request.get("origins", {})))
    known = {field.name for field in fields(Plan)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in plan.items() if k in known
    }
    spelled = Plan(**values)
    memory = estimate_memory(resolved.model, spelled, resolved.cluster, framework=framework)
    return Here(resolved, spelled, memory, load_framework(framework) if framework else None)


def about_term(here: Here, term: Term) -> list[str]:
    """What the term is in this plan, or what it would take to be."""
    wanted = meaning(term)
    missing = {field: value for field, value in wanted.items() if getattr(here.plan, field) != value}
    if missing:
        now = ", ".join(fact(here, field) for field in missing)
        return [
            _sentence(f"not in this plan; {now}", "" if "method" in missing else with_change(here, missing))
        ]
    return [line for field in term.get("fields", ()) for line in about_field(here, field)]


def about_field(here: Here, field: str) -> Iterator[str]:
    """The value and why, then what the next one would do."""
    yield _sentence(fact(here, field), contrast(here, field))


def _sentence(text: str, more: str) -> str:
    return f"{text}; {more}" if more else text
