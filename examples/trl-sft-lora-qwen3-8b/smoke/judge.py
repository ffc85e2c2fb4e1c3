# ruff: noqa: E402 - the environment and the search path are set before the framework is imported
"""Judge of TRL configurations: TRL's own parser, then what TRL would only notice at run time or never.

    python trl.py [--world-size N] [--model-dir DIR] [--method sft] FILE...

Reads YAML for ``trl <method>`` (a comment at its head may say ``# trl sft``), accelerate YAML, and Python
scripts whose ``<X>Config(...)`` calls have literal keywords. One line a file: ``OK file`` or ``FAIL file:
problems``. Exit 0 when all are OK, 1 when one fails, 2 on wrong usage. Needs TRL's environment, no GPU and no
network.

Not judged: data, values computed by a script, ``**kwargs`` of other libraries, what kernels accept, memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# This file may be called trl.py, and Python would then import it in place of the framework.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import argparse
import ast
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import io
import itertools
import json
import re
import types
import typing
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import transformers.training_args as training_args_module
import trl
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from transformers import TrainingArguments
from trl.cli.accelerate_config import resolve_accelerate_config_argument

METHODS = ("sft", "dpo", "kto", "reward", "grpo", "rloo", "distillation")
# No command: a script hands the same YAML to TrlParser with the config class of an experimental trainer.
EXPERIMENTAL = {"orpo": "ORPOConfig", "cpo": "CPOConfig"}
HEAD_LINE = re.compile(r"^#\s*trl\s+(\w+)\s*$")
SCIENTIFIC = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")

# Values that trainers compare against only when the run has begun (sft_trainer.py:1043, dpo_trainer.py:1512,
# grpo_trainer.py:2706-3184, cpo_trainer.py, utils.py:261), so the parser lets anything through.
LOSS_TYPES = {
    "sft": ("nll", "dft"),
    "dpo": (
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot"),
        *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    ),
    "kto": ("kto", "apo_zero_unpaired"),
    "grpo": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "cpo": ("sigmoid", "hinge", "ipo", "simpo", "alphapo"),
}
CHOICES = {
    "attn_implementation": ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"),
    "dtype": ("auto", "bfloat16", "float16", "float32"),
    "packing_strategy": ("bfd", "bfd_split", "wrapped"),
    "truncation_mode": ("keep_start", "keep_end"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "vllm_mode": ("colocate", "server"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none", True, False),
    "bnb_4bit_quant_type": ("nf4", "fp4"),
    "bnb_4bit_quant_storage": ("uint8", "float16", "float32", "bfloat16"),
    "lora_task_type": ("CAUSAL_LM", "SEQ_CLS"),
}
REWARDS = (
    "accuracy_reward",
    "reasoning_accuracy_reward",
    "think_format_reward",
    "get_soft_overlong_punishment",
)
REMOVED = {
    "max_seq_length": "max_length",
    "torch_dtype": "dtype",
    "warmup_ratio": "warmup_steps (a float below 1 is a share of all steps)",
    "max_prompt_length": "nothing: filter long prompts out of the data",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "overwrite_output_dir": "nothing",
    "logging_dir": "nothing",
    "save_safetensors": "nothing",
    "rpo_alpha": "loss_type: [sigmoid, sft] with loss_weights",
    "evaluation_strategy": "eval_strategy",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "fsdp_transformer_layer_cls_to_wrap": "accelerate's fsdp_config",
}
# Read by transformers, but then nothing here would judge what they hold.
ELSEWHERE = ("deepspeed", "fsdp", "fsdp_config", "parallelism_config", "accelerator_config")
LORA_KEYS = ("lora_", "use_dora", "use_rslora")


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
    saved_bf16 = training_args_module.is_torch_bf16_gpu_available
    saved_world = TrainingArguments.world_size
    training_args_module.is_torch_bf16_gpu_available = lambda: True
    TrainingArguments.world_size = property(lambda _self: world_size)  # type: ignore[assignment]
    try:
        yield
    finally:
        training_args_module.is_torch_bf16_gpu_available = saved_bf16
        TrainingArguments.world_size = saved_world  # type: ignore[method-assign]


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Catch what argparse prints, and keep the environment as it was (`env:` of a YAML sets variables)."""
    before = dict(os.environ)
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield said
        finally:
            os.environ.clear()
            os.environ.update(before)


