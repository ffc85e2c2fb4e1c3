# ruff: noqa: E402 - the environment and the search path are set before the frameworks
"""Judge of Unsloth starters: calls against installed signatures, then what only fails at run time.

    python unsloth.py [--world-size N] FILE...

Reads training scripts (by syntax tree: `from_pretrained`, `get_peft_model`, every `<X>Config(...)` and
trainer), YAML of `unsloth train` (its own pydantic schema), and accelerate YAML. One line a file: ``OK file``
or ``FAIL file: problems``. Exit 0 when all are OK, 1 when one fails, 2 on wrong usage. Unsloth is read, not
imported: importing it asks for a GPU and rewrites TRL. Needs Unsloth's environment, no GPU and no network.

Not judged: values that a script computes, data, what target_modules match in the model, variables that a
launcher sets, whether kernels exist.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# This file may be called unsloth.py, and Python would then find it in place of the framework.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import argparse
import ast
import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import io
import json
import re
import types
import typing
import warnings
from collections.abc import Iterator
from typing import Any

import yaml

LOADERS = ("FastLanguageModel", "FastModel", "FastVisionModel", "FastTextModel")
# Documented keywords that travel in **kwargs of from_pretrained (loader.py, vision.py, transformers).
LOADER_EXTRAS = (
    *("attn_implementation", "num_labels", "float8_training", "offload_layers", "unsloth_vllm_standby"),
    *("local_files_only", "cache_dir", "use_safetensors", "quantization_config", "torch_dtype"),
)
# Fields that Unsloth adds when it rewrites TRL's configs (models/rl.py:589-601, 3443-3481).
ADDED_FIELDS = {
    "": ("max_seq_length",),
    "SFTConfig": ("context_parallel_size", "context_parallel_backend"),
    "DPOConfig": ("context_parallel_size", "context_parallel_backend"),
    "GRPOConfig": (
        *("context_parallel_size", "context_parallel_backend", "vllm_sampling_params", "unsloth_num_chunks"),
        *("unsloth_logit_chunk_multiplier", "unsloth_grpo_mini_batch"),
    ),
}
GROUPED = ("GRPOConfig", "RLOOConfig")
# Values that trainers compare only when the run has begun.
LOSS_TYPES = {
    "SFTConfig": ("nll", "dft", "chunked_nll"),
    "DPOConfig": (
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot"),
        *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    ),
    "KTOConfig": ("kto", "apo_zero_unpaired"),
    "GRPOConfig": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "CPOConfig": ("sigmoid", "hinge", "ipo", "simpo", "alphapo"),
}
CHOICES = {
    "packing_strategy": ("bfd", "bfd_split", "wrapped"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "vllm_mode": ("colocate",),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none", True, False),
}
BITS = ("load_in_4bit", "load_in_8bit", "load_in_16bit", "load_in_fp8")
SCIENTIFIC = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a judge may not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key '{key}' is written twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# --- hardware probes --------------------


@contextlib.contextmanager
def _pretend_gpu(world_size: int) -> Iterator[None]:
    """Answer the two questions that TrainingArguments asks of the machine as the target machine would.

    bf16: `TrainingArguments.__post_init__` refuses bf16 where no GPU supports it; the one that trains does.
    world_size: GRPO and RLOO divide batches by the number of processes, which is 1 here.
    """
    module = importlib.import_module("transformers.training_args")
    saved_bf16, saved_world = module.is_torch_bf16_gpu_available, module.TrainingArguments.world_size
    module.is_torch_bf16_gpu_available = lambda: True
    module.TrainingArguments.world_size = property(lambda _self: world_size)
    try:
        yield
    finally:
        module.is_torch_bf16_gpu_available = saved_bf16
        module.TrainingArguments.world_size = saved_world


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with out, err, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- what is installed, read without importing it --------------------


@functools.cache
def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@functools.cache
def _tree(relative: str) -> ast.Module:
    return ast.parse((_folder("unsloth") / relative).read_text(encoding="utf-8"))


def _method(relative: str, cls: str, name: str) -> ast.FunctionDef:
    for node in _tree(relative).body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == name:
                    return item
    raise RuntimeError(f"unsloth/{relative} has no {cls}.{name}: this judge is for another release")


@functools.cache
def _signature(loader: str, name: str) -> dict[str, Any]:
    """Parameter -> default (the ellipsis where it is no literal) of a loader's method."""
    base = "FastLanguageModel" if loader == "FastLanguageModel" else "FastModel"
    if name == "from_pretrained":
        function = _method("models/loader.py", base, name)
    elif base == "FastLanguageModel":
        function = _method("models/llama.py", "FastLlamaModel", name)
    else:
        function = _method("models/vision.py", "FastBaseModel", name)
    found: dict[str, Any] = {}
    names = [argument.arg for argument in function.args.args]
    defaults = [..., *[...] * (len(names) - len(function.args.defaults)), *function.args.defaults][
        -len(names) :
    ]
    keywords = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    for parameter, default in [*zip(names, defaults, strict=True), *((k.arg, d) for k, d in keywords)]:
        known, value = _literal(default) if isinstance(default, ast.expr) else (False, None)
        found[parameter] = value if known else ...
    return found


