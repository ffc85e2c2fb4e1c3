"""Python source of several packages by syntax tree: names followed through imports, static values.

Nothing is imported or run. Where a name is bound twice (a branch, an `except ImportError`), a class or
function has precedence, then what can be found in the packages at hand; a value that differs between its
bindings is Unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.schema_sources.archives import Source

MAX_HOPS = 30


class Unknown(Exception):
    """The value or name is known only to a running program."""


@dataclass(frozen=True, slots=True)
class Imported:
    """`from module import name`, or the module itself when there is no name."""

    module: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Definition:
    """A class, function or expression, and the module it stands in."""

    module: str
    node: ast.AST

    @property
    def name(self) -> str:
        return getattr(self.node, "name", "")


Scope = Mapping[str, list[ast.expr]]
"""Names of a class body, where values may refer to each other."""


@dataclass(slots=True)
class Module:
    name: str
    path: str
    tree: ast.Module
    bindings: dict[str, list[ast.AST | Imported]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, those in branches, `try` and `with` included."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "handlers", "finalbody"):
            if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                break
            for inner in getattr(statement, part, ()):
                yield from statements(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def assignments(body: Iterable[ast.stmt]) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for statement in statements(body):
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            targets = [statement.target]
        for target in targets:
            if isinstance(target, ast.Name):
                value = statement.value  # type: ignore[union-attr]
                found.setdefault(target.id, []).append(value)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return found


class Code:
    def __init__(self, packages: Mapping[str, Source], stand_ins: Mapping[str, str] | None = None) -> None:
        """`packages`: top-level import name -> its source. `stand_ins`: `module:name` -> `module:name`, for a
        name that a running program chooses by its environment."""
        self._packages = packages
        self._stand_ins = stand_ins or {}
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        if name not in self._modules:
            self._modules[name] = self._load(name)
        return self._modules[name]

    def _load(self, name: str) -> Module | None:
        source = self._packages.get(name.partition(".")[0])
        if source is None:
            return None
        base = name.replace(".", "/")
        for path, is_package in ((f"{base}.py", False), (f"{base}/__init__.py", True)):
            text = source.read(path)
            if text is not None:
                module = Module(name, path, ast.parse(text))
                _bind(module, is_package)
                return module
        return None

    def find(self, module: str, name: str) -> Definition:
        """What `name` means in `module`. Raises Unknown when it stands in no package at hand."""
        found = self._find(module, name, 0)
        if found is None:
            raise Unknown(f"{module}:{name}")
        return found

    def _find(self, module_name: str, name: str, hops: int) -> Definition | None:
        stand_in = self._stand_ins.get(f"{module_name}:{name}")
        if stand_in:
            module_name, _, name = stand_in.partition(":")
        module = self.module(module_name)
        if module is None or hops > MAX_HOPS:
            return None
        bound = module.bindings.get(name, [])
        for node in sorted(bound, key=_precedence):
            found = self._follow(module_name, node, hops)
            if found:
                return found
        for star in module.stars:
            found = self._find(star, name, hops + 1)
            if found:
                return found
        return None

    def _follow(self, module: str, node: ast.AST | Imported, hops: int) -> Definition | None:
        if isinstance(node, Imported):
            return self._find(node.module, node.name, hops + 1) if node.name else None
        if isinstance(node, ast.Name):
            return self._find(module, node.id, hops + 1)
        if isinstance(node, ast.Attribute):
            return self._attribute(module, node, hops)
        return Definition(module, node)

    def _attribute(self, module: str, node: ast.Attribute, hops: int) -> Definition | None:
        """`package.module.Name`."""
        if not isinstance(node.value, ast.Name):
            return None
        here = self.module(module)
        for bound in here.bindings.get(node.value.id, []) if here else []:
            if isinstance(bound, Imported):
                inner = f"{bound.module}.{bound.name}" if bound.name else bound.module
                found = self._find(inner, node.attr, hops + 1)
                if found:
                    return found
        return None

    def named(self, module: str, node: ast.expr) -> Definition:
        """The definition behind an expression that is a name. Raises Unknown."""
        found = self._follow(module, node, 0) if isinstance(node, (ast.Name, ast.Attribute)) else None
        if found is None:
            raise Unknown(ast.unparse(node))
        return found

    def class_at(self, reference: str) -> Definition:
        """`module:Class`. Raises Unknown when there is no such class."""
        module, _, name = reference.partition(":")
        found = self.find(module, name)
        if not isinstance(found.node, ast.ClassDef):
            raise Unknown(reference)
        return found

    def origin(self, definition: Definition) -> str:
        module = self.module(definition.module)
        return f"{module.path if module else definition.module}:{definition.name}"

    def bases(self, definition: Definition) -> list[Definition]:
        """Direct bases that stand in the packages at hand."""
        found: list[Definition] = []
        assert isinstance(definition.node, ast.ClassDef)
        for base in definition.node.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            try:
                parent = self.named(definition.module, name)
            except Unknown:
                continue
            if isinstance(parent.node, ast.ClassDef):
                found.append(parent)
        return found

    def mro(self, definition: Definition) -> list[Definition]:
        """Python's order of inheritance. Raises Unknown when the bases have no consistent order."""
        parents = self.bases(definition)
        queues = [*(self.mro(parent) for parent in parents), parents]
        order = [definition]
        while any(queues):
            queues = [queue for queue in queues if queue]
            head = next((q[0] for q in queues if not any(q[0] in other[1:] for other in queues)), None)
            if head is None:
                raise Unknown(f"bases of {definition.name} have no consistent order")
            order.append(head)
            queues = [queue[1:] if queue[0] == head else queue for queue in queues]
        return order

    def base_names(self, definition: Definition) -> set[str]:
        """Names of every base, those outside the packages at hand included."""
        return {
            ast.unparse(base).rpartition(".")[2]
            for each in self.mro(definition)
            if isinstance(each.node, ast.ClassDef)
            for base in each.node.bases
        }

    def is_enum(self, definition: Definition) -> bool:
        return isinstance(definition.node, ast.ClassDef) and any(
            name.endswith("Enum") for name in self.base_names(definition)
        )

    def enum_values(self, definition: Definition) -> list[Any]:
        assert isinstance(definition.node, ast.ClassDef)
        members = assignments(definition.node.body)
        return [
            self.value(definition.module, expressions[0], members)
            for name, expressions in members.items()
            if not name.startswith("_")
        ]

    def value(self, module: str, node: ast.expr, scope: Scope | None = None) -> Any:
        """The value of an expression, when it can be told without running it. Raises Unknown."""
        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.value(module, element, scope) for element in node.elts]
            case ast.Dict():
                return self._dict(module, node, scope)
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(module, node.operand, scope)
            case ast.BinOp(op=ast.Add()):
                return self.value(module, node.left, scope) + self.value(module, node.right, scope)
            case ast.BinOp(op=ast.Mult()):
                return self.value(module, node.left, scope) * self.value(module, node.right, scope)
            case ast.BinOp(op=ast.Pow()):
                return self.value(module, node.left, scope) ** self.value(module, node.right, scope)
            case ast.Name():
                return self._name(module, node.id, scope)
            case ast.Attribute():
                return self._member(module, node)
            case ast.Call(func=ast.Name(id="list" | "tuple" | "set"), args=[argument]):
                return list(self.value(module, argument, scope))
            case ast.Call(func=ast.Name(id="list"), args=[]):
                return []
            case ast.Call(func=ast.Name(id="dict"), args=[]):
                return {k.arg: self.value(module, k.value, scope) for k in node.keywords if k.arg}
            case _:
                raise Unknown(ast.unparse(node))

    def _dict(self, module: str, node: ast.Dict, scope: Scope | None) -> dict[Any, Any]:
        if None in node.keys:
            raise Unknown(ast.unparse(node))
        pairs = zip(node.keys, node.values, strict=True)
        return {self.value(module, k, scope): self.value(module, v, scope) for k, v in pairs if k}

    def _name(self, module: str, name: str, scope: Scope | None) -> Any:
        if scope and name in scope:
            return self._agreed([self.value(module, node, scope) for node in scope[name]], name)
        found = self.find(module, name)
        if not isinstance(found.node, ast.expr):
            raise Unknown(name)
        home = self.module(found.module)
        bound = [
            node
            for nodes in (home.bindings.values() if home else ())
            if found.node in nodes
            for node in nodes
            if isinstance(node, ast.expr)
        ]
        return self._agreed([self.value(found.module, node) for node in bound], name)

    @staticmethod
    def _agreed(values: list[Any], name: str) -> Any:
        if any(value != values[0] for value in values):
            raise Unknown(f"{name} depends on the machine")
        return values[0]

    def _member(self, module: str, node: ast.Attribute) -> Any:
        """`Enum.MEMBER` or `Enum.MEMBER.value`: the value."""
        inner = (
            node.value if node.attr in ("value", "name") and isinstance(node.value, ast.Attribute) else node
        )
        assert isinstance(inner, ast.Attribute)
        owner = self.named(module, inner.value)
        if not self.is_enum(owner) or not isinstance(owner.node, ast.ClassDef):
            raise Unknown(ast.unparse(node))
        members = assignments(owner.node.body)
        if inner.attr not in members:
            raise Unknown(ast.unparse(node))
        return self.value(owner.module, members[inner.attr][0], members)


def _precedence(node: ast.AST | Imported) -> int:
    return 0 if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) else 1


def _bind(module: Module, is_package: bool) -> None:
    for statement in statements(module.tree.body):
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            module.bindings.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.ImportFrom):
            origin = _absolute(module.name, is_package, statement)
            for alias in statement.names:
                if alias.name == "*":
                    module.stars.append(origin)
                else:
                    imported = Imported(origin, alias.name)
                    module.bindings.setdefault(alias.asname or alias.name, []).append(imported)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                module.bindings.setdefault(alias.asname or name, []).append(Imported(name, None))
    for name, values in assignments(module.tree.body).items():
        module.bindings.setdefault(name, []).extend(values)


def _absolute(module: str, is_package: bool, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.split(".")
    up = statement.level - (1 if is_package else 0)
    parents = parts[: len(parts) - up] if up else parts
    return ".".join([*parents, *([statement.module] if statement.module else [])])
