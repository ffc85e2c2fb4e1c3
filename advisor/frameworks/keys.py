"""The keys of a table, by document: what a framework's files may say, and what writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from advisor.frameworks.table import REPO, Choice, Row, Table, split_name

OUTSIDE = (REPO, "command")
"""Documents that are no file of the framework: what the starter repo knows, and the command itself."""


def row_keys(row: Row) -> Iterator[tuple[str, str]]:
    """(document, key) of everything the row may write."""
    if isinstance(row, Choice):
        for case in row.cases:
            for name in case.keys:
                yield split_name(name, row.document)
    else:
        yield row.document, row.key


def table_keys(table: Table) -> Mapping[str, frozenset[str]]:
    """Document -> every key that the table may write in it."""
    found: dict[str, set[str]] = {}
    for row in table.rows:
        for document, key in row_keys(row):
            found.setdefault(document, set()).add(key)
    return {document: frozenset(keys) for document, keys in found.items()}


def flatten(content: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    """Nested values as the table's dotted keys; a mapping that no key goes into stays whole."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict) and _entered(name, keys):
            inner = frozenset(key[len(name) + 1 :] for key in keys if key.startswith(f"{name}."))
            flat |= {f"{name}.{key}": item for key, item in flatten(value, inner).items()}
        else:
            flat[name] = value
    return flat


def _entered(name: str, keys: frozenset[str]) -> bool:
    return any(key.startswith(f"{name}.") for key in keys)
