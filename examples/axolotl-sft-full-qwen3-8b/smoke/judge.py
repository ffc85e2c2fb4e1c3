"""Judge Axolotl files without a GPU: train YAML with what it points to, DeepSpeed JSON.

    python axolotl.py [--world-size N] [--model-dir DIR] FILE...

prints one line a file, `OK <file>` or `FAIL <file>: <problems>`, and exits 0, 1 (a failure) or 2 (usage).
It replays what `axolotl train` does before it touches a model (`prepare_plugins`, `validate_config`), for a
CUDA machine of N GPUs, and adds what Axolotl leaves out: it drops keys it does not know without a word, keys
of a plugin that is not listed too; it takes any text as optimizer, scheduler or loss; the device mesh,
reward modules and the DeepSpeed file are looked at when the GPUs are already running.

Needs only Axolotl and what it installs; works on a CPU box, offline.
"""

from __future__ import annotations

import os
import sys

if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]  # run as a script under this name, it would be imported instead of the framework

# Before any import that reads them: no hub look-ups, no telemetry, no GPU, no process group.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.pop("WORLD_SIZE", None)
os.environ.pop("LOCAL_RANK", None)

import argparse
import ast
import contextlib
import difflib
import functools
import importlib
import importlib.util
import io
import json
import math
import pickle
import re
import typing
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# What the validators ask of the machine: these are the answers of the CUDA box that trains, not of this one.
CAPABILITIES = {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90"}

RENAMED = {
    "max_seq_length": "sequence_len",
    "max_length": "sequence_len",
    "cutoff_len": "sequence_len",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "lora_target_parameter": "lora_target_parameters",
    "per_device_train_batch_size": "micro_batch_size",
    "num_train_epochs": "num_epochs",
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "max_prompt_length": "sequence_len",
    "packing": "sample_packing",
    "use_liger_kernel": "liger_* with plugins: [axolotl.integrations.liger.LigerPlugin]",
    "dataset": "datasets",
    "beta": "rl_beta",
}
# Declared in the schema, read nowhere in this release.
DEAD = {
    "max_prompt_len": "use sequence_len and trl.max_completion_length",
    "ring_attn_func": "use context_parallel",
    "heads_k_stride": "use context_parallel",
    "fsdp_final_state_dict_type": "use fsdp_config.final_state_dict_type",
    "lr_div_factor": "use lr_scheduler_kwargs",
    "preprocess_iterable": "use streaming",
}
METHODS_OF_KEY = (
    (re.compile(r"rl_beta$"), ("dpo", "ipo", "orpo", "kto", "simpo", "grpo", "gdpo")),
    (re.compile(r"dpo_"), ("dpo", "ipo")),
    (re.compile(r"kto_"), ("kto",)),
    (re.compile(r"(simpo_|cpo_)"), ("simpo",)),
    (re.compile(r"orpo_"), ("orpo",)),
    (re.compile(r"trl$"), ("dpo", "ipo", "orpo", "kto", "simpo", "grpo", "gdpo", "ebft")),
)
ADAPTER_KEYS = re.compile(r"(lora_(r|alpha|dropout|target_|modules_to_save)|loraplus_|peft_use_)")
GROUP_RL = ("grpo", "gdpo")
LOCAL_SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".arrow", ".txt")
DEEPSPEED_KEYS = {
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
    "steps_per_print", "wall_clock_breakdown", "memory_breakdown", "dump_state", "prescale_gradients",
    "gradient_predivide_factor", "sparse_gradients", "communication_data_type", "disable_allgather",
    "seq_parallel_communication_data_type", "zero_optimization", "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer", "fp16", "bf16", "bfloat16", "torch_autocast", "amp", "optimizer",
    "scheduler", "activation_checkpointing", "flops_profiler", "comms_logger", "tensorboard", "wandb",
    "csv_monitor", "comet", "aio", "data_types", "checkpoint", "compile", "tensor_parallel", "pipeline",
    "data_efficiency", "curriculum_learning", "elasticity", "autotuning", "compression_training",
    "sequence_parallel_size", "use_data_before_expert_parallelism", "weight_quantization", "hybrid_engine",
    "timers", "dataloader_drop_last", "zenflow",
}  # fmt: skip


