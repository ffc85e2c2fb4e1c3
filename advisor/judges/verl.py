"""Judge verl launch files without a GPU: verl's own configuration path, and the checks it leaves out.

    python judge.py [--world-size N] [--model-dir DIR] [--cmd MODULE] FILE...

FILE is a shell script that starts `python -m verl.trainer.main_ppo ...` or `torchrun ... -m
verl.trainer.sft_trainer ...`, or a text file with one hydra override per line whose comment names the
module. Scripts are run by bash with stand-ins for python, torchrun and ray that only note their
arguments. Prints `OK FILE` or `FAIL FILE: ...`.

verl's part: hydra composes the configuration, `validate_config` and the dataclass of each section check
it. Ours: keys added with `+` that nothing reads, types, choices and arithmetic that verl meets only
when workers run. What stands in for hardware and network is marked `stand-in`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import io
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
import typing
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PPO, SFT = "verl.trainer.main_ppo", "verl.trainer.sft_trainer"
MODULES = {
    PPO: "ppo_trainer",
    SFT: "sft_trainer_engine",
    "main_ppo": "ppo_trainer",
    "sft_trainer": "sft_trainer_engine",
}
SCRIPT_TIMEOUT_S = 30
MAX_LORA_RANK = 512  # the largest adapter rank the vLLM rollout accepts
GROUP_ESTIMATORS = {"grpo", "grpo_vectorized", "grpo_passk", "gdpo", "rloo", "rloo_vectorized", "opo"}
KL_NAMES = {"kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3", "full"}
LEGACY_REWARD = ("custom_reward_function.", "reward_model.", "sandbox_fusion.")
# Sections whose content verl hands on without looking: any key may be added there.
FREE_SECTIONS = re.compile(
    r"^ray_kwargs\.|^reward\.reward_kwargs\.|\.engine_kwargs\.|override_config\.|override_transformer_config\.|"
    r"override_ddp_config\.|override_optimizer_config\.|override_mcore_model_config\.|apply_chat_template_kwargs\.|"
    r"mm_processor_kwargs\.|sampler_kwargs\.|^model\.override_config\."
)
# Shipped with a value of another type than these keys also take.
ALSO_LIST = {
    "data.train_files",
    "data.val_files",
    "model.target_modules",
    "actor_rollout_ref.model.target_modules",
    "critic.model.target_modules",
}
ALSO_NULL = {"data.val_files", "data.seed"}
ALSO_TEXT = {"trainer.save_freq", "trainer.test_freq"}
STUB = """#!/bin/sh
{{ printf '%s' "{name}"; for a in "$@"; do printf '\\037%s' "$a"; done; printf '\\036'; }} >> "$JUDGE_RECORD"
"""


# --- reading launch files -------------------------------------------------------------------------


@dataclasses.dataclass
class Launch:
    module: str
    overrides: list[str]
    processes: int | None = None
    """Processes torchrun was told to start over all nodes."""


class Refused(Exception):
    """The file cannot be judged further; the message says why."""


def _read_list(path: Path, cmd: str | None) -> Launch:
    module, overrides = cmd, []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            named = re.search(r"\b(?:verl\.trainer\.)?(main_ppo|sft_trainer)\b", text)
            module = module or (named and named[1])
        elif text:
            overrides += shlex.split(text) if text[0] in "'\"" else [text.rstrip("\\").strip()]
    if module is None:
        raise Refused(
            "name the module in a comment: `# verl.trainer.main_ppo` or `# verl.trainer.sft_trainer`"
        )
    return Launch(module, overrides)


def _run_script(path: Path) -> list[list[str]]:
    """Every command line that the script gave to python, torchrun or ray."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record")
        for name in ("python", "python3", "torchrun", "ray", "srun"):
            stub = Path(folder, name)
            stub.write_text(STUB.format(name=name))
            stub.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "JUDGE_RECORD": str(record)}
        done = subprocess.run(
            ["bash", str(path.resolve())],
            env=environment,
            cwd=path.resolve().parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCRIPT_TIMEOUT_S,
            check=False,
        )
        text = record.read_text() if record.exists() else ""
        if not text:
            raise Refused(f"the script starts neither python nor torchrun: {done.stderr.strip()[-200:]}")
        return [call.split("\037") for call in text.split("\036") if call]


