"""Rows as Axolotl reads them, and their declaration in `datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from advisor.facts import rows
from advisor.frameworks.base import DataNeed, data_kind
from advisor.frameworks.table import (
    Job,
)
from advisor.plan import Plan

PREFERENCE = ("dpo", "ipo", "simpo")
"""Methods whose dataset entries keep a handful of keys only."""


def _text(messages: Sequence[Mapping[str, Any]], what: str) -> str:
    """The text of a single message. Raises ValueError when there are more, or it is more than text."""
    if len(messages) != 1 or not isinstance(messages[0]["content"], str) or messages[0].get("tool_calls"):
        raise ValueError(f"Axolotl takes one message of plain text as {what} here")
    return messages[0]["content"]


def _system_and_turns(prompt: Sequence[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    turns = list(prompt)
    system = _text([turns.pop(0)], "the system prompt") if turns and turns[0]["role"] == "system" else ""
    return system, turns


def spell_preference(row: dict[str, Any], format: str) -> dict[str, Any]:
    """For `chat_template.default`: the prompt as messages, both answers as text."""
    parsed = rows.neutral(row, format)
    for message in parsed["prompt"]:
        _text([message], "a turn")
    return {
        "prompt": parsed["prompt"],
        "chosen": _text(parsed["chosen"], "an answer"),
        "rejected": _text(parsed["rejected"], "an answer"),
    }


def spell_orpo(row: dict[str, Any], format: str) -> dict[str, Any]:
    """For `chat_template.argilla`: whole conversations; a `prompt` column would be repeated every turn."""
    parsed = rows.neutral(row, format)
    system, turns = _system_and_turns(parsed["prompt"])
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ValueError("Axolotl's ORPO reads user and assistant turns that alternate")
    history = [{"role": turn["role"], "content": _text([turn], "a turn")} for turn in turns]
    answers = {
        name: [*history, {"role": "assistant", "content": _text(parsed[name], "an answer")}]
        for name in ("chosen", "rejected")
    }
    return {"system": system, **answers}


def spell_reward(row: dict[str, Any], format: str) -> dict[str, Any]:
    """For `bradley_terry.chat_template`: four columns of text."""
    parsed = rows.neutral(row, format)
    system, turns = _system_and_turns(parsed["prompt"])
    return {
        "system": system,
        "input": _text(turns, "the prompt of a reward model"),
        "chosen": _text(parsed["chosen"], "an answer"),
        "rejected": _text(parsed["rejected"], "an answer"),
    }


def spell_plainly(row: dict[str, Any], format: str) -> dict[str, Any]:
    """The columns by the names that this project's own row functions read."""
    return rows.convert(row, format, format)


def data_need(plan: Plan) -> DataNeed:
    kind = data_kind(plan.method)
    if kind == "conversation":
        # In the repo all become messages, so that the model's own chat template is used.
        return DataNeed(("messages",), hub=("messages", "sharegpt", "alpaca", "prompt-completion"))
    if kind == "text":
        return DataNeed(("text",))
    if kind == "label":
        return DataNeed(("kto",), spell_plainly, ("kto",))
    if kind == "prompts":
        return DataNeed(("rl-prompts",), spell_plainly, ("rl-prompts",))
    both = ("preference", "preference-messages")
    if plan.method == "orpo":
        return DataNeed(both, spell_orpo, both, hub=())
    if plan.method == "rm":
        return DataNeed(both, spell_reward, both, hub=())
    return DataNeed(both, spell_preference, both, hub=("preference",))


CONVERSATIONS: Mapping[str, Mapping[str, Any]] = {
    "messages": {"type": "chat_template", "field_messages": "messages"},
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    },
    "alpaca": {"type": "alpaca"},
    "prompt-completion": {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    },
}


def _conversation(job: Job) -> dict[str, Any]:
    entry = dict(CONVERSATIONS[job.data_format])
    if entry["type"] != "chat_template":
        return entry
    renamed = job.data_extra.get("mapping", {}).get(entry["field_messages"])
    if renamed:
        entry["field_messages"] = renamed
    return {**entry, "roles_to_train": ["assistant"], "train_on_eos": "turn"}


def _reading(plan: Plan, job: Job) -> dict[str, Any]:
    """How one row becomes a sample."""
    if plan.method == "cpt":
        return {"type": "completion", "field": job.data_extra.get("mapping", {}).get("text", "text")}
    if plan.method in PREFERENCE:
        fields = {"field_messages": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"}
        return {"type": "chat_template.default", **fields}
    if plan.method == "orpo":
        return {"type": "chat_template.argilla"}
    if plan.method == "kto":
        return {"type": "chat_rows.kto"}
    if plan.method == "rm":
        return {"type": "bradley_terry.chat_template"}
    return {"type": "passthrough"} if plan.online else _conversation(job)


def datasets_entry(plan: Plan, job: Job) -> Any:
    entry: dict[str, Any] = {"path": job.data_path}
    if job.data_local and plan.method not in (*PREFERENCE, "kto"):
        entry["ds_type"] = _file_type(job.data_path)
    return [{**entry, "split": "train", **_reading(plan, job)}]


def method_of(datasets: Sequence[Mapping[str, Any]]) -> str:
    """What a configuration trains that names no other method: the type of its rows tells."""
    return "cpt" if datasets[0].get("type") == "completion" else "sft"


def _file_type(path: str) -> str:
    suffix = PurePath(path).suffix.removeprefix(".")
    return suffix if suffix in ("parquet", "csv") else "json"
