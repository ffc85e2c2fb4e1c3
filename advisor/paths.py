"""Where `rules/` and `templates/` are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def _root() -> Path:
    shipped = _PACKAGE / "_data"
    return shipped if shipped.is_dir() else _PACKAGE.parent


def rules_root() -> Path:
    return _root() / "rules"


def templates_root() -> Path:
    return _root() / "templates"
