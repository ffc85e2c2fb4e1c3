"""Judge LLaMA-Factory files without a GPU: train YAML, dataset_info.json, DeepSpeed JSON, accelerate YAML.

    python llamafactory.py [--world-size N] [--model-dir DIR] FILE...

prints one line a file, `OK <file>` or `FAIL <file>: <problems>`, and exits 0, 1 (a failure) or 2 (usage).
It runs LLaMA-Factory's own parser (`get_train_args`) and adds what that parser leaves to run time: on its
YAML route types and choices are never checked, datasets and DeepSpeed files are opened late, a template is
looked up after the model has loaded, and keys of another stage are ignored without a word.

Needs only LLaMA-Factory and what it installs; works on a CPU box, offline.
"""

from __future__ import annotations

import os
import sys

if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]  # run as a script under this name, it would be imported instead of the framework

# Before any import that reads them: no hub look-ups, no chatter, no GPU.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "ERROR")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.pop("ALLOW_EXTRA_ARGS", None)  # it would switch off the refusal of unknown keys

import argparse
import contextlib
import dataclasses
import difflib
import enum
import importlib.metadata
import io
import json
import math
import pickle
import re
import tempfile
import types
import typing
import warnings
from pathlib import Path
from typing import Any, NamedTuple

RENAMED = {
    "max_seq_length": "cutoff_len",
    "max_length": "cutoff_len",
    "seq_len": "cutoff_len",
    "attn_implementation": "flash_attn",
    "lora_r": "lora_rank",
    "lora_target_modules": "lora_target",
    "use_liger_kernels": "enable_liger_kernel",
    "load_in_4bit": "quantization_bit: 4",
    "load_in_8bit": "quantization_bit: 8",
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "group_by_length": "train_sampling_strategy",
    "tokenized_dataset_path": "tokenized_path",
    "dpo_beta": "pref_beta",
    "orpo_beta": "pref_beta",
    "simpo_beta": "pref_beta",
    "dpo_loss": "pref_loss",
    "dpo_ftx": "pref_ftx",
    "kto_ftx": "pref_ftx",
    "use_ktransformers": "use_kt",
    "micro_batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "optimizer": "optim",
}
# Declared as text, but split at commas by LLaMA-Factory itself, which passes a list through.
COMMA_LISTS = {
    "dataset",
    "eval_dataset",
    "lora_target",
    "additional_target",
    "freeze_trainable_modules",
    "freeze_extra_modules",
    "galore_target",
    "apollo_target",
    "adapter_name_or_path",
    "interleave_probs",
}
# Packages without a CPU build, and those that want a GPU beside the processor (KTransformers): the parser asks whether
# they are installed; where one trains, they are.
GPU_ONLY = (
    "liger-kernel", "unsloth", "bitsandbytes", "flash-attn", "kt-kernel", "transformers-kt", "accelerate-kt",
)  # fmt: skip
STAGE_OF_KEY = (
    (re.compile(r"pref_beta$"), ("dpo", "kto")),
    (re.compile(r"(pref_|dpo_|simpo_|ld_alpha$)"), ("dpo",)),
    (re.compile(r"kto_"), ("kto",)),
    (re.compile(r"ppo_"), ("ppo",)),
    (re.compile(r"reward_model"), ("ppo",)),
    (re.compile(r"(use_dft_loss|use_asft_loss|use_eaft_loss|asft_alpha|eaft_alpha)$"), ("sft",)),
)
TUNING_OF_KEY = (
    (re.compile(r"(lora_(?!.*_ratio)|create_new_adapter|use_dora|use_rslora|pissa_)"), ("lora",)),
    (re.compile(r"oft_"), ("oft",)),
    (re.compile(r"freeze_(extra|trainable)_modules$"), ("freeze",)),
)
DATASET_SOURCES = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
DATASET_OPTIONS = {"formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags"}
FORMATTINGS = ("alpaca", "sharegpt", "openai")
LOCAL_SUFFIXES = {".json", ".jsonl", ".csv", ".parquet", ".arrow", ".txt"}
ROWS_LOOKED_AT = 1000
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


