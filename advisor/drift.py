"""Each key that the tables emit, in which snapshotted releases it exists and what changed about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from advisor import schemas
from advisor.frameworks import framework
from advisor.frameworks.keys import table_keys
from advisor.history import renames_of, takes


@dataclass(frozen=True, slots=True)
class EmittedKey:
    """One key of one of the table's documents."""

    document: str
    key: str
    releases: tuple[str, ...]
    """Snapshotted releases that take it, newest first."""
    changes: tuple[str, ...]
    """What a release changed: type, choices, default; newest first."""
    renamed: str = ""
    within: str = ""
    """The key whose value it is a part of, where the releases say nothing of what that holds."""

    def since(self, known: Sequence[str]) -> str:
        """The releases that take it, in words; `known`: all that were read, newest first."""
        if tuple(known) == self.releases:
            return "all"
        there = [known.index(version) for version in self.releases]
        if there and there == list(range(there[0], there[-1] + 1)):
            newest = f" until {self.releases[0]}" if there[0] else ""
            return f"since {self.releases[-1]}{newest}" if there[-1] + 1 < len(known) else newest.strip()
        return ", ".join(self.releases) or "none"

    def as_dict(self) -> dict[str, Any]:
        shown = {"document": self.document, "key": self.key, "releases": list(self.releases)}
        return shown | {
            "changes": list(self.changes),
            "renamed": self.renamed or None,
            "within": self.within or None,
        }


def emitted_keys(name: str) -> list[EmittedKey]:
    """Of a framework, in the order of its documents; those that are another program's files are left out."""
    module, found = framework(name), list[EmittedKey]()
    for document, keys in table_keys(module.TABLE).items():
        pattern = module.READING.schema_names.get(document)
        if pattern:
            found += [_emitted(name, document, key, pattern) for key in sorted(keys)]
    return found


def _emitted(name: str, document: str, key: str, pattern: str) -> EmittedKey:
    found = _history(name, document, key, pattern)
    parent = key
    while not found.releases and "." in parent:  # inside a value that the framework hands on as it is
        parent = parent.rpartition(".")[0]
        found = replace(_history(name, document, parent, pattern), key=key, within=parent)
    return found


def _history(name: str, document: str, key: str, pattern: str) -> EmittedKey:
    rows = {version: _rows(name, version, pattern, key) for version in schemas.versions(name)}
    there = tuple(version for version, found in rows.items() if found is not None)
    known = renames_of(name, schemas.versions(name)[0])
    renamed = "; ".join(f"{row.old} before {row.package} {row.until}" for row in known if row.new == key)
    return EmittedKey(document, key, there, tuple(_changes(rows)), renamed)


Found = dict[str, schemas.Accepted | None]
"""Document of the snapshot -> what it takes of a key; None: it does not take it, or it stands below a mapping
that takes anything."""


def _rows(name: str, version: str, pattern: str, key: str) -> Found | None:
    """None where no document takes the key."""
    documents = schemas.load(name, version).documents
    named = [document for document in documents if re.fullmatch(pattern, document)]
    if not any(takes(name, version, document, key) for document in named):
        return None
    return {document: documents[document].get(key) for document in named}


def _changes(rows: dict[str, Found | None]) -> Iterator[str]:
    """Release by release, newest first, where both it and the one before take the key."""
    versions = list(rows)
    for newer, older in pairwise(versions):
        after, before = rows[newer], rows[older]
        if after is None and before is not None:
            yield f"{newer}: gone"
        elif after is not None and before is None:
            yield f"{newer}: new"
        elif after and before:
            yield from (f"{newer}: {text}" for text in _differences(after, before))


def _differences(after: Found, before: Found) -> list[str]:
    found: dict[str, list[str]] = {}
    whole = {document for document in after if document in before and (after[document] or before[document])}
    for document in sorted(whole):
        new, old = after[document], before[document]
        for text in _difference(new, old) if new and old else ["new" if new else "gone"]:
            found.setdefault(text, []).append(document)
    return [text if set(where) == whole else f"{text} ({', '.join(where)})" for text, where in found.items()]


def _difference(after: schemas.Accepted, before: schemas.Accepted) -> Iterator[str]:
    if set(after.types) != set(before.types):
        yield f"type {_types(before.types)} -> {_types(after.types)}"
    if set(map(str, after.choices)) != set(map(str, before.choices)):
        yield f"choices {_choices(before.choices, after.choices)}"
    if after.has_default and before.has_default and after.default != before.default:
        yield f"default {_plain(before.default)} -> {_plain(after.default)}"


def _types(types: Sequence[str]) -> str:
    return " or ".join(types)


def _choices(before: Sequence[Any], after: Sequence[Any]) -> str:
    if not before or not after:
        return "are given" if after else "are free"
    gone = [f"-{value}" for value in before if value not in after]
    return ", ".join([*(f"+{value}" for value in after if value not in before), *gone])


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
