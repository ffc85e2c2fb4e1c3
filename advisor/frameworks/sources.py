"""Configuration files as people write them -> nested values with the line of each key.

What a framework makes of them (which file is which of its documents) is said in its own module; here are the
languages: YAML, JSON, TOML, shell command lines, hydra overrides, keyword arguments of a Python script.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from advisor.errors import InputError
from advisor.frameworks.document import Rendered


@dataclass(frozen=True, slots=True)
class Source:
    """What one file says for one document of a framework."""

    path: str
    document: str
    content: Mapping[str, Any]
    """Nested as written."""
    lines: Mapping[str, int] = field(default_factory=dict[str, int])
    """Dotted key -> line."""
    twice: tuple[tuple[str, int], ...] = ()
    """Keys given a second time, with the line; the later value counts."""


Documents = Mapping[str, Mapping[str, Any]]
"""Document -> flat keys."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that only a run of the script would tell."""

    text: str


def _fault(path: str, line: int, message: str) -> InputError:
    return InputError("path", f"{path}:{line}: {message}")


# --- YAML, JSON, TOML -----------------------------------------------------------------------------


def read_yaml(path: str, text: str, document: str) -> Source:
    """YAML, and JSON as a part of it. Raises InputError with file and line."""
    import yaml

    loader = _loader()(text)
    lines: dict[str, int] = {}
    twice: list[tuple[str, int]] = []
    try:
        node = loader.get_single_node()
        if node is None:
            raise _fault(path, 1, "the file is empty")
        if not isinstance(node, yaml.MappingNode):
            raise _fault(path, node.start_mark.line + 1, "`key: value` lines are wanted")
        _mark(node, "", lines, twice)
        content: Any = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or "not valid"
        raise _fault(path, mark.line + 1 if mark else 1, f"not YAML: {reason}") from None
    except RecursionError:
        raise _fault(path, 1, "nested too deeply, or an alias refers to itself") from None
    return Source(path, document, {str(k): v for k, v in content.items()}, lines, tuple(twice))


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e-5 as a number, as the frameworks' own readers end up doing."""

    # A copy of the table: add_implicit_resolver would change yaml.SafeLoader's lists for everyone.
    Loader.yaml_implicit_resolvers = {
        first: list(pairs) for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
    )
    return Loader


def _mark(node: Any, prefix: str, lines: dict[str, int], twice: list[tuple[str, int]]) -> None:
    import yaml

    for key, value in node.value:
        name, line = f"{prefix}{key.value}", key.start_mark.line + 1
        if name in lines:
            twice.append((name, line))
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            _mark(value, f"{name}.", lines, twice)


