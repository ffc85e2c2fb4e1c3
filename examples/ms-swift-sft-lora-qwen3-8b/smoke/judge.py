"""Judge ms-swift files without a GPU: the framework's own argument path, and the checks it leaves out.

    python judge.py [--world-size N] [--model-dir DIR] [--cmd "swift sft"] FILE...

FILE is the YAML given to `swift pt|sft|rlhf` or `megatron pt|sft|rlhf`; the command is `--cmd` or a comment
in the file's head (`# swift sft`). Prints `OK FILE` or `FAIL FILE: ...`.

ms-swift's part: its YAML reader, its argument parser and every `__post_init__` of the argument classes,
with GPUs, hub and process groups replaced (each replacement is marked `stand-in`). Ours: abbreviated keys,
null, texts that only a trainer would look up, keys of other methods, and arithmetic met at run time. With
`--model-dir` a Megatron file is also checked against Megatron-core's TransformerConfig of that config.json.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import importlib.abc
import importlib.machinery
import importlib.metadata
import json
import logging
import os
import re
import sys
import tempfile
import traceback
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COMMANDS = tuple(f"{program} {name}" for program in ("swift", "megatron") for name in ("pt", "sft", "rlhf"))
TE_VERSION = "2.14.0"  # any release that Megatron-core takes for complete
MEGATRON_UNUSED = {
    # Megatron arguments inherit these from the transformers side, and nothing reads them there.
    "attn_impl": "use attention_backend",
    "experts_impl": "experts are grouped by moe_grouped_gemm",
    "quant_method": "Megatron trains no quantized base",
    "quant_bits": "Megatron trains no quantized base",
    "tuner_backend": "adapters come from mcore-bridge",
    "device_map": "ranks own their shard",
    "sequence_parallel_size": "use context_parallel_size",
    "use_swift_lora": "adapters come from mcore-bridge",
}
# Keys of the shared RLHF argument class that only some methods read; the others drop them without a word.
METHOD_KEYS = {
    ("grpo", "gkd"): """
        use_vllm vllm_mode vllm_gpu_memory_utilization vllm_tensor_parallel_size vllm_max_model_len
        vllm_enforce_eager vllm_server_host vllm_server_port vllm_server_base_url vllm_enable_lora
        sleep_level offload_optimizer offload_model move_model_batches generation_batch_size
        steps_per_generation teacher_model teacher_model_server offload_teacher_model""",
    ("grpo",): """
        num_generations num_generations_eval reward_funcs reward_weights num_iterations epsilon
        epsilon_high delta dynamic_sample max_resample_times overlong_filter scale_rewards
        advantage_estimator kl_in_reward importance_sampling_level async_generate log_completions
        log_entropy top_entropy_quantile sync_ref_model multi_turn_scheduler max_turns""",
    ("ppo",): """
        num_ppo_epochs kl_coef cliprange cliprange_value vf_coef whiten_rewards gamma lam
        num_mini_batches num_sample_generations missing_eos_penalty local_rollout_forward_batch_size""",
    ("ppo", "grpo"): "reward_model reward_model_type reward_adapters reward_template",
    ("ppo", "grpo", "gkd"): "max_completion_length temperature",
    ("dpo",): "rpo_alpha ld_alpha discopop_tau loss_weights",
    ("cpo", "simpo"): "cpo_alpha simpo_gamma",
    ("kto",): "desirable_weight undesirable_weight",
    ("gkd",): "lmbda seq_kd sft_alpha gkd_logits_topk",
    ("rm",): "center_rewards_coefficient",
}
OWNERS = {key: methods for methods, keys in METHOD_KEYS.items() for key in keys.split()}
LOSSES = {
    method: set(names.split())
    for method, names in {
        "grpo": "grpo bnpo dr_grpo dapo cispo sapo real fipo",
        "dpo": """
            sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down
            discopop sft sigmoid_norm""",
        "kto": "kto apo_zero_unpaired",
        "cpo": "sigmoid hinge ipo simpo",
        "simpo": "simpo",
    }.items()
}
MEGATRON_REPORTS = {"tensorboard", "wandb", "swanlab"}


class Refused(Exception):
    """The file cannot be judged further; the message says why."""


# --- stand-ins ------------------------------------------------------------------------------------


class _Stub(types.ModuleType):
    """stand-in: a Transformer Engine whose classes exist and do nothing (it is built for CUDA only)."""

    __version__ = TE_VERSION

    def __getattr__(self, name: str) -> Any:
        import torch

        if name.startswith("__"):
            raise AttributeError(name)
        made: Any = (
            type(name, (torch.nn.Module,), {"__module__": self.__name__})
            if name[0].isupper() or name.startswith("_")
            else importlib.import_module(f"{self.__name__}.{name}")
        )
        setattr(self, name, made)
        return made

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{self.__name__} needs a GPU")


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] == "transformer_engine":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = _Stub(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _installed(name: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(name))
    return False


def _pretend_installed(versions: Mapping[str, str]) -> None:
    """stand-in: packages that are built for GPUs count as present, for version questions only."""
    original = importlib.metadata.version

    def version(name: str) -> str:
        wanted = versions.get(name.replace("_", "-").lower())
        try:
            return original(name)
        except importlib.metadata.PackageNotFoundError:
            if wanted is None:
                raise
            return wanted

    importlib.metadata.version = version


@dataclasses.dataclass
class Situation:
    """What the replaced functions answer with; set anew for each file."""

    world_size: int = 1
    model: str | None = None
    model_type: str | None = None
    model_dir: str | None = None
    scratch: str = ""


NOW = Situation()


def _locate(model_id_or_path: str, *_: Any, **__: Any) -> str:
    """stand-in for the hub: the folder itself, `--model-dir`, or a config.json made from the registry."""
    if os.path.isdir(model_id_or_path):
        return model_id_or_path
    if NOW.model_dir is not None and model_id_or_path == NOW.model:
        return NOW.model_dir
    from swift.model.model_meta import MODEL_MAPPING, get_matched_model_meta

    meta = get_matched_model_meta(model_id_or_path)
    if meta is None and model_id_or_path == NOW.model and NOW.model_type in MODEL_MAPPING:
        meta = MODEL_MAPPING[NOW.model_type]
    if meta is None:
        raise Refused(
            f"model {model_id_or_path!r} is no folder here and not registered under that name: "
            "set model_type and template (or pass --model-dir)"
        )
    folder = Path(NOW.scratch, re.sub(r"\W+", "-", model_id_or_path))
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": [a for a in meta.architectures if a != "null"][:1] or ["Unknown"],
        "model_type": f"judge_{meta.model_type}",
        "torch_dtype": "bfloat16",
        "max_position_embeddings": 1 << 20,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def _parser_error(self: argparse.ArgumentParser, message: str) -> None:
    raise ValueError(message)


def _patch_common() -> None:
    import swift.arguments.base_args.base_args as base_args
    import swift.arguments.rlhf_args as rlhf_args
    import swift.arguments.sft_args as sft_args
    import swift.model.model_meta as model_meta
    import swift.trainers.arguments as train_arguments
    import torch
    import transformers.training_args as hf_arguments
    from accelerate.state import PartialState

    argparse.ArgumentParser.error = _parser_error
    model_meta.safe_snapshot_download = _locate
    base_args.safe_snapshot_download = lambda path, *_, **__: path
    # stand-in: an adapter folder that is not here cannot be looked into
    is_adapter = base_args.BaseArguments._check_is_adapter
    base_args.BaseArguments._check_is_adapter = staticmethod(lambda d: not os.path.isdir(d) or is_adapter(d))
    base_args.get_dist_setting = sft_dist = lambda: (0, 0, NOW.world_size, NOW.world_size)
    train_arguments.get_dist_setting = sft_dist
    base_args.set_device = lambda *_, **__: None
    # stand-in: the cards that these files are for have bf16, and Liger is a Triton package
    hf_arguments.is_torch_bf16_gpu_available = lambda: True
    train_arguments.is_liger_available = lambda: True
    # stand-in: no process group and no accelerator, and the number of processes that was asked for
    training = hf_arguments.TrainingArguments

    def devices(self: Any) -> Any:
        self.distributed_state, self._n_gpu = PartialState(cpu=True), 0
        return torch.device("cpu")

    training._setup_devices = property(devices)
    training.world_size = property(lambda self: NOW.world_size)
    # stand-in: no output folder is made, no server is called
    sft_args.SftArguments._add_version = lambda self: None
    sft_args.SftArguments._init_swanlab = lambda self: None
    rlhf_args.RLHFArguments._init_external_vllm = lambda self: None
    # stand-in: would announce a process group of one, which accelerate then opens
    rlhf_args.set_default_ddp_config = lambda *_, **__: None


def _megatron_grid(args: Any) -> None:
    """stand-in for Megatron's process groups: the divisibility rules of its parallel_state.py."""
    args.rank, args.world_size = 0, NOW.world_size
    tp, pp, cp = (
        args.tensor_model_parallel_size,
        args.pipeline_model_parallel_size,
        args.context_parallel_size,
    )
    if args.world_size % (tp * pp * cp):
        raise ValueError(f"world size {args.world_size} is not divisible by TP*PP*CP = {tp * pp * cp}")
    etp, ep = args.expert_tensor_parallel_size, args.expert_model_parallel_size
    if args.world_size % (etp * ep * pp):
        raise ValueError(f"world size {args.world_size} is not divisible by ETP*EP*PP = {etp * ep * pp}")


