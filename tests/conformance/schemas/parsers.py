"""What a framework's own parser takes, asked of the parser itself; runs in the framework's environment.

    python parsers.py FRAMEWORK REQUEST.json        prints {document: {key: row}} as JSON, on its last line

REQUEST.json holds what to ask for: class references by document, plugins, configurations of a hydra tree. It
shares no code with the extractor that it is compared with: types come from `typing`, keys and choices from
argparse, pydantic, inspect or Hydra.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import io
import json
import os
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# This folder's own package must not stand in for a framework's, nor a framework look for a GPU or a network.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TRL_EXPERIMENTAL_SILENCE": "1"}

Row = dict[str, Any]
MAX_DEPTH = 4
NAMES = {int: "int", float: "float", bool: "bool", str: "str"}


def load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


# --- types ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Hint:
    types: set[str] = dataclasses.field(default_factory=set)
    optional: bool = False
    choices: list[Any] = dataclasses.field(default_factory=list)
    models: list[type] = dataclasses.field(default_factory=list)
    items: list[type] = dataclasses.field(default_factory=list)


def read(hint: Any) -> Hint:
    if isinstance(hint, typing.TypeVar) or hint in (Any, inspect.Parameter.empty):
        return Hint({"any"})
    if hint in (None, type(None)):
        return Hint(optional=True)
    if hint in NAMES:
        return Hint({NAMES[hint]})
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return read(arguments[0])
    if origin is typing.Literal:
        kept = [a for a in arguments if a is not None]
        return Hint({NAMES.get(type(a), "any") for a in kept}, None in arguments, kept)
    if origin in (typing.Union, types.UnionType):
        return _union([read(a) for a in arguments])
    return _class(origin or hint, arguments)


def _class(found: Any, arguments: Sequence[Any]) -> Hint:
    if not isinstance(found, type):
        return Hint({"any"})
    if issubclass(found, enum.Enum):
        values = [member.value for member in found]
        return Hint({NAMES.get(type(v), "any") for v in values}, choices=values)
    if issubclass(found, (list, tuple, set, frozenset)) or found in (Sequence, Iterable):
        return Hint({"list"}, items=[m for a in arguments for m in read(a).models])
    if issubclass(found, dict) or found is Mapping:
        return Hint({"dict"})
    if issubclass(found, os.PathLike):
        return Hint({"str"})
    if dataclasses.is_dataclass(found) or hasattr(found, "model_fields"):
        return Hint({"dict"}, models=[found])
    return Hint({"any"})


def _union(parts: list[Hint]) -> Hint:
    free = {name for part in parts if not part.choices for name in part.types}
    return Hint(
        set().union(*(part.types for part in parts)),
        any(part.optional for part in parts),
        [c for part in parts for c in part.choices if NAMES.get(type(c), "any") not in free],
        [m for part in parts for m in part.models],
        [m for part in parts for m in part.items],
    )


def plain(value: Any) -> Any:
    """A default as JSON has it; `computed` for what JSON has not."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else "<computed>"


def row(hint: Hint, **more: Any) -> Row:
    return {
        "types": sorted(hint.types) or ["any"],
        "optional": hint.optional,
        "choices": sorted(dict.fromkeys(map(plain, hint.choices)), key=str),
        **more,
    }


def with_nested(
    key: str, hint: Hint, depth: int, inner: Callable[[type, int], dict[str, Row]]
) -> dict[str, Row]:
    found: dict[str, Row] = {}
    if depth < MAX_DEPTH:
        for mark, models in ((".", hint.models), ("[].", hint.items)):
            for model in models:
                for name, held in inner(model, depth + 1).items():
                    full = f"{key}{mark}{name}"
                    found[full] = either(found[full], held) if full in found else held
    return found


