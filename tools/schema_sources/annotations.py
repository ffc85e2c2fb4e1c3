"""A type annotation -> which values a key takes."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from tools.schema_sources.code import Code, Definition, Unknown

PLAIN = {
    **dict.fromkeys(("int", "PositiveInt", "NonNegativeInt", "StrictInt"), "int"),
    **dict.fromkeys(("float", "PositiveFloat", "NonNegativeFloat"), "float"),
    **dict.fromkeys(("str", "Path", "PathLike", "StrictStr"), "str"),
    **dict.fromkeys(("bool", "StrictBool"), "bool"),
    **dict.fromkeys(("list", "List", "tuple", "Tuple", "Sequence", "set", "Set", "Iterable"), "list"),
    **dict.fromkeys(("dict", "Dict", "Mapping", "OrderedDict", "DictConfig", "ConfigDict"), "dict"),
}
ANY = "any"


@dataclass(frozen=True, slots=True)
class Kind:
    types: tuple[str, ...] = ()
    optional: bool = False
    choices: tuple[Any, ...] = ()
    """They bind the values of their own types: `bool | Literal["auto"]` takes booleans and one word."""
    models: tuple[Definition, ...] = ()
    """Classes whose keys stand below this one."""
    items: tuple[Definition, ...] = ()
    """Classes whose keys stand in each element of the list."""
    enums: tuple[Any, ...] = ()
    """Values of enumerations, kept even where any text is admitted beside them."""
    of: tuple[str, ...] = ()
    """Types of a list's elements, where they are plain."""

    def __or__(self, other: Kind) -> Kind:
        return Kind(
            _unique(self.types + other.types),
            self.optional or other.optional,
            _unique(self._binding(other) + other._binding(self)),
            _unique(self.models + other.models),
            _unique(self.items + other.items),
            _unique(self.enums + other.enums),
            _unique(self.of + other.of) if self._listed(other) else (),
        )

    def _listed(self, other: Kind) -> bool:
        """Whether what is known of elements holds for every list that either takes."""
        return all(kind.of for kind in (self, other) if "list" in kind.types)

    def _binding(self, other: Kind) -> tuple[Any, ...]:
        """The choices that still bind beside `other`: one that takes any text frees the texts."""
        free = set(other.types) - {type_name(choice) for choice in other.choices}
        return tuple(choice for choice in self.choices if type_name(choice) not in free and ANY not in free)


def type_name(value: Any) -> str:
    return type(value).__name__ if isinstance(value, (bool, int, float, str, list, dict)) else ANY


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    kept: list[Any] = []
    for value in values:
        if not any(value == other and type(value) is type(other) for other in kept):
            kept.append(value)
    return tuple(kept)


ANYTHING = Kind((ANY,))


def kind_of(code: Code, module: str, node: ast.expr, depth: int = 0) -> Kind:
    """What an annotation admits; `any` where only a running program knows."""
    if depth > 8:
        return ANYTHING
    match node:
        case ast.Constant(value=None):
            return Kind(optional=True)
        case ast.Constant(value=str(text)):
            return kind_of(code, module, ast.parse(text, mode="eval").body, depth + 1)
        case ast.BinOp(op=ast.BitOr()):
            return kind_of(code, module, node.left, depth + 1) | kind_of(code, module, node.right, depth + 1)
        case ast.Subscript():
            return _subscript(code, module, node, depth)
        case ast.Name() | ast.Attribute():
            return _name(code, module, node, depth)
        case ast.Call(func=ast.Name(id="conint" | "confloat" | "constr" as name)):
            return Kind((name.removeprefix("con"),))
        case _:
            return ANYTHING


def _subscript(code: Code, module: str, node: ast.Subscript, depth: int) -> Kind:
    name = ast.unparse(node.value).rpartition(".")[2]
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Optional":
        return kind_of(code, module, inner[0], depth + 1) | Kind(optional=True)
    if name == "Union":
        kinds = [kind_of(code, module, part, depth + 1) for part in inner]
        result = kinds[0]
        for kind in kinds[1:]:
            result = result | kind
        return result
    if name in ("Annotated", "Required", "NotRequired", "Final"):
        return kind_of(code, module, inner[0], depth + 1)
    if name == "Literal":
        return _literal(code, module, inner)
    if PLAIN.get(name) == "list":
        parts = [kind_of(code, module, part, depth + 1) for part in inner]
        inside = tuple(name for part in parts for name in part.types)
        return Kind(
            ("list",),
            items=_unique(tuple(m for part in parts for m in part.models)),
            of=() if ANY in inside or not all(part.types for part in parts) else _unique(inside),
        )
    return Kind((PLAIN.get(name, ANY),))


def _literal(code: Code, module: str, inner: list[ast.expr]) -> Kind:
    choices: list[Any] = []
    for part in inner:
        try:
            value = code.value(module, part)
        except Unknown:
            return ANYTHING
        choices += value if isinstance(value, list) else [value]
    kept = tuple(choice for choice in choices if choice is not None)
    return Kind(_unique(tuple(type_name(c) for c in kept)), None in choices, kept)


def _name(code: Code, module: str, node: ast.Name | ast.Attribute, depth: int) -> Kind:
    name = node.id if isinstance(node, ast.Name) else node.attr
    if name in PLAIN:
        return Kind((PLAIN[name],))
    try:
        found = code.named(module, node)
    except Unknown:
        return ANYTHING
    if isinstance(found.node, ast.ClassDef):
        if code.is_enum(found):
            return _enum(code, found)
        return Kind(("dict",), models=(found,))
    if isinstance(found.node, ast.expr):
        return kind_of(code, found.module, found.node, depth + 1)
    return ANYTHING


def _enum(code: Code, found: Definition) -> Kind:
    try:
        values = tuple(code.enum_values(found))
    except Unknown:
        return Kind(("str",))
    return Kind(
        _unique(tuple(type_name(value) for value in values)), choices=_unique(values), enums=_unique(values)
    )
