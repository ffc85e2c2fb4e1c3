"""Finds, before anything runs, what is wrong with a rule's expression: unknown names and mismatched types.

The CEL library only reports the root names an expression uses, so this reads the expression itself: an
operator-precedence parser over the part of CEL that rules need, which computes types instead of values.
What lies outside that part (maps, messages, bytes) is refused, and so are comments (a folded YAML block would
let one swallow the lines below it) and the order of strings (a version "1.9" would come after "1.16").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from advisor.frameworks import NAMES as FRAMEWORKS
from advisor.rules.expressions import ExpressionError, compiled
from advisor.rules.names import BOOL, DOUBLE, INT, ROOTS, STRING, Name

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
      | (?P<int>\d+)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<op>&&|\|\||[=!<>]=|[<>+\-*/%!?:.,()\[\]])""",
    re.VERBOSE,
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)
_METHODS: Mapping[str, str] = {
    "startsWith": STRING,
    "endsWith": STRING,
    "contains": STRING,
    "matches": STRING,
}
_MACROS = ("exists", "all", "exists_one")
_CONVERSIONS: Mapping[str, str] = {"int": INT, "double": DOUBLE, "string": STRING}
_NUMBERS = (INT, DOUBLE)
_DEEPEST = 30
"""Levels of nesting that are read; the library's own parser would exhaust the stack on hostile ones."""


def choices(root: str, field: str) -> tuple[Any, ...]:
    """Every value a name can have; (): not limited. Which frameworks there are, their table says."""
    frameworks = {
        "framework.name": FRAMEWORKS,
        "request.framework": ("none", *FRAMEWORKS),
        "request.avoid": FRAMEWORKS,
    }
    return frameworks.get(f"{root}.{field}", ROOTS[root][field].choices)


