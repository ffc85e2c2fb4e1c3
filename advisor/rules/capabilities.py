"""What each framework can do: its rules file, asked about a plan. Every answer carries its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from advisor.errors import InputError
from advisor.paths import rules_root
from advisor.plan import Plan
from advisor.releases import in_release
from advisor.rules.expressions import APPLIES, UNDECIDED, Scope, Verdict, decide, numbers_read
from advisor.rules.names import describe_plan
from advisor.rules.store import load_documents
from advisor.rules.types import (
    Capability,
    Evidence,
    FrameworkRules,
    Habit,
    Limit,
    Match,
    Only,
    Proof,
    Reason,
    Release,
    Trap,
)

CELL = ("method", "tuning", "quantization", "backend")
"""The plan fields that name what is done at all; the rest says how."""

ONLY_CELL = (*CELL, "rollout_engine", "fsdp")
"""The plan fields by which the restrictions that can speak at all are remembered: few, and most rows ask for one."""

REFUSE, UNCHECKED = "refuse", "unchecked"

_AnyRow = TypeVar("_AnyRow", Capability, Only, Limit, Habit, Trap)

Facts = Mapping[str, Mapping[str, Any]]
"""Root (`model`, `cluster`) -> name -> value, as names.describe_model and describe_cluster give them."""


@lru_cache(maxsize=8)
def documents(root: Path) -> Mapping[str, Any]:
    return load_documents(root)


def framework_names(root: Path | None = None) -> tuple[str, ...]:
    """The frameworks that have rules."""
    return tuple(documents(root or rules_root())["frameworks"])


@lru_cache(maxsize=64)
def load_framework(name: str, root: Path | None = None, *, version: str | None = None) -> FrameworkRules:
    """The checked rules of one framework, as they hold for a release; by default for the pinned one."""
    known = documents(root or rules_root())["frameworks"]
    if name not in known:
        raise InputError("framework", f"no rules for {name!r}; there are rules for {', '.join(known)}")
    return of_release(build_framework(known[name]), version)


def of_release(rules: FrameworkRules, version: str | None) -> FrameworkRules:
    """The rows that hold for a release. One that the rules were not proven on is known by its schema alone."""
    release = next((each for each in rules.releases if each.version == (version or rules.version)), None)
    if release is None:
        snapshot = f"{rules.distribution}=={version}:rules/schemas/{rules.framework}/{version}.json"
        release = Release(str(version), "", (Evidence("source", snapshot, ""),), proven=False)
    return replace(
        rules,
        releases=(release, *(each for each in rules.releases if each is not release)),
        capabilities=_in_release(rules.capabilities, release),
        only=_in_release(rules.only, release),
        limits=_in_release(rules.limits, release),
        habits=_in_release(rules.habits, release),
        traps=_in_release(rules.traps, release),
    )


def _in_release(rows: tuple[_AnyRow, ...], release: Release) -> tuple[_AnyRow, ...]:
    return tuple(row for row in rows if in_release(row.since, row.until, release.version))


def build_framework(document: Mapping[str, Any]) -> FrameworkRules:
    """From a checked document."""
    named = {key: document[key] for key in ("framework", "title", "distribution", "role", "docs")}
    return FrameworkRules(
        **named,
        releases=tuple(
            Release(row["version"], row["python"], _evidence(row)) for row in document["releases"]
        ),
        capabilities=tuple(Capability(**_row(row)) for row in document["capabilities"]),
        only=tuple(Only(**_row(row)) for row in document["only"]),
        limits=tuple(Limit(**_row(row)) for row in document["limits"]),
        habits=tuple(Habit(**_row(row)) for row in document["habits"]),
        traps=tuple(Trap(**_row(row)) for row in document["traps"]),
    )


def _evidence(row: Mapping[str, Any]) -> tuple[Evidence, ...]:
    return tuple(Evidence(e["kind"], e["ref"], e["checked"]) for e in row["evidence"])


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    built: dict[str, Any] = {**row, "evidence": _evidence(row)}
    if "match" in row:
        built["match"] = {field: tuple(values) for field, values in row["match"].items()}
    if "values" in row:
        built["values"] = tuple(row["values"])
    if "proof" in row:
        built["proof"] = tuple(Proof(**proof) for proof in row["proof"])
    return built


def fits(match: Match, plan: Plan) -> bool:
    """Whether the plan has one of the allowed values in every field."""
    return all(allowed(getattr(plan, field), values) for field, values in match.items())


def allowed(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether a plan value is among these; of a tuple every item."""
    return all(item in values for item in value) if isinstance(value, tuple) else value in values