# --- strict types --------------------


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any or hint is inspect.Parameter.empty:
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
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return isinstance(value, (dict, hint))
    return True


def _say_hint(hint: Any) -> str:
    return getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("typing.", "")


def _hints(cls: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError):
        hints = {}
    return {item.name: hints.get(item.name, Any) for item in dataclasses.fields(cls) if item.init}


def _type_problem(key: str, value: Any, hint: Any) -> str | None:
    if _fits(value, hint):
        return None
    if isinstance(value, str) and SCIENTIFIC.match(value) and _fits(1.0, hint):
        return f"{key}: {value} is text in YAML, write {float(value)!r} or 1.0e-6 with a dot"
    return f"{key}: {value!r} is not {_say_hint(hint)}"


def _numbers_as_text(key: str, value: Any) -> Iterator[str]:
    """`{min_lr: 1e-6}` inside a free dictionary: YAML 1.1 reads text, and nobody converts it."""
    if isinstance(value, dict):
        for inner, entry in value.items():
            yield from _numbers_as_text(f"{key}.{inner}", entry)
    elif isinstance(value, str) and SCIENTIFIC.match(value):
        yield f"{key}: {value} is text in YAML, write it with a dot (1.0e-6)"


# --- rules that hold for YAML and for scripts --------------------


def _choice_problems(method: str, values: dict[str, Any]) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        value = values.get(key)
        if value is None or value in allowed:
            continue
        if key == "attn_implementation" and "/" in str(value):
            continue  # a kernel repository on the hub
        yield f"{key}: '{value}' is not one of {', '.join(map(str, allowed))}"
    allowed = LOSS_TYPES.get(method)
    losses = values.get("loss_type")
    for loss in [losses] if isinstance(losses, str) else losses or []:
        if allowed and loss not in allowed:
            yield f"loss_type: '{loss}' is not one of {', '.join(allowed)}"


def _batch_problems(method: str, values: dict[str, Any], world_size: int) -> Iterator[str]:
    micro = values.get("per_device_train_batch_size", 8)
    if method == "kto" and values.get("loss_type", "kto") == "kto":
        if isinstance(micro, int) and micro < 2:
            yield "per_device_train_batch_size: KTO needs at least 2, its KL term pairs samples of one batch"
        if values.get("train_sampling_strategy", "sequential") != "sequential":
            yield "train_sampling_strategy: KTO needs 'sequential', its KL pairs are made in file order"
    tensor_parallel = values.get("vllm_tensor_parallel_size", 1)
    colocated = values.get("use_vllm") and values.get("vllm_mode", "colocate") == "colocate"
    if (
        colocated
        and isinstance(tensor_parallel, int)
        and tensor_parallel > 0
        and world_size % tensor_parallel
    ):
        yield f"vllm_tensor_parallel_size: {tensor_parallel} does not divide the {world_size} processes"


def _combination_problems(method: str, values: dict[str, Any]) -> Iterator[str]:
    packing = values.get("packing")
    if packing and values.get("max_length", 1024) is None:
        yield "packing: needs max_length"
    if values.get("padding_free") and not packing and values.get("max_length", 1024) is not None:
        yield "padding_free: without packing max_length is not enforced, set max_length: null"
    if method == "dpo" and values.get("padding_free"):
        yield "padding_free: DPO ignores it"
    if values.get("assistant_only_loss") and values.get("completion_only_loss"):
        yield "assistant_only_loss and completion_only_loss name two different spans, choose one"
    if method == "grpo" and values.get("sync_ref_model") and not values.get("beta"):
        yield "sync_ref_model: there is no reference model while beta is 0"
    if method == "dpo" and values.get("sync_ref_model") and values.get("precompute_ref_log_probs"):
        yield "sync_ref_model: refused together with precompute_ref_log_probs"
    if values.get("use_vllm") and values.get("load_in_8bit"):
        yield "load_in_8bit: vLLM does not load 8-bit weights in flight"
    half = values.get("dtype") in ("float16", "bfloat16")
    if values.get("fp16") and half and not values.get("use_peft"):  # adapters are fp32 whatever the base is
        yield f"dtype: fp16 training unscales fp32 gradients, {values['dtype']} has none; use float32"
    if (values.get("liger_kernel_config") or {}).get("fused_linear_cross_entropy"):
        yield "liger_kernel_config: fused_linear_cross_entropy would replace the fused head of the trainer"


