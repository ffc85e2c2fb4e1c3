"""YAML read with the line of every value, and the closed-schema questions that the checks ask of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from advisor.errors import RuleError
from advisor.rules.checker import suggestion


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a rules file: a dict of Nodes, a list of Nodes or a scalar, and where it stands."""

    value: Any
    file: str
    line: int
    row: str = ""
    """Id of the row it belongs to, once that is known."""

    def fail(self, message: str) -> NoReturn:
        row = f" {self.row}:" if self.row else ""
        raise RuleError(f"{self.file}:{self.line}:{row} {message}")

    def of_row(self, row: str) -> Node:
        return Node(self.value, self.file, self.line, row)

    def fields(self, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Node]:
        """The mapping's entries; every required one is there and no other than these."""
        if not isinstance(self.value, dict):
            self.fail(f"expected a mapping with {', '.join(required)}")
        entries: dict[str, Node] = self.value
        for name, node in entries.items():
            if name not in required and name not in optional:
                node.of_row(self.row).fail(f"unknown key {name!r}{suggestion(name, [*required, *optional])}")
        for name in required:
            if name not in entries:
                self.fail(f"{name!r} is missing")
        return {name: node.of_row(self.row) for name, node in entries.items()}

    def items(self) -> list[Node]:
        if not isinstance(self.value, list):
            self.fail("expected a list")
        nodes: list[Node] = self.value
        return [node.of_row(self.row) for node in nodes]

    def entries(self) -> Iterator[tuple[str, Node]]:
        if not isinstance(self.value, dict):
            self.fail("expected a mapping")
        nodes: dict[str, Node] = self.value
        for name, node in nodes.items():
            yield name, node.of_row(self.row)

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.fail(f"expected text, found {self.value!r} (quote it)")
        if not self.value.strip():
            self.fail("must not be empty")
        return " ".join(self.value.split())

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.fail(f"expected true or false, found {self.plain()!r}")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.fail(f"expected a number, found {self.plain()!r}")
        return float(self.value)

    def choice(self, known: Sequence[str]) -> str:
        text = self.text()
        if text not in known:
            self.fail(f"unknown value {text!r}{suggestion(text, known)}")
        return text

    def iso_date(self) -> str:
        text = self.text()
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            self.fail(f"expected a date like 2026-01-31, found {text!r}")

    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.entries()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.items()]
        return self.value


_COLLECTIONS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


def read_yaml(path: Path, shown: str, *, shipped: bool = False) -> Node:
    """The file as Nodes; `shown` is how messages call it.

    Files of our own go through libyaml, which is fast but overruns the stack on absurdly nested ones.
    """
    # Imported here: the compiled rules, which nearly every run uses, need no YAML.
    import yaml

    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader) if shipped else yaml.SafeLoader
    try:
        loader = loader_class(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None:
            raise RuleError(f"{shown}:1: the file is empty")
        return _convert(root, loader, shown)
    except RecursionError as error:
        raise RuleError(f"{shown}:1: nested too deeply, or an alias refers to itself") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"{shown}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise RuleError(
            f"{shown}:{line}: not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from error


def _convert(node: Any, loader: Any, file: str) -> Node:
    line = node.start_mark.line + 1
    if node.id != "scalar" and node.tag not in _COLLECTIONS:
        Node(None, file, line).fail(f"unknown tag {node.tag!r}")
    if node.id == "sequence":
        return Node([_convert(item, loader, file) for item in node.value], file, line)
    if node.id == "mapping":
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            where = Node(None, file, key_node.start_mark.line + 1)
            if key_node.id != "scalar" or key == "<<":
                where.fail("keys must be plain names")
            if key in entries:
                where.fail(f"{key!r} is given twice")
            entries[key] = _at_key(_convert(value_node, loader, file), where.line)
        return Node(entries, file, line)
    value = loader.construct_object(node)
    # The contract writes dates unquoted; everything else here is text, so a date goes back to its text.
    return Node(value.isoformat() if isinstance(value, date) else value, file, line)


def _at_key(node: Node, line: int) -> Node:
    """A block that starts on the line below its key is found by its key."""
    return node if isinstance(node.value, dict | list) else Node(node.value, node.file, line)
