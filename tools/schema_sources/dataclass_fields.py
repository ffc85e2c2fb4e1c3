"""Fields of dataclasses, which argument parsers turn into keys."""

from __future__ import annotations

import ast
from typing import Any

from tools.schema_sources.code import Code, Definition, Unknown, statements


def is_dataclass(definition: Definition) -> bool:
    """By its decorator; a class that only inherits from a dataclass adds no fields."""
    node = definition.node
    if not isinstance(node, ast.ClassDef):
        return False
    names = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(ast.unparse(name).rpartition(".")[2] == "dataclass" for name in names)


def annotated(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """Annotated attributes that are fields of an instance."""
    found = [
        s for s in statements(node.body) if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
    ]
    return [s for s in found if "ClassVar" not in ast.unparse(s.annotation)]


def own_fields(code: Code, definition: Definition) -> list[dict[str, Any]]:
    """What each field of the class itself is, as `rows.Field` takes it; those not set from outside left out."""
    assert isinstance(definition.node, ast.ClassDef)
    if not is_dataclass(definition):
        return []
    found: list[dict[str, Any]] = []
    for statement in annotated(definition.node):
        assert isinstance(statement.target, ast.Name)
        if "InitVar" in ast.unparse(statement.annotation):
            continue
        settings = _settings(code, definition.module, statement.value)
        if settings is not None:
            found.append({"name": statement.target.id, "annotation": statement.annotation, **settings})
    return found


def _settings(code: Code, module: str, value: ast.expr | None) -> dict[str, Any] | None:
    """Default and choices; None for a field that no parser sets (`init=False`)."""
    if value is None:
        return {"required": True}
    if not (isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "field"):
        return {"default": value}
    keywords = {keyword.arg: keyword.value for keyword in value.keywords}
    init = keywords.get("init")
    if isinstance(init, ast.Constant) and init.value is False:
        return None
    settings = {"choices": _choices(code, module, keywords.get("metadata"))}
    if "default" in keywords:
        return {**settings, "default": keywords["default"]}
    if "default_factory" in keywords:
        return {**settings, **factory(keywords["default_factory"])}
    return {**settings, "required": True}


def factory(node: ast.expr) -> dict[str, Any]:
    """A default made by a call: `list`, `dict`, or a lambda whose body can be read."""
    if isinstance(node, ast.Lambda):
        return {"default": node.body}
    if isinstance(node, ast.Name) and node.id in ("list", "dict"):
        return {"default": ast.parse(f"{node.id}()", mode="eval").body}
    return {"computed": True}


def _choices(code: Code, module: str, metadata: ast.expr | None) -> tuple[Any, ...]:
    if not isinstance(metadata, ast.Dict):
        return ()
    for key, value in zip(metadata.keys, metadata.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "choices":
            try:
                found = code.value(module, value)
            except Unknown:
                return ()
            return tuple(found) if isinstance(found, list) else ()
    return ()
