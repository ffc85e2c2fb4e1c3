"""The six frameworks. A module is imported only when it is asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import cast

from advisor.frameworks.base import Framework

MODULES = {
    "trl": "advisor.frameworks.trl",
    "axolotl": "advisor.frameworks.axolotl",
    "llamafactory": "advisor.frameworks.llamafactory",
    "ms-swift": "advisor.frameworks.ms_swift",
    "unsloth": "advisor.frameworks.unsloth",
    "verl": "advisor.frameworks.verl",
}

NAMES = tuple(MODULES)


@cache
def framework(name: str) -> Framework:
    """The module of one framework. Raises KeyError for an unknown name (input is checked earlier)."""
    return cast(Framework, import_module(MODULES[name]))
