"""Hydra's override grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from advisor.frameworks.table import (
    Line,
)

ADDED = re.compile(
    r"override_(transformer|optimizer)_config\.|\.target_parameters$|\.mixed_precision$|^reward\.reward_kwargs\.|^critic\.ppo_infer_"
)
"""Keys that verl's own configuration does not list: hydra wants `++` before them."""
LISTED = ("recompute_granularity", "recompute_method", "recompute_num_layers", "attention_backend")
"""... but these it does list."""
BARE = re.compile(r"[A-Za-z_./][\w./@-]*")


def hydra_value(value: Any) -> str:
    """A value in hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(hydra_value(item) for item in value) + "]"
    text = str(value)
    if BARE.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def override(line: Line) -> str:
    """The line as one word of the command line."""
    listed = line.key.rpartition(".")[2] in LISTED
    sign = "++" if ADDED.search(line.key) and not listed else ""
    return f"{sign}{line.key}={hydra_value(line.value)}"
