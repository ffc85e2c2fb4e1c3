"""The vocabulary: `rules/catalog/terms.json`, by id and by the other names people use."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, NotRequired, TypedDict

from advisor.paths import rules_root


class Term(TypedDict):
    id: str
    aliases: list[str]
    title: str
    what: str
    use: str
    cost: str
    see: list[str]
    fields: NotRequired[list[str]]
    """Plan fields, and other topics of `planner.here`, that it is about."""
    source: str


MEANS = "is"
"""The term's key for the plan in which it is used: plan field -> value."""


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


def meaning(term: Term) -> dict[str, Any]:
    """Plan field -> the value that this term is the name of; empty: it names no single value."""
    return dict(term.get(MEANS, {}))  # `is` cannot be a field of a class


def term_of(field: str) -> Term | None:
    """The term that a plan field is about: one that speaks of the whole field before one of its values."""
    about = [term for term in terms().values() if field in term.get("fields", ())]
    about.sort(key=lambda term: (bool(meaning(term)), term.get("fields", [""])[0] != field))
    return about[0] if about else None


def term_names() -> list[str]:
    """Every accepted name, ids and aliases."""
    return list(_names())