# --- strict types --------------------


def _literal(node: ast.expr) -> tuple[bool, Any]:
    try:
        return True, ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False, None


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, member) for member in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (list, tuple, set):
        members = [member for member in typing.get_args(hint) if member is not Ellipsis]
        return isinstance(value, (list, tuple)) and all(
            any(_fits(entry, member) for member in members or [Any]) for entry in value
        )
    if origin is dict or hint is dict:
        return isinstance(value, dict)
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(hint, type) and issubclass(hint, str):
        return isinstance(value, str)
    return True


def _say_hint(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _hints(cls: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError):
        hints = {}
    return {item.name: hints.get(item.name, Any) for item in dataclasses.fields(cls) if item.init}


@functools.cache
def _advice() -> dict[str, str]:
    """Unsloth's own tables of renamed and removed fields: it drops those with a warning, here they fail."""
    found: dict[str, str] = {}
    for node in _tree("models/rl_config_compat.py").body:
        name = (
            node.targets[0].id
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            else ""
        )
        if name.endswith("_RENAMES"):
            found |= {old: f"use {new}" for old, new in ast.literal_eval(node.value).items()}
        elif name.endswith("_ADVICE"):
            found |= ast.literal_eval(node.value)
    return found


def _suggest(key: str, known: list[str]) -> str:
    if key in _advice():
        return f"unknown key '{key}': {_advice()[key]}"
    near = difflib.get_close_matches(key, known, 1)
    return f"unknown key '{key}'" + (f", did you mean '{near[0]}'?" if near else "")


# --- calls of a script --------------------


@dataclasses.dataclass
class _Call:
    name: str
    line: int
    values: dict[str, Any]
    """Keywords with literal values."""
    others: list[str]
    """Keywords with computed values."""
    hidden: bool
    """Whether positional arguments or ** hide something."""
    repeated: list[str] = dataclasses.field(default_factory=list)
    """Keywords that are given twice."""


Settings = dict[str, list[ast.keyword]]


def _settings(tree: ast.Module) -> Settings:
    """NAME -> keywords of `NAME = dict(key=value, ...)` at the top of a script, given to a call as **NAME."""
    found: Settings = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        call, targets = node.value, [target.id for target in node.targets if isinstance(target, ast.Name)]
        if isinstance(call.func, ast.Name) and call.func.id == "dict" and not call.args:
            found |= dict.fromkeys(targets, call.keywords)
    return found


def _keywords(call: ast.Call, settings: Settings) -> Iterator[ast.keyword]:
    for keyword in call.keywords:
        name = keyword.value.id if keyword.arg is None and isinstance(keyword.value, ast.Name) else ""
        yield from settings.get(name, [keyword])


def _read_call(name: str, call: ast.Call, settings: Settings, positional: int = 0) -> _Call:
    read = _Call(name, call.lineno, {}, [], len(call.args) > positional)
    for keyword in _keywords(call, settings):
        if keyword.arg is None:
            read.hidden = True
            continue
        if keyword.arg in (*read.values, *read.others):
            read.repeated.append(keyword.arg)
        known, value = _literal(keyword.value)
        if known:
            read.values[keyword.arg] = value
        else:
            read.others.append(keyword.arg)
    return read


def _default_type_problem(key: str, value: Any, default: Any) -> str | None:
    wanted: Any = {bool: bool, int: int, float: float}.get(type(default))
    if key == "use_gradient_checkpointing":
        return (
            None if value in (True, False, "unsloth") else f"{key}: {value!r} is not True, False or 'unsloth'"
        )
    if key == "load_in_fp8":
        return None if value in (True, False, "block") else f"{key}: {value!r} is not True, False or 'block'"
    if wanted is None or _fits(value, wanted):
        return None
    return f"{key}: {value!r} is not {wanted.__name__}"


def _signature_problems(call: _Call, signature: dict[str, Any], extras: tuple[str, ...]) -> Iterator[str]:
    known = [*signature, *extras]
    for key in (*call.values, *call.others):
        if key not in known:
            yield _suggest(key, known)
    for key, value in call.values.items():
        problem = _default_type_problem(key, value, signature.get(key, ...))
        if problem:
            yield problem


def _load_problems(call: _Call, signature: dict[str, Any], world_size: int) -> Iterator[str]:
    values = {key: default for key, default in signature.items() if default is not ...} | call.values
    full, vllm = values.get("full_finetuning"), values.get("fast_inference")
    bits = [key for key in BITS if values.get(key)]
    default4 = "load_in_4bit" in bits and "load_in_4bit" not in call.values
    if len(bits) > 1:
        hint = " (load_in_4bit is True unless said otherwise)" if default4 else ""
        yield f"{' and '.join(bits)}: one storage format only{hint}"
    if full and bits and bits != ["load_in_16bit"]:
        hint = ", say load_in_4bit=False" if default4 else ""
        yield f"full_finetuning: a quantized base has no weights to train{hint}"
    if vllm and full:
        yield "fast_inference: refused with full_finetuning"
    if vllm and values.get("load_in_8bit"):
        yield "fast_inference: vLLM does not run bitsandbytes 8-bit"
    if values.get("float8_training") and not full:
        yield "float8_training: for full_finetuning only"
    if world_size > 1 and values.get("device_map") not in ("sequential", None, "auto"):
        yield "device_map: under several processes each rank loads its own copy, leave it out"
    fraction = values.get("gpu_memory_utilization")
    if isinstance(fraction, (int, float)) and not 0 < fraction <= 1:
        yield f"gpu_memory_utilization: {fraction} is not a share of the GPU"


def _adapter_problems(call: _Call, load: _Call | None) -> Iterator[str]:
    values = call.values
    rank = values.get("r", 16)
    if isinstance(rank, int) and rank <= 0:
        yield f"r: {rank} is not positive"
    targets = values.get("target_modules")
    for target in targets if isinstance(targets, list) else []:
        if target in ("lm_head", "embed_tokens"):
            yield f"target_modules: '{target}' belongs in modules_to_save"
    if values.get("target_parameters") and values.get("lora_dropout"):
        yield "lora_dropout: adapters on fused expert parameters need lora_dropout=0"
    if values.get("target_parameters") and values.get("use_dora"):
        yield "use_dora: refused for adapters on fused expert parameters"
    if load is None:
        return
    if load.values.get("full_finetuning"):
        yield "get_peft_model has no effect with full_finetuning=True"
    limit = load.values.get("max_lora_rank", 64)
    if (
        load.values.get("fast_inference")
        and isinstance(limit, int)
        and isinstance(rank, int)
        and rank > limit
    ):
        yield f"r: {rank} is more than max_lora_rank={limit} of the loader"
    if load.values.get("fast_inference") and values.get("use_dora"):
        yield "use_dora: vLLM does not serve DoRA adapters"
    if load.values.get("fast_inference") and values.get("bias", "none") != "none":
        yield "bias: vLLM does not serve adapters with biases"


# --- configs --------------------


def _config_values(call: _Call) -> dict[str, Any]:
    added = (*ADDED_FIELDS[""], *ADDED_FIELDS.get(call.name, ()))
    return {key: value for key, value in call.values.items() if key not in added}


def _config_problems(call: _Call, cls: type, world_size: int) -> Iterator[str]:
    if call.hidden:
        yield "only literal keyword arguments can be judged"
        return
    yield from (f"'{key}' is given twice" for key in call.repeated)
    added = (*ADDED_FIELDS[""], *ADDED_FIELDS.get(call.name, ()))
    hints = _hints(cls)
    unknown = [key for key in (*call.values, *call.others) if key not in hints and key not in added]
    yield from (_suggest(key, list(hints)) for key in unknown)
    values = _config_values(call)
    wrong = [key for key in values if key in hints and not _fits(values[key], hints[key])]
    yield from (f"{key}: {values[key]!r} is not {_say_hint(hints[key])}" for key in wrong)
    yield from _choice_problems(call)
    if unknown or wrong:
        return
    with _pretend_gpu(world_size), _quiet():
        try:
            cls(**values)
        except Exception as error:
            yield f"{type(error).__name__}: {error}"


def _choice_problems(call: _Call) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        value = call.values.get(key)
        if value is not None and value not in allowed:
            yield f"{key}: '{value}' is not one of {', '.join(map(str, allowed))}"
    allowed = LOSS_TYPES.get(call.name)
    losses = call.values.get("loss_type")
    for loss in [losses] if isinstance(losses, str) else losses or []:
        if allowed and loss not in allowed:
            yield f"loss_type: '{loss}' is not one of {', '.join(allowed)}"


def _training_problems(call: _Call, load: _Call | None, world_size: int) -> Iterator[str]:
    values = call.values
    if call.name in GROUPED:
        yield from _group_problems(values, world_size)
        vllm = bool(load and load.values.get("fast_inference"))
        if bool(values.get("use_vllm")) != vllm:
            yield "use_vllm: goes with fast_inference=True of the loader, both or none"
    micro = values.get("per_device_train_batch_size", 4)
    if (
        call.name == "KTOConfig"
        and values.get("loss_type", "kto") == "kto"
        and isinstance(micro, int)
        and micro < 2
    ):
        yield "per_device_train_batch_size: KTO needs at least 2, its KL term pairs samples of one batch"
    if values.get("use_liger_kernel"):
        yield "use_liger_kernel: Unsloth brings its own kernels"
    cut = values.get("max_length")
    limit = load.values.get("max_seq_length", 2048) if load else None
    if isinstance(cut, int) and isinstance(limit, int) and cut > limit:
        yield f"max_length: {cut} is more than max_seq_length={limit} of the loader"
    for key in ("deepspeed", "fsdp", "fsdp_config", "parallelism_config"):
        if values.get(key):
            yield f"{key}: belongs to the launcher (accelerate configuration or UNSLOTH_FSDP2=1)"


def _group_problems(values: dict[str, Any], world_size: int) -> Iterator[str]:
    size = values.get("num_generations", 8)
    micro = values.get("per_device_train_batch_size", 4)
    steps = values.get("gradient_accumulation_steps", 2)
    whole = all(isinstance(number, int) and number > 0 for number in (size, micro, steps))
    if whole and micro * steps * world_size % size:
        yield (
            f"num_generations: {micro} x {steps} x {world_size} processes is no multiple of {size}, "
            "Unsloth would change the batch size without failing"
        )


# --- scripts --------------------


def _import_problems(tree: ast.Module) -> Iterator[str]:
    """Unsloth patches the others while it is imported; what was imported before stays as it was."""
    lines: dict[str, int] = {}
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules = [node.module]
        for module in modules:
            root = module.split(".")[0]
            lines[root] = min(lines.get(root, node.lineno), node.lineno)
    if "unsloth" not in lines:
        yield "unsloth is not imported"
        return
    for root in ("trl", "transformers", "peft"):
        if lines.get(root, lines["unsloth"]) < lines["unsloth"]:
            yield f"line {lines[root]}: {root} is imported before unsloth"


def _environment_problems(tree: ast.Module) -> Iterator[str]:
    """Variables that Unsloth reads while it is imported must be set before."""
    first = min(
        (
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "unsloth"
        ),
        default=sys.maxsize,
    )
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for key in [target.slice for target in targets if isinstance(target, ast.Subscript)]:
            known, name = _literal(key)
            if known and str(name).startswith("UNSLOTH_") and key.lineno > first:
                yield f"line {key.lineno}: {name} must be set before unsloth is imported"


def _classes(tree: ast.Module, problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
            continue
        if node.module.split(".")[0] not in ("trl", "peft", "transformers"):
            continue
        for alias in node.names:
            try:
                with _quiet():
                    value = getattr(importlib.import_module(node.module), alias.name)
            except (ImportError, AttributeError):
                problems.append(f"line {node.lineno}: {node.module} has no '{alias.name}'")
                continue
            found[alias.asname or alias.name] = value
    return found


def _loader_calls(tree: ast.Module) -> Iterator[tuple[str, _Call]]:
    settings = _settings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in LOADERS:
                positional = 1 if node.func.attr == "get_peft_model" else 0
                if node.func.attr in ("from_pretrained", "get_peft_model"):
                    yield owner.id, _read_call(node.func.attr, node, settings, positional)


def _judge_loaders(tree: ast.Module, world_size: int) -> tuple[_Call | None, list[str]]:
    from peft import LoraConfig

    calls, problems = list(_loader_calls(tree)), []
    load = next((call for _, call in calls if call.name == "from_pretrained"), None)
    if load is None:
        return None, ["no FastLanguageModel.from_pretrained or FastModel.from_pretrained was found"]
    # FastLanguageModel passes task_type to LoraConfig itself: a second one is a TypeError (llama.py:5051).
    lora = tuple(key for key in _hints(LoraConfig) if key != "task_type")
    for loader, call in calls:
        signature = _signature(loader, call.name)
        loading = call.name == "from_pretrained"
        found = list(_signature_problems(call, signature, LOADER_EXTRAS if loading else lora))
        if call.hidden:
            found.append("only keyword arguments can be judged")
        found += [f"'{key}' is given twice" for key in call.repeated]
        found += _load_problems(call, signature, world_size) if loading else _adapter_problems(call, load)
        problems += [f"line {call.line}: {call.name}: {problem}" for problem in found]
    return load, problems


def _trainer_problems(name: str, cls: type, call: ast.Call) -> Iterator[str]:
    accepted = inspect.signature(cls.__init__).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    for keyword in call.keywords:
        if keyword.arg and keyword.arg not in accepted:
            yield f"line {call.lineno}: {name}: {_suggest(keyword.arg, list(accepted))}"


def judge_script(path: Path, *, world_size: int) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=path.name)
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    from transformers import TrainingArguments

    problems = [*_import_problems(tree), *_environment_problems(tree)]
    load, found = _judge_loaders(tree, world_size)
    problems += found
    classes, judged = _classes(tree, problems), 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name, cls = node.func.id, classes.get(node.func.id)
        if not isinstance(cls, type):
            continue
        if name.endswith("Config") and issubclass(cls, TrainingArguments):
            judged += 1
            call = _read_call(name, node, _settings(tree))
            checks = [*_config_problems(call, cls, world_size), *_training_problems(call, load, world_size)]
            problems += [f"line {node.lineno}: {name}: {problem}" for problem in checks]
        elif name.endswith("Trainer"):
            problems += _trainer_problems(name, cls, node)
    if not judged and not problems:
        problems.append("no call of a TRL <X>Config was found")
    return problems


# --- YAML of `unsloth train` --------------------


@functools.cache
def _cli_config() -> Any:
    """unsloth_cli/config.py by itself: its package pulls in the command line and its servers."""
    path = _folder("unsloth_cli") / "config.py"
    spec = importlib.util.spec_from_file_location("unsloth_cli_config", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"cannot read {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _load(path: Path) -> Any:
    with path.open(encoding="utf-8") as stream:
        return yaml.load(stream, Loader=_UniqueKeyLoader)


def judge_yaml(path: Path, content: Any, *, world_size: int) -> list[str]:
    from pydantic import ValidationError

    module = _cli_config()
    try:
        config = module.load_config(path)
    except (module.ConfigError, FileNotFoundError) as error:
        lines = [line.strip(" -") for line in str(error).splitlines()]
        return [line for line in lines if line and not line.startswith("Invalid config file")]
    problems: list[str] = []
    try:  # pydantic turns "8" into 8; a file should say what it means
        module.Config.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        for item in error.errors():
            problems.append(f"{'.'.join(map(str, item['loc']))}: {item['msg']}, not {item['input']!r}")
    if not config.model:
        problems.append("model is missing")
    if not config.data.dataset and not config.data.local_dataset:
        problems.append("data: dataset or local_dataset is missing")
    if config.data.dataset and config.data.local_dataset:
        problems.append("data: dataset and local_dataset are both given, one of them is not read")
    if world_size > 1:
        problems.append(f"`unsloth train` starts one process, the run has {world_size}")
    for section, key in (
        ("training", "batch_size"),
        ("training", "gradient_accumulation_steps"),
        ("lora", "lora_r"),
    ):
        if getattr(getattr(config, section), key) < 1:
            problems.append(f"{section}.{key}: must be positive")
    return problems


# --- accelerate YAML --------------------

ACCELERATE_CHOICES = {
    "zero_stage": (0, 1, 2, 3),
    "offload_optimizer_device": ("none", "cpu", "nvme"),
    "offload_param_device": ("none", "cpu", "nvme"),
}


def judge_accelerate(path: Path, *, world_size: int) -> list[str]:
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    config = _load(path)
    try:
        ClusterConfig.from_yaml_file(str(path))
    except (ValueError, TypeError, KeyError) as error:
        return [str(error).replace(str(path), path.name)]
    problems: list[str] = []
    kind = config.get("distributed_type")
    if kind not in ("NO", "MULTI_GPU", "DEEPSPEED"):
        problems.append(f"distributed_type: {kind}; Unsloth shards by UNSLOTH_FSDP2=1 under torchrun instead")
    if (kind == "DEEPSPEED") != bool(config.get("deepspeed_config")):
        problems.append(f"deepspeed_config: goes with distributed_type: DEEPSPEED, here it is {kind}")
    if config.get("parallelism_config"):
        problems.append("parallelism_config: Unsloth refuses accelerate's layouts")
    known = {action.dest for action in launch_command_parser()._actions}
    for key, value in (config.get("deepspeed_config") or {}).items():
        if key not in known:
            problems.append(f"deepspeed_config: nobody reads '{key}'")
        allowed = ACCELERATE_CHOICES.get(key)
        if allowed and value not in allowed:
            problems.append(f"{key}: {value!r} is not one of {', '.join(map(str, allowed))}")
    return problems + list(_process_problems(config, world_size))


def _process_problems(config: dict[str, Any], world_size: int) -> Iterator[str]:
    deepspeed = config.get("deepspeed_config") or {}
    if deepspeed.get("offload_param_device", "none") != "none" and deepspeed.get("zero_stage") != 3:
        yield f"offload_param_device: only ZeRO-3 moves weights, this is stage {deepspeed.get('zero_stage')}"
    processes, machines = config.get("num_processes"), config.get("num_machines", 1)
    if not isinstance(processes, int) or not isinstance(machines, int) or processes < 1 or machines < 1:
        yield f"num_processes: {processes!r} on {machines!r} machines are not positive whole numbers"
        return
    if processes % machines:
        yield f"num_processes: {processes} are not divisible over {machines} machines"
    if world_size > 1 and processes != world_size:
        yield f"num_processes: {processes}, but the run has {world_size}"


# --- entry --------------------


def judge(
    path: str | Path, *, world_size: int = 1, model_dir: str | Path | None = None, method: str | None = None
) -> list[str]:
    """Problems of one file; empty when it is accepted. The script names its method and its model itself."""
    path = Path(path)
    if path.suffix == ".py":
        return judge_script(path, world_size=world_size)
    if path.suffix not in (".yaml", ".yml"):
        return [f"a '{path.suffix}' file is not judged here"]
    try:
        content = _load(path)
    except (yaml.YAMLError, OSError) as error:
        return [" ".join(str(error).split())]
    if isinstance(content, dict) and {"distributed_type", "compute_environment"} & content.keys():
        return judge_accelerate(path, world_size=world_size)
    return judge_yaml(path, content, world_size=world_size)


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge Unsloth starters.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--model-dir", help="not used: scripts are judged without a model")
    parser.add_argument("--method", help="not used: the script names its method")
    options = parser.parse_args()
    failed = False
    for name in options.files:
        found = judge(name, world_size=options.world_size)
        failed |= bool(found)
        print(
            f"FAIL {name}: {'; '.join(' '.join(text.split()) for text in found)}" if found else f"OK {name}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