def read_json(path: str, text: str, document: str) -> Source:
    """JSON; the lines are those of the first place where a key stands. Raises InputError with file and line."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise _fault(path, error.lineno, f"not JSON: {error.msg}") from None
    except RecursionError:
        raise _fault(path, 1, "nested too deeply") from None
    if not isinstance(content, dict):
        raise _fault(path, 1, "an object of keys and values is wanted")
    return Source(path, document, content, _places(text, content, '"{}"'))


def read_toml(path: str, text: str, document: str) -> Source:
    """TOML. Raises InputError with file and line."""
    import tomllib

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise _fault(path, int(found[1]) if found else 1, f"not TOML: {error}") from None
    return Source(path, document, content, _places(text, content, "{}"))


def _places(text: str, content: Mapping[str, Any], quoted: str) -> dict[str, int]:
    rows = text.splitlines()
    found: dict[str, int] = {}
    for name in _names(content, ""):
        written = quoted.format(name.rpartition(".")[2])
        found[name] = next((number for number, row in enumerate(rows, 1) if written in row), 1)
    return found


def _names(content: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in content.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")


# --- shell ----------------------------------------------------------------------------------------

ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)(?::-([^}]*))?\}?")


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    line: int
    ends: bool
    """Whether the command ends with this word."""


def shell_words(path: str, text: str) -> list[Word]:
    """The words of a script in order, comments gone, variables put in where the script itself sets them."""
    found: list[Word] = []
    variables: dict[str, str] = {}
    pending, first = "", 0
    for number, row in enumerate(text.splitlines(), 1):
        first = first or number
        pending += row
        goes_on = pending.endswith("\\")
        try:
            words = shlex.split(pending.removesuffix("\\"), comments=True)
        except ValueError:  # a quote is open: it goes on in the next line
            pending += "\n"
            continue
        alone = len(words) == 1 and (not found or found[-1].ends)
        assigned = ASSIGNED.fullmatch(words[0]) if alone else None
        if assigned:
            variables[assigned[1]] = _expanded(assigned[2], variables)
        for place, word in enumerate(words):
            last = place == len(words) - 1 and not goes_on
            found.append(Word(_expanded(word, variables), first, last))
        pending, first = "", 0
    if pending.strip():
        raise _fault(path, first, "a quote is never closed")
    return found


def _expanded(word: str, variables: Mapping[str, str]) -> str:
    return VARIABLE.sub(lambda m: variables.get(m[1], m[2] if m[2] is not None else m[0]), word)


def scalar(text: str) -> Any:
    """A word as the value it stands for."""
    if "$" in text:
        return Unresolved(text)
    import yaml

    if text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    try:
        value = yaml.load(text, Loader=_loader())
    except yaml.YAMLError:
        return text
    return value if isinstance(value, (bool, int, float)) else text


def read_arguments(path: str, document: str, words: Sequence[Word]) -> Source:
    """`--key value`, `--key=value`, `--key a b c`, `--flag`."""
    content: dict[str, Any] = {}
    lines: dict[str, int] = {}
    twice: list[tuple[str, int]] = []
    name = ""
    for word in words:
        if word.text.startswith("--"):
            name, equals, value = word.text[2:].partition("=")
            name = name.replace("-", "_")
            if name in content:
                twice.append((name, word.line))
            content[name] = scalar(value) if equals else None
            lines[name] = word.line
        elif name:
            value, held = scalar(word.text), content[name]
            content[name] = (
                value if held is None else [*held, value] if isinstance(held, list) else [held, value]
            )
    content = {key: True if value is None else value for key, value in content.items()}
    return Source(path, document, content, lines, tuple(twice))


OVERRIDE = re.compile(r"(?:\+\+|\+|~)?([A-Za-z_]\w*(?:[./][\w@-]+)*)=(.*)", re.DOTALL)


def read_overrides(path: str, document: str, words: Sequence[Word], groups: Sequence[str] = ()) -> Source:
    """Hydra's `a.b=value` words, flat: the keys stay dotted. `groups`: keys that have no dot."""
    content: dict[str, Any] = {}
    lines: dict[str, int] = {}
    twice: list[tuple[str, int]] = []
    for word in words:
        found = OVERRIDE.fullmatch(word.text)
        if not found or not ("." in found[1] or "/" in found[1] or found[1] in groups):
            continue
        if found[1] in content:
            twice.append((found[1], word.line))
        content[found[1]] = hydra_value(found[2])
        lines[found[1]] = word.line
    return Source(path, document, content, lines, tuple(twice))


_HYDRA = re.compile(r"\s*(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([\[\]{},:])|([^\[\]{},:]+))")


def hydra_value(text: str) -> Any:
    """A value of hydra's override grammar; what it cannot read stays text."""
    if "$" in text and "\\$" not in text:
        return Unresolved(text)
    tokens = [m for m in _HYDRA.finditer(text) if m[0].strip()]
    if not tokens or text[0] not in "[{'\"":
        return None if text in ("null", "") else scalar(text)
    try:
        value, rest = _hydra(tokens)
    except (IndexError, ValueError):
        return text
    return text if rest else value


def _hydra(tokens: list[re.Match[str]]) -> tuple[Any, list[re.Match[str]]]:
    head, rest = tokens[0], tokens[1:]
    if head[1] is not None or head[2] is not None:
        return re.sub(r"\\(.)", r"\1", head[1] if head[1] is not None else head[2]), rest
    if head[4] is not None:
        return (None if head[4].strip() == "null" else scalar(head[4].strip())), rest
    if head[3] == "[":
        items: list[Any] = []
        while rest[0][3] != "]":
            item, rest = _hydra(rest)
            items.append(item)
            rest = rest[1:] if rest[0][3] == "," else rest
        return items, rest[1:]
    if head[3] == "{":
        mapping: dict[str, Any] = {}
        while rest[0][3] != "}":
            key, rest = _hydra(rest)
            if rest[0][3] != ":":
                raise ValueError(":")
            mapping[str(key)], rest = _hydra(rest[1:])
            rest = rest[1:] if rest[0][3] == "," else rest
        return mapping, rest[1:]
    raise ValueError(head[3])


