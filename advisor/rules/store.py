"""Finds the rules, and keeps them compiled: checked once, read back as JSON while nothing has changed.

The compiled copy carries a digest of everything it depends on (the rules files and the code that checks
them), so one that is out of date is never used, whatever the clocks and the file times say.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import advisor
from advisor.errors import RuleError

_PACKAGE = Path(advisor.__file__).parent


def sources(root: Path) -> list[tuple[str, Path]]:
    """The rules files that are compiled, by their names below `rules/`, in order."""
    found: list[tuple[str, Path]] = []
    for folder in ("frameworks", "selection"):
        paths = sorted((root / folder).glob("*.yaml"))
        found += [(f"{folder}/{path.name}", path) for path in paths]
    return found


def digest(root: Path) -> str:
    """Of the rules files and of the code that decides what they mean."""
    engine = [f"rules/{path.name}" for path in sorted((_PACKAGE / "rules").glob("*.py"))]
    code = [(name, _PACKAGE / name) for name in (*engine, "plan.py", "frameworks/__init__.py")]
    total = hashlib.blake2b(digest_size=20)
    for name, path in [*code, *sources(root)]:
        content = path.read_bytes()
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def compile_documents(root: Path) -> dict[str, Any]:
    """Reads and checks every rules file: the slow path."""
    # Imported here: the fast path needs neither YAML nor the checks.
    from advisor.rules.schema import framework_document, selection_document
    from advisor.rules.source import read_yaml

    seen: dict[str, str] = {}
    frameworks: dict[str, Any] = {}
    selection: dict[str, Any] = {}
    before = digest(root)
    for name, path in sources(root):
        node = read_yaml(path, f"rules/{name}", shipped=True)
        if name.startswith("selection/"):
            selection[name] = selection_document(node, seen)
            continue
        document = framework_document(node, seen)
        if document["framework"] != path.stem:
            raise RuleError(
                f"rules/{name}:1: the file is named {path.stem}, its framework {document['framework']}"
            )
        frameworks[path.stem] = document
    # A file edited while it was read belongs to neither digest: such a copy matches nothing.
    after = digest(root)
    return {"digest": after if after == before else "", "frameworks": frameworks, "selection": selection}


def cache_path(root: Path) -> Path:
    """Where this checkout's compiled copy is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = hashlib.blake2b(str(root.resolve()).encode(), digest_size=6).hexdigest()
    return Path(base) / "posttrain-advisor" / f"rules-{place}.json"


def load_documents(root: Path) -> Mapping[str, Any]:
    """All rules as checked plain data: shipped compiled, from the user's cache, or compiled now."""
    current = digest(root)
    cached = cache_path(root)
    for path in (root / "compiled.json", cached):
        with suppress(OSError, ValueError):
            documents = json.loads(path.read_bytes())
            if isinstance(documents, dict) and documents.get("digest") == current:
                return documents
    documents = compile_documents(root)
    # A cache that cannot be written (read-only home) costs time, not the answer.
    with suppress(OSError):
        write_atomically(cached, json.dumps(documents, separators=(",", ":")))
    return documents


def write_atomically(path: Path, text: str) -> None:
    """Other runs see the old file or the new one."""
    # Imported here: few runs write.
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise
