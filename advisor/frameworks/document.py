"""What a table yields: documents, each one ordered mapping with the reason of every line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    key: str
    value: Any
    why: str
    group: str


@dataclass(frozen=True, slots=True)
class Document:
    """One ordered mapping with the reason of each line. Nested keys are dotted in `lines`."""

    name: str
    lines: tuple[Line, ...]

    def mapping(self) -> dict[str, Any]:
        """The nested mapping that the framework reads: `a.b` becomes {a: {b: ...}}."""
        result: dict[str, Any] = {}
        for line in self.lines:
            _set(result, line.key, line.value)
        return result

    def flat(self) -> dict[str, Any]:
        return {line.key: line.value for line in self.lines}

    def groups(self) -> list[tuple[str, list[Line]]]:
        """Lines by group, in order of first appearance; nested keys folded into one block each.

        A key or block that rows of two groups write stands once, in the first of them.
        """
        grouped: dict[str, list[Line]] = {}
        home: dict[str, str] = {}
        for line in self.lines:
            root = line.key.partition(".")[0]
            grouped.setdefault(home.setdefault(root, line.group), []).append(line)
        return [(title, _fold(lines)) for title, lines in grouped.items()]

    def get(self, key: str, default: Any = None) -> Any:
        return self.flat().get(key, default)


def _set(target: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value


def _fold(lines: list[Line]) -> list[Line]:
    folded: dict[str, Line] = {}
    for line in lines:
        root, _, rest = line.key.partition(".")
        if not rest:
            folded[root] = line
            continue
        block: dict[str, Any] = dict(folded[root].value) if root in folded else {}
        _set(block, rest, line.value)
        why = folded[root].why if root in folded else line.why
        folded[root] = Line(root, block, why, line.group)
    return list(folded.values())


@dataclass(frozen=True, slots=True)
class Rendered:
    documents: Mapping[str, Document]

    def __getitem__(self, name: str) -> Document:
        return self.documents.get(name, Document(name, ()))

    def flat(self) -> dict[str, dict[str, Any]]:
        return {name: document.flat() for name, document in self.documents.items()}