def _lora_problems(method: str, values: dict[str, Any]) -> Iterator[str]:
    adapter = bool(values.get("use_peft"))
    if not adapter:
        unused = [key for key in values if key.startswith(LORA_KEYS)]
        if unused:
            yield f"{', '.join(unused)}: ignored without use_peft: true"
        if values.get("load_in_4bit") or values.get("load_in_8bit"):
            yield "load_in_4bit/load_in_8bit: a quantized base trains only with use_peft: true"
        return
    targets = values.get("lora_target_modules") or []
    if "lm_head" in ([targets] if isinstance(targets, str) else targets):
        yield "lora_target_modules: lm_head is refused, the loss reads its weight past the adapter"
    if method == "reward" and values.get("lora_task_type", "CAUSAL_LM") != "SEQ_CLS":
        yield "lora_task_type: a reward model needs SEQ_CLS"
    if values.get("lora_target_parameters"):
        if values.get("lora_dropout", 0.05) != 0:
            yield "lora_dropout: adapters on fused parameters need lora_dropout: 0.0 (the default is 0.05)"
        if values.get("use_dora"):
            yield "use_dora: refused for adapters on fused parameters"
    if values.get("sync_ref_model"):
        yield "sync_ref_model: refused with adapters"


# --- YAML of `trl <method>` --------------------


def _load(path: Path) -> Any:
    with path.open(encoding="utf-8") as stream:
        return yaml.load(stream, Loader=_UniqueKeyLoader)


def find_method(path: Path, method: str | None) -> str | None:
    """As told, from the head comments, a sibling advice.json, or a sibling experimental script."""
    if method:
        return method
    head = itertools.takewhile(
        lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()
    )
    for match in filter(None, map(HEAD_LINE.match, head)):
        return match[1]
    advice = path.parent / "advice.json"
    if advice.is_file():
        words = re.findall(
            r"[\w./-]+", json.dumps(json.loads(advice.read_text(encoding="utf-8")).get("command", ""))
        )
        for before, word in itertools.pairwise(words):
            if before == "trl" and word in METHODS:
                return word
    for script in sorted(path.parent.glob("*.py")):
        imported = re.search(
            r"^from trl\.experimental\.(\w+) import", script.read_text(encoding="utf-8"), re.M
        )
        if imported and imported[1] in EXPERIMENTAL:
            return imported[1]
    return None


def _suggest(key: str, known: list[str]) -> str:
    if key in REMOVED:
        return f"unknown key '{key}', use {REMOVED[key]}"
    near = difflib.get_close_matches(key, known, 1)
    return f"unknown key '{key}'" + (f", did you mean '{near[0]}'?" if near else "")


def _accelerate_file(name: str, path: Path) -> Path | None:
    for folder in (Path(), path.parent, path.parent.parent):
        if (folder / name).is_file():
            return folder / name
    return None


def _parser(method: str) -> Any:
    if method not in EXPERIMENTAL:
        return importlib.import_module(f"trl.scripts.{method}").make_parser(prog=f"trl {method}")
    config = getattr(importlib.import_module(f"trl.experimental.{method}"), EXPERIMENTAL[method])
    return trl.TrlParser((trl.ScriptArguments, config, trl.ModelConfig, trl.DatasetMixtureConfig))


