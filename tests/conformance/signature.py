"""What a configuration says, whatever its language: its settings, what distinguishes it, and a digest."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

Setting = tuple[str, Any]
"""(path of the key, value)"""

_OVERRIDE = re.compile(r"\+{0,2}(?P<key>[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*")
_FREE = re.compile(
    r"(^|[._])(run_name|name|names|.*_name|.*_dir|.*path|.*_files?|seed|project|experiment|split|dataset|.*model_id)$"
)
"""Last part of keys whose values are names and places, not choices."""


def settings(file: Path) -> list[Setting]:
    """Every key of a configuration file with its value, nested keys by their path."""
    text = file.read_text("utf-8")
    match file.suffix:
        case ".py":
            found = _of_python(text)
        case ".sh":
            found = _of_shell(text)
        case _:
            found = _flat("", yaml.safe_load(text))
    return [(f"{file.name}:{key}", value) for key, value in found]


def _flat(key: str, value: Any) -> Iterator[Setting]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for inner in value:
            yield from _flat(f"{key}[]", inner)
    else:
        yield key, value


def _of_shell(text: str) -> Iterator[Setting]:
    """The key=value words of a script, as Hydra reads them."""
    for word in shlex.split(text, comments=True):
        found = _OVERRIDE.fullmatch(word)
        if found and "$" not in word:
            yield found["key"], yaml.safe_load(found["value"])


def _of_python(text: str) -> Iterator[Setting]:
    """The keyword arguments of every call and the imported names."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield f"import {node.module}.{name.name}", True
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            for keyword in node.keywords:
                yield f"{called}.{keyword.arg}", _constant(keyword.value)


def _constant(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def signature(found: Iterable[Setting]) -> str:
    """The keys, and of the values those that are one of a few: true, false, null and words."""
    kept = sorted({f"{key}={_choice(key, value)}" for key, value in found})
    return hashlib.blake2b("\n".join(kept).encode(), digest_size=8).hexdigest()


def _choice(key: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if _FREE.search(key):
        return ""
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else ""
    if isinstance(value, list):
        return ",".join(sorted(_choice(key, item) for item in value))
    return ""


def digest(found: Iterable[Setting]) -> str:
    """Of every key and value."""
    text = json.dumps(sorted(found, key=repr), default=str, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