def suggestion(word: str, known: Sequence[str]) -> str:
    """`, did you mean ...?` for a slip, else the known words where they are few."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]!r}?"
    return f" (known: {', '.join(known)})" if 0 < len(known) <= 20 else ""


@dataclass(frozen=True, slots=True)
class _Typed:
    type: str
    label: str = ""
    """How the expression is called in a message."""
    choices: tuple[Any, ...] = ()
    literals: tuple[Any, ...] = ()


def _types(*operands: _Typed) -> str:
    return " and ".join(f"{operand.label} is of type {operand.type}" for operand in operands)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ExpressionError(f"unexpected {text[at]!r} at column {at + 1}")
        if match.lastgroup != "space":
            found.append(_Token(match.lastgroup, match.group(), at + 1))
        at = match.end()
    return [*found, _Token("end", "", len(text) + 1)]


def check(text: str, roots: Sequence[str]) -> frozenset[str]:
    """Refuses an expression that is not a sound condition over `roots`; returns the names it reads."""
    paths = names_read(text, roots)
    compiled(text)
    return paths


def names_read(text: str, roots: Sequence[str]) -> frozenset[str]:
    parser = _Checker(text, roots)
    result = parser.ternary()
    parser.expect("")
    if result.type != BOOL:
        raise ExpressionError(f"a condition must be true or false, this is of type {result.type}")
    return frozenset(parser.paths)


class _Checker:
    def __init__(self, text: str, roots: Sequence[str]) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.depth = 0
        self.roots = tuple(roots)
        self.paths: set[str] = set()
        self.bound: dict[str, str] = {}

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def advance(self) -> _Token:
        """The token here; the end is never passed, so that a text that breaks off is refused like any other."""
        token = self.token
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def is_op(self, *texts: str) -> bool:
        return self.token.kind in ("op", "name") and self.token.text in texts

    def expect(self, text: str) -> None:
        if self.token.text != text or self.token.kind == "string":
            wanted = repr(text) if text else "nothing more"
            found = repr(self.token.text) if self.token.text else "the end"
            raise ExpressionError(f"expected {wanted}, found {found} at column {self.token.column}")
        if text:
            self.advance()

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ExpressionError(f"nested more than {_DEEPEST} levels deep")

    def ternary(self) -> _Typed:
        self.deeper()
        typed = self.choice()
        self.depth -= 1
        return typed

    def choice(self) -> _Typed:
        condition = self.binary(0)
        if not self.is_op("?"):
            return condition
        self.advance()
        self.demand(condition, BOOL, "?")
        first = self.ternary()
        self.expect(":")
        second = self.ternary()
        if first.type != second.type:
            raise ExpressionError(f"both sides of ? : must be alike, not {first.type} and {second.type}")
        return _Typed(first.type, first.label)

    def binary(self, level: int) -> _Typed:
        if level == len(_LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.is_op(*_LEVELS[level]):
            op = self.advance().text
            left = self.combine(left, op, self.binary(level + 1))
        return left

    def combine(self, left: _Typed, op: str, right: _Typed) -> _Typed:
        if op in ("&&", "||"):
            self.demand(left, BOOL, op)
            self.demand(right, BOOL, op)
            return _Typed(BOOL, op)
        if op == "in":
            if not right.type.startswith("list<"):
                raise ExpressionError(f"`in` needs a list on its right, {_types(right)}")
            self.comparable(left, op, _Typed(right.type[5:-1], right.label, right.choices, right.literals))
            return _Typed(BOOL, op)
        if op in ("==", "!=", "<", "<=", ">", ">="):
            self.comparable(left, op, right)
            if op not in ("==", "!=") and left.type not in _NUMBERS:
                raise ExpressionError(f"{left.label} ({left.type}) has no order, {op} cannot compare it")
            return _Typed(BOOL, op)
        return self.arithmetic(left, op, right)

    def comparable(self, left: _Typed, op: str, right: _Typed) -> None:
        numbers = left.type in _NUMBERS and right.type in _NUMBERS
        if left.type != right.type and not numbers and right.type != "nothing":
            raise ExpressionError(f"{_types(left, right)}: {op} cannot compare them")
        for side, other in ((left, right), (right, left)):
            for value in other.literals if side.choices else ():
                if value not in side.choices:
                    hint = suggestion(str(value), [str(c) for c in side.choices])
                    raise ExpressionError(f"{side.label} is never {value!r}{hint}")

    def arithmetic(self, left: _Typed, op: str, right: _Typed) -> _Typed:
        allowed = (INT,) if op == "%" else (INT, DOUBLE, STRING) if op == "+" else _NUMBERS
        for side in (left, right):
            if side.type not in allowed:
                raise ExpressionError(f"{side.label} is of type {side.type}: {op} cannot use it")
        if left.type != right.type:
            raise ExpressionError(
                f"{_types(left, right)}: {op} takes two alike (write 2.0 for 2, or double(x))"
            )
        return _Typed(left.type, f"{left.label} {op} {right.label}")

    def demand(self, typed: _Typed, wanted: str, op: str) -> None:
        if typed.type != wanted:
            raise ExpressionError(f"{typed.label} is of type {typed.type}, {op} needs type {wanted}")

    def unary(self) -> _Typed:
        self.deeper()
        typed = self.signed()
        self.depth -= 1
        return typed

    def signed(self) -> _Typed:
        if self.is_op("!"):
            self.advance()
            self.demand(operand := self.unary(), BOOL, "!")
            return _Typed(BOOL, f"!{operand.label}")
        if self.is_op("-"):
            self.advance()
            operand = self.unary()
            if operand.type not in _NUMBERS:
                raise ExpressionError(f"{operand.label} is of type {operand.type}, - needs a number")
            return _Typed(operand.type, f"-{operand.label}")
        return self.member(self.primary())

    def member(self, value: _Typed) -> _Typed:
        while self.is_op(".", "["):
            if self.advance().text == "[":
                index = self.ternary()
                self.expect("]")
                self.demand(index, INT, "[]")
                if not value.type.startswith("list<"):
                    raise ExpressionError(f"{value.label} is of type {value.type}, it has no items")
                value = _Typed(value.type[5:-1], f"{value.label}[]")
            else:
                value = self.method(value, self.advance().text)
        return value

    def method(self, value: _Typed, name: str) -> _Typed:
        self.expect("(")
        label = f"{value.label}.{name}()"
        if name == "size":
            self.expect(")")
            return self.size(value)
        if name in _MACROS:
            return self.macro(value, label)
        if name not in _METHODS:
            raise ExpressionError(f"unknown function {name!r}{suggestion(name, [*_METHODS, *_MACROS])}")
        self.demand(value, STRING, label)
        self.demand(self.ternary(), STRING, label)
        self.expect(")")
        return _Typed(BOOL, label)

    def macro(self, value: _Typed, label: str) -> _Typed:
        if not value.type.startswith("list<"):
            raise ExpressionError(f"{value.label} is of type {value.type}, {label} needs a list")
        variable = self.advance().text
        self.expect(",")
        shadowed = self.bound.get(variable)
        self.bound[variable] = value.type[5:-1]
        self.demand(self.ternary(), BOOL, label)
        self.expect(")")
        if shadowed is None:
            del self.bound[variable]
        else:
            self.bound[variable] = shadowed
        return _Typed(BOOL, label)

    def size(self, value: _Typed) -> _Typed:
        if value.type != STRING and not value.type.startswith("list<"):
            raise ExpressionError(f"{value.label} is of type {value.type}, it has no size")
        return _Typed(INT, f"size({value.label})")

    def primary(self) -> _Typed:
        token = self.advance()
        readers: Mapping[str, Callable[[_Token], _Typed]] = {
            "int": lambda t: _Typed(INT, t.text, (), (int(t.text),)),
            "double": lambda t: _Typed(DOUBLE, t.text, (), (float(t.text),)),
            "string": lambda t: _Typed(STRING, t.text, (), (t.text[1:-1],)),
            "name": self.name,
        }
        if token.kind in readers:
            return readers[token.kind](token)
        if token.text == "(":
            inner = self.ternary()
            self.expect(")")
            return inner
        if token.text == "[":
            return self.listing()
        found = repr(token.text) if token.text else "the end"
        raise ExpressionError(f"expected a value, found {found} at column {token.column}")

    def listing(self) -> _Typed:
        items: list[_Typed] = []
        while not self.is_op("]"):
            items.append(self.ternary())
            if not self.is_op("]"):
                self.expect(",")
        self.advance()
        kinds = sorted({item.type for item in items}) or ["nothing"]
        if len(kinds) > 1:
            raise ExpressionError(f"a list must hold one type, not {' and '.join(kinds)}")
        literals = tuple(value for item in items for value in item.literals)
        return _Typed(f"list<{kinds[0]}>", "the list", (), literals)

    def name(self, token: _Token) -> _Typed:
        word = token.text
        if word in ("true", "false"):
            return _Typed(BOOL, word, (), (word == "true",))
        if word in self.bound:
            return _Typed(self.bound[word], word)
        if self.is_op("("):
            return self.call(word)
        if word not in self.roots:
            why = "this file cannot speak of" if word in ROOTS else "unknown name"
            raise ExpressionError(f"{why} {word!r}{suggestion(word, self.roots)}")
        self.expect(".")
        return self.path(word, self.advance().text)

    def path(self, root: str, field: str) -> _Typed:
        names: Mapping[str, Name] = ROOTS[root]
        if field not in names:
            raise ExpressionError(f"unknown name '{root}.{field}'{suggestion(field, list(names))}")
        self.paths.add(f"{root}.{field}")
        spec = names[field]
        return _Typed(spec.type, f"{root}.{field}", choices(root, field))

    def call(self, word: str) -> _Typed:
        self.advance()
        if word not in ("has", "size", *_CONVERSIONS):
            raise ExpressionError(
                f"unknown function {word!r}{suggestion(word, ['has', 'size', *_CONVERSIONS])}"
            )
        value = self.ternary()
        self.expect(")")
        if word == "size":
            return self.size(value)
        if word in _CONVERSIONS:
            return self.convert(word, value)
        if value.label not in self.paths:
            raise ExpressionError("has() asks about one name, like has(cluster.compute_capability)")
        return _Typed(BOOL, f"has({value.label})")

    def convert(self, word: str, value: _Typed) -> _Typed:
        if value.type not in (INT, DOUBLE, STRING):
            raise ExpressionError(f"{value.label} is of type {value.type}, {word}() cannot convert it")
        return _Typed(_CONVERSIONS[word], f"{word}({value.label})")
