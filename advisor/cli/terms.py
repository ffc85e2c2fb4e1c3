"""The vocabulary: `rules/catalog/terms.json`, by id and by the other names people use."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TypedDict

from advisor.paths import rules_root


class Term(TypedDict):
    id: str
    aliases: list[str]
    title: str
    what: str
    use: str
    cost: str
    see: list[str]
    source: str


@cache
def terms() -> dict[str, Term]:
    """Id -> term, in the order of the file."""
    read = json.loads((rules_root() / "catalog" / "terms.json").read_bytes())
    return {row["id"]: row for row in read["terms"]}


def spelled(topic: str) -> str:
    """One spelling for `ZeRO 3`, `zero_3` and `zero-3`."""
    return re.sub(r"[\s_-]+", "-", topic.strip().lower()).strip("-")


@cache
def _names() -> dict[str, str]:
    return {spelled(name): row["id"] for row in terms().values() for name in (*row["aliases"], row["id"])}


def find(topic: str) -> Term | None:
    """The term of that name or alias."""
    found = _names().get(spelled(topic))
    return terms()[found] if found else None


def term_names() -> list[str]:
    """Every accepted name, ids and aliases."""
    return list(_names())