def either(one: Row, other: Row) -> Row:
    """A key of two alternatives in a union: what either takes."""
    if one == other:
        return one
    alike = {"default": one["default"]} if one.get("default", 0) == other.get("default", 1) else {}
    both = bool(one["choices"] and other["choices"])
    return {
        "types": sorted({*one["types"], *other["types"]}),
        "optional": one["optional"] or other["optional"],
        "choices": sorted({*one["choices"], *other["choices"]}) if both else [],
        **alike,
    }


# --- dataclasses and their argument parser --------------------------------------------------------


def dataclass_rows(cls: type, depth: int = 0) -> dict[str, Row]:
    if not dataclasses.is_dataclass(cls):
        return {}
    hints = typing.get_type_hints(cls, include_extras=True)
    found: dict[str, Row] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        hint = read(hints[field.name])
        found[field.name] = row(hint, **_field_default(field))
        found |= with_nested(field.name, hint, depth, dataclass_rows)
    return found


def _field_default(field: dataclasses.Field[Any]) -> Row:
    if field.default is not dataclasses.MISSING:
        return {"default": plain(field.default)}
    if field.default_factory is not dataclasses.MISSING:
        return {"default": plain(field.default_factory())}
    return {"required": True}


def parser_rows(classes: Sequence[type], parser: Any) -> dict[str, Row]:
    """Rows of the classes, cut to what the argument parser really takes, with its choices and defaults."""
    declared: dict[str, Row] = {}
    for cls in classes:
        declared |= dataclass_rows(cls)
    # `--no_x`, a second way to say x, is an action of its own with the destination x.
    own = [
        a for a in parser._actions if any(o.lstrip("-").replace("-", "_") == a.dest for o in a.option_strings)
    ]
    actions = {action.dest: action for action in own if action.dest != "help"}
    found = {key: declared[key] for key in declared if "." in key}
    for name, action in actions.items():
        default = {"required": True} if action.required else {"default": plain(action.default)}
        given = [plain(choice) for choice in action.choices or () if choice is not None]
        choices = {"choices": sorted(given, key=str)} if given else {}
        kept = {k: v for k, v in declared[name].items() if k not in ("default", "required")}
        if set(choices.get("choices", ())) - set(kept["choices"]) and "any" not in kept["types"]:
            kept |= choices  # choices that only the parser knows: metadata of the field
        found[name] = {**kept, **default}
    return found


