"""A folder on disk, whole or not at all."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from advisor.errors import RefusedOverwrite
from advisor.frameworks.base import Emitted


def refuse_non_empty(target: Path, force: bool) -> None:
    """Raises RefusedOverwrite unless the folder is absent, empty or may be overwritten."""
    if target.exists() and not target.is_dir():
        raise RefusedOverwrite(f"{target} is a file; give a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise RefusedOverwrite(
            f"{target} is not empty; give another folder, or --force to overwrite files in it"
        )


def write_starter(target: Path, files: Iterable[Emitted], *, force: bool) -> list[Path]:
    """Writes every file below `target`: all are laid out in a temporary folder beside it first.

    With `force`, files that are there and are not ours stay. Raises RefusedOverwrite.
    """
    refuse_non_empty(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        written = [_write(staging, file) for file in files]
        if target.is_dir() and any(target.iterdir()):
            for path in written:
                place = target / path.relative_to(staging)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
        else:
            if target.is_dir():
                target.rmdir()
            staging.chmod(0o755)
            os.replace(staging, target)
        return [target / path.relative_to(staging) for path in written]
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(root: Path, file: Emitted) -> Path:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file.text, encoding="utf-8", newline="\n")
    if file.executable:
        path.chmod(0o755)
    return path


def tree_and_diff(target: Path, files: Sequence[Emitted]) -> str:
    """What a run would write: each path, and a diff against what is there."""
    lines: list[str] = []
    for file in sorted(files, key=lambda file: file.path):
        path = target / file.path
        if not path.exists():
            lines.append(f"new       {file.path}")
            continue
        before = path.read_text(encoding="utf-8", errors="replace")
        if before == file.text:
            lines.append(f"same      {file.path}")
            continue
        lines.append(f"changed   {file.path}")
        lines += difflib.unified_diff(
            before.splitlines(), file.text.splitlines(), f"a/{file.path}", f"b/{file.path}", lineterm=""
        )
    return "\n".join(lines)
