"""What a release of a framework accepts: keys, types, choices and defaults, from the snapshots in rules/schemas/.

A snapshot is read when it is first asked for. Its documents are what the framework reads as one: the YAML of
a command, the overrides of an entry point, the keywords of a call.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from advisor.paths import rules_root
from advisor.releases import release_key

TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str": (str,),
    "list": (list, tuple),
    "dict": (dict,),
}
NAMES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
         "dict": "a mapping"}  # fmt: skip
NUMBER = re.compile(r"^[-+]?\d+(\.\d*)?([eE][-+]?\d+)?$")


class NoSnapshot(LookupError):
    """There is no snapshot of this release, or no such document in it."""


class NotAccepted(RuntimeError):
    """What was rendered is not what the release takes: a fault of ours."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One key that a document takes. `a.b` stands below `a`, `a[].b` in each element of the list `a`."""

    key: str
    types: tuple[str, ...]
    """int, float, bool, str, list, dict; any: nothing is known of the value."""
    of: tuple[str, ...] = ()
    """Types of a list's elements, where they are known."""
    words: bool = False
    """Whether the value reaches the parser as words of a command line: a single element does for a list."""
    optional: bool = False
    choices: tuple[Any, ...] = ()
    """They bind values of their own types only."""
    default: Any = None
    has_default: bool = False
    """Whether `default` is known; it is not for a required key, and for one that a program computes."""
    required: bool = False
    open: bool = False
    """Whether keys that nobody declared may stand below."""
    added: bool = False
    """In no shipped file: a command line adds it with a sign of its own."""
    requires: tuple[tuple[str, str], ...] = ()
    """(list key, element): taken only where that list names the element."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A key that a release would refuse or drop."""

    key: str
    """Dotted, `a[].b` in the elements of a list."""
    kind: str
    """unknown, value, or requires (taken only where another key says so)."""
    message: str
    title: str
    """Framework, release and document."""

    def __str__(self) -> str:
        return f"{self.key}: {self.message} [{self.title}]"


@dataclass(frozen=True, slots=True)
class Snapshot:
    framework: str
    version: str
    released: str | None
    pairs: Mapping[str, str]
    """Packages whose keys it inherits, with the version they were read from."""
    documents: Mapping[str, Mapping[str, Accepted]]

    def keys(self, document: str) -> Mapping[str, Accepted]:
        """Raises NoSnapshot for a document that is not there."""
        if document not in self.documents:
            known = ", ".join(sorted(self.documents))
            raise NoSnapshot(f"{self.framework} {self.version} has no document {document!r}; it has {known}")
        return self.documents[document]


def versions(framework: str) -> tuple[str, ...]:
    """Releases with a snapshot, newest first."""
    found = (path.stem for path in (rules_root() / "schemas" / framework).glob("*.json"))
    return tuple(sorted(found, key=release_key, reverse=True))


@cache
def load(framework: str, version: str) -> Snapshot:
    """Raises NoSnapshot for a release that was not read."""
    path = rules_root() / "schemas" / framework / f"{version}.json"
    if not path.is_file():
        raise NoSnapshot(f"no snapshot of {framework} {version}; there are {', '.join(versions(framework))}")
    content = json.loads(path.read_text("utf-8"))
    sections = {name: section["keys"] for name, section in content["sections"].items()}
    return Snapshot(
        framework=content["framework"],
        version=content["version"],
        released=content["released"],
        pairs=content["pairs"],
        documents={name: _Lazy(document, sections) for name, document in content["documents"].items()},
    )


class _Lazy(Mapping[str, Accepted]):
    """The keys of a document, put together at the first look: a render needs one document of many."""

    def __init__(self, document: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> None:
        self._document, self._sections = document, sections
        self._rows: dict[str, Any] | None = None

    def _found(self) -> dict[str, Any]:
        if self._rows is None:
            rows: dict[str, Any] = {}
            for name in reversed(self._document["includes"]):
                rows.update(self._sections[name])
            rows.update(self._document["keys"])
            self._rows = rows
        return self._rows

    def __getitem__(self, key: str) -> Accepted:
        return _accepted(key, self._found()[key], self._document.get("words", False))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())


def _accepted(key: str, row: Mapping[str, Any], words: bool) -> Accepted:
    return Accepted(
        key=key,
        types=tuple(row["type"].split("|")),
        of=tuple(row["of"].split("|")) if "of" in row else (),
        words=words,
        optional=row.get("optional", False),
        choices=tuple(row.get("choices", ())),
        default=row.get("default"),
        has_default="default" in row,
        required=row.get("required", False),
        open=row.get("open", False),
        added=row.get("added", False),
        requires=tuple(row.get("requires", {}).items()),
    )


def accepts(framework: str, version: str, document: str, key: str) -> bool:
    """Whether the release takes the key there. Dotted keys look into mappings, `a[].b` into lists.

    Raises NoSnapshot for a release or document that was not read.
    """
    keys = load(framework, version).keys(document)
    return key in keys or _is_branch(keys, key) or _below_open(keys, key)


def problems(framework: str, version: str, document: str, mapping: Mapping[str, Any]) -> list[str]:
    """What the release would refuse or drop in `mapping` (nested, dotted or both), one clear line each.

    Raises NoSnapshot for a release or document that was not read.
    """
    return [str(problem) for problem in find_problems(framework, version, document, mapping)]


def find_problems(framework: str, version: str, document: str, mapping: Mapping[str, Any]) -> list[Problem]:
    """The same, in parts."""
    keys = load(framework, version).keys(document)
    return [*_problems(keys, mapping, mapping, "", f"{framework} {version} ({document})")]


def demand(framework: str, version: str, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises NotAccepted with every problem of these documents; NoSnapshot as `problems` does."""
    found = [
        line for name, content in documents.items() for line in problems(framework, version, name, content)
    ]
    if found:
        raise NotAccepted("; ".join(found))


def _problems(
    keys: Mapping[str, Accepted],
    whole: Mapping[str, Any],
    mapping: Mapping[str, Any],
    prefix: str,
    title: str,
) -> Iterator[Problem]:
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if key in keys:
            accepted = keys[key]
            missing = _missing(accepted, whole)
            wrong = missing or _wrong_value(accepted, value)
            if wrong:
                yield Problem(key, "requires" if missing else "value", wrong, title)
            elif not accepted.open:
                yield from _inner(keys, whole, value, key, title)
        elif _is_branch(keys, key) and isinstance(value, Mapping):
            yield from _problems(keys, whole, value, f"{key}.", title)
        elif not _below_open(keys, key):
            yield Problem(key, "unknown", f"no such key{_nearest(keys, key)}", title)


def _inner(
    keys: Mapping[str, Accepted], whole: Mapping[str, Any], value: Any, key: str, title: str
) -> Iterator[Problem]:
    """Problems below a key whose content is declared; a mapping or list without declared content is free."""
    if isinstance(value, Mapping) and _is_branch(keys, key):
        yield from _problems(keys, whole, value, f"{key}.", title)
    elif isinstance(value, (list, tuple)) and any(other.startswith(f"{key}[].") for other in keys):
        for element in value:
            if isinstance(element, Mapping):
                yield from _problems(keys, whole, element, f"{key}[].", title)


def _is_branch(keys: Mapping[str, Accepted], key: str) -> bool:
    return any(other.startswith(f"{key}.") for other in keys)


def _below_open(keys: Mapping[str, Accepted], key: str) -> bool:
    """Whether a parent takes keys it does not declare: one marked so, or a mapping of which nothing is known."""
    parts = key.split(".")
    for end in range(len(parts) - 1, 0, -1):
        parent = ".".join(parts[:end])
        if parent in keys:
            accepted = keys[parent]
            free = bool({"dict", "any"} & {*accepted.types}) and not _is_branch(keys, parent)
            return accepted.open or free
    return False


def _nearest(keys: Mapping[str, Accepted], key: str) -> str:
    found = difflib.get_close_matches(key, list(keys), n=1, cutoff=0.6)
    if not found:
        # A key under another parent: the last parts tell more than the path.
        last = {other.rpartition(".")[2]: other for other in keys}
        found = [last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], list(last), n=1)]
    return f"; the nearest is {found[0]}" if found else ""


def _missing(accepted: Accepted, whole: Mapping[str, Any]) -> str:
    for listed, element in accepted.requires:
        if element not in (whole.get(listed) or ()):
            return f"is read only where {listed} names {element}"
    return ""


def _wrong_value(accepted: Accepted, value: Any) -> str:
    if value is None:
        return _wrong_null(accepted)
    if "any" in accepted.types:
        return ""
    if accepted.words and "list" in accepted.types and not isinstance(value, (list, tuple)):
        value = [value]
    if isinstance(value, (list, tuple)) and "list" in accepted.types:
        return _wrong_element(accepted, value)
    if not _fits(accepted.types, value, accepted.words):
        return f"{value!r} given; it takes {_wanted(accepted)}{_number_hint(value)}"
    if accepted.choices and value not in accepted.choices and _binds(accepted.choices, value):
        close = difflib.get_close_matches(str(value), [str(choice) for choice in accepted.choices], n=1)
        nearest = f"; the nearest is {close[0]}" if close else ""
        return f"{value!r} given; it takes {_wanted(accepted)}{nearest}"
    return ""


def _wrong_null(accepted: Accepted) -> str:
    if accepted.words:
        return "null given, which arrives as the text None; leave the key out"
    fine = accepted.optional or "any" in accepted.types or (accepted.has_default and accepted.default is None)
    return "" if fine else f"null given; it takes {_wanted(accepted)}"


def _wrong_element(accepted: Accepted, values: Iterable[Any]) -> str:
    """Elements of a list; a mapping in it is looked into key by key elsewhere."""
    if not accepted.of:
        return ""
    bad = [v for v in values if not isinstance(v, Mapping) and not _fits(accepted.of, v, accepted.words)]
    if not bad:
        return ""
    wanted = " or ".join(NAMES[name] for name in accepted.of)
    return f"{bad[0]!r} in the list; each element is {wanted}{_number_hint(bad[0])}"


def _fits(types: Iterable[str], value: Any, words: bool) -> bool:
    """As a word of a command line anything but a list does for a text (a mapping is written as JSON), and the
    text of a number for the number."""
    if words and ("str" in types or ("float" in types and isinstance(value, str) and NUMBER.match(value))):
        return True
    return any(_is(value, name) for name in types)


def _number_hint(value: Any) -> str:
    if isinstance(value, str) and NUMBER.match(value):
        return " (a number in quotes, or one like 1e-5 that YAML takes for text: write 1.0e-5)"
    return ""


def _is(value: Any, name: str) -> bool:
    """Whether a value has a type; true and false are no numbers."""
    return isinstance(value, TYPES[name]) and (name == "bool" or not isinstance(value, bool))


def _binds(choices: tuple[Any, ...], value: Any) -> bool:
    return any(type(choice) is type(value) for choice in choices)


def _wanted(accepted: Accepted) -> str:
    free = [name for name in accepted.types if not any(_is(choice, name) for choice in accepted.choices)]
    listed = [str(choice) for choice in accepted.choices]
    return " or ".join([*(", ".join(listed) for _ in listed[:1]), *(NAMES[name] for name in free)])