def _patch_megatron() -> None:
    import swift.megatron.arguments.megatron_args as megatron_args
    import swift.megatron.arguments.sft_args as megatron_sft

    megatron_args.initialize_megatron = _megatron_grid
    megatron_args.get_dist_setting = lambda: (0, 0, NOW.world_size, NOW.world_size)

    def output_dir(self: Any) -> None:
        self.output_dir = self.output_dir or "megatron_output"

    megatron_sft.MegatronSftArguments._init_output_dir = output_dir


def _prepare(megatron: bool, done: set[str] = set()) -> None:  # noqa: B006  (what was already replaced)
    if "common" not in done:
        logging.disable(logging.CRITICAL)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        _pretend_installed({"liger-kernel": "0.7.0", "transformer-engine": TE_VERSION})
        _patch_common()
        done.add("common")
    if megatron and "megatron" not in done:
        if not _installed("transformer-engine") or "transformer_engine" not in sys.modules:
            sys.meta_path.insert(0, _StubFinder())
        _patch_megatron()
        done.add("megatron")


# --- reading --------------------------------------------------------------------------------------


def _command(text: str) -> str | None:
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            return None
        named = re.search(r"\b(swift|megatron)\s+(pt|sft|rlhf)\b", line)
        if named:
            return f"{named[1]} {named[2]}"
    return None


