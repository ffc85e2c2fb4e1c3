"""A framework is a table first: plan field <-> configuration key, declared once, with a computed inverse.

`render` reads the rows and yields documents (a document is one ordered mapping that ends up in one
file, or on the command line); `parse` is the same table read backwards. Row kinds:

    Key      one plan field <-> one key, through an invertible codec
    Choice   one or more plan fields <-> a set of keys, case by case
    Derived  a key computed from the plan or the job; written, recognised, not read back
    Const    a key with one value that is always written (or written when `when` holds)

A plan field that no row holds is decided by the framework's own habits (`rules/frameworks/*.yaml`);
a plan that wants something else is refused with the reason found there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from advisor.errors import CannotExpress
from advisor.facts.types import ModelFacts
from advisor.frameworks.document import Document, Line, Rendered
from advisor.plan import Plan
from advisor.releases import in_release


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Any = _Absent()
"""In a Choice case: the key must not be there. From a Derived: the key is not written."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the plan is applied to: names and wiring that a plan does not hold. Paths are relative to the repo."""

    model: ModelFacts
    model_path: str
    """What the configuration names as the model: a hub id or a path."""
    data_path: str
    """The training rows: a path in the repo, or a hub id."""
    data_local: bool
    data_format: str
    """Format of the rows at `data_path` (after conversion, when one was needed)."""
    data_extra: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    output_dir: str = "output"
    run_name: str = "run"
    tracker: str = "none"
    hub: str = "hf"
    reward: str | None = None
    """`rewards.py:function` inside the repo, online RL with a rule-based reward."""
    reward_model: str | None = None
    teacher: str | None = None
    adapter: str | None = None
    version: str = ""
    """Release of the framework that the configuration is written for."""
    cpus_per_node: int = 32


def always(plan: Plan) -> bool:
    return True


When = Callable[[Plan], bool]


@dataclass(frozen=True, slots=True)
class Codec:
    """A value on both sides. `back(to(v)) == v` for every v in `domain` (checked when the table is built)."""

    to: Callable[[Any], Any]
    back: Callable[[Any], Any]
    domain: tuple[Any, ...] = ()
    closed: bool = False
    """Whether `domain` is every value there is; a plan with another one is refused."""


SAME = Codec(lambda v: v, lambda v: v)
NOT = Codec(lambda v: not v, lambda v: not v, (True, False))
LIST = Codec(list, tuple, (("q_proj", "v_proj"), ()))
FLOAT = Codec(float, float, (0.0, 1e-5, 3.0))


def mapped(table: Mapping[Any, Any]) -> Codec:
    """A codec from a table; refuses one that is not invertible."""
    inverse = {value: key for key, value in table.items()}
    if len(inverse) != len(table):
        raise ValueError(f"not invertible: {dict(table)}")
    return Codec(table.__getitem__, inverse.__getitem__, tuple(table), closed=True)


@dataclass(frozen=True, slots=True)
class Key:
    field: str
    key: str
    why: str
    document: str = "train"
    codec: Codec = SAME
    when: When = always
    """Where the key has meaning; elsewhere it is not written and the field keeps `absent`."""
    absent: Any = ABSENT
    """Field value that a missing key stands for; ABSENT: the plan's own default."""
    group: str = ""
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    values: tuple[Any, ...]
    """Plan values, one for each field of the row."""
    keys: Mapping[str, Any]
    """`document:key` or `key` -> value, or ABSENT."""
    why: str = ""
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    fields: tuple[str, ...]
    cases: tuple[Case, ...]
    why: str = ""
    document: str = "train"
    group: str = ""
    when: When = always


@dataclass(frozen=True, slots=True)
class Derived:
    key: str
    compute: Callable[[Plan, Job], Any]
    why: str
    document: str = "train"
    group: str = ""
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True)
class Const:
    key: str
    value: Any
    why: str
    document: str = "train"
    group: str = ""
    when: When = always
    since: str = ""
    until: str = ""


Row = Key | Choice | Derived | Const


_DEFAULT = Plan()

Habits = Callable[[Plan], Mapping[str, Any]]
"""Plan -> the values that this framework itself gives to fields (from its rules file)."""


REPO = "repo"
"""Pseudo-document of what the starter repo holds outside the framework's own files: process counts of
launch/env.sh, lengths applied to the data, the word that adapter modules were chosen by (advice.json)."""


