"""Reads a transformers config.json the way its config class does, without importing transformers.

A key that the file leaves out takes the default of the class (rules/catalog/config_defaults.json, taken from
transformers by tools/refresh_config_defaults.py), and a key under another accepted name is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from advisor.errors import InputError
from advisor.paths import rules_root


@cache
def class_defaults() -> dict[str, dict[str, dict[str, Any]]]:
    path = rules_root() / "catalog" / "config_defaults.json"
    return json.loads(path.read_text(encoding="utf-8"))


class Fields:
    """One config (top level, text or vision part) of a known model type."""

    def __init__(self, model_type: str, config: Mapping[str, Any]) -> None:
        known = class_defaults().get(model_type, {"defaults": {}, "aliases": {}})
        self.model_type = model_type
        self._config = config
        self._defaults = known["defaults"]
        self._aliases = known["aliases"]

    def get(self, name: str) -> Any:
        if name in self._config:
            return self._config[name]
        stored = self._aliases.get(name, name)
        for other in (stored, *(key for key, value in self._aliases.items() if value == stored)):
            if other in self._config:
                return self._config[other]
        return self._defaults.get(stored)

    def size(self, name: str) -> int:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(
                "model",
                f"the config of type '{self.model_type}' gives {name} as {value!r}; a whole number is needed",
            )
        return value

    def size_or(self, name: str, otherwise: int) -> int:
        return otherwise if self.get(name) is None else self.size(name)

    def flag(self, name: str | bool) -> bool:
        return name if isinstance(name, bool) else bool(self.get(name))

    def names(self, name: str) -> list[str] | None:
        value = self.get(name)
        return [str(item) for item in cast("list[Any]", value)] if isinstance(value, list) else None

    def numbers(self, name: str) -> list[int] | None:
        value = self.get(name)
        return [int(item) for item in cast("list[Any]", value)] if isinstance(value, list) else None

    @property
    def hidden(self) -> int:
        return self.size("hidden_size")

    @property
    def layers(self) -> int:
        return self.size("num_hidden_layers")

    @property
    def heads(self) -> int:
        return self.size("num_attention_heads")

    @property
    def kv_heads(self) -> int:
        return self.size_or("num_key_value_heads", self.heads)

    @property
    def head_dim(self) -> int:
        return self.size_or("head_dim", self.hidden // self.heads)

    def layer_types(self) -> list[str] | None:
        """Per-layer kinds when the file lists them, cut or checked against the number of layers."""
        listed = self.names("layer_types")
        if listed is not None and len(listed) != self.layers:
            raise InputError(
                "model",
                f"layer_types has {len(listed)} entries for num_hidden_layers {self.layers}; they must agree",
            )
        return listed