def _launch_problems(leftover: dict[str, Any], known: list[str], path: Path) -> Iterator[str]:
    """Keys that TRL does not know go to accelerate's argument parser; argparse is laxer than it looks."""
    options = {
        option: action for action in launch_command_parser()._actions for option in action.option_strings
    }
    arguments: list[str] = []
    for key, value in leftover.items():
        action = options.get(f"--{key}")
        if key == "accelerate_config":
            found = _accelerate_file(str(value), path)
            arguments += ["--accelerate_config", str(found or value)]
        elif action is None:  # argparse would take `--num_proc` for `--num_processes`
            yield _suggest(key, known + [option.lstrip("-") for option in options])
        elif action.nargs == 0:  # a bare flag: its "True" would become the name of the training script
            yield f"{key}: accelerate takes this flag without a value, put it in an accelerate configuration"
        else:
            arguments += [f"--{key}", str(value)]
    with _quiet() as said:
        try:
            launch_command_parser().parse_args([*resolve_accelerate_config_argument(arguments), "train.py"])
        except SystemExit:
            message = said.getvalue().strip().splitlines()[-1:]
            yield f"accelerate: {message[0] if message else 'refused'}"
            return
        except ValueError as error:
            yield str(error)
            return


def _parse(method: str, path: Path, world_size: int) -> Iterator[str]:
    with _pretend_gpu(world_size), _quiet() as said:
        try:
            _parser(method).parse_args_and_config(
                ["--config", str(path)], return_remaining_strings=True, separate_remaining_strings=True
            )
        except SystemExit:
            yield said.getvalue().strip().splitlines()[-1]
        except Exception as error:
            yield f"{type(error).__name__}: {error}"


def _fields_of(method: str) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for cls in _parser(method).dataclass_types:
        hints.update(_hints(cls))
    return hints


def _source_problems(method: str, values: dict[str, Any]) -> Iterator[str]:
    """What the scripts look for after the model was loaded, or when the first batch comes."""
    if not values.get("model_name_or_path"):
        yield "model_name_or_path is missing"
    if not values.get("datasets") and not values.get("dataset_name"):
        yield "datasets or dataset_name is missing"
    if method in ("grpo", "rloo"):
        functions = values.get("reward_funcs")
        if not functions and not values.get("reward_model_name_or_path"):
            yield "reward_funcs or reward_model_name_or_path is missing"
        for name in functions if isinstance(functions, list) else []:
            if "." not in str(name) and name not in REWARDS:
                yield f"reward_funcs: '{name}' is not one of {', '.join(REWARDS)} nor a dotted path"
    if method == "distillation" and not values.get("teacher_model_name_or_path"):
        yield "teacher_model_name_or_path is missing"
    evaluates = values.get("eval_strategy", "no") not in ("no", False)
    if evaluates and values.get("datasets") and not values.get("test_split_size"):
        yield "eval_strategy: `datasets` makes a test split only with test_split_size"


def _with_accelerate(method: str, values: dict[str, Any], path: Path, world_size: int) -> Iterator[str]:
    """The two files of one run must agree: neither program compares them before the model is loaded."""
    name = values.get("accelerate_config")
    found = _accelerate_file(str(name), path) if name else None
    if found is None:
        return
    yield from (f"{found.name}: {problem}" for problem in judge_accelerate(found, world_size=world_size))
    try:
        launch = _load(found) or {}
    except yaml.YAMLError:
        return  # said by judge_accelerate
    fsdp = launch.get("fsdp_config") or {}
    context = (launch.get("parallelism_config") or {}).get("parallelism_config_cp_size", 1)
    checkpointing = values.get("activation_checkpointing", values.get("gradient_checkpointing", True))
    if fsdp.get("fsdp_activation_checkpointing") in (True, "true") and checkpointing:
        yield "gradient_checkpointing: must be false while fsdp_activation_checkpointing is true"
    if str(fsdp.get("fsdp_version", "1")) == "2" and fsdp and values.get("load_in_8bit"):
        yield "load_in_8bit: int8 weights cannot be sharded by FSDP2"
    if context > 1:
        yield from _context_problems(method, values, context)
    yield from _precision_problems(values, launch.get("mixed_precision"))