class Table:
    """The rows of one framework, checked for invertibility when built.

    Where a field stands in two rows (one per way to train), the later one that is there has its way.
    Raises ValueError when a codec is not invertible on its domain, or two cases of a Choice write the same.
    """

    def __init__(self, name: str, rows: Iterable[Row]) -> None:
        self.name = name
        self.rows = tuple(rows)
        self.held = frozenset(_held_fields(self.rows, ""))
        for row in self.rows:
            _check(row)

    def render(self, plan: Plan, job: Job, habits: Habits) -> Rendered:
        """Every document of the plan, for the job's release. Raises CannotExpress with all fields that have
        no key."""
        reasons = self.inexpressible(plan, habits, job.version)
        if reasons:
            raise CannotExpress(self.name, reasons)
        lines: dict[str, list[Line]] = {}
        for row in self.rows:
            for document, line in _lines_of(row, plan, job):
                lines.setdefault(document, []).append(line)
        return Rendered({name: Document(name, tuple(found)) for name, found in lines.items()})

    def parse(
        self,
        documents: Mapping[str, Mapping[str, Any]],
        habits: Habits,
        version: str = "",
        fixed: Mapping[str, Any] | None = None,
    ) -> tuple[Plan, dict[str, dict[str, Any]]]:
        """The plan that these flat documents of a release express, and what no row knows (document -> key ->
        value): keys of no row, and values that stand for no value of the plan. `fixed`: plan fields that are
        known already."""
        values: dict[str, Any] = {}
        known: set[tuple[str, str]] = set()
        for row in self.rows:
            values |= _read(row, documents, known, version)
        plan = Plan(**{**values, **(fixed or {})})
        implied = self._implied(plan, habits)
        leftovers = {
            name: rest
            for name, content in documents.items()
            if (rest := {k: v for k, v in content.items() if (name, k) not in known})
        }
        return replace(plan, **implied).normalised(), leftovers

    def _implied(self, plan: Plan, habits: Habits) -> dict[str, Any]:
        """What the framework gives to the fields that no row holds, asked of a plan that leaves them open."""
        unset = {f.name: getattr(_DEFAULT, f.name) for f in fields(Plan) if f.name not in self.held}
        return {k: v for k, v in habits(replace(plan, **unset)).items() if k not in self.held}

    def inexpressible(self, plan: Plan, habits: Habits, version: str) -> list[tuple[str, str]]:
        """(field, reason) of every value of the plan that no key can say and that no habit gives."""
        implied = self._implied(plan, habits)
        reasons: list[tuple[str, str]] = []
        held = frozenset(_held_fields(self.rows, version))
        for spec in fields(Plan):
            if spec.name in held:
                continue
            wanted, has = getattr(plan, spec.name), implied.get(spec.name, getattr(_DEFAULT, spec.name))
            if wanted != has:
                reasons.append((spec.name, f"no key for {wanted!r}; it is always {has!r} here"))
        for row in self.rows:
            reasons += _uncovered(row, plan, version)
        return reasons + self._silent(plan, habits(plan), held, version)

    def _silent(
        self, plan: Plan, habits: Mapping[str, Any], held: frozenset[str], version: str
    ) -> list[tuple[str, str]]:
        """(field, reason) of every value off its default that rows know how to write, but none of them here,
        and that the rest of the plan does not give by itself."""
        speaking = frozenset(_held_fields([row for row in self.rows if _speaks(row, plan)], version))
        reasons: list[tuple[str, str]] = []
        for name in sorted(held - speaking):
            wanted, default = getattr(plan, name), getattr(_DEFAULT, name)
            silent = [r.absent for r in self.rows if isinstance(r, Key) and r.field == name]
            if wanted in (default, habits.get(name, ABSENT), *silent):
                continue
            if getattr(replace(plan, **{name: default}).normalised(), name) != wanted:
                reasons.append((name, f"no key for {wanted!r} in such a plan"))
        return reasons


def _held_fields(rows: Iterable[Row], version: str) -> list[str]:
    held: list[str] = []
    for row in rows:
        if isinstance(row, Key) and in_release(row.since, row.until, version):
            held.append(row.field)
        elif isinstance(row, Choice):
            held += row.fields
    return held


def _speaks(row: Row, plan: Plan) -> bool:
    return isinstance(row, (Key, Choice)) and row.when(plan)