def suggest(key: str, known: typing.Iterable[str]) -> str:
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


# ---------------------------------------------------------------- keys, types, choices of the train YAML


def fields_of_train() -> dict[str, Any]:
    """Name -> annotation of every key of the train YAML."""
    from llamafactory.hparams import parser

    found: dict[str, Any] = {}
    for group in parser._TRAIN_ARGS:
        hints = typing.get_type_hints(group)
        found.update({f.name: hints[f.name] for f in dataclasses.fields(group) if f.init})
    return found


def fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner and type(value) in {type(option) for option in inner}
    if origin is not None:
        hint = origin
    if hint in (None, type(None)):
        return value is None
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def wording(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(wording(option) for option in inner if option is not type(None))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in hint)
    return getattr(hint, "__name__", str(hint))


def strict_problems(config: dict[str, Any], known: dict[str, Any]) -> list[str]:
    problems: list[str] = []
    for key, value in config.items():
        if key not in known:
            problems.append(suggest(key, known))
        elif key in COMMA_LISTS and isinstance(value, list):
            continue
        elif not fits(value, known[key]):
            problems.append(f"`{key}: {value!r}` must be {wording(known[key])}")
    return problems


def choice_problems(config: dict[str, Any]) -> list[str]:
    """Names that the dataclasses take as free text."""
    from llamafactory.data.template import TEMPLATES
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    choices = {
        "optim": [member.value for member in OptimizerNames],
        "lr_scheduler_type": [member.value for member in SchedulerType],
        "template": list(TEMPLATES),
        "fp8_backend": ["auto", "torchao", "te", "msamp"],
    }
    problems: list[str] = []
    for key, allowed in choices.items():
        value = config.get(key)
        if isinstance(value, str) and value not in allowed:
            near = difflib.get_close_matches(value, allowed, n=1, cutoff=0.6)
            hint = f", did you mean `{near[0]}`?" if near else ""
            problems.append(f"`{key}: {value}` is not known to this release{hint}")
    return problems


# ---------------------------------------------------------------- keys that do nothing, run-time refusals


def ignored_problems(config: dict[str, Any]) -> list[str]:
    stage, tuning = config.get("stage", "sft"), config.get("finetuning_type", "lora")
    problems: list[str] = []
    for key in config:
        for pattern, stages in STAGE_OF_KEY:
            if pattern.match(key):
                if stage not in stages:
                    problems.append(f"`{key}` does nothing with `stage: {stage}`")
                break
        for pattern, tunings in TUNING_OF_KEY:
            if pattern.match(key):
                if tuning not in tunings:
                    problems.append(f"`{key}` does nothing with `finetuning_type: {tuning}`")
                break
    optimizers = ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon")
    custom = [key for key in optimizers if config.get(key)]
    if len(custom) > 1:
        problems.append(f"{', '.join(custom)}: only the first of several optimizers is built")
    if config.get("gradient_checkpointing"):
        problems.append("`gradient_checkpointing`: LLaMA-Factory switches its own checkpointing on already, "
                        "`disable_gradient_checkpointing: true` turns it off")  # fmt: skip
    return problems


def ppo_problem() -> str | None:
    """train/ppo/trainer.py asks for trl 0.8.6..0.9.6 when the trainer is built."""
    version = importlib.metadata.version("trl")
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if (0, 8, 6) <= numbers <= (0, 9, 6):
        return None
    return f"`stage: ppo` cannot start: the trainer asks for trl>=0.8.6,<=0.9.6, installed is {version}"


