"""The method of a configuration, where only its command tells it."""

from __future__ import annotations

from typing import Any

from advisor import schemas
from advisor.check.gather import Gathered
from advisor.check.plan import Documents
from advisor.frameworks import framework
from advisor.frameworks.table import Choice, Table, split_name
from advisor.plan import METHODS
from advisor.request import Request

USUAL = ("sft", *(method for method in METHODS if method != "sft"))


def method_of(gathered: Gathered, documents: Documents, request: Request) -> str:
    """The method that was given, else the one whose command knows most of the keys (the usual one of several)."""
    given = request.method or gathered.advice.get("plan", {}).get("method") or gathered.answers.get("method")
    if given:
        return str(given)
    table = framework(gathered.framework).TABLE
    command = documents.get("command")
    candidates = {method: method_keys(table, method) for method in USUAL}
    kept = {method: keys for method, keys in candidates.items() if command is None or keys == command}
    return min(kept or candidates, key=lambda method: _unknown(gathered, documents, candidates[method]))


def method_keys(table: Table, method: str) -> dict[str, Any]:
    """What the `command` document says of a method."""
    found: dict[str, Any] = {}
    for row in table.rows:
        if isinstance(row, Choice) and "method" in row.fields:
            place = row.fields.index("method")
            case = next((case for case in row.cases if case.values[place] == method), None)
            for name, value in case.keys.items() if case else ():
                document, key = split_name(name, row.document)
                if document == "command":
                    found[key] = value
    return found


def _unknown(gathered: Gathered, documents: Documents, command: dict[str, Any]) -> int:
    """How many keys the release would not take in the documents of this command."""
    names = framework(gathered.framework).READING.schemas({**documents, "command": command})
    count = 0
    for source in gathered.sources:
        name = names.get(source.document)
        try:
            count += name is not None and sum(
                not schemas.accepts(gathered.framework, gathered.version, name, key) for key in source.content
            )
        except schemas.NoSnapshot:
            count += len(source.content)
    return count