def _check(row: Row) -> None:
    if isinstance(row, Key):
        for value in row.codec.domain:
            if row.codec.back(row.codec.to(value)) != value:
                raise ValueError(f"{row.key}: codec does not return {value!r}")
    elif isinstance(row, Choice):
        for number, case in enumerate(row.cases):
            for other in row.cases[:number]:
                if dict(case.keys) == dict(other.keys):
                    raise ValueError(f"{row.fields}: {case.values} and {other.values} write the same keys")


def split_name(name: str, document: str) -> tuple[str, str]:
    """`document:key` or `key` -> (document, key)."""
    before, colon, after = name.partition(":")
    return (before, after) if colon else (document, name)


def _lines_of(row: Row, plan: Plan, job: Job) -> list[tuple[str, Line]]:
    if isinstance(row, Choice):
        return _choice_lines(row, plan, job.version)
    if not in_release(row.since, row.until, job.version):
        return []
    if isinstance(row, Derived):
        value = row.compute(plan, job)
    elif not row.when(plan):
        value = ABSENT
    elif isinstance(row, Const):
        value = row.value
    else:
        held = getattr(plan, row.field)
        value = ABSENT if row.absent is not ABSENT and held == row.absent else row.codec.to(held)
    return [] if value is ABSENT else [(row.document, Line(row.key, value, row.why, row.group))]


def _choice_lines(row: Choice, plan: Plan, version: str) -> list[tuple[str, Line]]:
    if not row.when(plan):
        return []
    wanted = tuple(getattr(plan, name) for name in row.fields)
    found: list[tuple[str, Line]] = []
    for case in cases_in(row, version):
        if case.values == wanted:
            for name, value in case.keys.items():
                document, key = split_name(name, row.document)
                if value is not ABSENT:
                    found.append((document, Line(key, value, case.why or row.why, row.group)))
            break
    return found


def cases_in(row: Choice, version: str) -> tuple[Case, ...]:
    """The cases that a release has."""
    return tuple(case for case in row.cases if in_release(case.since, case.until, version))


def _uncovered(row: Row, plan: Plan, version: str) -> list[tuple[str, str]]:
    """Values that the row has no way to write."""
    if isinstance(row, Key) and not in_release(row.since, row.until, version):
        return []
    if isinstance(row, Key) and row.codec.closed and row.when(plan):
        held = getattr(plan, row.field)
        return [] if held in row.codec.domain else [(row.field, f"no value of {row.key} means {held!r}")]
    if not isinstance(row, Choice) or not row.when(plan):
        return []
    wanted = tuple(getattr(plan, name) for name in row.fields)
    if any(case.values == wanted for case in cases_in(row, version)):
        return []
    return [(name, f"no key for {value!r} here") for name, value in zip(row.fields, wanted, strict=True)]


def _read(
    row: Row, documents: Mapping[str, Mapping[str, Any]], known: set[tuple[str, str]], version: str
) -> dict[str, Any]:
    if isinstance(row, Choice):
        return _read_choice(row, documents, known, version)
    if not in_release(row.since, row.until, version):
        return {}
    content = documents.get(row.document, {})
    if not isinstance(row, Key):
        known.add((row.document, row.key))
        return {}
    if row.key not in content:
        return {} if row.absent is ABSENT else {row.field: row.absent}
    try:
        value = _typed(row.field, row.codec.back(content[row.key]))
    except (KeyError, TypeError, ValueError):
        return {}
    known.add((row.document, row.key))
    return {row.field: value}


def _typed(name: str, value: Any) -> Any:
    """The value, when it is of the field's type; a whole number will do for a real one. Raises TypeError."""
    wanted = type(getattr(_DEFAULT, name))
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise TypeError(name)
    return value


def _read_choice(
    row: Choice, documents: Mapping[str, Mapping[str, Any]], known: set[tuple[str, str]], version: str
) -> dict[str, Any]:
    best: tuple[int, Case] | None = None
    for case in cases_in(row, version):
        matched = 0
        for name, value in case.keys.items():
            document, key = split_name(name, row.document)
            there = documents.get(document, {}).get(key, ABSENT)
            if there is not value and there != value:
                break
            matched += value is not ABSENT
        else:
            if best is None or matched > best[0]:
                best = (matched, case)
    if best is None:
        return {}
    known |= {split_name(name, row.document) for name in best[1].keys}
    return dict(zip(row.fields, best[1].values, strict=True))