# --- Python ---------------------------------------------------------------------------------------


def python_tree(path: str, text: str) -> ast.Module:
    """Raises InputError with file and line."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise _fault(path, error.lineno or 1, f"not Python: {error.msg}") from None


def keywords_of(path: str, document: str, call: ast.Call) -> Source:
    """The keyword arguments of one call; `**name` is left to the caller."""
    content = {word.arg: _literal(word.value) for word in call.keywords if word.arg}
    return Source(
        path, document, content, {word.arg: word.value.lineno for word in call.keywords if word.arg}
    )


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return Unresolved(ast.unparse(node))


# --- files ----------------------------------------------------------------------------------------

READERS = {".yaml": read_yaml, ".yml": read_yaml, ".json": read_json, ".toml": read_toml}


def read_mapping(path: str, text: str, document: str) -> Source:
    """By the file's suffix. Raises InputError."""
    suffix = "." + path.rpartition(".")[2].lower()
    if suffix not in READERS:
        raise InputError("path", f"{path}: {suffix} is not read here; give {', '.join(READERS)}")
    return READERS[suffix](path, text, document)


# --- what a framework says of its files -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Given:
    """The file that a check starts from, and what stands around it."""

    path: str
    """As messages call it."""
    text: str
    look: Callable[[str], str | None]
    """The text of another file of the same folder by its relative path; None: there is none."""
    argv: tuple[str, ...] = ()
    """The framework's own command, where it is known."""

    def beside(self, name: str) -> str:
        """How messages call a file beside this one."""
        folder, slash, _ = self.path.rpartition("/")
        return f"{folder}{slash}{name}"

    def other(self, name: Any, document: str) -> list[Source]:
        """The document in a file that this one names; nothing where that is no path or not there."""
        text = self.look(name) if isinstance(name, str) else None
        return [] if text is None else [read_mapping(self.beside(str(name)), text, document)]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a framework's files are recognised and taken in: the inverse of its `files`."""

    signs: str
    """Pattern of text that only this framework's files hold (commands, imports)."""
    names: tuple[str, ...]
    """What the configuration is called in a starter repo."""
    read: Callable[[Given], list[Source]]
    model: tuple[str, ...]
    """`document:key`s, one of which names the model."""
    targets: tuple[str, ...]
    """`document:key`s, one of which names the modules with adapters."""
    schemas: Callable[[Documents], Mapping[str, str]]
    """Flat documents -> for each of the table's documents that has a schema, what rules/schemas calls it."""
    schema_names: Mapping[str, str]
    """Document of the table -> pattern of all its names in rules/schemas."""

    dotted: bool = False
    """Whether the framework itself is given dotted keys."""
    outside: Callable[[Documents], Mapping[str, Any]] = lambda documents: {}
    """Flat documents -> plan fields that no key holds alone, but several together tell."""

    def by_schema(self, rendered: Rendered) -> dict[str, Mapping[str, Any]]:
        """What a release reads of a render: name in rules/schemas -> keys and values."""
        found: dict[str, Mapping[str, Any]] = {}
        for document, name in self.schemas(rendered.flat()).items():
            each = rendered[document]
            if each.lines:
                found[name] = {**(each.flat() if self.dotted else each.mapping()), **found.get(name, {})}
        return found


def argv_of(text: str, programs: Sequence[str]) -> tuple[str, ...]:
    """The command in a comment at the head of a file, as starters have it; empty: there is none."""
    for row in text.splitlines()[:3]:
        words = row.lstrip("#").split()
        if row.startswith("#") and words and words[0] in programs:
            return tuple(words)
    return ()


def command_words(words: Sequence[Word], programs: Sequence[str]) -> list[Word]:
    """The words of the first command that runs one of these programs, from that program on."""
    for start, word in enumerate(words):
        if word.text.rpartition("/")[2] in programs:
            end = next(n for n in range(start, len(words)) if words[n].ends)
            return list(words[start : end + 1])
    return []


def merged(one: Source, other: Source) -> Source:
    """Both, where the other's keys win: what follows a file on its command line."""
    return Source(
        one.path,
        one.document,
        {**one.content, **other.content},
        {**one.lines, **other.lines},
        one.twice + other.twice,
    )
