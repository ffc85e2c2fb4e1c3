"""Flags from the field table of Request: every field has one flag of the same name."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from advisor.request import Request

Command = Callable[..., Any]


def request_options(command: Command) -> Command:
    """Adds one option per request field, grouped in the order of the table."""
    for name, field in reversed(Request.model_fields.items()):
        command = click.option(*_names(name), **_settings(name, field))(command)
    return command


def _names(name: str) -> tuple[str, ...]:
    flag = "--" + name.replace("_", "-")
    if _kind(Request.model_fields[name]) is bool:
        return (f"{flag}/--no-{flag[2:]}", name)
    return (flag, name)


def _kind(field: FieldInfo) -> Any:
    """The type of a field without its None."""
    options = [part for part in get_args(field.annotation) if part is not type(None)]
    is_union = get_origin(field.annotation) in (types.UnionType, typing.Union)
    return options[0] if is_union and len(options) == 1 else field.annotation


def _settings(name: str, field: FieldInfo) -> dict[str, Any]:
    kind = _kind(field)
    text = field.description or ""
    settings: dict[str, Any] = {"default": None, "help": text}
    if get_origin(kind) is Literal:
        choices = [str(value) for value in get_args(kind)]
        # The choice itself is judged by Request, so that every route gives the same message.
        return {**settings, "metavar": "|".join(choices) if len(choices) < 8 else name.upper()}
    if get_origin(kind) is tuple:
        return {**settings, "multiple": True, "default": (), "metavar": "VALUE"}
    if kind is bool:
        return settings
    return {**settings, "metavar": {int: "N", float: "X"}.get(kind, "TEXT")}


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The flags that were passed, as the request reads them."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name not in Request.model_fields or value is None or value == ():
            continue
        kept[name] = _typed(name, value)
    return kept


def _typed(name: str, value: Any) -> Any:
    """`--zero 3` arrives as text; Literal fields of numbers want the number."""
    kind = _kind(Request.model_fields[name])
    numbers = get_origin(kind) is Literal and all(isinstance(choice, int) for choice in get_args(kind))
    return int(value) if numbers and isinstance(value, str) and value.isdigit() else value
