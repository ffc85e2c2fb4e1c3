"""answers.yaml: the request as given, to run again or to update the repo from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advisor.errors import InputError


def read_answers(path: Path) -> dict[str, Any]:
    """The answers in a YAML or JSON file. Raises InputError naming the file and the line at fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError("answers", f"{path}: {error.strerror or error}") from None
    return _mapping(path, _load(path, text))


def _load(path: Path, text: str) -> Any:
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError("answers", f"{path}:{error.lineno}: {error.msg}") from None
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError("answers", f"{path}:{line}: {error.problem or 'not YAML'}") from None


def _mapping(path: Path, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError("answers", f"{path} must hold `field: value` lines, one for each answer")
    return {str(key).replace("-", "_"): value for key, value in content.items()}
