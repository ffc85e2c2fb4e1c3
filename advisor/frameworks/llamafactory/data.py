"""Rows as LLaMA-Factory reads them, and their declaration in dataset_info.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from advisor.facts import rows
from advisor.frameworks.base import DataNeed, data_kind
from advisor.frameworks.table import Job
from advisor.plan import Plan

READS = {
    "text": ("text",),
    "conversation": ("messages", "sharegpt", "alpaca", "prompt-completion"),
    "preference": ("preference", "preference-messages"),
    "label": ("kto",),
}
HUB_LACKS = ("preference-messages",)
"""Its chosen and rejected are single messages, those of a hub are lists."""
SPELLED = ("prompt-completion", "preference-messages", "kto")
"""Formats whose rows are rewritten as messages when they are copied; others only where they hold tools."""

ROLE_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}
ANSWERS = {"chosen": "chosen", "rejected": "rejected"}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "text": {"prompt": "text"},
    "messages": {"messages": "messages", "tools": "tools"},
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
    },
    "prompt-completion": {"prompt": "prompt", "response": "completion"},
    "preference": {"prompt": "prompt", **ANSWERS},
    "preference-messages": {"messages": "messages", "tools": "tools", **ANSWERS},
    "kto": {"prompt": "prompt", "response": "completion", "kto_tag": "label"},
}
"""Format -> LLaMA-Factory's name of a column -> the field of the format that it is."""
OPTIONAL = ("query", "system", "tools", "history")
AS_MESSAGES = {
    "prompt-completion": COLUMNS["messages"],
    "kto": {"messages": "messages", "tools": "tools", "kto_tag": "label"},
}
"""The same for rows that `spell` made."""


def data_need(plan: Plan) -> DataNeed:
    reads = READS[data_kind(plan.method)]
    return DataNeed(reads, spell, SPELLED, tuple(format for format in reads if format not in HUB_LACKS))


def spell(row: dict[str, Any], format: str) -> dict[str, Any]:
    """The row as LLaMA-Factory reads it: calls and tools as JSON text, one message an answer.

    Raises ValueError when it has no room for what the row holds.
    """
    if format not in ("messages", "sharegpt", *SPELLED):
        return row
    parsed = rows.neutral(row, format)
    if format == "sharegpt":
        return {**row, "tools": _tools(parsed)} if parsed["tools"] else row
    if format == "messages" and "messages" in row and not _has_tools(parsed):
        return row
    if format in ("messages", "prompt-completion"):
        return _messages(parsed["messages"], parsed)
    if format == "kto":
        answer = _one(parsed["completion"])
        return {**_messages([*parsed["prompt"], answer], parsed), "label": parsed["label"]}
    answers = {name: _message(_one(parsed[name])) for name in ANSWERS}
    return {**_messages(parsed["prompt"], parsed), **answers}


def _has_tools(parsed: Mapping[str, Any]) -> bool:
    return bool(parsed["tools"]) or any("tool_calls" in m or m["role"] == "tool" for m in parsed["messages"])


def _messages(messages: Sequence[Mapping[str, Any]], parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Turns that alternate: answers of several tools become one, as LLaMA-Factory's own converter does it."""
    spelled: list[dict[str, str]] = []
    for message in map(_message, messages):
        if spelled and message["role"] == spelled[-1]["role"] == "tool":
            spelled[-1]["content"] += "\n</tool_response>\n<tool_response>\n" + message["content"]
        else:
            spelled.append(message)
    return {"messages": spelled, **({"tools": _tools(parsed)} if parsed["tools"] else {})}


def _message(message: Mapping[str, Any]) -> dict[str, str]:
    role, content = message["role"], message["content"]
    if not isinstance(content, str):
        raise ValueError("LLaMA-Factory has no room for content made of parts")
    calls = message.get("tool_calls")
    if not calls:
        return {"role": role, "content": content}
    if content:
        raise ValueError("LLaMA-Factory has no room for text and tool calls in one turn")
    return {
        "role": "function_call",
        "content": json.dumps([call["function"] for call in calls], ensure_ascii=False),
    }


def _one(messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(messages) != 1:
        raise ValueError("LLaMA-Factory takes one message as the answer, this row has several")
    return messages[0]


def _tools(parsed: Mapping[str, Any]) -> str:
    return json.dumps(parsed["tools"], ensure_ascii=False)


def dataset_entry(plan: Plan, job: Job) -> dict[str, Any]:
    """What dataset_info.json says about the rows: where they are, and which column means what."""
    copied = job.data_local and not job.data_path.startswith("/")
    format = job.data_format
    fields = AS_MESSAGES.get(format, COLUMNS[format]) if copied else COLUMNS[format]
    entry: dict[str, Any] = _source(job)
    if "messages" in fields:
        entry["formatting"] = "sharegpt"
    if format.startswith("preference"):
        entry["ranking"] = True
    entry["columns"] = _columns(fields, job, renamed=not copied or format not in ("messages", *SPELLED))
    if "messages" in fields and format != "sharegpt":
        entry["tags"] = dict(ROLE_TAGS)
    return entry


def _source(job: Job) -> dict[str, Any]:
    if job.data_local:
        return {"file_name": job.data_path.removeprefix("data/")}
    hubs = {"hf_hub_url": job.data_path}
    return {"ms_hub_url": job.data_path} if job.hub == "modelscope" else hubs


def _columns(fields: Mapping[str, str], job: Job, *, renamed: bool) -> dict[str, str]:
    """Columns as they stand in the rows; optional ones only where the user's file has them."""
    names: Mapping[str, str] = job.data_extra.get("mapping", {}) if renamed else {}
    there = set(job.data_extra.get("columns", ()))
    return {
        name: column
        for name, field in fields.items()
        if (column := names.get(field, field)) in there or name not in OPTIONAL
    }
