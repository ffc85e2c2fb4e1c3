"""The closed schemas of the rules files: from YAML nodes to plain checked documents, or a RuleError.

Everything a row says is checked here, once, when the files are compiled: its keys, that it carries evidence,
that its plan fields and values exist, that its condition is sound and that its own cases come out as it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advisor.plan import Plan
from advisor.rules.checker import check, choices, suggestion
from advisor.rules.expressions import APPLIES, PASSES, UNDECIDED, ExpressionError, Scope, decide
from advisor.rules.names import (
    BOOL,
    DOUBLE,
    INT,
    LIMIT_ROOTS,
    PLAN,
    PLAN_FIELDS,
    ROOTS,
    STRING,
    STRINGS,
    Name,
    describe_plan,
    examples,
)
from advisor.rules.source import Node

EVIDENCE_KINDS = ("source", "docs", "issue", "parsed", "ran_cpu", "ran_gpu", "measured")
PROOF_KINDS = ("absent", "contains", "refused", "withheld")
EFFECTS = ("require", "forbid", "prefer", "avoid", "warn")
WEIGHTED = ("prefer", "avoid")
_ID = re.compile(r"[a-z0-9]+(?:[.+-]+[a-z0-9+]+)*")
_RELEASE = re.compile(r"\d+(\.\d+)*")
_SOURCE_REF = re.compile(r"(?P<package>[A-Za-z0-9._-]+)==(?P<version>[^:\s]+):\S.*")
_PYTHON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    BOOL: bool,
    INT: int,
    DOUBLE: (int, float),
    STRING: str,
    STRINGS: str,
}

Document = dict[str, Any]
Seen = dict[str, str]
"""Row id -> where it stands."""


def framework_document(root: Node, seen: Seen) -> Document:
    """One file of rules/frameworks, checked."""
    sections = ("capabilities", "only", "limits", "habits", "traps")
    top = root.fields(("framework", "title", "distribution", "role", "releases"), ("docs", *sections))
    framework = top["framework"].text()
    document: Document = {
        "framework": framework,
        "title": top["title"].text(),
        "distribution": top["distribution"].text(),
        "role": top["role"].text(),
        "docs": top["docs"].text() if "docs" in top else "",
    }
    versions = _versions(top["releases"])
    reader = _FrameworkReader(framework, document["distribution"], versions, seen)
    document["releases"] = [reader.release(node) for node in top["releases"].items()]
    rows: Mapping[str, Callable[[Node], Document]] = {
        "capabilities": reader.capability,
        "only": reader.only,
        "limits": reader.limit,
        "habits": reader.habit,
        "traps": reader.trap,
    }
    for section, read in rows.items():
        document[section] = [read(node) for node in top[section].items()] if section in top else []
    return document


def _versions(releases: Node) -> tuple[str, ...]:
    versions: list[str] = []
    for node in releases.items():
        version = node.fields(("version", "python", "evidence"))["version"]
        if version.text() in versions:
            version.fail(f"release {version.text()!r} is listed twice")
        versions.append(version.text())
    if not versions:
        releases.fail("at least one release is needed")
    return tuple(versions)


class _FrameworkReader:
    def __init__(self, framework: str, distribution: str, versions: tuple[str, ...], seen: Seen) -> None:
        self.framework = framework
        self.distribution = distribution
        self.versions = versions
        self.seen = seen

    def start(
        self, node: Node, required: Sequence[str], optional: Sequence[str] = ()
    ) -> tuple[Document, dict[str, Node]]:
        """What all rows share: id, title, evidence, and the releases they hold for."""
        node = node.of_row(row_id(node, self.seen))
        if not node.row.startswith(f"{self.framework}."):
            node.fail(f"the id must start with '{self.framework}.'")
        entries = node.fields(("id", *required, "evidence"), ("title", "since", "until", *optional))
        row: Document = {
            "id": node.row,
            "title": entries["title"].text() if "title" in entries else "",
            "evidence": self.evidence(entries["evidence"]),
            "since": _bound(entries.get("since")),
            "until": _bound(entries.get("until")),
        }
        return row, entries

    def release(self, node: Node) -> Document:
        entries = node.fields(("version", "python", "evidence"))
        return {
            "version": entries["version"].text(),
            "python": entries["python"].text(),
            "evidence": self.evidence(entries["evidence"]),
        }

    def capability(self, node: Node) -> Document:
        row, entries = self.start(node, ("match", "value", "because"), ("partial", "note", "proof"))
        partial = entries["partial"].boolean() if "partial" in entries else False
        if partial and "note" not in entries:
            entries["partial"].fail("a partial capability needs a note that says what is missing")
        return row | {
            "match": match_of(entries["match"]),
            "value": entries["value"].boolean(),
            "because": entries["because"].text(),
            "partial": partial,
            "note": entries["note"].text() if "note" in entries else "",
            "proof": proofs_of(entries),
        }

    def only(self, node: Node) -> Document:
        row, entries = self.start(node, ("field", "values", "because"), ("match", "proof"))
        field = entries["field"].choice(PLAN_FIELDS)
        return row | {
            "field": field,
            "values": values_of(entries["values"], field),
            "match": match_of(entries["match"]) if "match" in entries else {},
            "because": entries["because"].text(),
            "proof": proofs_of(entries),
        }

    def limit(self, node: Node) -> Document:
        row, entries = self.start(node, ("when", "because", "cases"))
        when = condition(entries["when"], LIMIT_ROOTS)
        outcomes = {"refused": APPLIES, "allowed": PASSES}
        run_cases(entries["cases"], when, LIMIT_ROOTS, outcomes)
        return row | {"when": when, "because": entries["because"].text()}

    def habit(self, node: Node) -> Document:
        row, entries = self.start(node, ("set", "because"), ("match",))
        return row | {
            "match": match_of(entries["match"]) if "match" in entries else {},
            "set": plan_values(entries["set"]),
            "because": entries["because"].text(),
        }

    def trap(self, node: Node) -> Document:
        row, entries = self.start(node, ("text",), ("match",))
        return row | {
            "match": match_of(entries["match"]) if "match" in entries else {},
            "text": entries["text"].text(),
        }

    def evidence(self, node: Node) -> list[Document]:
        items = node.items()
        if not items:
            node.fail("a row needs evidence")
        return [self.one_evidence(item) for item in items]

    def one_evidence(self, node: Node) -> Document:
        entries = node.fields(("kind", "ref", "checked"))
        kind, ref = entries["kind"].choice(EVIDENCE_KINDS), entries["ref"].text()
        found = _SOURCE_REF.fullmatch(ref)
        if kind == "source" and found is None:
            entries["ref"].fail(
                f"a source is package==version:path or package==version:path:line, not {ref!r}"
            )
        if found and _same_package(found["package"], self.distribution):
            version = found["version"]
            if version not in self.versions:
                entries["ref"].fail(
                    f"release {version!r} is not in the releases table{suggestion(version, self.versions)}"
                )
        return {"kind": kind, "ref": ref, "checked": entries["checked"].iso_date()}


def _bound(node: Node | None) -> str:
    """A release like 1.16.0, or "" where there is no bound."""
    if node is None:
        return ""
    text = node.text()
    if not _RELEASE.fullmatch(text):
        node.fail(f"expected a release like 1.16.0, found {text!r}")
    return text


def proofs_of(entries: Mapping[str, Node]) -> list[Document]:
    """What a machine can look up to see that a row which marks something absent is right."""
    return [_proof(node) for node in entries["proof"].items()] if "proof" in entries else []


def _proof(node: Node) -> Document:
    if "kind" not in dict(node.entries()):
        node.fail(f"a proof needs a kind: {', '.join(PROOF_KINDS)}")
    kind = dict(node.entries())["kind"].choice(PROOF_KINDS)
    if kind == "refused":
        refused = node.fields(("kind", "config", "says"))
        return {"kind": kind, "place": refused["config"].text(), "pattern": refused["says"].text()}
    found = node.fields(("kind", "in", "pattern"))
    pattern = found["pattern"].text()
    if kind == "absent":
        try:
            re.compile(pattern)
        except re.error as error:
            found["pattern"].fail(f"not a regular expression: {error}")
    return {"kind": kind, "place": found["in"].text(), "pattern": pattern}


def _same_package(one: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def row_id(node: Node, seen: Seen) -> str:
    """The row's id, refused when malformed or taken."""
    if not isinstance(node.value, dict) or "id" not in node.value:
        node.fail("a row needs an id")
    entry: Node = node.value["id"]
    name = entry.text()
    if not _ID.fullmatch(name):
        entry.fail(f"an id is lower-case words joined by dots and dashes, not {name!r}")
    if name in seen:
        entry.fail(f"id {name!r} is taken by {seen[name]}")
    seen[name] = f"{entry.file}:{entry.line}"
    return name