def _context_problems(method: str, values: dict[str, Any], size: int) -> Iterator[str]:
    if method in ("grpo", "rloo", "distillation"):
        yield f"parallelism_config_cp_size: `trl {method}` refuses context parallelism"
    if values.get("packing"):
        yield "packing: refused with context parallelism"
    if values.get("attn_implementation", "sdpa") != "sdpa":
        yield "attn_implementation: context parallelism runs only with sdpa"
    multiple = values.get("pad_to_multiple_of")
    if not isinstance(multiple, int) or multiple % (2 * size):
        yield f"pad_to_multiple_of: context parallelism over {size} ranks needs a multiple of {2 * size}"


def _precision_problems(values: dict[str, Any], launch: Any) -> Iterator[str]:
    trainer = "fp16" if values.get("fp16") else "bf16" if values.get("bf16", True) else "no"
    if launch not in (None, trainer, False):
        yield f"mixed_precision: accelerate says '{launch}', the trainer '{trainer}'"


def judge_yaml(path: Path, *, world_size: int, model_dir: Path | None, method: str | None) -> list[str]:
    method = find_method(path, method)
    if method not in METHODS and method not in EXPERIMENTAL:
        return [f"method: `trl {method}` is not a command of TRL ({', '.join(METHODS)}); say --method"]
    values = _load(path)
    if not isinstance(values, dict):
        return ["the top level must be a mapping"]
    hints = _fields_of(method)
    problems = []
    leftover = {key: value for key, value in values.items() if key not in hints and key != "env"}
    if method in EXPERIMENTAL:  # the script is launched by accelerate itself
        problems += [_suggest(key, list(hints)) for key in leftover]
    else:
        problems += _launch_problems(leftover, list(hints), path)
    for key in hints.keys() & values.keys():
        problem = _type_problem(key, values[key], hints[key])
        problems += [problem] if problem else []
        if isinstance(values[key], dict):
            problems += _numbers_as_text(key, values[key])
        if key in ELSEWHERE:
            problems.append(f"{key}: belongs in the accelerate configuration, here nothing checks it")
    if not problems:  # the launcher parses as one process, each trainer as one of world_size
        problems += _parse(method, path, 1)
        if not problems and world_size > 1:
            problems += _parse(method, path, world_size)
    problems += _source_problems(method, values)
    problems += _choice_problems(method, values)
    problems += _batch_problems(method, values, world_size)
    problems += _combination_problems(method, values)
    problems += _lora_problems(method, values)
    problems += _with_accelerate(method, values, path, world_size)
    problems += _model_problems(method, values, model_dir)
    return problems


def _model_class(method: str, config: Any) -> Any:
    """What the trainer builds (trainer/utils.py:1311, reward_trainer.py:400, cpo_trainer.py:186)."""
    import transformers

    if method == "reward":
        return transformers.AutoModelForSequenceClassification
    named = getattr(transformers, (config.architectures or [""])[0], None)
    return named if named and method not in EXPERIMENTAL else transformers.AutoModelForCausalLM


class Outline(NamedTuple):
    """What a model is made of, by names alone."""

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    positions: int | None


_OUTLINES: dict[tuple[str, str], Outline | str] = {}
"""(kind of class, config.json) -> outline, or why there is none: one that many folders hold is built once."""


def _outline(method: str, model_dir: Path) -> Outline | str:
    content = (model_dir / "config.json").read_text(encoding="utf-8")
    kind = "reward" if method == "reward" else "experimental" if method in EXPERIMENTAL else ""
    if (kind, content) not in _OUTLINES:
        _OUTLINES[kind, content] = _build_outline(method, model_dir)
    return _OUTLINES[kind, content]


