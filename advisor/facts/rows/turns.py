"""Cells and turns of a row: read with what is wrong with them, by name and place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from advisor.facts.rows.formats import COLUMNS, Message, Row, mapping, type_word

ROLES = ("system", "user", "assistant", "tool")
_FOLLOWS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


class Cells:
    """One row seen through the field names of its format."""

    def __init__(self, row: Mapping[str, Any], format: str) -> None:
        self.row = row
        self.columns = mapping(row, format)
        self.names = COLUMNS[format]

    def get(self, name: str) -> Any:
        return self.row.get(self.columns.get(name, ""))

    def column(self, name: str) -> str:
        return self.columns.get(name, name)

    def need(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            others = [other for other in self.names[name] if other != name]
            also = f" (also read: {', '.join(others)})" if others else ""
            raise ValueError(f"missing `{name}`{also}")
        return value

    def string(self, name: str) -> str:
        value = self.need(name)
        if not isinstance(value, str):
            raise ValueError(f"`{self.column(name)}` is {type_word(value)}, it must be a string")
        if not value.strip():
            raise ValueError(f"`{self.column(name)}` is empty")
        return value

    def optional(self, name: str) -> str:
        """A string that may be absent or empty."""
        value = self.get(name)
        if value is None or value == "":
            return ""
        return self.string(name)

    def extra(self) -> Row:
        used = set(self.columns.values()) - {"reward_model"}
        return {column: value for column, value in self.row.items() if column not in used}


def user_turn(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant_turn(text: str) -> Message:
    return {"role": "assistant", "content": text}


def tools_of(value: object) -> list[Any] | None:
    """Tool definitions, given as a list or as the JSON text of one."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError("`tools` is a string that is not JSON") from None
    if value is None or value in ("", []):
        return None
    if not isinstance(value, list):
        raise ValueError(f"`tools` is {type_word(value)}, it must be a list of tool definitions")
    return cast("list[Any]", value)


def turns_of(value: object, where: str) -> list[Message]:
    """A non-empty list of well-formed messages, nulls left out."""
    if not isinstance(value, list):
        raise ValueError(f"`{where}` is {type_word(value)}, it must be a list of messages")
    items = cast("list[object]", value)
    if not items:
        raise ValueError(f"`{where}` is an empty list")
    return [one_turn(item, f"`{where}` message {number}") for number, item in enumerate(items, 1)]


def one_turn(item: object, where: str) -> Message:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is {type_word(item)}, it must be an object with role and content")
    message = {key: value for key, value in cast(Message, item).items() if value is not None}
    role = message.get("role")
    if role is None:
        raise ValueError(f"{where} has no role")
    if role not in ROLES:
        raise ValueError(f"{where} has role {role!r}; known: {', '.join(ROLES)}")
    content = message.get("content", "")
    if not isinstance(content, str | list):
        raise ValueError(f"{where} has content that is {type_word(content)}, it must be a string")
    empty = not content.strip() if isinstance(content, str) else not content
    if empty and not message.get("tool_calls") and role != "tool":
        raise ValueError(f"{where} ({role}) is empty")
    return {**message, "content": content}


def in_order(messages: list[Message], where: str, start: str = "") -> list[Message]:
    previous = start
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role not in _FOLLOWS[previous]:
            place = f"after {previous}" if previous else "first"
            expected = " or ".join(_FOLLOWS[previous])
            raise ValueError(
                f"wrong role order in `{where}`: message {number} is {role} {place}, expected {expected}"
            )
        previous = role
    return messages


def conversation_of(messages: list[Message], where: str) -> list[Message]:
    in_order(messages, where)
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"`{where}` ends with {messages[-1]['role']}: there is no assistant answer to learn")
    return messages


def prompt_turns(value: object, where: str) -> list[Message]:
    messages = in_order(turns_of(value, where), where)
    if messages[-1]["role"] not in ("user", "tool"):
        raise ValueError(f"`{where}` ends with {messages[-1]['role']}, a prompt must end with user")
    return messages


def answer_turns(value: object, where: str) -> list[Message]:
    messages = in_order(turns_of(value, where), where, start="user")
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"`{where}` ends with {messages[-1]['role']}, an answer must end with assistant")
    return messages