def plan_value(node: Node, field: str) -> Any:
    """One value of a plan field, of its type and among its choices."""
    spec: Name = PLAN[field]
    value = node.plain()
    is_wanted = isinstance(value, _PYTHON_TYPES[spec.type])
    if not is_wanted or (spec.type != BOOL and isinstance(value, bool)):
        node.fail(f"{field} is of type {spec.type}, not {value!r}")
    if spec.choices and value not in spec.choices:
        hint = suggestion(str(value), [str(c) for c in spec.choices])
        node.fail(f"{field} is never {value!r}{hint}")
    return float(value) if spec.type == DOUBLE else value


def values_of(node: Node, field: str) -> list[Any]:
    values = [plan_value(item, field) for item in node.items()]
    if not values:
        node.fail(f"{field} needs at least one value")
    return values


def match_of(node: Node) -> dict[str, list[Any]]:
    """Plan field -> allowed values."""
    match: dict[str, list[Any]] = {}
    for field, values in node.entries():
        if field not in PLAN:
            values.fail(f"unknown plan field {field!r}{suggestion(field, list(PLAN))}")
        match[field] = values_of(values, field)
    return match


def plan_values(node: Node) -> dict[str, Any]:
    """Plan field -> one value, as habits and cases give them."""
    values: dict[str, Any] = {}
    for field, value in node.entries():
        if field not in PLAN_FIELDS:
            value.fail(f"unknown plan field {field!r}{suggestion(field, PLAN_FIELDS)}")
        many = PLAN[field].type == STRINGS
        values[field] = values_of(value, field) if many else plan_value(value, field)
    return values