def _option(argv: list[str], name: str) -> str | None:
    for index, word in enumerate(argv):
        key, _, value = word.replace("_", "-").partition("=")
        if key == f"--{name}":
            return value or (argv[index + 1] if index + 1 < len(argv) else None)
    return None


def _read_script(path: Path) -> Launch:
    for argv in _run_script(path):
        module = next((word for word in argv if word in MODULES), None)
        if module is None or argv[argv.index(module) - 1] != "-m":
            continue
        processes = None
        if argv[0] == "torchrun" or "torch.distributed.run" in argv:
            local, nodes = _option(argv, "nproc-per-node"), _option(argv, "nnodes")
            processes = int(local or 1) * int(nodes or 1) if (local or "1").isdigit() else None
        return Launch(module, argv[argv.index(module) + 1 :], processes)
    raise Refused(f"no command starts {PPO} or {SFT}")


# --- composing ------------------------------------------------------------------------------------


def _quiet() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    return stack


def _compose(launch: Launch, overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_module

    name = MODULES[launch.module]
    for word in overrides:
        if word.startswith("--config-name="):
            name = word.partition("=")[2]
        elif word.startswith("-"):
            raise Refused(f"hydra option {word!r} is not judged: write overrides")
    words = [word for word in overrides if not word.startswith("-")]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, overrides=words)


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not text:  # a bare `assert`: its source says what was wanted
        text = f"{type(error).__name__}: {traceback.extract_tb(error.__traceback__)[-1].line}"
    if error.__cause__ is not None and "hydra" in type(error).__module__ and "Could not override" not in text:
        text = f"{text} ({_first_line(error.__cause__)})"
    return text[:400]


