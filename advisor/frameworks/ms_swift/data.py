"""Rows and columns as ms-swift reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.facts import rows
from advisor.frameworks.base import DataNeed, data_kind
from advisor.frameworks.table import (
    ABSENT,
    Job,
)
from advisor.plan import Plan

READS = {
    "text": ("text",),
    "conversation": ("messages", "sharegpt", "alpaca", "prompt-completion"),
    "preference": ("preference", "preference-messages"),
    "label": ("kto",),
    "prompts": ("rl-prompts",),
}
SPELLED = ("prompt-completion", "preference-messages", "kto", "rl-prompts")
"""Formats whose rows are rewritten to `messages` on the way into the repo."""
ANSWERS = {"chosen": "response", "rejected": "rejected_response"}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "text": {"text": "response"},
    "messages": {"messages": "messages", "tools": "tools"},
    "sharegpt": {"conversations": "messages", "system": "system", "tools": "tools"},
    "alpaca": {name: name for name in ("instruction", "input", "output", "system", "history")},
    "preference": {"prompt": "query", **ANSWERS},
}
"""Format -> its field -> the column that ms-swift calls so."""
MUST_BE_MAPPED = ("text", "preference")
"""Formats that ms-swift does not recognise by itself: without the mapping the rejected answer is lost."""
HUB_TURNS = {"chosen": "messages", "rejected": "rejected_messages"}


def spell(row: dict[str, Any], format: str) -> dict[str, Any]:
    """The row with its turns in `messages` (and `rejected_messages`), other columns kept."""
    if format not in SPELLED:
        return row
    parsed = rows.neutral(row, format)
    extra = {"tools": parsed["tools"]} if parsed["tools"] else {}
    if format == "prompt-completion":
        return {"messages": parsed["messages"], **extra}
    prompt = parsed["prompt"]
    if format == "kto":
        return {"messages": [*prompt, *parsed["completion"]], "label": parsed["label"], **extra}
    if format == "rl-prompts":
        others = {name: value for name, value in parsed["extra"].items() if name != "messages"}
        return {**others, "messages": prompt, "solution": parsed["solution"], **extra}
    return {
        "messages": [*prompt, *parsed["chosen"]],
        "rejected_messages": [*prompt, *parsed["rejected"]],
        **extra,
    }


def columns(plan: Plan, job: Job) -> Any:
    """The user's columns -> ms-swift's, where it would not find them by itself."""
    format = job.data_format
    if format == "preference-messages" and not job.data_local:
        return dict(HUB_TURNS)
    if format not in COLUMNS:
        return ABSENT
    renamed: Mapping[str, str] = job.data_extra.get("mapping", {})
    there = set(job.data_extra.get("columns", ())) or set(COLUMNS[format])
    found: dict[str, str] = {}
    for field, name in COLUMNS[format].items():
        column = renamed.get(field, field)
        if column in there and column != name and (format in MUST_BE_MAPPED or field in renamed):
            found[column] = name
    return found or ABSENT


def data_need(plan: Plan) -> DataNeed:
    return DataNeed(READS[data_kind(plan.method)], spell, SPELLED)