def _build_outline(method: str, model_dir: Path) -> Outline | str:
    """The architecture on the meta device."""
    import torch
    from transformers import AutoConfig

    with _quiet():
        config = AutoConfig.from_pretrained(model_dir)
        kind = _model_class(method, config)
        if kind.__name__.startswith("AutoModel") and type(config) not in kind._model_mapping:
            return f"model_name_or_path: {kind.__name__} loads no {config.model_type}"
        with torch.device("meta"):
            model = kind.from_config(config) if kind.__name__.startswith("AutoModel") else kind(config)
    return Outline(
        tuple(name for name, _ in model.named_modules()),
        tuple(name for name, _ in model.named_parameters()),
        getattr(config.get_text_config(), "max_position_embeddings", None),
    )


def _model_problems(method: str, values: dict[str, Any], model_dir: Path | None) -> Iterator[str]:
    """Names that must exist in the model, looked up in the same architecture without weights."""
    if model_dir is None:
        return
    model = _outline(method, model_dir)
    if isinstance(model, str):
        yield model
        return
    for key, names in (("lora_target_modules", model.modules), ("lora_target_parameters", model.parameters)):
        wanted = values.get(key) or []
        for target in [wanted] if isinstance(wanted, str) else wanted:
            if target != "all-linear" and not any(n == target or n.endswith(f".{target}") for n in names):
                yield f"{key}: the model has no '{target}'"
    length = values.get("max_length")
    if isinstance(length, int) and isinstance(model.positions, int) and length > model.positions:
        yield f"max_length: {length} is more than the {model.positions} positions of the model"


# --- accelerate YAML --------------------

ACCELERATE_CHOICES = {
    "mixed_precision": ("no", "fp16", "bf16", "fp8"),
    "zero_stage": (0, 1, 2, 3),
    "offload_optimizer_device": ("none", "cpu", "nvme"),
    "offload_param_device": ("none", "cpu", "nvme"),
    "fsdp_version": (1, 2),
    "fsdp_state_dict_type": ("FULL_STATE_DICT", "SHARDED_STATE_DICT", "LOCAL_STATE_DICT"),
    "fsdp_auto_wrap_policy": ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"),
}
SECTIONS = {"deepspeed_config": "", "fsdp_config": "fsdp_", "parallelism_config": "parallelism_config_"}


def _section_problems(section: str, content: Any, known: set[str]) -> Iterator[str]:
    if not isinstance(content, dict):
        yield f"{section}: must be a mapping"
        return
    for key, value in content.items():
        if key not in known or not key.startswith(SECTIONS[section]):
            near = difflib.get_close_matches(key, known, 1)
            yield f"{section}: nobody reads '{key}'" + (f", did you mean '{near[0]}'?" if near else "")
        allowed = ACCELERATE_CHOICES.get(key)
        if allowed and value not in allowed:
            yield f"{key}: {value!r} is not one of {', '.join(map(str, allowed))}"
        flag = key.endswith(("_flag", "_params", "_loading", "_checkpointing", "16bit_model"))
        if flag and not isinstance(value, bool):
            yield f"{key}: {value!r} is not true or false"


def _deepspeed_problems(config: dict[str, Any]) -> Iterator[str]:
    stage = config.get("zero_stage")
    if config.get("deepspeed_config_file"):
        extra = sorted(
            config.keys() - {"deepspeed_config_file", "zero3_init_flag", "deepspeed_multinode_launcher"}
        )
        if extra:
            yield f"deepspeed_config: {', '.join(extra)} must stand in deepspeed_config_file"
        return
    if stage is None:
        yield "deepspeed_config: zero_stage is missing"
        return
    parameters = config.get("offload_param_device", "none")
    optimizer = config.get("offload_optimizer_device", "none")
    if parameters != "none" and stage != 3:
        yield f"offload_param_device: only ZeRO-3 moves weights, this is stage {stage}"
    if optimizer == "nvme" and stage != 3:
        yield f"offload_optimizer_device: only ZeRO-3 uses nvme, this is stage {stage}"
    for name, device in (("optimizer", optimizer), ("param", parameters)):
        if device == "nvme" and not config.get(f"offload_{name}_nvme_path"):
            yield f"offload_{name}_nvme_path is missing"
    accumulation = config.get("gradient_accumulation_steps", "auto")
    if accumulation != "auto" and not isinstance(accumulation, int):
        yield f"gradient_accumulation_steps: {accumulation!r} is neither a whole number nor auto"


