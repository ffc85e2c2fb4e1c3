"""The row formats: their columns, and which format a row is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

Row = dict[str, Any]
Message = dict[str, Any]

PROMPT_NAMES = ("prompt", "question", "query", "instruction", "input")
ANSWER_NAMES = ("completion", "response", "output", "answer")
SOLUTION_NAMES = ("solution", "ground_truth", "answer", "final_answer", "reward_model")
MESSAGES_NAMES = ("messages", "conversations", "conversation", "dialogue")
TEXT_NAMES = ("text", "content", "document")
LABEL_NAMES = ("label", "kto_tag")

_TOOLS = {"tools": ("tools",)}
COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "text": {"text": TEXT_NAMES},
    "messages": {"messages": MESSAGES_NAMES, **_TOOLS},
    "sharegpt": {"conversations": ("conversations", "conversation"), "system": ("system",), **_TOOLS},
    "alpaca": {
        "instruction": ("instruction",),
        "input": ("input", "context"),
        "output": ("output", "response", "completion"),
        "system": ("system",),
        "history": ("history",),
    },
    "prompt-completion": {"prompt": PROMPT_NAMES, "completion": ANSWER_NAMES, **_TOOLS},
    "preference": {"prompt": PROMPT_NAMES, "chosen": ("chosen",), "rejected": ("rejected",)},
    "preference-messages": {
        "prompt": PROMPT_NAMES,
        "chosen": ("chosen",),
        "rejected": ("rejected",),
        **_TOOLS,
    },
    "kto": {
        "prompt": (*PROMPT_NAMES, *MESSAGES_NAMES),
        "completion": ANSWER_NAMES,
        "label": LABEL_NAMES,
        **_TOOLS,
    },
    "rl-prompts": {"prompt": (*PROMPT_NAMES, *MESSAGES_NAMES), "solution": SOLUTION_NAMES, **_TOOLS},
}
"""Format -> field -> column names that are read as this field, best first."""

FORMATS = tuple(COLUMNS)


def mapping(row: Mapping[str, Any], format: str) -> dict[str, str]:
    """Field of the format -> the column of this row that holds it."""
    found: dict[str, str] = {}
    for name, candidates in COLUMNS[format].items():
        column = next((c for c in candidates if row.get(c) is not None), None)
        if column is not None:
            found[name] = column
    return found


def solution_column(row: Mapping[str, Any]) -> str | None:
    """The column that holds a checkable solution, if any."""
    return next((c for c in SOLUTION_NAMES if row.get(c) is not None), None)


def guess(row: Mapping[str, Any]) -> str:
    """The format this row is most likely in, by its columns; `unknown` if none."""
    has = {column for column, value in row.items() if value is not None}
    if {"chosen", "rejected"} <= has:
        turns = isinstance(row["chosen"], list) or isinstance(row["rejected"], list)
        return "preference-messages" if turns else "preference"
    if _label_like(row) and has & {*ANSWER_NAMES, *MESSAGES_NAMES}:
        return "kto"
    for column in MESSAGES_NAMES:
        if column in has and (isinstance(row[column], list) or column in ("messages", "conversations")):
            return _guess_turns(row, column)
    return _guess_flat(has, isinstance(row.get("prompt"), list))


def _label_like(row: Mapping[str, Any]) -> bool:
    """Also values that are wrong for a label but leave no doubt what is meant: the row is then reported."""
    values = [row[name] for name in LABEL_NAMES if name in row]
    return any(str(value).lower() in ("true", "false", "0", "1") for value in values)


def _guess_turns(row: Mapping[str, Any], column: str) -> str:
    turns = list_of_objects(row[column])
    if any("from" in turn for turn in turns):
        return "sharegpt"
    answered = any(turn.get("role") == "assistant" for turn in turns)
    return "messages" if answered or not solution_column(row) else "rl-prompts"


def _guess_flat(has: set[str], prompt_is_list: bool) -> str:
    if "prompt" in has:
        answers = {"completion"} if prompt_is_list else {"completion", "response", "output"}
        return "prompt-completion" if has & answers else "rl-prompts"
    if "instruction" in has and has & {"output", "response", "completion"}:
        return "alpaca"
    if has & set(PROMPT_NAMES):
        if has & set(ANSWER_NAMES):
            return "prompt-completion"
        if has & set(SOLUTION_NAMES):
            return "rl-prompts"
    return "text" if has & set(TEXT_NAMES) else "unknown"


def type_word(value: object) -> str:
    words: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return words.get(type(value), type(value).__name__)


def list_of_objects(value: object) -> list[Message]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast(Message, item) for item in items if isinstance(item, dict)]