def suggest(key: str, known: Iterable[str]) -> str:
    if key in RENAMED:
        return f"unknown key `{key}`: here it is `{RENAMED[key]}`"
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.75)
    return f"unknown key `{key}`" + (f": did you mean `{near[0]}`?" if near else "")


def beside(file: Path, reference: str) -> Path | None:
    """A path in a config is relative to where training starts: the file's folder, the one above, or here."""
    if Path(reference).is_absolute():
        return Path(reference) if Path(reference).exists() else None
    for base in (file.parent, file.parent.parent, Path.cwd()):
        if (base / reference).exists():
            return (base / reference).resolve()
    return None


def short(error: BaseException | str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"For further information visit \S+", "", text).strip()[:500]


# ---------------------------------------------------------------- unknown keys


def models_in(annotation: Any) -> list[Any]:
    """The pydantic models that an annotation allows, through unions, lists and Annotated."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in models_in(inner)]


def names_of(model: Any) -> dict[str, Any]:
    """Every spelling of a model's keys -> the field."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        found[name] = field
        for alias in (field.alias, field.validation_alias):
            for spelling in getattr(alias, "choices", [alias]):
                if isinstance(spelling, str):
                    found[spelling] = field
    return found


def unknown_in(value: Any, models: list[Any], where: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from unknown_in(item, models, f"{where}[{number}]")
        return
    if not isinstance(value, dict) or not models:
        return
    known: dict[str, list[Any]] = {}
    for model in models:
        for name, field in names_of(model).items():
            known.setdefault(name, []).append(field)
    for key, inner in value.items():
        # Axolotl itself strips this prefix.
        name = key.removeprefix("fsdp_") if where == "fsdp_config" and key not in known else key
        if name in known:
            nested = [found for field in known[name] for found in models_in(field.annotation)]
            yield from unknown_in(inner, nested, f"{where}.{key}" if where else key)
        else:
            yield f"{where}: {suggest(key, known)}" if where else f"\0{key}"


def dataset_models(rl: Any, default: list[Any]) -> list[Any]:
    """The class that `validate_config` turns the entries of `datasets` into."""
    from axolotl.utils.schemas import datasets

    if rl in ("dpo", "ipo", "simpo"):
        return [datasets.DPODataset]
    return [datasets.KTODataset] if rl == "kto" else default


def plugin_keys() -> dict[str, str]:
    """Key -> the bundled plugin that reads it."""
    import pkgutil

    from axolotl import integrations
    from pydantic import BaseModel

    found: dict[str, str] = {}
    for package in pkgutil.iter_modules(integrations.__path__):
        try:
            arguments = importlib.import_module(f"axolotl.integrations.{package.name}.args")
        except Exception:  # no arguments of its own, or a dependency that is not installed
            continue
        for name, model in vars(arguments).items():
            if isinstance(model, type) and issubclass(model, BaseModel) and name.endswith(("Args", "Config")):
                found.update(dict.fromkeys(model.model_fields, package.name))
    return found


def unknown_problems(config: dict[str, Any]) -> list[str]:
    """After `prepare_plugins`, so that the merged schema knows the keys of the plugins that are listed."""
    from axolotl.integrations.config import merge_input_args
    from axolotl.utils.schemas import datasets

    model = merge_input_args()[1]
    known = names_of(model)
    plugins: dict[str, str] | None = None
    rest = {key: value for key, value in config.items() if key not in ("datasets", "test_datasets")}
    problems: list[str] = []
    for found in unknown_in(rest, [model], ""):
        key = found.removeprefix("\0")
        if key == found:
            problems.append(found)
            continue
        plugins = plugin_keys() if plugins is None else plugins
        if key in plugins:
            problems.append(f"`{key}` is read by the {plugins[key]} plugin, which is not in `plugins`")
        else:
            problems.append(suggest(key, known))
    entries = dataset_models(config.get("rl"), [datasets.SFTDataset])
    dropped = (
        f" (`rl: {config['rl']}` reads few keys of an entry)" if entries != [datasets.SFTDataset] else ""
    )
    problems += [p + dropped for p in unknown_in(config.get("datasets"), entries, "datasets")]
    problems += list(unknown_in(config.get("test_datasets"), [datasets.SFTDataset], "test_datasets"))
    return problems


# ---------------------------------------------------------------- Axolotl's own validation


def schema_problems(config: dict[str, Any], world_size: int) -> list[str]:
    import torch
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from pydantic import ValidationError

    # A copy: the validators change what they are given.
    given = DictDefault(json.loads(json.dumps(config, default=str)))
    try:
        validate_config(
            given,
            capabilities={**CAPABILITIES, "n_gpu": world_size},
            env_capabilities={"torch_version": str(torch.__version__).split("+", maxsplit=1)[0]},
        )
    except ValidationError as error:
        return [one_error(item) for item in error.errors()]
    except Exception as error:  # removed keys raise DeprecationWarning and others
        return [short(error)]
    return []


def one_error(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    message = short(str(item["msg"]).removeprefix("Value error, "))
    return f"`{where}`: {message}" if where else message


# ---------------------------------------------------------------- free text, dead and idle keys


def words_in(source: str, name: str) -> set[str]:
    """Every text that a module compares `name` with: what the installed TRL knows."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and ast.unparse(node.left).split(".")[-1] == name:
            found |= {
                part.value
                for right in node.comparators
                for part in ast.walk(right)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return found


@functools.cache
def losses_of(trainer: str) -> set[str]:
    """Read, not imported: importing a trainer takes seconds."""
    (root,) = importlib.util.find_spec("trl").submodule_search_locations
    return words_in(Path(root, "trainer", f"{trainer}.py").read_text(encoding="utf-8"), "loss_type")


def choice(where: str, value: Any, allowed: Iterable[str]) -> list[str]:
    words = sorted(allowed)
    if not isinstance(value, str) or value in words:
        return []
    near = difflib.get_close_matches(value, words, n=1, cutoff=0.6)
    return [f"`{where}: {value}` is not known" + (f", did you mean `{near[0]}`?" if near else "")]


def word_problems(config: dict[str, Any]) -> list[str]:
    from axolotl.utils.schemas.enums import CustomSupportedOptimizers
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    optimizers = {m.value for m in OptimizerNames} | {m.value for m in CustomSupportedOptimizers}
    schedulers = {m.value for m in SchedulerType} | {"one_cycle", "rex"}
    problems = choice("optimizer", config.get("optimizer"), optimizers)
    problems += choice("lr_scheduler", config.get("lr_scheduler"), schedulers)
    trl = config.get("trl")
    if config.get("rl") in GROUP_RL and isinstance(trl, dict) and trl.get("loss_type"):
        problems += choice("trl.loss_type", trl["loss_type"], losses_of("grpo_trainer"))
    losses = config.get("dpo_loss_type")
    if isinstance(losses, list):
        known = losses_of("dpo_trainer")
        problems += [problem for loss in losses for problem in choice("dpo_loss_type", loss, known)]
    return problems


def idle_problems(config: dict[str, Any]) -> list[str]:
    rl = config.get("rl")
    problems = [f"`{key}` is read nowhere in this release: {DEAD[key]}" for key in config if key in DEAD]
    for key in config:
        for pattern, methods in METHODS_OF_KEY:
            if pattern.match(key) and rl not in methods:
                problems.append(f"`{key}` does nothing with `rl: {rl}`")
        if ADAPTER_KEYS.match(key) and not config.get("adapter"):
            problems.append(f"`{key}` does nothing without `adapter`")
    return problems


# ---------------------------------------------------------------- devices


def size_of(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and value > 0 else 1


def mesh_problems(config: dict[str, Any], world_size: int) -> list[str]:
    """The mesh that is built when the GPUs are running, and its product, which is left to accelerate."""
    from axolotl.utils.distributed import _get_parallel_config_kwargs

    block = config.get("context_parallel")
    context = size_of(block, "size") if isinstance(block, dict) else size_of(config, "context_parallel_size")
    tensor, expert = size_of(config, "tensor_parallel_size"), size_of(config, "expert_parallel_size")
    fsdp, deepspeed = bool(config.get("fsdp_config")), bool(config.get("deepspeed"))
    problems: list[str] = []
    if tensor > 1 and not (fsdp or deepspeed):
        problems.append("tensor_parallel_size needs fsdp_config or deepspeed: DDP with it is not supported")
    try:
        sizes = _get_parallel_config_kwargs(
            world_size, tensor, context, config.get("dp_shard_size"), config.get("dp_replicate_size"),
            fsdp, expert, is_deepspeed=deepspeed,
        )  # fmt: skip
    except (ValueError, TypeError, ZeroDivisionError) as error:
        return [*problems, short(error)]
    mesh = {key: value for key, value in sizes.items() if key.endswith("_size")}
    product = math.prod(mesh.values()) * expert
    if mesh and product != world_size:
        shown = " x ".join(f"{key} {value}" for key, value in mesh.items())
        problems.append(f"the mesh {shown}{f' x expert {expert}' if expert > 1 else ''} is {product} GPUs, "
                        f"planned are {world_size}")  # fmt: skip
    return problems


# ---------------------------------------------------------------- files that the YAML points to


def function_problems(where: str, name: str, file: Path, least: int) -> list[str]:
    """`module.function`: the file is there and defines it, without importing the user's code."""
    module, _, function = name.rpartition(".")
    found = beside(file, module.replace(".", "/") + ".py") if module else None
    if found is None:
        return [f"{where}: {name}: no {module or name}.py beside"]
    try:
        tree = ast.parse(found.read_text(encoding="utf-8"))
    except SyntaxError as error:
        return [f"{where}: {found.name}: line {error.lineno}: {error.msg}"]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == function:
            given = node.args
            count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
            count += (given.vararg is not None) + (given.kwarg is not None)
            return [f"{where}: {name} takes {count} arguments, at least {least}"] if count < least else []
    return [f"{where}: {found.name} defines no {function}"]


def reward_problems(config: dict[str, Any], file: Path) -> list[str]:
    if config.get("rl") not in GROUP_RL:
        return []
    trl = config.get("trl") if isinstance(config.get("trl"), dict) else {}
    problems: list[str] = []
    rewards = trl.get("reward_funcs") or []
    if not rewards:
        problems.append("trl.reward_funcs: GRPO needs a reward")
    for name in rewards:
        if isinstance(name, str) and "/" not in name and not beside(file, name):
            problems += function_problems("trl.reward_funcs", name, file, 2)
    if trl.get("max_completion_length") is None:
        problems.append("trl.max_completion_length is not set: None is passed on instead of TRL's default")
    for number, entry in enumerate(config.get("datasets") or []):
        kind = entry.get("type") if isinstance(entry, dict) else None
        if isinstance(kind, str) and "." in kind and not kind.startswith("chat_template"):
            problems += function_problems(f"datasets[{number}].type", kind, file, 1)
    return problems


def data_problems(config: dict[str, Any], file: Path) -> list[str]:
    problems: list[str] = []
    for section in ("datasets", "test_datasets", "pretraining_dataset"):
        entries = config.get(section) or []
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            path = entry.get("path") if isinstance(entry, dict) else None
            local = isinstance(path, str) and path.endswith(LOCAL_SUFFIXES) and "://" not in path
            if local and beside(file, path) is None:
                problems.append(f"{section}[{number}].path: {path} does not exist")
    return problems


# ---------------------------------------------------------------- DeepSpeed JSON


def without_auto(node: Any) -> Any:
    """The Trainer fills "auto" from its arguments; DeepSpeed itself only understands values."""
    if isinstance(node, dict):
        return {key: without_auto(value) for key, value in node.items() if value != "auto"}
    return node


def deepspeed_problems(name: str, content: Any, config: dict[str, Any] | None, world_size: int) -> list[str]:
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    if not isinstance(content, dict):
        return [f"{name}: must be an object"]
    unknown = [key for key in content if key not in DEEPSPEED_KEYS]
    problems = [f"{name}: {suggest(key, DEEPSPEED_KEYS)}" for key in unknown]
    ready = without_auto(content)
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        ready.pop(key, None)  # their product is checked below: DeepSpeed would check it for one process
    try:
        DeepSpeedConfig({**ready, "train_micro_batch_size_per_gpu": 1})
    except (ValueError, TypeError, AssertionError, KeyError, AttributeError, DeepSpeedConfigError) as error:
        problems.append(f"{name}: {short(error)}")
    return problems + batch_problems(name, content, config, world_size)


def batch_problems(
    name: str, content: dict[str, Any], config: dict[str, Any] | None, world_size: int
) -> list[str]:
    micro = content.get("train_micro_batch_size_per_gpu", "auto")
    steps = content.get("gradient_accumulation_steps", "auto")
    total = content.get("train_batch_size", "auto")
    problems: list[str] = []
    replicas = world_size
    if config is not None:
        own = {"micro_batch_size": micro, "gradient_accumulation_steps": steps}
        for key, value in own.items():
            if isinstance(value, int) and value != size_of(config, key):
                problems.append(f"{name}: {value}, but `{key}` is {size_of(config, key)}")
        micro, steps = (size_of(config, key) for key in own)
        replicas //= size_of(config, "tensor_parallel_size") * size_of(config, "context_parallel_size")
    if all(isinstance(part, int) for part in (micro, steps, total)) and micro * steps * replicas != total:
        product = micro * steps * replicas
        problems.append(f"{name}: train_batch_size {total} is not {micro} x {steps} x {replicas} = {product}")
    return problems


def deepspeed_of(config: dict[str, Any], file: Path, world_size: int) -> list[str]:
    reference = config.get("deepspeed")
    if isinstance(reference, dict):
        return deepspeed_problems("deepspeed", reference, config, world_size)
    if not isinstance(reference, str):
        return []
    found = beside(file, reference)
    if found is None:
        return [f"deepspeed: {reference} does not exist"]
    try:
        content = json.loads(found.read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"{found.name} is not JSON: {error}"]
    config["deepspeed"] = str(found)  # some validators open it, from the current folder
    return deepspeed_problems(found.name, content, config, world_size)


# ---------------------------------------------------------------- the model, when its folder is given


class Outline(NamedTuple):
    """What a model is made of, by names alone."""

    classes: frozenset[str]
    linear: frozenset[str]
    """Last part of the names of its linear modules."""
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    kv_heads: int | None


def build_outline(model_dir: str) -> Outline | str:
    """The architecture on the meta device, or what keeps it from being built."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(model_dir)
        sees = type(config) in AutoModelForImageTextToText._model_mapping  # as Axolotl loads such a model
        with torch.device("meta"):
            model = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_config(config)
    except (OSError, ValueError, KeyError) as error:
        return f"model in {model_dir}: {short(error)}"
    modules = list(model.named_modules())
    return Outline(
        classes=frozenset(type(part).__name__ for _, part in modules),
        linear=frozenset(name.split(".")[-1] for name, part in modules if "Linear" in type(part).__name__),
        modules=tuple(name for name, _ in modules),
        parameters=tuple(name for name, _ in model.named_parameters()),
        kv_heads=getattr(model.config.get_text_config(), "num_key_value_heads", None),
    )


OUTLINES: dict[str, Outline | str] = {}
"""config.json -> outline: one that many folders hold is built once."""


def outline(model_dir: str) -> Outline | str:
    config = Path(model_dir) / "config.json"
    content = config.read_text(encoding="utf-8") if config.is_file() else model_dir
    if content not in OUTLINES:
        OUTLINES[content] = build_outline(model_dir)
    return OUTLINES[content]


def model_problems(config: dict[str, Any], model_dir: str) -> list[str]:
    """Names that the schema takes as text, against the architecture."""
    model = outline(model_dir)
    if isinstance(model, str):
        return [model]
    problems: list[str] = []
    fsdp = config.get("fsdp_config") if isinstance(config.get("fsdp_config"), dict) else {}
    wrap = fsdp.get("transformer_layer_cls_to_wrap")
    if isinstance(wrap, str):
        problems += [
            f"fsdp_config.transformer_layer_cls_to_wrap: the model has no {name}"
            for name in map(str.strip, wrap.split(","))
            if name not in model.classes
        ]
    targets = config.get("lora_target_modules")
    for name in targets if isinstance(targets, list) else []:
        if re.fullmatch(r"\w+", str(name)) and name not in model.linear:
            problems.append(f"lora_target_modules: the model has no linear module {name}")
    if isinstance(targets, str) and not any(re.fullmatch(targets, name) for name in model.modules):
        problems.append(f"lora_target_modules: the model has no module that {targets} fits")
    wanted = config.get("lora_target_parameters")
    for name in wanted if isinstance(wanted, list) else []:
        if not any(parameter.endswith(str(name)) for parameter in model.parameters):
            problems.append(f"lora_target_parameters: the model has no parameter {name}")
    return problems + head_problems(config, model.kv_heads)


def head_problems(config: dict[str, Any], heads: int | None) -> list[str]:
    block = config.get("context_parallel")
    size = size_of(block, "size") if isinstance(block, dict) else size_of(config, "context_parallel_size")
    backend = block.get("backend", "auto") if isinstance(block, dict) else "auto"
    if isinstance(heads, int) and size > 1 and backend == "ulysses" and heads % size:
        return [f"context_parallel: Ulysses of {size} does not divide the model's {heads} KV heads"]
    return []


# ---------------------------------------------------------------- entry points


def train_problems(file: Path, config: dict[str, Any], world_size: int, model_dir: str | None) -> list[str]:
    from axolotl.utils.config import prepare_plugins
    from axolotl.utils.dict import DictDefault

    problems = deepspeed_of(config, file, world_size)
    try:
        prepare_plugins(DictDefault(config))
    except Exception as error:  # a plugin that is not there, or cannot be imported here
        return [*problems, f"plugins: {short(error)}"]
    problems += unknown_problems(config)
    problems += schema_problems(config, world_size)
    problems += word_problems(config) + idle_problems(config) + mesh_problems(config, world_size)
    problems += reward_problems(config, file) + data_problems(config, file)
    if model_dir:
        problems += model_problems(config, model_dir)
    return problems


def verdict(file: Path, world_size: int, model_dir: str | None) -> list[str]:
    import yaml

    if not file.is_file():
        return ["no such file"]
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        return [f"cannot be read: {short(error)}"]
    if file.suffix == ".json":
        return deepspeed_problems(file.name, content, None, world_size)
    if not isinstance(content, dict):
        return ["must be a mapping"]
    return train_problems(file, {str(key): value for key, value in content.items()}, world_size, model_dir)


PRELOADED = ("axolotl.utils.config", "axolotl.utils.distributed", "deepspeed.runtime.config")
"""What every file needs: imported by each child, a file would take seconds instead of a fraction of one."""


def load_framework() -> None:
    """Import once, in the parent: the children that judge inherit it."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore")
        for module in PRELOADED:
            importlib.import_module(module)


def judge(path: str | Path, *, world_size: int = 1, model_dir: str | None = None) -> list[str]:
    """Problems of one file; empty when Axolotl would take it.

    In a child process: plugins are registered for the whole process, so that one file's plugins would
    widen the schema of the next.
    """
    load_framework()
    if model_dir:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            outline(model_dir)  # remembered here: a child's memory goes with it
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            problems = list(dict.fromkeys(verdict(Path(path), world_size, model_dir)))
        except BaseException as error:  # a judge that fails has not accepted
            problems = [f"judge failed: {type(error).__name__}: {short(error)}"]
        with os.fdopen(send, "wb") as stream:
            stream.write(pickle.dumps(problems))
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return pickle.loads(answer) if answer else ["judge failed: the checking process died"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--world-size", type=int, default=1, help="number of GPUs the run is planned for")
    parser.add_argument("--model-dir", help="folder with the model's config.json, for checks of module names")
    options = parser.parse_args(arguments)
    failed = False
    for file in options.files:
        problems = judge(file, world_size=options.world_size, model_dir=options.model_dir)
        failed |= bool(problems)
        print(f"FAIL {file}: {'; '.join(problems)}" if problems else f"OK {file}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