def _fsdp_problems(config: dict[str, Any]) -> Iterator[str]:
    if config.get("fsdp_version") != 2:
        yield "fsdp_version: say 2, the default of accelerate is 1"
        return
    for key in (
        "fsdp_sharding_strategy",
        "fsdp_use_orig_params",
        "fsdp_backward_prefetch",
        "fsdp_forward_prefetch",
    ):
        if key in config:
            yield f"{key}: FSDP2 does not read it"


def _process_problems(config: dict[str, Any], world_size: int) -> Iterator[str]:
    processes, machines = config.get("num_processes"), config.get("num_machines", 1)
    for key, value in (("num_processes", processes), ("num_machines", machines)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            yield f"{key}: {value!r} is not a positive whole number"
            return
    if processes is None:
        yield "num_processes is missing"
        return
    if processes % machines:
        yield f"num_processes: {processes} are not divisible over {machines} machines"
    if world_size > 1 and processes != world_size:
        yield f"num_processes: {processes}, but the run has {world_size}"
    if machines > 1 and not config.get("main_process_ip"):
        yield "main_process_ip is missing for several machines"
    kind = config.get("distributed_type")
    if kind == "NO" and processes > 1:
        yield f"distributed_type: NO starts one process, not {processes}"
    if kind == "MULTI_GPU" and processes < 2:
        yield "distributed_type: MULTI_GPU needs at least two processes"
    if kind == "MULTI_CPU":
        yield "distributed_type: MULTI_CPU starts one process where mpirun is missing, use torchrun"


def _parallelism_problems(config: dict[str, Any], processes: Any) -> Iterator[str]:
    product = 1
    for axis in ("dp_replicate", "dp_shard", "tp", "cp", "sp"):
        size = config.get(f"parallelism_config_{axis}_size", 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            yield f"parallelism_config_{axis}_size: {size!r} is not a positive whole number"
            return
        product *= size
    if isinstance(processes, int) and product != processes:
        yield f"parallelism_config: sizes multiply to {product}, there are {processes} processes"


def judge_accelerate(path: Path, *, world_size: int = 1) -> list[str]:
    try:
        config = _load(path)
    except yaml.YAMLError as error:
        return [" ".join(str(error).split())]
    problems: list[str] = []
    with _quiet():
        try:
            ClusterConfig.from_yaml_file(str(path))
        except (ValueError, TypeError, KeyError) as error:
            return [str(error).replace(str(path), path.name)]
    known = {action.dest for action in launch_command_parser()._actions}
    for section in SECTIONS:
        if section in config:
            problems += _section_problems(section, config[section], known)
    precision = config.get("mixed_precision")
    if precision not in (
        *ACCELERATE_CHOICES["mixed_precision"],
        None,
        False,
    ):  # YAML reads a bare `no` as False
        problems.append(f"mixed_precision: {precision!r} is not one of no, fp16, bf16, fp8")
    kind = config.get("distributed_type")
    for wanted, section in (("DEEPSPEED", "deepspeed_config"), ("FSDP", "fsdp_config")):
        if (kind == wanted) != bool(config.get(section)):
            problems.append(f"{section}: goes with distributed_type: {wanted}, here it is {kind}")
    if kind == "DEEPSPEED" and isinstance(config.get("deepspeed_config"), dict):
        problems += _deepspeed_problems(config["deepspeed_config"])
    if kind == "FSDP" and isinstance(config.get("fsdp_config"), dict):
        problems += _fsdp_problems(config["fsdp_config"])
    if isinstance(config.get("parallelism_config"), dict):
        problems += _parallelism_problems(config["parallelism_config"], config.get("num_processes"))
        if kind != "FSDP" and config["parallelism_config"].get("parallelism_config_cp_size", 1) != 1:
            problems.append("parallelism_config_cp_size: context parallelism needs FSDP version 2")
    problems += _process_problems(config, world_size)
    return problems


# --- Python scripts --------------------


def _imports(tree: ast.Module) -> Iterator[tuple[str, str, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                yield alias.asname or alias.name, node.module, alias.name, node.lineno


def _literal(node: ast.expr) -> tuple[bool, Any]:
    try:
        return True, ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False, None


def _config_method(name: str) -> str:
    return name.removesuffix("Config").lower()


def _call_values(call: ast.Call) -> tuple[dict[str, Any], list[str], bool]:
    """Literal keywords, names of the others, and whether something is passed that cannot be seen."""
    values, others, hidden = {}, [], bool(call.args)
    for keyword in call.keywords:
        if keyword.arg is None:
            hidden = True
            continue
        known, value = _literal(keyword.value)
        if known:
            values[keyword.arg] = value
        else:
            others.append(keyword.arg)
    return values, others, hidden


def _judge_config_call(name: str, cls: type, call: ast.Call, world_size: int) -> Iterator[str]:
    where = f"line {call.lineno}: {name}"
    values, others, hidden = _call_values(call)
    if hidden:
        yield f"{where}: only literal keyword arguments can be judged"
        return
    hints = _hints(cls)
    unknown = [key for key in (*values, *others) if key not in hints]
    yield from (f"{where}: {_suggest(key, list(hints))}" for key in unknown)
    wrong = [
        problem
        for key in hints.keys() & values.keys()
        if (problem := _type_problem(key, values[key], hints[key]))
    ]
    yield from (f"{where}: {problem}" for problem in wrong)
    if unknown or wrong:
        return
    with _pretend_gpu(world_size), _quiet():
        try:
            cls(**values)
        except Exception as error:
            yield f"{where}: {type(error).__name__}: {error}"
    method = _config_method(name)
    if method in EXPERIMENTAL and "device_map" not in (
        values.get("model_init_kwargs") or {"device_map": None}
    ):
        yield f"{where}: model_init_kwargs: without device_map: None the model spreads over all GPUs"
    for check in (
        _choice_problems(method, values),
        _batch_problems(method, values, world_size),
        _combination_problems(method, values),
    ):
        yield from (f"{where}: {problem}" for problem in check)


def _judge_trainer_call(name: str, cls: type, call: ast.Call) -> Iterator[str]:
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
    problems: list[str] = []
    classes: dict[str, Any] = {}
    for local, module, name, line in _imports(tree):
        if module.split(".")[0] not in ("trl", "peft", "transformers"):
            continue
        try:
            with _quiet():
                classes[local] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            problems.append(f"line {line}: {module} has no '{name}'")
    judged = 0
    for call in [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]:
        name, cls = call.func.id, classes.get(call.func.id)
        if isinstance(cls, type) and name.endswith("Config") and dataclasses.is_dataclass(cls):
            judged += issubclass(cls, TrainingArguments)
            problems += _judge_config_call(name, cls, call, world_size)
        elif isinstance(cls, type) and name.endswith("Trainer"):
            problems += _judge_trainer_call(name, cls, call)
        elif name == "TrlParser":  # the values stand in a YAML, which is judged by itself
            judged += any(
                isinstance(node, ast.Name) and node.id.endswith("Config") for node in ast.walk(call)
            )
    if not judged and not problems:
        problems.append("no call of a TRL <X>Config was found")
    return problems


# --- entry --------------------


def judge(
    path: str | Path, *, world_size: int = 1, model_dir: str | Path | None = None, method: str | None = None
) -> list[str]:
    """Problems of one file; empty when it is accepted."""
    path, model = Path(path), Path(model_dir) if model_dir else None
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
    return judge_yaml(path, world_size=world_size, model_dir=model, method=method)


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge TRL configurations.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--model-dir")
    parser.add_argument("--method", choices=(*METHODS, *EXPERIMENTAL))
    options = parser.parse_args()
    failed = False
    for name in options.files:
        found = judge(name, world_size=options.world_size, model_dir=options.model_dir, method=options.method)
        failed |= bool(found)
        print(
            f"FAIL {name}: {'; '.join(' '.join(text.split()) for text in found)}" if found else f"OK {name}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
