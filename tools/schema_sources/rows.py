"""Keys of classes: fields of dataclasses and of pydantic models, own and inherited, nested ones dotted.

`a.b` is a key of the mapping under `a`, `a[].b` a key of each element of the list under `a`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.schema_sources import dataclass_fields, pydantic_models
from tools.schema_sources.annotations import ANY, Kind, kind_of
from tools.schema_sources.code import Code, Definition, Unknown, assignments

Row = dict[str, Any]
"""type, and where they say something: of (types of a list's elements), optional, choices, default or required
or computed, open."""

MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Field:
    """One annotated attribute of a class, as its kind reads it."""

    name: str
    annotation: ast.expr
    default: ast.expr | None = None
    required: bool = False
    computed: bool = False
    """The default comes out of a call that only a running program can make."""
    choices: tuple[Any, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(slots=True)
class Section:
    """The keys that one class or file adds."""

    origin: str
    keys: dict[str, Row] = field(default_factory=dict)


def is_keyed(code: Code, definition: Definition) -> bool:
    return dataclass_fields.is_dataclass(definition) or pydantic_models.is_model(code, definition)


def own_fields(code: Code, definition: Definition) -> list[Field]:
    if pydantic_models.is_model(code, definition):
        return [Field(**each) for each in pydantic_models.own_fields(code, definition)]
    if dataclass_fields.is_dataclass(definition):
        return [Field(**each) for each in dataclass_fields.own_fields(code, definition)]
    return []


def owners(code: Code, definition: Definition) -> dict[str, Definition]:
    """Key -> the class whose field it is, with Python's rules of inheritance for each kind."""
    if pydantic_models.is_model(code, definition):
        found: dict[str, Definition] = {}
        for each in reversed(code.mro(definition)):
            found |= {f["name"]: each for f in pydantic_models.own_fields(code, each)}
        return found
    return _dataclass_owners(code, definition)


def _dataclass_owners(code: Code, definition: Definition) -> dict[str, Definition]:
    """A dataclass takes all fields of each base, last base first, then its own: a base that comes earlier wins
    even with a field it inherited itself."""
    order = code.mro(definition)
    if not dataclass_fields.is_dataclass(definition):
        parent = next((each for each in order[1:] if dataclass_fields.is_dataclass(each)), None)
        return _dataclass_owners(code, parent) if parent else {}
    found: dict[str, Definition] = {}
    for base in reversed(order[1:]):
        found |= _dataclass_owners(code, base)
    return found | {f["name"]: definition for f in dataclass_fields.own_fields(code, definition)}


def own_rows(code: Code, definition: Definition, prefix: str = "", depth: int = 0) -> dict[str, Row]:
    """The keys that a class adds itself, those of nested models included."""
    assert isinstance(definition.node, ast.ClassDef)
    scope = assignments(definition.node.body)
    rows: dict[str, Row] = {}
    for each in own_fields(code, definition):
        kind = kind_of(code, definition.module, each.annotation)
        row = _row(code, definition, each, kind, scope)
        nested = _nested(code, kind, depth)
        for name in each.aliases or (each.name,):
            rows[f"{prefix}{name}"] = row
            for key, inner in nested.items():
                rows[f"{prefix}{name}{key}"] = inner
    return rows


def all_rows(code: Code, definition: Definition, prefix: str = "", depth: int = 0) -> dict[str, Row]:
    """The keys of a class with everything it inherits."""
    held = owners(code, definition)
    rows: dict[str, Row] = {}
    for each in reversed(code.mro(definition)):
        for key, row in own_rows(code, each, prefix, depth).items():
            root = key.removeprefix(prefix).partition(".")[0].partition("[")[0]
            if held.get(root, each) == each:
                rows[key] = row
    return rows


def _nested(code: Code, kind: Kind, depth: int) -> dict[str, Row]:
    found: dict[str, Row] = {}
    if depth >= MAX_DEPTH:
        return found
    for mark, models in ((".", kind.models), ("[].", kind.items)):
        for model in models:
            if is_keyed(code, model):
                for key, row in all_rows(code, model, mark, depth + 1).items():
                    found[key] = merged(found[key], row) if key in found else row
    return found


def merged(one: Row, other: Row) -> Row:
    """A key that two alternatives have: what either takes."""
    if one == other:
        return one
    types = [*one["type"].split("|"), *other["type"].split("|")]
    row: Row = {"type": "|".join(dict.fromkeys(types))}
    if one.get("of") and one.get("of") == other.get("of"):
        row["of"] = one["of"]
    if one.get("optional") or other.get("optional"):
        row["optional"] = True
    if "choices" in one and "choices" in other:
        row["choices"] = list(dict.fromkeys([*one["choices"], *other["choices"]]))
    if "default" in one and one.get("default") == other.get("default") and "default" in other:
        row["default"] = one["default"]
    return row


def _row(
    code: Code, definition: Definition, each: Field, kind: Kind, scope: Mapping[str, list[ast.expr]]
) -> Row:
    unkeyed = [m for m in kind.models if not is_keyed(code, m)]
    types = (ANY,) if unkeyed or ANY in kind.types or not kind.types else kind.types
    row: Row = {"type": "|".join(types)}
    if kind.of and types != (ANY,):
        row["of"] = "|".join(kind.of)
    if kind.optional:
        row["optional"] = True
    # Argument parsers take `Enum | str` for the enumeration; pydantic takes any text.
    parsed = kind.enums if dataclass_fields.is_dataclass(definition) and types == ("str",) else ()
    choices = each.choices or kind.choices or parsed
    if choices and types != (ANY,):
        row["choices"] = list(choices)
    if any(pydantic_models.is_open(code, model) for model in kind.models):
        row["open"] = True
    if each.required:
        row["required"] = True
    elif each.computed or each.default is None:
        row["computed"] = True
    else:
        try:
            row["default"] = code.value(definition.module, each.default, scope)
        except Unknown:
            row["computed"] = True
    return row