def _reason(row: Capability | Only | Limit, effect: str, because: str = "") -> Reason:
    return Reason(row.id, effect, because or row.because, row.evidence[0].ref)


class _Index:
    """A framework's tables arranged for the search, which asks about thousands of plans.

    There are few cells and many plans, so what the capability rows say of a cell is remembered.
    """

    def __init__(self, rules: FrameworkRules) -> None:
        self.rules = rules
        matched = {field for row in rules.capabilities for field in row.match}
        self.cell = attrgetter(*CELL, *sorted(matched - set(CELL)))
        self.known: dict[Any, tuple[Reason, ...]] = {}
        self.only = [(row.field, _container(row), row) for row in rules.only]
        self.only_cell = attrgetter(*ONLY_CELL)
        self.only_there: dict[Any, list[tuple[str, frozenset[Any], Only]]] = {}

    def capability_refusals(self, plan: Plan) -> tuple[Reason, ...]:
        cell = self.cell(plan)
        found = self.known.get(cell)
        if found is None:
            found = self.known[cell] = _capability_refusals(self.rules, plan)
        return found

    def violated(self, plan: Plan) -> list[Only]:
        cell = self.only_cell(plan)
        there = self.only_there.get(cell)
        if there is None:
            there = self.only_there[cell] = [each for each in self.only if _could_fit(each[2].match, plan)]
        outside = [row for field, values, row in there if getattr(plan, field) not in values]
        return [row for row in outside if fits(row.match, plan)]


def _could_fit(match: Match, plan: Plan) -> bool:
    return fits({field: values for field, values in match.items() if field in ONLY_CELL}, plan)


class _Every(frozenset[Any]):
    """Holds a tuple when it holds all its items."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, tuple) and all(super(_Every, self).__contains__(item) for item in value)


def _container(row: Only) -> frozenset[Any]:
    return _Every(row.values) if row.field == "lora_targets" else frozenset(row.values)


@lru_cache(maxsize=64)
def _index(rules: FrameworkRules) -> _Index:
    return _Index(rules)


def _capability_refusals(rules: FrameworkRules, plan: Plan) -> tuple[Reason, ...]:
    matching = [row for row in rules.capabilities if fits(row.match, plan)]
    refusing = tuple(_reason(row, REFUSE) for row in matching if not row.value)
    return refusing if refusing or matching else (_unlisted(rules, plan),)


def _unlisted(rules: FrameworkRules, plan: Plan) -> Reason:
    base = "" if plan.quantization == "none" else f" over a {plan.quantization} base"
    because = (
        f"nothing in {rules.title} {rules.version} is known to do {plan.method} with {plan.tuning} tuning"
        f"{base} on the {plan.backend} backend"
    )
    return Reason(f"{rules.framework}.unlisted", REFUSE, because, rules.releases[0].evidence[0].ref)


def capability_refusals(rules: FrameworkRules, plan: Plan) -> tuple[Reason, ...]:
    """Why the framework cannot do such a thing at all, whatever the plan's other fields are."""
    return _index(rules).capability_refusals(plan)