def condition(node: Node, roots: tuple[str, ...]) -> str:
    text = node.text()
    try:
        check(text, roots)
    except ExpressionError as error:
        node.fail(f"in `{text}`: {error}")
    return text


def run_cases(node: Node, when: str, roots: tuple[str, ...], outcomes: Mapping[str, str]) -> None:
    """Runs a row's own cases: each group of situations must come out as its name says."""
    groups = node.fields(tuple(outcomes), ("undecided",))
    for group, wanted in {**outcomes, "undecided": UNDECIDED}.items():
        cases = groups[group].items() if group in groups else []
        if not cases and group in outcomes:
            groups.get(group, node).fail(f"at least one case of {group!r} is needed")
        for case in cases:
            verdict = decide(when, case_scope(case, roots))
            if verdict.outcome != wanted:
                why = f" ({verdict.why})" if verdict.why else ""
                case.fail(f"case {case.plain()} under {group!r}: the condition {_said(verdict.outcome)}{why}")


def _said(outcome: str) -> str:
    return {APPLIES: "holds", PASSES: "does not hold"}.get(outcome, "cannot be decided")


def case_scope(node: Node, roots: tuple[str, ...]) -> Scope:
    """The example situation with a case's overrides: `root.name: value`, or a plan field by its bare name."""
    situation = examples(roots)
    changes: dict[str, Any] = {}
    for key, value in node.entries():
        root, name = key.split(".", 1) if "." in key else ("plan", key)
        if root not in roots:
            value.fail(f"unknown name {key!r}{suggestion(root, roots)}")
        if name not in ROOTS[root] or (root == "plan" and name not in PLAN_FIELDS):
            value.fail(f"unknown name {key!r}{suggestion(name, list(ROOTS[root]))}")
        _case_value(value, ROOTS[root][name].type, choices(root, name), key)
        (changes if root == "plan" else situation[root])[name] = value.plain()
    unknown = [name for name, value in changes.items() if value is None]
    given = {name: _frozen(value) for name, value in changes.items() if value is not None}
    situation["plan"] = describe_plan(Plan(**given)) | dict.fromkeys(unknown)
    return Scope(**situation)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _case_value(node: Node, wanted: str, known: tuple[Any, ...], key: str) -> None:
    """A case's value has the name's type; null says that the fact is unknown."""
    value = node.plain()
    if value is None:
        return
    items: list[Any] = value if wanted == STRINGS and isinstance(value, list) else [value]
    for item in items:
        wrong_kind = not isinstance(item, _PYTHON_TYPES[wanted])
        if wrong_kind or (wanted != BOOL and isinstance(item, bool)):
            node.fail(f"{key} is of type {wanted}, not {item!r}")
        if known and item not in known:
            node.fail(f"{key} is never {item!r}{suggestion(str(item), [str(c) for c in known])}")


def selection_document(root: Node, seen: Seen) -> Document:
    """One file of rules/selection, or a house's own rules, checked."""
    top = root.fields(("rules",), ("title", "without"))
    without = top["without"].items() if "without" in top else []
    left_out = [node.choice(list(seen)) for node in without]
    return {"rules": [_rule(node, seen) for node in top["rules"].items()], "without": left_out}


def _rule(node: Node, seen: Seen) -> Document:
    node = node.of_row(row_id(node, seen))
    required = ("id", "title", "when", "effect", "because", "source", "cases")
    entries = node.fields(required, ("weight",))
    effect = entries["effect"].choice(EFFECTS)
    if (effect in WEIGHTED) != ("weight" in entries):
        entries["effect"].fail(f"{effect} {'needs a' if effect in WEIGHTED else 'takes no'} weight")
    weight = entries["weight"].number() if "weight" in entries else 0.0
    if effect in WEIGHTED and weight <= 0:
        entries["weight"].fail("a weight is above 0; to count against a framework use `avoid`")
    when = condition(entries["when"], tuple(ROOTS))
    run_cases(entries["cases"], when, tuple(ROOTS), {"applies": APPLIES, "passes": PASSES})
    return {
        "id": node.row,
        "title": entries["title"].text(),
        "when": when,
        "effect": effect,
        "weight": weight,
        "because": entries["because"].text(),
        "source": entries["source"].text(),
        "file": node.file,
    }
