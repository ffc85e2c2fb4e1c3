"""Keyword arguments of a function -> keys."""

from __future__ import annotations

import ast

from tools.schema_sources.annotations import ANYTHING, Kind, kind_of, type_name
from tools.schema_sources.code import Code, Definition, Unknown
from tools.schema_sources.rows import Row

SKIPPED = ("self", "cls", "model")


def method(definition: Definition, name: str) -> Definition:
    """The function `name` in the body of a class. Raises Unknown."""
    assert isinstance(definition.node, ast.ClassDef)
    for statement in definition.node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return Definition(definition.module, statement)
    raise Unknown(f"{definition.name}.{name}")


def rows(code: Code, function: Definition) -> dict[str, Row]:
    """Parameters by keyword; `**kwargs` is not among them. Without an annotation the default says the type."""
    assert isinstance(function.node, ast.FunctionDef)
    arguments = function.node.args
    ordered = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(ordered) - len(arguments.defaults))
    pairs = [*zip(ordered, [*missing, *arguments.defaults], strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {a.arg: _row(code, function.module, a, default) for a, default in pairs if a.arg not in SKIPPED}


def _row(code: Code, module: str, argument: ast.arg, default: ast.expr | None) -> Row:
    kind = kind_of(code, module, argument.annotation) if argument.annotation else ANYTHING
    row: Row = {}
    if default is None:
        row["required"] = True
    else:
        try:
            row["default"] = code.value(module, default)
        except Unknown:
            row["computed"] = True
    if not argument.annotation and "default" in row:
        kind = inferred(row["default"])
    row = {"type": "|".join(kind.types or ("any",)), **row}
    if kind.optional:
        row["optional"] = True
    if kind.choices:
        row["choices"] = list(kind.choices)
    return row


def inferred(value: object) -> Kind:
    """What a bare default tells of its key: switches and numbers stay what they are, texts and None may be anything."""
    name = type_name(value)
    return Kind((name,)) if name in ("int", "float") else ANYTHING


def read_from_kwargs(function: Definition) -> dict[str, Row]:
    """Keys that a function looks up in its `**kwargs`: taken, though the signature does not name them."""
    assert isinstance(function.node, ast.FunctionDef)
    assert function.node.args.kwarg
    name = function.node.args.kwarg.arg
    found: set[str] = set()
    for node in ast.walk(function.node):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=owner), attr="get" | "pop"),
                args=[ast.Constant(value=str(key)), *_],
            ) if owner == name:
                found.add(key)
            case ast.Compare(
                left=ast.Constant(value=str(key)), ops=[ast.In()], comparators=[ast.Name(id=owner)]
            ) if owner == name:
                found.add(key)
            case ast.Subscript(value=ast.Name(id=owner), slice=ast.Constant(value=str(key))) if owner == name:
                found.add(key)
            case _:
                pass
    return {key: {"type": "any", "computed": True} for key in sorted(found)}