def _stand_in_model(folder: Path, model_dir: str | None) -> Path:
    """stand-in: a folder with the model's config.json (or a small one) and a tokenizer of bytes.

    verl loads both while it builds its model section, and a hub id cannot be fetched here.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    config: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    if model_dir is not None:
        config = json.loads(Path(model_dir, "config.json").read_text())
        config.pop("auto_map", None)  # would fetch code
    (folder / "config.json").write_text(json.dumps(config))
    alphabet = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={**alphabet, "<|end|>": len(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|end|>",
                "pad_token": "<|end|>",
                "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
            }
        )
    )
    return folder


# --- strict: keys and types -----------------------------------------------------------------------


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}{key}.")
        if not node:
            yield prefix[:-1], {}
    else:
        yield prefix[:-1], node


def _plain(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)


def _lookup(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _owner_class(tree: dict[str, Any], path: str) -> type | None:
    """The dataclass that the section directly holding `path` becomes."""
    parent = _lookup(tree, path.rpartition(".")[0])
    target = parent.get("_target_") if isinstance(parent, Mapping) else None
    if not target:
        return None
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name, None)


def _hint(tree: dict[str, Any], path: str) -> Any:
    owner = _owner_class(tree, path)
    if owner is None or not dataclasses.is_dataclass(owner):
        return None
    try:
        return typing.get_type_hints(owner).get(path.rpartition(".")[2])
    except (NameError, TypeError):
        return None


def _fits(value: Any, hint: Any) -> bool | None:
    """Whether a value has the annotated type; None where the annotation says nothing."""
    origin = typing.get_origin(hint)
    if hint is Any or hint is None:
        return None
    if origin is typing.Union or type(hint).__name__ == "UnionType":
        answers = [_fits(value, option) for option in typing.get_args(hint)]
        return True if True in answers else None if None in answers else False
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if origin in (list, tuple) or hint in (list, tuple):
        return isinstance(value, list | tuple)
    if origin is dict or hint is dict:
        return isinstance(value, Mapping)
    return None


def _type_problem(path: str, value: Any, default: Any, hint: Any) -> str | None:
    if (isinstance(value, list) and path in ALSO_LIST) or (isinstance(value, str) and path in ALSO_TEXT):
        return None
    if value is None and (path in ALSO_NULL or default is None):
        return None
    if default is not None and _fits(value, type(default)):
        return None  # what verl ships is right whatever its annotation says
    fits = _fits(value, hint)
    if fits is None and default is not None:
        fits = _fits(
            value, float if type(default) is int and path.startswith("algorithm.") else type(default)
        )
    if fits is not False:
        return None
    expected = type(default).__name__ if default is not None else str(hint)
    return f"{path}: {value!r} is {type(value).__name__}, expected {expected}"


def _strip(override: str) -> tuple[str, str]:
    sign = re.match(r"^\+{0,2}", override)[0]
    return sign, override[len(sign) :].partition("=")[0]


def _strict(launch: Launch, tree: dict[str, Any], shipped: dict[str, Any]) -> Iterator[str]:
    known = dict(_flat(shipped))
    for override in launch.overrides:
        sign, path = _strip(override)
        if override.startswith(("~", "-")) or "." not in path:
            continue
        default, value = known.get(path), _lookup(tree, path)
        if path in known or _lookup(shipped, path) is not None:
            if not isinstance(value, Mapping):
                problem = _type_problem(path, value, default, _hint(tree, path))
                if problem:
                    yield problem
            continue
        if not sign or FREE_SECTIONS.search(path):
            continue  # without `+` hydra has refused it already
        owner = _owner_class(tree, path)
        names = {f.name for f in dataclasses.fields(owner)} if owner else set()
        if path.rpartition(".")[2] in names:
            problem = _type_problem(path, value, None, _hint(tree, path))
            if problem:
                yield problem
            continue
        near = difflib.get_close_matches(path, known, 1)
        yield f"{path}: nothing reads this key" + (f" (did you mean {near[0]}?)" if near else "")


# --- rules ----------------------------------------------------------------------------------------


def _divides(divisor: int, number: int, text: str) -> Iterator[str]:
    if divisor < 1 or number % divisor:
        yield f"{text}: {number} is not divisible by {divisor}"


def _megatron_rules(
    section: Mapping[str, Any], where: str, world: int, model: Mapping[str, Any]
) -> Iterator[str]:
    tp, pp = section["tensor_model_parallel_size"], section["pipeline_model_parallel_size"]
    cp, ep = section["context_parallel_size"], section["expert_model_parallel_size"]
    etp = section["expert_tensor_parallel_size"] or tp
    yield from _divides(tp * pp * cp, world, f"{where}: GPUs by TP*PP*CP")
    yield from _divides(etp * ep * pp, world, f"{where}: GPUs by ETP*EP*PP (ETP null means TP)")
    override = section["override_transformer_config"] or {}
    if override.get("recompute_granularity") == "full" and not override.get("recompute_method"):
        yield f"{where}: recompute_granularity=full needs recompute_method and recompute_num_layers"
    layers, heads = model.get("num_hidden_layers"), model.get("num_attention_heads")
    kv, experts = model.get("num_key_value_heads"), model.get("num_experts") or model.get("n_routed_experts")
    chunks = section["virtual_pipeline_model_parallel_size"] or 1
    if chunks > 1 and pp == 1:
        yield f"{where}: virtual pipeline stages need pipeline_model_parallel_size greater than 1"
    if layers:
        yield from _stage_rules(layers, pp, chunks, override, where)
    if heads:
        yield from _divides(tp, heads, f"{where}: attention heads by TP")
    if kv and kv % tp and tp % kv:
        yield f"{where}: {kv} key/value heads and TP {tp}: neither divides the other"
    if experts:
        yield from _divides(ep, experts, f"{where}: experts by EP")
    elif model and ep > 1:
        yield f"{where}: expert_model_parallel_size {ep} for a model without experts"


def _stage_rules(layers: int, pp: int, chunks: int, override: Mapping[str, Any], where: str) -> Iterator[str]:
    first, last = (override.get(f"num_layers_in_{end}_pipeline_stage") for end in ("first", "last"))
    extra = sum(bool(override.get(f"account_for_{what}_in_pipeline_split")) for what in ("embedding", "loss"))
    stages = pp - bool(first) - bool(last)
    rest = layers + extra - (first or 0) - (last or 0)
    if rest < 0 or (stages == 0 and rest) or (stages and rest % stages):
        yield f"{where}: {rest} layers cannot be split evenly over {stages} pipeline stages"
        return
    for held in (first, last, rest // stages if stages else None):
        if held and held % chunks:
            yield f"{where}: a stage of {held} layers does not split into {chunks} model chunks"


def _chunk_rules(
    section: Mapping[str, Any], where: str, rows: int, micro: int | None, dynamic: bool
) -> Iterator[str]:
    """The interleaved schedule takes whole groups of PP micro batches: batches filled by tokens are raised to one
    (utils/seqlen_balancing.py), but never to more than there are sequences."""
    pp = section["pipeline_model_parallel_size"]
    if (section["virtual_pipeline_model_parallel_size"] or 1) == 1:
        return
    if dynamic and rows < pp:
        yield f"{where}: {rows} sequences of a rank do not make the {pp} micro batches that virtual stages need"
    elif not dynamic and micro:
        yield from _divides(pp, rows // micro, f"{where}: virtual stages, micro batches by PP")


def _fsdp_rules(
    section: Mapping[str, Any], where: str, world: int, sp: int, model: Mapping[str, Any]
) -> Iterator[str]:
    yield from _divides(sp, world, f"{where}: GPUs by ulysses_sequence_parallel_size")
    if model.get("num_attention_heads"):
        yield from _divides(sp, model["num_attention_heads"], f"{where}: attention heads by Ulysses degree")
    if section["fsdp_size"] > 0:
        yield from _divides(section["fsdp_size"], world, f"{where}: GPUs by fsdp_size")
    if section["offload_policy"] and (section["param_offload"] or section["optimizer_offload"]):
        yield f"{where}: offload_policy switches the other offloads off: set one or the other"
    if section["model_dtype"] not in ("fp32", "bf16", "bfloat16", "fp16", "float16", "float32", None):
        yield f"{where}: unknown model_dtype {section['model_dtype']!r}"


def _lora_rules(
    model: Mapping[str, Any], megatron: bool, rollout: Mapping[str, Any] | None, apart: bool = False
) -> Iterator[str]:
    fsdp_rank, mcore_rank = model["lora_rank"], (model["lora"] or {}).get("rank", 0)
    if megatron and fsdp_rank:
        yield "model.lora_rank is not read by the Megatron engine: set model.lora.rank"
    if not megatron and mcore_rank:
        yield "model.lora.* is not read by the FSDP engine: set model.lora_rank"
    rank = mcore_rank if megatron else fsdp_rank
    if rank and rollout is not None and rollout["name"] == "vllm":
        if rank > MAX_LORA_RANK:
            yield f"LoRA rank {rank} is above vLLM's largest, {MAX_LORA_RANK}"
        merged = (model["lora"] or {}).get("merge", False)
        if apart and not merged:
            yield "model.lora.merge must be true: servers on GPUs of their own are sent the base without its adapters"
        if not megatron and not merged and rollout["load_format"] != "safetensors":
            yield "LoRA needs rollout.load_format=safetensors: only adapters are sent to the rollout"


def _batch_rules(config: dict[str, Any], dp: int, sp: int) -> Iterator[str]:
    actor, rollout = config["actor_rollout_ref"]["actor"], config["actor_rollout_ref"]["rollout"]
    ref, data = config["actor_rollout_ref"]["ref"], config["data"]
    n, mini, train = rollout["n"], actor["ppo_mini_batch_size"], data["train_batch_size"]
    if train < mini:
        yield f"data.train_batch_size {train} is below actor.ppo_mini_batch_size {mini} (both count prompts)"
    yield from _divides(dp, mini * n, "actor.ppo_mini_batch_size * rollout.n by data-parallel size")
    longest = data["max_prompt_length"] + data["max_response_length"]
    if actor["use_dynamic_bsz"] != rollout["log_prob_use_dynamic_bsz"]:
        yield "actor.use_dynamic_bsz and rollout.log_prob_use_dynamic_bsz must be equal"
    if actor["use_dynamic_bsz"]:
        caps = {
            "actor.ppo_max_token_len_per_gpu": actor["ppo_max_token_len_per_gpu"],
            "rollout.log_prob_max_token_len_per_gpu": rollout["log_prob_max_token_len_per_gpu"],
            "ref.log_prob_max_token_len_per_gpu": ref["log_prob_max_token_len_per_gpu"],
        }
        for name, cap in caps.items():
            if cap * sp < longest:
                yield f"{name} {cap} * {sp} is below prompt + response, {longest} tokens"
        return
    per_rank = mini * n // dp
    if actor["ppo_micro_batch_size_per_gpu"] and mini * n % dp == 0:
        yield from _divides(
            actor["ppo_micro_batch_size_per_gpu"],
            per_rank,
            "mini batch per rank by actor.ppo_micro_batch_size_per_gpu",
        )
    infer = {
        "rollout": rollout["log_prob_micro_batch_size_per_gpu"],
        "ref": ref["log_prob_micro_batch_size_per_gpu"],
    }
    for name, micro in infer.items():
        if micro and train * n % dp == 0 and train % mini == 0:  # other batches are filled up first
            yield from _divides(
                micro, train * n // dp, f"batch per rank by {name}.log_prob_micro_batch_size_per_gpu"
            )


def _algorithm_rules(config: dict[str, Any]) -> Iterator[str]:
    from verl.trainer.ppo import core_algos

    actor, algorithm = config["actor_rollout_ref"]["actor"], config["algorithm"]
    estimator, mode = algorithm["adv_estimator"], actor["policy_loss"]["loss_mode"]
    estimators = {getattr(key, "value", key) for key in core_algos.ADV_ESTIMATOR_REGISTRY}
    if estimator not in estimators:
        yield f"algorithm.adv_estimator: unknown {estimator!r}, known: {', '.join(sorted(estimators))}"
    if mode not in core_algos.POLICY_LOSS_REGISTRY:
        known = ", ".join(sorted(core_algos.POLICY_LOSS_REGISTRY))
        yield f"actor.policy_loss.loss_mode: unknown {mode!r}, known: {known}"
    for key, name in {
        "actor.kl_loss_type": actor["kl_loss_type"],
        "algorithm.kl_penalty": algorithm["kl_penalty"],
    }.items():
        if str(name).rstrip("+") not in KL_NAMES:
            yield f"{key}: unknown {name!r}, known: {', '.join(sorted(KL_NAMES))}"
    distils = (config.get("distillation") or {}).get("enabled", False)
    if estimator in GROUP_ESTIMATORS and config["actor_rollout_ref"]["rollout"]["n"] < 2 and not distils:
        yield f"{estimator} compares responses to one prompt: actor_rollout_ref.rollout.n must be at least 2"


def _logger_rules(names: Any) -> Iterator[str]:
    from verl.utils.tracking import Tracking

    for name in [names] if isinstance(names, str) else names or []:
        if name not in Tracking.supported_backend:
            yield f"trainer.logger: unknown {name!r}, known: {', '.join(Tracking.supported_backend)}"


def _rollout_rules(rollout: Mapping[str, Any], world: int) -> Iterator[str]:
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY

    names = sorted({name for name, _ in _ROLLOUT_REGISTRY})
    if rollout["name"] not in names:
        yield f"actor_rollout_ref.rollout.name: unknown {rollout['name']!r}, known: {', '.join(names)}"
    size = rollout["tensor_model_parallel_size"] * rollout["data_parallel_size"]
    size *= rollout["pipeline_model_parallel_size"]
    yield from _divides(size, world, "GPUs by rollout TP*DP*PP")
    if not 0 < rollout["gpu_memory_utilization"] < 1:
        yield f"rollout.gpu_memory_utilization {rollout['gpu_memory_utilization']} is not between 0 and 1"


def _ppo_rules(config: dict[str, Any], launch: Launch, world: int, model: Mapping[str, Any]) -> Iterator[str]:
    group = config["actor_rollout_ref"]
    actor, rollout = group["actor"], group["rollout"]
    for override in launch.overrides:
        if _strip(override)[1].startswith(LEGACY_REWARD):
            yield f"{_strip(override)[1]}: accepted and ignored by main_ppo: use reward.{_strip(override)[1]}"
    yield from _algorithm_rules(config)
    apart = config["trainer"]["v1"]["trainer_mode"] == "separate_async"
    pool = rollout["nnodes"] * rollout["n_gpus_per_node"] if apart and not group["hybrid_engine"] else world
    yield from _rollout_rules(rollout, pool)
    megatron = actor["strategy"] == "megatron"
    yield from _lora_rules(group["model"], megatron, rollout, apart)
    if megatron:
        own = actor["megatron"]
        yield from _megatron_rules(own, "actor.megatron", world, model)
        parallel = [own[f"{name}_model_parallel_size"] for name in ("tensor", "pipeline")]
        dp, sp = (
            max(1, world // (parallel[0] * parallel[1] * own["context_parallel_size"])),
            own["context_parallel_size"],
        )
        rows, micro = actor["ppo_mini_batch_size"] * rollout["n"] // dp, actor["ppo_micro_batch_size_per_gpu"]
        yield from _chunk_rules(own, "actor.megatron", rows, micro, actor["use_dynamic_bsz"])
    else:
        engine = actor["fsdp_config"]
        sp = max(actor["ulysses_sequence_parallel_size"], engine["ulysses_sequence_parallel_size"])
        yield from _fsdp_rules(engine, "actor.fsdp_config", world, sp, model)
        dp = max(1, world // sp)
    yield from _batch_rules(config, dp, sp)
    if config["data"]["truncation"] not in ("error", "left", "right", "middle"):
        yield f"data.truncation: unknown {config['data']['truncation']!r}"


def _sft_rules(config: dict[str, Any], world: int, model: Mapping[str, Any]) -> Iterator[str]:
    data, engine = config["data"], config["engine"]
    megatron = "tensor_model_parallel_size" in engine and "use_mbridge" in engine
    if megatron != ("lr_decay_style" in config["optim"]):
        yield "engine= and optim= must name the same engine"
    yield from _lora_rules(config["model"], megatron, None)
    if megatron:
        yield from _megatron_rules(engine, "engine", world, model)
        sp = engine["context_parallel_size"]
        parts = engine["tensor_model_parallel_size"] * engine["pipeline_model_parallel_size"] * sp
    elif "wrap_policy" in engine:
        parts = sp = engine["ulysses_sequence_parallel_size"]
        yield from _fsdp_rules(engine, "engine", world, sp, model)
    else:
        return
    dp = max(1, world // parts)
    batch, micro = data["train_batch_size"], data["micro_batch_size_per_gpu"]
    if megatron:
        yield from _chunk_rules(engine, "engine", batch // dp, micro, data["use_dynamic_bsz"])
    yield from _divides(dp, batch, "data.train_batch_size by data-parallel size (the rest would be dropped)")
    if data["use_dynamic_bsz"]:
        if data["max_token_len_per_gpu"] * sp < data["max_length"]:
            cap = data["max_token_len_per_gpu"]
            yield f"data.max_token_len_per_gpu {cap} * {sp} is below data.max_length"
    elif batch % dp == 0:
        yield from _divides(micro, batch // dp, "batch per rank by data.micro_batch_size_per_gpu")
    if data["truncation"] not in ("error", "left", "right"):
        yield f"data.truncation: unknown {data['truncation']!r}"
    if data["pad_mode"] != "no_padding":
        yield f"data.pad_mode: {data['pad_mode']!r} is not implemented, only 'no_padding'"


# --- verl's own validation ------------------------------------------------------------------------


def _check_ppo(config: Any) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    omega_conf_to_dataclass(config.algorithm)
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    omega_conf_to_dataclass(config.actor_rollout_ref.model)
    try:
        validate_config(config, need_reference_policy(config), need_critic(config))
    except (ImportError, ValueError) as error:
        # stand-in: the last step of validate_config asks vLLM for its largest adapter rank and vLLM
        # is not here; _lora_rules holds that limit.
        if "vllm" not in str(error).lower():
            raise


def _check_sft(config: Any) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    for section in ("model", "engine", "optim", "checkpoint", "profiler"):
        omega_conf_to_dataclass(config[section])


def _judge_config(launch: Launch, world_size: int, model_dir: str | None, scratch: Path) -> list[str]:
    from omegaconf import OmegaConf, open_dict

    ppo = MODULES[launch.module] == "ppo_trainer"
    try:
        config = _compose(launch, launch.overrides)
    except Refused:
        raise
    except Exception as error:  # hydra and omegaconf raise many kinds, all of which refuse the file
        raise Refused(_first_line(error)) from error
    # Sections that are switched off may keep their holes.
    off = () if ppo and config.reward.reward_model.enable else ("reward.",)
    off += () if ppo and config.distillation.enabled else ("distillation.",)
    missing = [key for key in OmegaConf.missing_keys(config) if not key.startswith(off)]
    if missing:
        return [f"{key}: must be set" for key in sorted(missing)]
    groups = [
        word for word in launch.overrides if "." not in word.partition("=")[0] and not word.startswith("-")
    ]
    base = _compose(launch, [*groups, *(["actor_rollout_ref.rollout.name=vllm"] if ppo else [])])
    tree, shipped = _plain(config), _plain(base)
    problems = list(_strict(launch, tree, shipped))
    model_section = config.actor_rollout_ref.model if ppo else config.model
    given = model_dir or (
        model_section.path if Path(str(model_section.path), "config.json").is_file() else None
    )
    folder = _stand_in_model(scratch, given)
    with open_dict(config):
        model_section.path = str(folder)
        model_section.hf_config_path = model_section.tokenizer_path = None
        if ppo:
            config.critic.model.path = str(folder)
            config.critic.model.hf_config_path = config.critic.model.tokenizer_path = None
    facts = json.loads((folder / "config.json").read_text()) if given else {}
    facts = {**facts, **(facts.get("text_config") or {})}
    problems += _logger_rules(tree["trainer"]["logger"])
    world = (
        tree["trainer"]["nnodes"] * tree["trainer"]["n_gpus_per_node"]
        if ppo
        else launch.processes or world_size
    )
    if not isinstance(world, int) or world < 1:
        return [*problems, f"trainer.nnodes * trainer.n_gpus_per_node is {world!r}"]
    if world_size > 1 and world != world_size:
        problems.append(f"the file uses {world} GPUs, {world_size} were asked for")
    if problems:
        return problems  # wrong types would only make the rules below fail with noise
    problems += _ppo_rules(tree, launch, world, facts) if ppo else _sft_rules(tree, world, facts)
    try:
        (_check_ppo if ppo else _check_sft)(config)
    except Exception as error:  # dataclasses raise AssertionError, ValueError, TypeError, hydra's own ...
        problems.append(_first_line(error))
    return problems


def judge(
    path: str | Path, *, world_size: int = 1, model_dir: str | None = None, cmd: str | None = None
) -> list[str]:
    """Problems found in one launch file; an empty list means verl would take it."""
    # An installed accelerator is not needed and must not be probed for.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.disable(logging.CRITICAL)
    path = Path(path)
    try:
        launch = _read_script(path) if path.suffix == ".sh" else _read_list(path, cmd)
        if launch.module not in MODULES:
            raise Refused(f"unknown module {launch.module!r}")
        with _quiet(), tempfile.TemporaryDirectory() as scratch:
            return _judge_config(launch, world_size, model_dir, Path(scratch))
    except Refused as refused:
        return [str(refused)]
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        return [_first_line(error)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--model-dir")
    parser.add_argument("--cmd", choices=sorted(MODULES))
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
    # This file may itself be called verl.py, and Python puts its folder first on the path.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    sys.exit(main())
