"""Conditions in the Common Expression Language: compiled once, decided against a scope, never `eval`ed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from advisor.rules.names import DOUBLE, ROOTS

APPLIES, PASSES, UNDECIDED = "applies", "passes", "undecided"


class ExpressionError(ValueError):
    """What is wrong with an expression; the loader adds file, line and row."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition holds; `why` is said only where that could not be decided."""

    outcome: str
    why: str = ""


_APPLIES, _PASSES = Verdict(APPLIES), Verdict(PASSES)


@lru_cache(maxsize=1)
def _cel() -> ModuleType:
    """The compiled half of the `cel` package.

    Importing the package itself imports its interactive command line, which takes longer than everything
    else a command of ours does; so the extension module is loaded from beside it. A release that arranges
    its files differently is imported the plain way.
    """
    if loaded := sys.modules.get("cel.cel"):
        return loaded
    package = importlib.util.find_spec("cel")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder) / f"cel{suffix}"
            if path.is_file():
                return _load_extension(path)
    return importlib.import_module("cel")


def _load_extension(path: Path) -> ModuleType:
    loader = ExtensionFileLoader("cel.cel", str(path))
    spec = importlib.util.spec_from_file_location("cel.cel", path, loader=loader)
    if spec is None:
        return importlib.import_module("cel")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    # A Rust extension may be initialised only once in a process: a later `import cel` finds this one.
    sys.modules["cel.cel"] = module
    return module


@lru_cache(maxsize=4096)
def compiled(text: str) -> Any:
    """The expression as a program of the library."""
    try:
        return _cel().compile(text)
    except ValueError as error:
        raise ExpressionError(str(error).splitlines()[0]) from error


class Scope:
    """What is known when rules are asked: root -> name -> value, copied, with unknown (None) values left out.

    Leaving them out is what keeps "no" apart from "cannot say": CEL would find a null unequal to anything.
    """

    __slots__ = ("_context", "names")

    def __init__(self, **roots: Mapping[str, Any] | None) -> None:
        self.names: dict[str, dict[str, Any]] = {
            root: _known(root, values) for root, values in roots.items() if values is not None
        }
        self._context: Any = None

    @property
    def context(self) -> Any:
        if self._context is None:
            self._context = _cel().Context(self.names)
        return self._context

    def has(self, path: str) -> bool:
        root, _, name = path.partition(".")
        return name in self.names.get(root, ())


def _known(root: str, values: Mapping[str, Any]) -> dict[str, Any]:
    names = ROOTS[root]
    known: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or name not in names:
            continue
        # 1 where 1.0 is declared would make `x * 2.0` fail: CEL does not mix the two.
        known[name] = float(value) if names[name].type == DOUBLE else value
    return known


def decide(text: str, scope: Scope) -> Verdict:
    """Whether the condition holds in this scope. An unknown name only matters where it decides."""
    try:
        return _APPLIES if compiled(text).execute(scope.context) is True else _PASSES
    except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError) as error:
        missing = sorted(path for path in _paths(text) if not scope.has(path))
        known = f"{', '.join(missing)} not known" if missing else f"cannot be computed: {error}"
        return Verdict(UNDECIDED, known)


def numbers_read(text: str, scope: Scope) -> dict[str, int | float]:
    """The numbers that a condition looks at, by name: what a refusal shows beside its reason."""
    found: dict[str, int | float] = {}
    for path in sorted(_paths(text)):
        root, _, name = path.partition(".")
        value = scope.names.get(root, {}).get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = value
    return found


@lru_cache(maxsize=1024)
def _paths(text: str) -> frozenset[str]:
    # Imported here: most runs decide everything and check nothing.
    from advisor.rules.checker import names_read

    return names_read(text, tuple(ROOTS))