def runtime_problems(config: dict[str, Any], zero_stage: int) -> list[str]:
    """Refusals that LLaMA-Factory itself only makes once the model or the first batch is there."""
    problems: list[str] = []
    if config.get("stage") == "ppo":
        problem = ppo_problem()
        problems += [problem] if problem else []
    if config.get("flash_attn") == "fa3":
        problems.append("`flash_attn: fa3` raises NotImplementedError in this release")
    if (
        config.get("neat_packing")
        and config.get("flash_attn") == "fa2"
        and config.get("per_device_train_batch_size", 8) != 1
    ):
        problems.append("neat_packing with fa2 needs `per_device_train_batch_size: 1`")
    bits, method = config.get("quantization_bit"), config.get("quantization_method", "bnb")
    if bits is not None and method == "bnb" and bits not in (4, 8):
        problems.append(f"bitsandbytes only does 4 or 8 bit, not `quantization_bit: {bits}`")
    if bits is not None and zero_stage == 3 and (bits != 4 or method != "bnb"):
        problems.append("with ZeRO-3 the base can only be 4-bit bitsandbytes")
    if config.get("use_muon") and zero_stage > 0:
        problems.append("use_muon marks 2-D weights by object, and ZeRO replaces them by flat shards")
    return problems + ktransformers_problems(config)


def ktransformers_problems(config: dict[str, Any]) -> list[str]:
    """What kt-kernel 0.7.0 refuses in the first forward (kt_kernel/sft/layer.py, base.py), and LLaMA-Factory when it
    puts the adapters on (model/adapter.py)."""
    keys = [key for key in config if key.startswith("kt_")]
    if not config.get("use_kt"):
        return [f"`{key}` does nothing without `use_kt: true`" for key in keys]
    problems: list[str] = []
    if (
        config.get("finetuning_type", "lora") != "lora"
        or config.get("use_dora")
        or "quantization_bit" in config
    ):
        problems.append("use_kt: KTransformers only supports LoRA on a base in 16 bit")
    if config.get("stage", "sft") != "sft":
        problems.append("use_kt: KTransformers is for `stage: sft`")
    if config.get("disable_gradient_checkpointing") or config.get("use_reentrant_gc", True):
        problems.append("use_kt needs recomputed layers and `use_reentrant_gc: false`")
    if config.get("per_device_train_batch_size", 8) != 1:
        problems.append("use_kt: a pass has cutoff_len tokens at most, so `per_device_train_batch_size: 1`")
    if config.get("neat_packing") or config.get("packing"):
        problems.append("use_kt: packs are padded past the length that KTransformers is told")
    return problems


# ---------------------------------------------------------------- datasets


def columns_of(file: Path) -> set[str]:
    """Every column of the first rows: an optional one need not be in each of them."""
    try:
        text = file.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip()][:ROWS_LOOKED_AT]
        rows = [json.loads(line) for line in lines] if file.suffix == ".jsonl" else json.loads(text)
    except (OSError, ValueError):
        return set()
    rows = rows[:ROWS_LOOKED_AT] if isinstance(rows, list) else [rows]
    return {column for row in rows if isinstance(row, dict) for column in row}


def entry_problems(name: str, entry: Any, folder: Path) -> list[str]:
    """One entry of dataset_info.json: LLaMA-Factory reads its keys with .get and never complains."""
    from llamafactory.data.parser import DatasetAttr

    if not isinstance(entry, dict):
        return [f"dataset {name}: must be an object"]
    fields = {field.name for field in dataclasses.fields(DatasetAttr)}
    tags = {field for field in fields if field.endswith("_tag") and field != "kto_tag"}
    columns = fields - tags - {"load_from", "dataset_name"} - DATASET_OPTIONS
    problems = [
        f"dataset {name}: {suggest(key, DATASET_SOURCES | DATASET_OPTIONS)}"
        for key in entry
        if key not in DATASET_SOURCES | DATASET_OPTIONS
    ]
    for part, known in (("columns", columns), ("tags", tags)):
        given = entry.get(part) or {}
        problems += [f"dataset {name}: {part}: {suggest(key, known)}" for key in given if key not in known]
    if entry.get("formatting", "alpaca") not in FORMATTINGS:
        problems.append(f"dataset {name}: formatting must be one of {', '.join(FORMATTINGS)}")
    if not isinstance(entry.get("ranking", False), bool):
        problems.append(f"dataset {name}: ranking must be true or false")
    if not DATASET_SOURCES & set(entry):
        return [*problems, f"dataset {name}: no source, give `file_name`"]
    if "file_name" in entry:
        problems += file_problems(name, entry, folder / entry["file_name"])
    return problems


