"""PATH -> which framework, which release, and its documents as they stand on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advisor.errors import InputError
from advisor.frameworks import NAMES, framework
from advisor.frameworks.sources import READERS, Given, Source, read_mapping
from advisor.request import Request
from advisor.starter.answers import read_answers

ADVICE, ANSWERS = "advice.json", "answers.yaml"
LARGEST_BYTES = 4_000_000
"""More than any configuration; a checkpoint given by mistake is not read."""


@dataclass(frozen=True, slots=True)
class Gathered:
    path: str
    framework: str
    version: str
    sources: tuple[Source, ...]
    advice: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """advice.json of the starter repo; empty for a file alone."""
    answers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The request of the repo, where there is one."""
    missing: tuple[str, ...] = ()
    """Files that advice.json lists and the repo lacks."""


def gather(path: Path, request: Request) -> Gathered:
    """Raises InputError for a path that cannot be read or that no framework reads."""
    if not path.exists():
        raise InputError("path", f"{path}: there is no such file or folder")
    return _repo(path, request) if path.is_dir() else _file(path, request)


def _known(request: Request) -> str | None:
    """The framework that was given. Raises InputError for one that there is none of."""
    if request.framework not in (None, *NAMES):
        raise InputError("framework", f"{request.framework!r} is not known; there are {', '.join(NAMES)}")
    return request.framework


def read_text(path: Path, shown: str = "") -> str:
    shown = shown or str(path)
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError("path", f"{shown}: larger than any configuration; give the file of settings")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError("path", f"{shown}: not a text file") from None
    except OSError as error:
        raise InputError("path", f"{shown}: {error.strerror or error}") from None


# --- a starter repo -------------------------------------------------------------------------------


def _repo(folder: Path, request: Request) -> Gathered:
    advice = _advice(folder)
    answers = read_answers(folder / ANSWERS) if (folder / ANSWERS).is_file() else {}
    if not advice and not answers:
        raise InputError(
            "path", f"{folder}: neither {ADVICE} nor {ANSWERS} in it; give the configuration file itself"
        )
    name = _known(request) or advice.get("framework") or answers.get("framework")
    if name not in NAMES:
        raise InputError("framework", f"{folder} does not say which framework it is for; pass --framework")
    files: Mapping[str, list[str]] = advice.get("files", {})
    config = _config(folder, str(name), files)
    argv = tuple(str(word) for word in advice.get("command", ()))
    given = Given(str(config), read_text(config), _looker(folder), argv)
    missing = sorted(each for listed in files.values() for each in listed if not (folder / each).exists())
    return Gathered(
        str(folder),
        str(name),
        str(request.framework_version or advice.get("version") or answers.get("framework_version") or ""),
        tuple(framework(str(name)).READING.read(given)),
        advice,
        advice.get("request") or answers,
        tuple(missing),
    )


def _advice(folder: Path) -> dict[str, Any]:
    path = folder / ADVICE
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError("path", f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(content, dict) or not isinstance(content.get("files", {}), dict):
        raise InputError("path", f"{path}: not an advice")
    return content


def _config(folder: Path, name: str, files: Mapping[str, list[str]]) -> Path:
    names = framework(name).READING.names
    for each in names:
        if (folder / each).is_file():
            return folder / each
    listed = ", ".join(names)
    raise InputError("path", f"{folder}: {listed} is not there; give the configuration file itself")


def _looker(folder: Path) -> Any:
    """Texts of files below the folder; a path that leads out of it is not followed."""

    def look(name: str) -> str | None:
        path = (folder / name).resolve()
        inside = folder.resolve() in path.parents
        return read_text(path, str(folder / name)) if inside and path.is_file() else None

    return look


# --- a file alone ---------------------------------------------------------------------------------


def _file(path: Path, request: Request) -> Gathered:
    text = read_text(path)
    name = _known(request) or detect(path, text)
    reading = framework(name).READING
    sources = reading.read(Given(str(path), text, _looker(path.parent)))
    if not any(source.content for source in sources):
        raise InputError("path", f"{path}: no setting of {name} found in it")
    return Gathered(str(path), name, request.framework_version or "", tuple(sources))


def detect(path: Path, text: str) -> str:
    """The framework of a file: by what only its files say, else by whose keys it has. Raises InputError."""
    signed = [name for name in NAMES if re.search(framework(name).READING.signs, text)]
    if len(signed) == 1:
        return signed[0]
    if path.suffix.lower() not in READERS:
        between = f"it names {' and '.join(signed)}" if signed else "it calls none of the six"
        raise InputError("framework", f"{path}: {between}; pass --framework")
    from advisor.check.keys import share_known

    content = read_mapping(str(path), text, "").content
    shares = sorted(((share_known(name, content), name) for name in signed or NAMES), reverse=True)
    best, second = shares[0], shares[1]
    if best[0] < 0.5 or best[0] == second[0]:
        close = " or ".join(name for share, name in shares if share == best[0] and share)
        why = f"it could be of {close}" if close else "its keys are of none of the six"
        raise InputError("framework", f"{path}: {why}; pass --framework")
    return best[1]
