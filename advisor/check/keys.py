"""The keys of a configuration against the snapshot of its release, with what became of keys that are gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from advisor import schemas
from advisor.check.findings import NOTE, PROBLEM, Finding
from advisor.check.gather import Gathered
from advisor.frameworks import NAMES, framework
from advisor.frameworks.keys import OUTSIDE
from advisor.frameworks.sources import Source, Unresolved
from advisor.frameworks.table import Key
from advisor.history import told
from advisor.rules import FrameworkRules

Documents = Mapping[str, Mapping[str, Any]]

KINDS = {"unknown": "unknown-key", "value": "value", "requires": "requires"}


@dataclass(frozen=True, slots=True)
class Keys:
    findings: tuple[Finding, ...]
    unread: tuple[str, ...]
    """Keys that the release takes and the plan does not hold."""


def key_findings(
    gathered: Gathered, documents: Documents, leftovers: Documents, rules: FrameworkRules
) -> Keys:
    """Every key that the release would refuse or drop, with its place."""
    names = framework(gathered.framework).READING.schemas(documents)
    found: list[Finding] = []
    unread: list[str] = []
    for source in gathered.sources:
        found += [
            Finding(PROBLEM, "twice", "given twice; this one counts", source.path, line, key)
            for key, line in source.twice
        ]
        name = names.get(source.document)
        if name is None:
            continue
        try:
            wrong = [*_wrong(source, gathered.framework, rules, name)]
        except schemas.NoSnapshot as error:
            found.append(Finding(NOTE, "unchecked", f"keys were not checked: {error}", source.path))
            continue
        found += wrong
        refused = {finding.key for finding in wrong}
        unread += [key for key in leftovers.get(source.document, {}) if key not in refused]
    return Keys(tuple(found), tuple(unread))


def _wrong(source: Source, name: str, rules: FrameworkRules, document: str) -> Iterator[Finding]:
    known, unresolved = _split(source.content)
    for problem in schemas.find_problems(name, rules.version, document, known):
        message = told(name, rules.version, document, problem) or problem.message
        if problem.kind == "unknown" and message == problem.message:
            here = called_here(name, problem.key)
            message = f"no such key; here it is {here}" if here else message
        yield _finding(source, problem.key, KINDS[problem.kind], message, rules)
    for key in unresolved:
        if not schemas.accepts(name, rules.version, document, key):
            yield _finding(source, key, "unknown-key", "no such key", rules)


def called_here(name: str, key: str) -> str:
    """What a framework calls a setting that another one of the six calls `key`; empty: nothing tells."""
    fields = {
        row.field
        for other in NAMES
        if other != name
        for row in framework(other).TABLE.rows
        if isinstance(row, Key) and row.key == key and row.document not in OUTSIDE
    }
    own = [row for row in framework(name).TABLE.rows if isinstance(row, Key) and row.document not in OUTSIDE]
    return next((row.key for row in own if row.field in fields), "")


def _finding(source: Source, key: str, kind: str, message: str, rules: FrameworkRules) -> Finding:
    shown = f"{message} [{rules.title} {rules.version}]"
    return Finding(PROBLEM, kind, shown, source.path, line_of(source, key), key)


def line_of(source: Source, key: str) -> int:
    """Of the key, or of the nearest parent that has a line."""
    parts = key.replace("[]", "").split(".")
    for end in range(len(parts), 0, -1):
        line = source.lines.get(".".join(parts[:end]))
        if line:
            return line
    return 0


def _split(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values that stand there, and keys whose value only a run would tell."""
    known = {key: value for key, value in content.items() if not isinstance(value, Unresolved)}
    return known, [key for key in content if key not in known]


def share_known(name: str, content: Mapping[str, Any]) -> float:
    """The largest share of these keys that one document of the framework's pinned release takes."""
    version = schemas.versions(name)[0]
    snapshot = schemas.load(name, version)
    shares = [
        sum(schemas.accepts(name, version, document, key) for key in content) / max(1, len(content))
        for document in snapshot.documents
    ]
    return max(shares, default=0.0)