def ask_parser(request: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    if "judge" in request:  # its stand-ins for what is built for GPUs only
        spec = importlib.util.spec_from_file_location("judge", request["judge"])
        judge = importlib.util.module_from_spec(spec)
        sys.modules["judge"] = judge
        spec.loader.exec_module(judge)
        judge._prepare(True)
    make = load(request["parser"])
    answer: dict[str, dict[str, Row]] = {}
    for document, references in request["documents"].items():
        classes = [load(reference) for reference in references]
        answer[document] = parser_rows(classes, make(classes))
    return answer


# --- pydantic -------------------------------------------------------------------------------------


def model_rows(cls: type, depth: int = 0) -> dict[str, Row]:
    found: dict[str, Row] = {}
    if hasattr(cls, "model_rebuild"):
        cls.model_rebuild()  # annotations in quotes are looked up when a model is first used
    for name, field in getattr(cls, "model_fields", {}).items():
        alias = field.validation_alias or field.alias or name
        hint = read(field.annotation)
        for key in [alias] if isinstance(alias, str) else alias.choices:
            found[key] = row(hint, **_model_default(field))
            found |= with_nested(key, hint, depth, model_rows)
    return found


def _model_default(field: Any) -> Row:
    if field.is_required():
        return {"required": True}
    default = field.get_default(call_default_factory=True)
    return {"default": plain(default)}


def ask_models(request: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    rows = model_rows(load(request["model"]))
    failed: list[str] = []
    for plugin in request["plugins"]:
        module, _, name = plugin.rpartition(".")
        try:
            arguments = load(f"{module}:{name}")().get_input_args()
        except ImportError:
            continue  # told below, by its module
        owner, _, model = arguments.rpartition(".")
        rows = model_rows(load(f"{owner}:{model}")) | rows
    for name in request["integrations"]:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            failed.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        held = [v for v in vars(module).values() if inspect.isclass(v) and v.__name__.endswith("Plugin")]
        rows |= {f"plugin:{name}.{v.__name__}": {} for v in held if _has_arguments(v)}
    return {"train": rows, "failed": {line: {} for line in failed}}


def _has_arguments(plugin: type) -> bool:
    if plugin.__name__ == "BasePlugin" or inspect.isabstract(plugin):
        return False
    return bool(plugin().get_input_args())


# --- signatures -----------------------------------------------------------------------------------


def signature_rows(function: Any) -> dict[str, Row]:
    skipped = ("self", "cls", "model")
    found: dict[str, Row] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in skipped or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = (
            {"required": True}
            if parameter.default is parameter.empty
            else {"default": plain(parameter.default)}
        )
        found[parameter.name] = row(Hint({"any"}), **default)
    return found


def ask_calls(request: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    os.environ |= {"UNSLOTH_ALLOW_CPU": "1", "UNSLOTH_COMPILE_LOCATION": tempfile.mkdtemp()}
    os.chdir(os.environ["UNSLOTH_COMPILE_LOCATION"])
    importlib.import_module("unsloth")
    answer: dict[str, dict[str, Row]] = {}
    for document, (owner, function) in request["calls"].items():
        extra = dataclass_rows(load(request["adapter"])) if function == "get_peft_model" else {}
        answer[document] = extra | signature_rows(getattr(load(owner), function))
    # The rewriting of TRL is left out on a CPU; asked for by name it does its work.
    load("unsloth.models.rl:patch_trl_rl_trainers")()
    for document, reference in request["configs"].items():
        cls = load(reference)
        # Keys, types and choices as the parser of dataclasses has them; defaults as the rewritten __init__ has.
        declared = parser_rows([cls], load("transformers:HfArgumentParser")([cls]))
        given = {key: {"default": held.get("default")} for key, held in signature_rows(cls).items()}
        answer[document] = {key: held | given.get(key, {}) for key, held in declared.items()}
    for document, reference in request["models"].items():
        answer[document] = model_rows(load(reference))
    return answer


# --- hydra ----------------------------------------------------------------------------------------


def ask_hydra(request: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    import hydra
    from omegaconf import OmegaConf

    answer: dict[str, dict[str, Row]] = {}
    with hydra.initialize_config_module(request["root"], version_base=None):
        for document, (config, overrides) in request["documents"].items():
            tree = OmegaConf.to_container(hydra.compose(config, overrides), resolve=False)
            rows = {key: {"default": value} for key, value in _flat(tree).items()}
            answer[document] = rows | _declared(rows)
    return answer


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _declared(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Types of the classes that sections are handed to, and the fields that no file lists."""
    found: dict[str, Row] = {}
    for key, held in rows.items():
        if not key.endswith("_target_") or not isinstance(held["default"], str):
            continue
        module, _, name = held["default"].rpartition(".")
        try:
            fields = dataclass_rows(load(f"{module}:{name}"))
        except Exception:  # a class of a package that is not installed here
            continue
        for field, declared in fields.items():
            full = key.removesuffix("_target_") + field
            if full in rows:
                found[full] = {**rows[full], "types": declared["types"], "choices": declared["choices"]}
            elif "." not in field and not any(other.startswith(f"{full}.") for other in rows):
                found[full] = {**declared, "added": True}
    return found


ASK: Mapping[str, Callable[[Mapping[str, Any]], dict[str, dict[str, Row]]]] = {
    "parser": ask_parser,
    "models": ask_models,
    "calls": ask_calls,
    "hydra": ask_hydra,
}


def main(kind: str, request: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()):
        answer = ASK[kind](json.loads(Path(request).read_text("utf-8")))
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