def _class(command: str) -> type:
    program, _, name = command.partition(" ")
    prefix = "Megatron" if program == "megatron" else ""
    module = importlib.import_module("swift.megatron.arguments" if prefix else "swift.arguments")
    return getattr(module, f"{prefix}{ {'pt': 'Pretrain', 'sft': 'Sft', 'rlhf': 'RLHF'}[name] }Arguments")


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise Refused(f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise Refused("not a mapping of keys to values")
    return raw


# --- strict: before parsing -----------------------------------------------------------------------


def _key_problems(raw: dict[str, Any], cls: type) -> Iterator[tuple[str, str]]:
    """(key, problem) for keys that must not reach the parser as they are."""
    names = [f.name for f in dataclasses.fields(cls)]
    for key, value in raw.items():
        if key == "ENV":
            if not isinstance(value, dict) or any(
                isinstance(v, dict | list | None.__class__) for v in value.values()
            ):
                yield key, "ENV: a mapping of variable names to single values is wanted"
        elif key not in names:
            longer = [name for name in names if name.startswith(str(key))]
            near = longer or difflib.get_close_matches(str(key), names, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield key, f"{key}: unknown key{hint}"
        elif value is None:
            yield key, f"{key}: null reaches ms-swift as the text 'None': leave the key out"
        elif isinstance(value, list) and not value:
            yield key, f"{key}: an empty list: leave the key out"


def _text_problems(raw: dict[str, Any], command: str) -> Iterator[str]:
    targets = raw.get("target_modules")
    if isinstance(targets, str) and re.search(r"[\s,]", targets.strip()):
        yield f"target_modules: {targets!r} is taken as one module name: write a list"
    if command.startswith("megatron"):
        for key in raw.keys() & MEGATRON_UNUSED.keys():
            yield f"{key}: accepted and not read by Megatron-SWIFT ({MEGATRON_UNUSED[key]})"
    method = raw.get("rlhf_type", "dpo")
    for key in raw:
        owners = OWNERS.get(key)
        if owners is None:
            continue
        if not command.endswith("rlhf"):
            if key not in ("temperature",):
                yield f"{key}: not read by {command}"
        elif method not in owners:
            yield f"{key}: not read by rlhf_type {method} (only {', '.join(sorted(owners))})"


# --- strict: after parsing ------------------------------------------------------------------------


def _choice(name: str, value: Any, known: Any) -> Iterator[str]:
    if value is not None and value not in known:
        yield f"{name}: unknown {value!r}, known: {', '.join(sorted(known))}"


def _reward_problems(args: Any) -> Iterator[str]:
    from swift.rewards import orms

    for name in args.reward_funcs:
        yield from _choice("reward_funcs", name, orms)
    models = args.reward_model or []
    teacher = args.teacher_model or args.teacher_model_server
    if not args.reward_funcs and not models and not teacher and not args.use_gym_env:
        yield "grpo needs reward_funcs or reward_model"
    weights = args.reward_weights
    if weights is not None and len(weights) != len(args.reward_funcs) + len(models):
        yield f"reward_weights: {len(weights)} for {len(args.reward_funcs) + len(models)} rewards"


def _rlhf_problems(args: Any, raw: dict[str, Any]) -> Iterator[str]:
    method = raw.get("rlhf_type", "dpo")
    losses = args.loss_type if isinstance(args.loss_type, list) else [args.loss_type]
    if method in LOSSES:
        for loss in losses:
            yield from _choice(f"loss_type of {method}", loss, LOSSES[method])
    if method == "grpo":
        yield from _reward_problems(args)
    if method == "ppo" and not args.reward_model:
        yield "ppo needs reward_model"
    if method in ("grpo", "gkd") and args.use_vllm:
        yield from _vllm_problems(args)


def _vllm_problems(args: Any) -> Iterator[str]:
    if args.vllm_mode == "colocate" and NOW.world_size % args.vllm_tensor_parallel_size:
        yield f"world size {NOW.world_size} is not divisible by vllm_tensor_parallel_size"
    if not 0 < args.vllm_gpu_memory_utilization < 1:
        yield "vllm_gpu_memory_utilization must be between 0 and 1"


def _quant_problems(args: Any, raw: dict[str, Any]) -> Iterator[str]:
    if (args.quant_method is None) != (args.quant_bits is None) and args.quant_method != "fp8":
        yield "quant_method and quant_bits are only read together"
    if args.quant_method == "bnb" and args.quant_bits not in (4, 8, None):
        yield f"bitsandbytes has 4 and 8 bits, not {args.quant_bits}"
    if args.quant_method and args.tuner_type == "full":
        yield f"quant_method {args.quant_method} with tuner_type full: quantized weights cannot be trained"
    stage = ((args.deepspeed or {}) if isinstance(args.deepspeed, dict) else {}).get("zero_optimization", {})
    if args.quant_method == "bnb" and stage.get("stage") == 3:
        yield "bitsandbytes under DeepSpeed ZeRO-3: transformers does not shard quantized weights"


def _hf_problems(args: Any, raw: dict[str, Any]) -> Iterator[str]:
    from swift.arguments.base_args.base_args import get_supported_tuners
    from swift.optimizers import optimizers_map
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    yield from _choice("tuner_type", args.tuner_type, get_supported_tuners())
    yield from _choice("optimizer", args.optimizer, optimizers_map)
    for name in args.report_to:
        yield from _choice("report_to", name, {*INTEGRATION_TO_CALLBACK, "swanlab", "all", "none"})
    yield from _quant_problems(args, raw)
    if args.target_parameters and args.lora_dropout:
        yield "target_parameters: PEFT refuses lora_dropout other than 0 on parameters"
    if args.use_dora and args.tuner_type != "lora":
        yield f"use_dora is not read by tuner_type {args.tuner_type}"
    if args.sequence_parallel_size > 1 and NOW.world_size % args.sequence_parallel_size:
        yield f"world size {NOW.world_size} is not divisible by sequence_parallel_size"
    if args.tuner_type == "full":
        for key in sorted(raw.keys() & {"lora_rank", "lora_alpha", "lora_dropout", "target_modules"}):
            yield f"{key}: not read by tuner_type full"


def _stage_problem(args: Any, layers: int) -> Iterator[str]:
    """Megatron refuses uneven stages when it builds the model (transformer_block.py); said here before."""
    pp = args.pipeline_model_parallel_size
    first, last = args.decoder_first_pipeline_num_layers, args.decoder_last_pipeline_num_layers
    extra = args.account_for_embedding_in_pipeline_split + args.account_for_loss_in_pipeline_split
    stages, rest = pp - bool(first) - bool(last), layers + extra - (first or 0) - (last or 0)
    if not args.pipeline_model_parallel_layout and (rest < 0 or (rest % stages if stages else rest)):
        yield f"{rest} layers cannot be split evenly over {stages} pipeline stages"
        return
    chunks = args.virtual_pipeline_model_parallel_size or 1
    for held in (first, last, rest // stages if stages else None):
        if held and held % chunks and not args.pipeline_model_parallel_layout:
            yield f"virtual pipeline stages: a stage of {held} layers does not split into {chunks} model chunks"


def _shape_problems(args: Any, model_dir: str) -> Iterator[str]:
    from swift.megatron.model.utils import get_mcore_model_config
    from transformers import AutoConfig

    hf = AutoConfig.from_pretrained(model_dir)
    text = hf.get_text_config()
    yield from _stage_problem(args, text.num_hidden_layers)
    experts = getattr(text, "num_experts", None) or getattr(text, "n_routed_experts", None)
    experts = experts or getattr(text, "num_local_experts", None)
    if experts and experts % args.expert_model_parallel_size:
        yield f"{experts} experts are not divisible by expert_model_parallel_size"
    if not experts and args.expert_model_parallel_size > 1:
        yield "expert_model_parallel_size for a model without experts"
    # stand-in: the weight converter asks Megatron's process groups for its rank
    args.megatron_model_meta.bridge_cls = lambda config: None
    try:
        get_mcore_model_config(args, hf)
    except Exception as error:  # Megatron-core raises ValueError, AssertionError and others
        yield f"Megatron-core: {_first_line(error)}"


def _megatron_problems(args: Any, raw: dict[str, Any]) -> Iterator[str]:
    for name in args.report_to:
        yield from _choice("report_to", name, MEGATRON_REPORTS)
    if args.recompute_granularity == "full" and args.recompute_method is None:
        yield "recompute_granularity full needs recompute_method and recompute_num_layers"
    if raw.get("sequence_parallel") and args.tensor_model_parallel_size == 1:
        yield "sequence_parallel has no effect at tensor_model_parallel_size 1"
    if args.rlhf_type in ("grpo", "gkd"):
        try:
            # The framework does this only where a process group exists.
            args.validate_batch_dp_alignment(
                args.generation_batch_size,
                args.num_generations,
                args.data_parallel_size,
                args.micro_batch_size,
                NOW.world_size,
            )
        except ValueError as error:
            yield _first_line(error)
    if args.tuner_type == "full":
        for key in sorted(raw.keys() & {"lora_rank", "lora_alpha", "lora_dropout", "target_modules"}):
            yield f"{key}: not read by tuner_type full"
    yield from _vpp_problem(args)
    if NOW.model_dir is not None:
        yield from _shape_problems(args, NOW.model_dir)


def _vpp_problem(args: Any) -> Iterator[str]:
    if args.virtual_pipeline_model_parallel_size is None:
        return
    # The stand-in for Megatron's process groups does not know virtual stages (parallel_state.py).
    if args.pipeline_model_parallel_size == 1:
        yield "virtual pipeline stages: pipeline_model_parallel_size must be greater than 1"
        return
    # Said only once training has begun: grpo_trainer.py and rollout_mixin.py.
    if args.rlhf_type in ("grpo", "gkd"):
        yield f"virtual pipeline stages: {args.rlhf_type} does not support them"
    group = args.microbatch_group_size_per_vp_stage or args.pipeline_model_parallel_size
    if args.num_microbatches % group:
        yield f"virtual pipeline stages: {args.num_microbatches} micro batches are not divisible by {group}"


# --- judging --------------------------------------------------------------------------------------


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not text:  # a bare `assert`: its source says what was wanted
        text = f"{type(error).__name__}: {traceback.extract_tb(error.__traceback__)[-1].line}"
    if isinstance(error, json.JSONDecodeError):
        text = f"neither a preset nor a readable JSON file ({text})"
    return text[:500]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Environment variables and printed text of the framework end with the file."""
    before = dict(os.environ)
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _reset_state() -> None:
    """transformers and accelerate remember the last DeepSpeed or FSDP set-up."""
    from accelerate.state import AcceleratorState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(reset_partial_state=True)


def _parse(raw: dict[str, Any], cls: type, scratch: str) -> tuple[Any, list[str]]:
    import yaml
    from swift.cli.main import parse_yaml_args
    from swift.utils import parse_args

    file = Path(scratch, "judged.yaml")
    file.write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False))
    argv = [str(file)]
    parse_yaml_args(argv)
    args, rest = parse_args(cls, argv)
    return args, [f"not understood: {' '.join(rest)}"] if rest else []


def _judge(raw: dict[str, Any], command: str) -> list[str]:
    megatron = command.startswith("megatron")
    _prepare(megatron)
    _reset_state()
    cls = _class(command)
    found = list(_key_problems(raw, cls))
    problems = [text for _, text in found] + list(_text_problems(raw, command))
    bad = {key for key, _ in found}
    clean = {key: value for key, value in raw.items() if key not in bad}
    try:
        args, rest = _parse(clean, cls, NOW.scratch)
    except (Exception, SystemExit) as error:  # argument classes raise whatever they like
        return [*problems, _first_line(error)]
    problems += rest
    if command.endswith("rlhf"):
        problems += _rlhf_problems(args, raw)
    problems += (_megatron_problems if megatron else _hf_problems)(args, raw)
    return problems


def judge(
    path: str | Path, *, world_size: int = 1, model_dir: str | None = None, cmd: str | None = None
) -> list[str]:
    """Problems found in one file; an empty list means ms-swift would take it."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        raw = _load(path)
        command = cmd or _command(text)
        if command not in COMMANDS:
            raise Refused(f"say which command reads it in a comment, one of: {', '.join(COMMANDS)}")
        with tempfile.TemporaryDirectory() as scratch, _undisturbed():
            NOW.world_size, NOW.model_dir, NOW.scratch = world_size, model_dir, scratch
            NOW.model, NOW.model_type = raw.get("model"), raw.get("model_type")
            return _judge(raw, command)
    except (Refused, OSError, UnicodeDecodeError) as error:
        return [_first_line(error)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--model-dir")
    parser.add_argument("--cmd", choices=COMMANDS)
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    failed = False
    for file in arguments.files:
        problems = judge(
            file, world_size=arguments.world_size, model_dir=arguments.model_dir, cmd=arguments.cmd
        )
        failed = failed or bool(problems)
        print(f"FAIL {file}: {'; '.join(problems)}" if problems else f"OK {file}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