def file_problems(name: str, entry: dict[str, Any], file: Path) -> list[str]:
    if not file.exists():
        return [f"dataset {name}: {file.name} is not in {file.parent.name}/"]
    if file.is_file() and file.suffix not in LOCAL_SUFFIXES:
        return [f"dataset {name}: {file.name}: type not read, use one of {', '.join(sorted(LOCAL_SUFFIXES))}"]
    there = columns_of(file) if file.suffix in (".json", ".jsonl") else set()
    if not there:
        return []
    return [
        f"dataset {name}: column {given!r} ({role}) is not in {file.name}: {', '.join(sorted(there))}"
        for role, given in (entry.get("columns") or {}).items()
        if isinstance(given, str) and given not in there
    ]


def dataset_problems(config: dict[str, Any], file: Path) -> list[str]:
    where = config.get("dataset_dir", "data")
    if not isinstance(where, str) or where == "ONLINE" or where.startswith("REMOTE:"):
        return []
    names: list[str] = []
    for key in ("dataset", "eval_dataset"):
        given = config.get(key) or []
        names += [part.strip() for part in given.split(",")] if isinstance(given, str) else list(given)
    folder = beside(file, where)
    if folder is None or not (folder / "dataset_info.json").is_file():
        return [f"dataset_dir `{where}` has no dataset_info.json"] if names else []
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"dataset_info.json is not JSON: {error}"]
    problems: list[str] = []
    for name in names:
        if name not in info:
            near = difflib.get_close_matches(str(name), list(info), n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            problems.append(f"dataset {name} is not in dataset_info.json{hint}")
            continue
        problems += entry_problems(name, info[name], folder)
        problems += stage_problems(config.get("stage", "sft"), name, info[name])
    return problems


def stage_problems(stage: str, name: str, entry: dict[str, Any]) -> list[str]:
    """The rule of data/loader.py: preference data for rm and dpo, and nothing else for them."""
    wants_pairs = stage in ("rm", "dpo")
    columns = entry.get("columns") or {}
    problems: list[str] = []
    if bool(entry.get("ranking")) != wants_pairs:
        what = "needs" if wants_pairs else "cannot take"
        problems.append(f"dataset {name}: `stage: {stage}` {what} preference pairs (`ranking: true`)")
    if wants_pairs and not {"chosen", "rejected"} <= set(columns):
        problems.append(f"dataset {name}: columns chosen and rejected must be named")
    if stage == "kto" and "kto_tag" not in columns:
        problems.append(f"dataset {name}: `stage: kto` needs the column kto_tag")
    if stage == "pt" and columns and not {"prompt", "messages"} & set(columns):
        problems.append(f"dataset {name}: `stage: pt` needs the text as column prompt")
    return problems


# ---------------------------------------------------------------- DeepSpeed JSON


def read_deepspeed(file: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, [f"{file.name} is not JSON: {error}"]
    return (found, []) if isinstance(found, dict) else ({}, [f"{file.name}: must be an object"])


def without_auto(node: Any) -> Any:
    """The Trainer fills "auto" from its arguments; DeepSpeed itself only understands values."""
    if isinstance(node, dict):
        return {key: without_auto(value) for key, value in node.items() if value != "auto"}
    return node


def deepspeed_problems(file: Path, world_size: int, train: dict[str, Any] | None) -> list[str]:
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    content, problems = read_deepspeed(file)
    if problems:
        return problems
    unknown = [key for key in content if key not in DEEPSPEED_KEYS]
    problems = [f"{file.name}: {suggest(key, DEEPSPEED_KEYS)}" for key in unknown]
    ready = without_auto(content)
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        ready.pop(key, None)  # their product is checked below: DeepSpeed would check it for one process
    if "optimizer" not in content and (content.get("zero_optimization") or {}).get("stage") == 3:
        ready.pop("scheduler", None)
    try:
        DeepSpeedConfig({**ready, "train_micro_batch_size_per_gpu": 1})
    except (ValueError, TypeError, AssertionError, KeyError, AttributeError, DeepSpeedConfigError) as error:
        problems.append(f"{file.name}: {short(error)}")
    problems += batch_problems(file.name, content, world_size, train)
    degree = (content.get("tensor_parallel") or {}).get("autotp_size", 0)
    if isinstance(degree, int) and degree > 1 and world_size % degree:
        problems.append(f"{file.name}: autotp_size {degree} does not divide {world_size} GPUs")
    return problems


def batch_problems(
    name: str, content: dict[str, Any], world_size: int, train: dict[str, Any] | None
) -> list[str]:
    micro = content.get("train_micro_batch_size_per_gpu", "auto")
    steps = content.get("gradient_accumulation_steps", "auto")
    total = content.get("train_batch_size", "auto")
    problems: list[str] = []
    if train is not None:
        own_micro = train.get("per_device_train_batch_size", 8)
        own_steps = train.get("gradient_accumulation_steps", 1)
        if isinstance(micro, int) and micro != own_micro:
            problems.append(f"{name}: train_micro_batch_size_per_gpu {micro}, but the YAML says {own_micro}")
        if isinstance(steps, int) and steps != own_steps:
            problems.append(f"{name}: gradient_accumulation_steps {steps}, but the YAML says {own_steps}")
        micro, steps = own_micro, own_steps
    degree = max(1, (content.get("tensor_parallel") or {}).get("autotp_size", 0) or 1)
    if all(isinstance(part, int) for part in (micro, steps, total)):
        replicas = world_size // degree
        product = micro * steps * replicas
        if product != total:
            problems.append(
                f"{name}: train_batch_size {total} is not {micro} x {steps} x {replicas} = {product}"
            )
    return problems


# ---------------------------------------------------------------- accelerate YAML (FSDP)


def accelerate_problems(
    file: Path, content: dict[str, Any], world_size: int, model_dir: str | None
) -> list[str]:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils import constants

    try:
        load_config_from_file(str(file))
    except (ValueError, TypeError, KeyError) as error:
        return [short(error)]
    actions = {action.dest: action for action in launch_command_parser()._actions}
    known = {dest for dest in actions if dest.startswith("fsdp_")}
    words = {
        "fsdp_auto_wrap_policy": constants.FSDP_AUTO_WRAP_POLICY,
        "fsdp_state_dict_type": constants.FSDP_STATE_DICT_TYPE,
        "fsdp_sharding_strategy": constants.FSDP_SHARDING_STRATEGY,
        "fsdp_backward_prefetch": constants.FSDP_BACKWARD_PREFETCH,
        "fsdp_version": ["1", "2"],
    }
    problems: list[str] = []
    fsdp = content.get("fsdp_config") or {}
    for key, value in fsdp.items():
        dest = key if key.startswith("fsdp") else f"fsdp_{key}"
        if dest not in known:
            problems.append(f"fsdp_config: {suggest(dest, known)}")
        elif dest in words and str(value) not in words[dest]:
            problems.append(f"fsdp_config.{key}: {value!r} is not one of {', '.join(words[dest])}")
    if content.get("distributed_type") == "FSDP" and not fsdp:
        problems.append("distributed_type FSDP without fsdp_config")
    if fsdp.get("fsdp_version") == 2 and "fsdp_sharding_strategy" in fsdp:
        problems.append("fsdp_sharding_strategy belongs to FSDP1, FSDP2 has fsdp_reshard_after_forward")
    if fsdp.get("fsdp_activation_checkpointing"):
        problems.append("fsdp_activation_checkpointing clashes with LLaMA-Factory's own checkpointing")
    if content.get("num_processes") not in (None, world_size):
        problems.append(f"num_processes {content['num_processes']}, but {world_size} GPUs are planned")
    problems += mesh_problems(content, set(actions))
    wrap = fsdp.get("fsdp_transformer_layer_cls_to_wrap")
    if model_dir and wrap:
        problems += class_problems(model_dir, str(wrap))
    return problems


def mesh_problems(content: dict[str, Any], known: set[str]) -> list[str]:
    """accelerate multiplies the sizes of its mesh only when the processes are running
    (accelerate/parallelism_config.py, _validate_accelerator)."""
    mesh = content.get("parallelism_config") or {}
    problems = [f"parallelism_config: {suggest(key, known)}" for key in mesh if key not in known]
    sizes = [value for key, value in mesh.items() if key.endswith("_size")]
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        return [*problems, "parallelism_config: sizes are whole numbers from 1 on"]
    product, processes = math.prod(sizes), content.get("num_processes")
    if mesh and product != processes:
        problems.append(f"parallelism_config: sizes multiply to {product}, there are {processes} processes")
    return problems


# ---------------------------------------------------------------- the model, when its folder is given


class Outline(NamedTuple):
    """What a model is made of, by names alone."""

    classes: frozenset[str]
    linear: frozenset[str]
    """Last part of the names of its linear modules."""
    layers: int | None


OUTLINES: dict[str, Outline | str] = {}
"""config.json -> outline, or what keeps the model from being built: one that many folders hold is built once."""


def outline(model_dir: str) -> Outline | str:
    config = Path(model_dir) / "config.json"
    content = config.read_text(encoding="utf-8") if config.is_file() else model_dir
    if content not in OUTLINES:
        OUTLINES[content] = build_outline(model_dir)
    return OUTLINES[content]


def build_outline(model_dir: str) -> Outline | str:
    """The architecture on the meta device, in the class that model/loader.py:153 chooses."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(model_dir)
        sees = type(config) in AutoModelForImageTextToText._model_mapping
        with torch.device("meta"):
            model = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_config(config)
    except (OSError, ValueError, KeyError) as error:
        return f"model in {model_dir}: {short(error)}"
    modules = list(model.named_modules())
    return Outline(
        classes=frozenset(type(part).__name__ for _, part in modules),
        linear=frozenset(name.split(".")[-1] for name, part in modules if "Linear" in type(part).__name__),
        layers=getattr(model.config.get_text_config(), "num_hidden_layers", None),
    )


def class_problems(model_dir: str, wrap: str) -> list[str]:
    model = outline(model_dir)
    if isinstance(model, str):
        return [model]
    return [
        f"fsdp_transformer_layer_cls_to_wrap: the model has no {name}"
        for name in map(str.strip, wrap.split(","))
        if name not in model.classes
    ]


def model_problems(config: dict[str, Any], model_dir: str) -> list[str]:
    model = outline(model_dir)
    if isinstance(model, str):
        return [model]
    targets = config.get("lora_target", "all")
    targets = [part.strip() for part in targets.split(",")] if isinstance(targets, str) else targets
    problems: list[str] = []
    if config.get("finetuning_type", "lora") == "lora" and targets != ["all"]:
        problems += [
            f"lora_target: the model has no linear module {name} (it has {', '.join(sorted(model.linear))})"
            for name in targets
            if name not in model.linear
        ]
    wanted = config.get("freeze_trainable_layers", 2)
    if (
        config.get("finetuning_type") == "freeze"
        and model.layers
        and isinstance(wanted, int)
        and abs(wanted) > model.layers
    ):
        problems.append(f"freeze_trainable_layers {wanted}: the model has {model.layers} layers")
    return problems


# ---------------------------------------------------------------- LLaMA-Factory's own parser


def short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"For further information visit \S+", "", text).strip()
    return text[:400]


def install_shims(world_size: int, launched: bool) -> None:
    """Answers to hardware questions that a training box would give; nothing else is touched.

    * parallel_mode and world_size: `launched` stands for a torchrun of `world_size` processes;
    * bf16: the target GPU has it;
    * packages without a CPU build count as installed.
    """
    from llamafactory.hparams import parser
    from llamafactory.hparams.training_args import TrainingArguments
    from transformers.training_args import ParallelMode

    mode = ParallelMode.DISTRIBUTED if launched else ParallelMode.NOT_PARALLEL
    TrainingArguments.parallel_mode = property(lambda self: mode)
    TrainingArguments.world_size = property(lambda self: world_size)
    parser.is_torch_bf16_gpu_available = lambda: True
    ask = parser.check_version

    def check_version(requirement: str, mandatory: bool = False) -> None:
        if not requirement.startswith(GPU_ONLY):
            ask(requirement, mandatory)

    parser.check_version = check_version


def parser_problems(config: dict[str, Any], world_size: int, deepspeed: Path | None) -> list[str]:
    from llamafactory.hparams.parser import get_train_args

    given = dict(config)
    given["use_cpu"] = True  # else the Trainer's arguments refuse bf16 and fp16 on this box
    given.pop("ddp_backend", None)  # nccl is not here
    if deepspeed is not None:
        given["deepspeed"] = str(deepspeed)
    install_shims(world_size, launched=world_size > 1 or bool(given.get("deepspeed")))
    with tempfile.TemporaryDirectory() as empty:
        # An output_dir left by an earlier run would change the verdict.
        given["output_dir"] = str(Path(empty) / "run")
        try:
            get_train_args(given)
        except Exception as error:  # whatever it raises is its verdict
            return [short(error)]
    return []


def deepspeed_of(config: dict[str, Any], file: Path) -> tuple[Path | None, list[str]]:
    reference = config.get("deepspeed")
    if not isinstance(reference, str):
        return None, []
    found = beside(file, reference)
    return found, [] if found else [f"deepspeed: {reference} does not exist"]


def train_problems(file: Path, config: dict[str, Any], world_size: int, model_dir: str | None) -> list[str]:
    known = fields_of_train()
    problems = strict_problems(config, known) + choice_problems(config) + ignored_problems(config)
    deepspeed, missing = deepspeed_of(config, file)
    problems += missing
    zero_stage = 0
    if deepspeed is not None:
        problems += deepspeed_problems(deepspeed, world_size, config)
        stage = (read_deepspeed(deepspeed)[0].get("zero_optimization") or {}).get("stage", 0)
        zero_stage = stage if isinstance(stage, int) else 0
    problems += runtime_problems(config, zero_stage)
    problems += dataset_problems(config, file)
    if model_dir:
        problems += model_problems(config, model_dir)
    if not strict_problems(config, known) and not missing:
        # With wrong keys or types the parser would only repeat the finding, in worse words.
        problems += parser_problems(config, world_size, deepspeed)
    return problems


# ---------------------------------------------------------------- entry points


def verdict(file: Path, world_size: int, model_dir: str | None) -> list[str]:
    from omegaconf import OmegaConf

    if not file.is_file():
        return ["no such file"]
    if file.suffix == ".json":
        content, problems = read_deepspeed(file)
        if problems:
            return problems
        if file.name == "dataset_info.json":
            return [p for name, entry in content.items() for p in entry_problems(name, entry, file.parent)]
        return deepspeed_problems(file, world_size, None)
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:  # OmegaConf and PyYAML have no common base class
        return [f"not YAML: {short(error)}"]
    if not isinstance(content, dict):
        return ["must be a mapping"]
    config = {str(key): value for key, value in content.items()}
    if {"distributed_type", "compute_environment", "fsdp_config"} & set(config) and "stage" not in config:
        return accelerate_problems(file, config, world_size, model_dir)
    return train_problems(file, config, world_size, model_dir)


PRELOADED = (
    "deepspeed.runtime.config",
    "llamafactory.data.template",
    "llamafactory.hparams.parser",
    "transformers.integrations.integration_utils",
)
"""What every file needs: imported by each child, a file would take seconds instead of a fraction of one."""


def load_framework() -> None:
    """Import once, in the parent: the children that judge inherit it."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore")
        for module in PRELOADED:
            importlib.import_module(module)


def judge(path: str | Path, *, world_size: int = 1, model_dir: str | None = None) -> list[str]:
    """Problems of one file; empty when LLaMA-Factory would take it.

    In a child process: ZeRO-3 and the process state are global in transformers and accelerate, so that one
    file's verdict would leak into the next.
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