def cheap_refusals(rules: FrameworkRules, plan: Plan) -> tuple[Reason, ...]:
    """Why the framework cannot do this plan, as far as tables tell: capabilities and restricted fields."""
    index = _index(rules)
    refused, violated = index.capability_refusals(plan), index.violated(plan)
    return (*refused, *(_reason(row, REFUSE) for row in violated)) if violated else refused


def _limit_scope(rules: FrameworkRules, plan: Plan, facts: Facts) -> Scope:
    framework = {"name": rules.framework, "version": rules.version}
    known = {root: facts[root] for root in ("model", "cluster") if root in facts}
    return Scope(plan=describe_plan(plan), framework=framework, **known)


def limit_verdicts(rules: FrameworkRules, plan: Plan, facts: Facts) -> list[tuple[Limit, Verdict]]:
    """Every limit of the framework with what it says of this plan, for the trace."""
    if not rules.limits:
        return []
    scope = _limit_scope(rules, plan, facts)
    return [(row, decide(row.when, scope)) for row in rules.limits]


def limit_refusals(rules: FrameworkRules, plan: Plan, facts: Facts) -> list[Reason]:
    """Why the framework refuses this combination, with the numbers that break the rule."""
    if not rules.limits:
        return []
    scope = _limit_scope(rules, plan, facts)
    return [
        _reason(row, REFUSE, _with_numbers(row, scope))
        for row in rules.limits
        if decide(row.when, scope).outcome == APPLIES
    ]


def _with_numbers(row: Limit, scope: Scope) -> str:
    numbers = ", ".join(f"{name} {value:g}" for name, value in numbers_read(row.when, scope).items())
    return f"{row.because.rstrip('.')} ({numbers})" if numbers else row.because


def unchecked_limits(rules: FrameworkRules, plan: Plan, facts: Facts) -> list[Reason]:
    """Limits that could not be decided, each with what is not known: worth a warning."""
    return [
        _reason(row, UNCHECKED, f"not checked, {verdict.why}: {row.because}")
        for row, verdict in limit_verdicts(rules, plan, facts)
        if verdict.outcome == UNDECIDED
    ]


def refusals(rules: FrameworkRules, plan: Plan, facts: Facts) -> list[Reason]:
    """All reasons why the framework cannot do this plan; none: it can."""
    return [*cheap_refusals(rules, plan), *limit_refusals(rules, plan, facts)]


def allowed_values(rules: FrameworkRules, field: str, context: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The values a field is restricted to where `context` (plan field -> value) holds; None: unrestricted.

    A restriction whose match asks about a field that `context` leaves open does not narrow the search: it may
    not hold. `cheap_refusals` judges the finished plan.
    """
    narrowed: tuple[Any, ...] | None = None
    for row in rules.only:
        if row.field != field or not _certain(row.match, context):
            continue
        narrowed = row.values if narrowed is None else tuple(v for v in narrowed if v in row.values)
    return narrowed


def _certain(match: Match, context: Mapping[str, Any]) -> bool:
    return all(
        field in context and allowed(_hashable(context[field]), values) for field, values in match.items()
    )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def habits(rules: FrameworkRules, plan: Plan) -> tuple[Habit, ...]:
    """The framework's habits with such a plan."""
    return tuple(row for row in rules.habits if fits(row.match, plan))


def habit_values(rules: FrameworkRules, plan: Plan) -> dict[str, Any]:
    """Plan fields that the framework sets by habit for this plan; of two habits the later row has its way."""
    values: dict[str, Any] = {}
    for row in habits(rules, plan):
        values |= {field: _hashable(value) for field, value in row.set.items()}
    return values


def cell_evidence(rules: FrameworkRules, plan: Plan) -> tuple[Capability, ...]:
    """The rows that say the framework can do such a plan."""
    return tuple(row for row in rules.capabilities if row.value and fits(row.match, plan))


def traps(rules: FrameworkRules, plan: Plan) -> tuple[Trap, ...]:
    """Warnings for whoever runs this plan."""
    return tuple(row for row in rules.traps if fits(row.match, plan))
