"""A snapshot: which keys the documents of one release take; how it is built up and written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.schema_sources.code import Code
from tools.schema_sources.rows import Row, Section, own_rows, owners


@dataclass(slots=True)
class Document:
    """Keys of the included sections, the first that has a key deciding; its own keys come before all."""

    includes: list[str] = field(default_factory=list)
    keys: dict[str, Row] = field(default_factory=dict)
    words: bool = False
    """Values reach the parser as words of a command line: one word does for a list, anything for a text."""


@dataclass(slots=True)
class Schema:
    sections: dict[str, Section] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)

    def add_classes(self, name: str, code: Code, references: Iterable[str]) -> Document:
        """A document that takes the keys of these classes (`module:Class`), own and inherited.

        Raises Unknown when a class is not there.
        """
        document = self.documents.setdefault(name, Document())
        for reference in references:
            definition = code.class_at(reference)
            held = owners(code, definition)
            for each in code.mro(definition):
                section = self._section(code, each)
                if not section.keys:
                    continue
                label = next(label for label, known in self.sections.items() if known is section)
                if label not in document.includes:
                    document.includes.append(label)
                for key, row in section.keys.items():
                    owner = held.get(_root(key))
                    if owner == each and self.row(document, key) != row:
                        document.keys[key] = row
        return document

    def _section(self, code: Code, definition: Any) -> Section:
        origin = code.origin(definition)
        for section in self.sections.values():
            if section.origin == origin:
                return section
        section = Section(origin, own_rows(code, definition))
        if section.keys:
            label = definition.name
            while label in self.sections:  # two packages, one name: DPOConfig of TRL and DPOConfig of another
                label = f"{definition.module.partition('.')[0]}.{label}"
            self.sections[label] = section
        return section

    def row(self, document: Document, key: str) -> Row | None:
        if key in document.keys:
            return document.keys[key]
        return next(
            (self.sections[i].keys[key] for i in document.includes if key in self.sections[i].keys), None
        )

    def keys(self, name: str) -> dict[str, Row]:
        """Every key of a document with the row that decides."""
        document = self.documents[name]
        found: dict[str, Row] = {}
        for label in reversed(document.includes):
            found |= self.sections[label].keys
        return found | document.keys


def _root(key: str) -> str:
    return key.partition(".")[0].partition("[")[0]


def as_text(head: Mapping[str, Any], schema: Schema) -> str:
    """One key a line, keys in order, so that two snapshots can be compared by eye."""
    sections = {
        label: {"from": section.origin, "keys": dict(sorted(section.keys.items()))}
        for label, section in sorted(schema.sections.items())
    }
    documents = {
        name: {
            **({"words": True} if document.words else {}),
            "includes": document.includes,
            "keys": dict(sorted(document.keys.items())),
        }
        for name, document in sorted(schema.documents.items())
    }
    content = {**head, "sections": sections, "documents": documents}
    return _text(content, 0, {"sections": 3, "documents": 3}) + "\n"


def _text(value: Any, level: int, depth: Mapping[str, int], left: int = 1) -> str:
    """JSON with the outer levels spread over lines and the inner ones on one."""
    if not left or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    pad = " " * (level + 1)
    lines = [
        f"{pad}{json.dumps(key)}: {_text(inner, level + 1, {}, depth.get(key, left - 1))}"
        for key, inner in value.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * level + "}"
