"""Fields of pydantic models."""

from __future__ import annotations

import ast
from typing import Any

from tools.schema_sources.code import Code, Definition, Unknown
from tools.schema_sources.dataclass_fields import annotated, factory


def is_model(code: Code, definition: Definition) -> bool:
    return isinstance(definition.node, ast.ClassDef) and "BaseModel" in code.base_names(definition)


def is_open(code: Code, definition: Definition) -> bool:
    """Whether the model keeps keys it does not declare."""
    return is_model(code, definition) and any(
        "extra='allow'" in ast.unparse(statement)
        for each in code.mro(definition)
        if isinstance(each.node, ast.ClassDef)
        for statement in each.node.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and "model_config" in ast.unparse(statement)
    )


def own_fields(code: Code, definition: Definition) -> list[dict[str, Any]]:
    """What each field of the class itself is, as `rows.Field` takes it."""
    assert isinstance(definition.node, ast.ClassDef)
    found: list[dict[str, Any]] = []
    for statement in annotated(definition.node):
        assert isinstance(statement.target, ast.Name)
        name = statement.target.id
        if name.startswith("_") or name == "model_config":
            continue
        annotation, inside = _unwrapped(statement.annotation)
        settings = _settings(code, definition.module, statement.value, inside)
        found.append({"name": name, "annotation": annotation, **settings})
    return found


def _unwrapped(annotation: ast.expr) -> tuple[ast.expr, ast.Call | None]:
    """`Annotated[X, Field(...)]` -> X and the Field."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Annotated"):
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return parts[0], next((p for p in parts[1:] if _is_field(p)), None)  # pyright: ignore[reportReturnType]
    return annotation, None


def _is_field(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Field"


def _settings(code: Code, module: str, value: ast.expr | None, inside: ast.Call | None) -> dict[str, Any]:
    call = value if isinstance(value, ast.Call) and _is_field(value) else inside
    if call is None:
        return {"required": True} if value is None else {"default": value}
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    settings = {"aliases": _aliases(code, module, keywords)}
    if call is not value and value is not None:
        return {**settings, "default": value}
    default = call.args[0] if call.args else keywords.get("default")
    if isinstance(default, ast.Constant) and default.value is Ellipsis:
        return {**settings, "required": True}
    if default is not None:
        return {**settings, "default": default}
    if "default_factory" in keywords:
        return {**settings, **factory(keywords["default_factory"])}
    return {**settings, "required": True}


def _aliases(code: Code, module: str, keywords: dict[str | None, ast.expr]) -> tuple[str, ...]:
    """The names a file may use, where they are not the attribute's."""
    for keyword in ("validation_alias", "alias"):
        given = keywords.get(keyword)
        if given is None:
            continue
        names = given.args if isinstance(given, ast.Call) else [given]  # AliasChoices("one", "other")
        try:
            return tuple(str(code.value(module, name)) for name in names)
        except Unknown:
            continue
    return ()
