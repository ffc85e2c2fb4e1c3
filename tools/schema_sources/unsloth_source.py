"""How Unsloth changes what it stands on: the calls it wraps, and the configs of TRL that it rewrites.

When it is imported, Unsloth writes a subclass of each TRL config from a text template, with fields of its own and
other defaults. Both are read here from that text and from the tables beside it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.schema_sources import signatures
from tools.schema_sources.code import Code, Unknown
from tools.schema_sources.rows import Row

CALLS = {
    "FastLanguageModel.from_pretrained": ("unsloth.models.loader:FastLanguageModel", "from_pretrained"),
    "FastLanguageModel.get_peft_model": ("unsloth.models.llama:FastLlamaModel", "get_peft_model"),
    "FastModel.from_pretrained": ("unsloth.models.loader:FastModel", "from_pretrained"),
    "FastModel.get_peft_model": ("unsloth.models.vision:FastBaseModel", "get_peft_model"),
}
"""Call -> class and function that hold its signature."""
LOADERS = (
    "unsloth.models.loader:FastLanguageModel", "unsloth.models.loader:FastModel",
    "unsloth.models.llama:FastLlamaModel", "unsloth.models.vision:FastBaseModel",
)  # fmt: skip
"""Each hands the `**kwargs` of `from_pretrained` on to the next, and at last to transformers."""
CONFIGS = (
    "SFTConfig", "DPOConfig", "KTOConfig", "ORPOConfig", "CPOConfig", "RewardConfig", "GRPOConfig", "RLOOConfig",
    "GKDConfig", "DistillationConfig",
)  # fmt: skip
PATCH_MODULE = "unsloth.models.rl"
PATCH_FUNCTIONS = ("_patch_trl_rl_trainers_impl", "_patch_trl_rl_trainers")
"""Where the text is put together, by release."""
FIELD = re.compile(r"(\w+) ?: Optional\[(\w+)\] = field\(\s*default = ([^,]+),")


def loader_keywords(code: Code) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for reference in LOADERS:
        found |= signatures.read_from_kwargs(signatures.method(code.class_at(reference), "from_pretrained"))
    return found


@dataclass(frozen=True, slots=True)
class Patch:
    """Fields and defaults by trainer file (`sft_trainer`); the empty name: every trainer."""

    path: str
    fields: Mapping[str, Mapping[str, Row]]
    defaults: Mapping[str, Mapping[str, Any]]

    def changes(self, trainer: str, keys: Mapping[str, Row]) -> dict[str, Row]:
        """Rows of a config that are new, or have another default, where `keys` are TRL's own."""
        added = {**self.fields.get("", {}), **self.fields.get(trainer, {})}
        if "max_length" not in keys:
            added.pop("max_seq_length", None)  # the length Unsloth gives its own name to
        changed = dict(added)
        for key, value in {**self.defaults.get("", {}), **self.defaults.get(trainer, {})}.items():
            if key in keys:
                row = {name: v for name, v in keys[key].items() if name != "computed"}
                null = {"optional": True} if value is None else {}
                changed[key] = {**row, **null, "default": value, "from": self.path}
        return changed


def read_patch(code: Code, transformers: str) -> Patch:
    """Raises Unknown when a release has no such function."""
    module = code.module(PATCH_MODULE)
    if module is None:
        raise Unknown(PATCH_MODULE)
    name = next((name for name in PATCH_FUNCTIONS if name in module.bindings), PATCH_FUNCTIONS[-1])
    function = code.find(PATCH_MODULE, name).node
    assert isinstance(function, ast.FunctionDef)
    fields: dict[str, dict[str, Row]] = {"": {}}
    for text in _texts([s for s in module.tree.body if isinstance(s, ast.Assign)]):
        fields[""] |= _fields(text, module.path)
    defaults: dict[str, dict[str, Any]] = {}
    for trainer, statements in _branches(function.body):
        fields.setdefault(trainer, {})
        for text in _texts(statements):
            fields[trainer] |= _fields(text, module.path)
        for statement in statements:
            if _assigns(statement, "replacements"):
                defaults.setdefault(trainer, {}).update(code.value(PATCH_MODULE, statement.value))  # pyright: ignore
    recent = int(transformers.partition(".")[0]) >= 5
    warmup = "warmup_steps" if recent else "warmup_ratio"
    defaults.setdefault("", {}).update(_set_apart(function, warmup))
    return Patch(module.path, fields, defaults)


def _branches(body: list[ast.stmt]) -> list[tuple[str, list[ast.stmt]]]:
    """Simple statements by the trainer that a branch is for (`if trainer_file == ...`, `in (...)`)."""
    found: list[tuple[str, list[ast.stmt]]] = [("", [s for s in body if not isinstance(s, ast.If)])]
    for statement in body:
        while isinstance(statement, ast.If):
            named = {
                node.value
                for node in ast.walk(statement.test)
                if isinstance(node, ast.Constant) and str(node.value).endswith("_trainer")
            }
            found += [(str(trainer), statement.body) for trainer in sorted(named, key=str)]
            if not named:
                found.append(("", [s for s in statement.body if not _assigns(s, "replacements")]))
            follow = statement.orelse
            statement = follow[0] if len(follow) == 1 else ast.Pass()
    return found


def _assigns(statement: ast.stmt, name: str) -> bool:
    """`name = {...}`."""
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Dict)
        and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
    )


def _texts(statements: list[ast.stmt]) -> list[str]:
    return [
        node.value
        for statement in statements
        if isinstance(statement, (ast.Assign, ast.AugAssign))
        for node in ast.walk(statement.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def _fields(text: str, path: str) -> dict[str, Row]:
    """Fields in a class text: `name : Optional[type] = field(default = value,`."""
    return {
        name: {
            "type": {"Any": "any"}.get(kind, kind), "optional": True, "default": ast.literal_eval(default),
            "from": path,
        }
        for name, kind, default in FIELD.findall(text)
    }  # fmt: skip


def _set_apart(function: ast.FunctionDef, key: str) -> dict[str, Any]:
    """`replacements["key"] = value`, which stands in a branch on the version of transformers."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Name(id="replacements"), slice=ast.Constant(value=name))],
                value=ast.Constant(value=value),
            ) if name == key:
                return {key: value}
            case _:
                pass
    return {}
