"""Axolotl: `axolotl train train.yaml`, started by torchrun, with a DeepSpeed JSON or an FSDP2 block.

Every key stands in train.yaml: Axolotl drops keys it does not know, and its own defaults are not the plan's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from pathlib import PurePath
from typing import Any

from advisor.errors import InputError
from advisor.facts import rows
from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.frameworks.base import DataNeed, Emitted, Smoke, data_kind
from advisor.frameworks.table import (
    ABSENT,
    LIST,
    REPO,
    Case,
    Choice,
    Codec,
    Const,
    Derived,
    Job,
    Key,
    Rendered,
    Table,
    mapped,
)
from advisor.plan import Plan
from advisor.rendering import render

NAME = "axolotl"
JUDGE = "axolotl.py"

PREFERENCE = ("dpo", "ipo", "simpo")
"""Methods whose dataset entries keep a handful of keys only."""
OFFLINE_RL = (*PREFERENCE, "orpo", "kto")
LIGER_PLUGIN = "axolotl.integrations.liger.LigerPlugin"
SWANLAB_PLUGIN = "axolotl.integrations.swanlab.SwanLabPlugin"
PREPARED = "prepared"
LARGE = 50e9
"""Parameters from which on a whole checkpoint is not gathered on one rank when all weights train."""


# --- rows and their declaration -----------------------------------------------------------------


def _text(messages: Sequence[Mapping[str, Any]], what: str) -> str:
    """The text of a single message. Raises ValueError when there are more, or it is more than text."""
    if len(messages) != 1 or not isinstance(messages[0]["content"], str) or messages[0].get("tool_calls"):
        raise ValueError(f"Axolotl takes one message of plain text as {what} here")
    return messages[0]["content"]


def _system_and_turns(prompt: Sequence[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    turns = list(prompt)
    system = _text([turns.pop(0)], "the system prompt") if turns and turns[0]["role"] == "system" else ""
    return system, turns


def spell_preference(row: dict[str, Any], format: str) -> dict[str, Any]:
    """For `chat_template.default`: the prompt as messages, both answers as text."""
    parsed = rows.neutral(row, format)
    for message in parsed["prompt"]:
        _text([message], "a turn")
    return {
        "prompt": parsed["prompt"],
        "chosen": _text(parsed["chosen"], "an answer"),
        "rejected": _text(parsed["rejected"], "an answer"),
    }


def spell_orpo(row: dict[str, Any], format: str) -> dict[str, Any]:
    """For `chat_template.argilla`: whole conversations; a `prompt` column would be repeated every turn."""
    parsed = rows.neutral(row, format)
    system, turns = _system_and_turns(parsed["prompt"])
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ValueError("Axolotl's ORPO reads user and assistant turns that alternate")
    history = [{"role": turn["role"], "content": _text([turn], "a turn")} for turn in turns]
    answers = {
        name: [*history, {"role": "assistant", "content": _text(parsed[name], "an answer")}]
        for name in ("chosen", "rejected")
    }
    return {"system": system, **answers}


def spell_reward(row: dict[str, Any], format: str) -> dict[str, Any]:
    """For `bradley_terry.chat_template`: four columns of text."""
    parsed = rows.neutral(row, format)
    system, turns = _system_and_turns(parsed["prompt"])
    return {
        "system": system,
        "input": _text(turns, "the prompt of a reward model"),
        "chosen": _text(parsed["chosen"], "an answer"),
        "rejected": _text(parsed["rejected"], "an answer"),
    }


def spell_plainly(row: dict[str, Any], format: str) -> dict[str, Any]:
    """The columns by the names that this project's own row functions read."""
    return rows.convert(row, format, format)


def data_need(plan: Plan) -> DataNeed:
    kind = data_kind(plan.method)
    if kind == "conversation":
        # In the repo all become messages, so that the model's own chat template is used.
        return DataNeed(("messages",), hub=("messages", "sharegpt", "alpaca", "prompt-completion"))
    if kind == "text":
        return DataNeed(("text",))
    if kind == "label":
        return DataNeed(("kto",), spell_plainly, ("kto",))
    if kind == "prompts":
        return DataNeed(("rl-prompts",), spell_plainly, ("rl-prompts",))
    both = ("preference", "preference-messages")
    if plan.method == "orpo":
        return DataNeed(both, spell_orpo, both, hub=())
    if plan.method == "rm":
        return DataNeed(both, spell_reward, both, hub=())
    return DataNeed(both, spell_preference, both, hub=("preference",))


CONVERSATIONS: Mapping[str, Mapping[str, Any]] = {
    "messages": {"type": "chat_template", "field_messages": "messages"},
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    },
    "alpaca": {"type": "alpaca"},
    "prompt-completion": {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    },
}


def _conversation(job: Job) -> dict[str, Any]:
    entry = dict(CONVERSATIONS[job.data_format])
    if entry["type"] != "chat_template":
        return entry
    renamed = job.data_extra.get("mapping", {}).get(entry["field_messages"])
    if renamed:
        entry["field_messages"] = renamed
    return {**entry, "roles_to_train": ["assistant"], "train_on_eos": "turn"}


def _reading(plan: Plan, job: Job) -> dict[str, Any]:
    """How one row becomes a sample."""
    if plan.method == "cpt":
        return {"type": "completion", "field": job.data_extra.get("mapping", {}).get("text", "text")}
    if plan.method in PREFERENCE:
        fields = {"field_messages": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"}
        return {"type": "chat_template.default", **fields}
    if plan.method == "orpo":
        return {"type": "chat_template.argilla"}
    if plan.method == "kto":
        return {"type": "chat_rows.kto"}
    if plan.method == "rm":
        return {"type": "bradley_terry.chat_template"}
    return {"type": "passthrough"} if plan.online else _conversation(job)


def _datasets(plan: Plan, job: Job) -> Any:
    entry: dict[str, Any] = {"path": job.data_path}
    if job.data_local and plan.method not in (*PREFERENCE, "kto"):
        entry["ds_type"] = _file_type(job.data_path)
    return [{**entry, "split": "train", **_reading(plan, job)}]


def _method_of(datasets: Sequence[Mapping[str, Any]]) -> str:
    """What a configuration trains that names no other method: the type of its rows tells."""
    return "cpt" if datasets[0].get("type") == "completion" else "sft"


def _file_type(path: str) -> str:
    suffix = PurePath(path).suffix.removeprefix(".")
    return suffix if suffix in ("parquet", "csv") else "json"


# --- values -------------------------------------------------------------------------------------


def _adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def _supervised(plan: Plan) -> bool:
    return plan.method in ("sft", "cpt")


def _online(plan: Plan) -> bool:
    return plan.online


def _fsdp(plan: Plan) -> bool:
    return plan.fsdp


def _deepspeed(plan: Plan) -> bool:
    return plan.zero_stage > 0 and not plan.fsdp


def _zero3(plan: Plan) -> bool:
    return _deepspeed(plan) and plan.zero_stage == 3


def _vllm(plan: Plan) -> bool:
    return plan.rollout_engine == "vllm"


def _modules(plan: Plan, job: Job) -> Any:
    """Names; for a model that sees a pattern, as names alone may fit its image tower too."""
    if not plan.uses_adapter:
        return ABSENT
    names = linear_module_names(job.model, plan.lora_targets)
    if not job.model.vision:
        return names
    return rf"{re.escape(_stem(job))}layers\.\d+\..*\b(?:{'|'.join(names)})"


def _stem(job: Job) -> str:
    """What stands before `layers` in the names of the language model's weights."""
    inside = (w for w in job.model.weights if w.role == "attention" and "layers.*." in w.name)
    return next(inside).name.partition("layers.*")[0]


def _expert_parameters(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter or plan.lora_targets != ("experts",):
        return ABSENT
    return expert_parameter_names(job.model)


def _no_lora_kernel(plan: Plan, job: Job) -> Any:
    kernels = plan.uses_adapter and job.model.moe and plan.method in ("sft", "cpt", "rm")
    return False if kernels else ABSENT


def _quantized_experts(plan: Plan, job: Job) -> Any:
    return True if plan.quantize_experts and job.model.moe else ABSENT


def _unfrozen(plan: Plan, job: Job) -> Any:
    """The last layers, one pattern; a dot in it is a literal dot."""
    if plan.tuning != "freeze":
        return ABSENT
    first = job.model.layers - plan.freeze_trainable_layers
    return _patterns(plan, f"^{_stem(job)}layers", range(max(first, 0), job.model.layers))


def _patterns(plan: Plan, layers: str, numbers: Iterable[int]) -> list[str]:
    head = ["^score."] if plan.method == "rm" else []
    return [f"{layers}.({'|'.join(map(str, numbers))}).", *head]


def _count_unfrozen(patterns: Sequence[str]) -> int:
    return len(re.sub(r"^.*layers\.\(|\)\.$", "", patterns[0]).split("|"))


def _reentrant(plan: Plan, job: Job) -> Any:
    return {"use_reentrant": _zero3(plan)} if plan.gradient_checkpointing else ABSENT


def _warmup_steps(plan: Plan, job: Job) -> Any:
    """SimPO refuses a ratio. Without a count of rows Axolotl's own 3 % hold, at most 100 steps."""
    if plan.method != "simpo" or not job.rows:
        return ABSENT
    return int(plan.warmup_ratio * ceil(job.rows / plan.global_batch_size) * plan.epochs)


def _plugins(plan: Plan, job: Job) -> Any:
    liger = [LIGER_PLUGIN] if plan.liger or plan.loss == "fused" else []
    swanlab = [SWANLAB_PLUGIN] if job.tracker == "swanlab" else []
    return [*liger, *swanlab] or ABSENT


def _rewards(plan: Plan, job: Job) -> Any:
    if not plan.online:
        return ABSENT
    rule = ["reward_adapter.reward"] if job.reward else []
    return [*rule, *([job.reward_model] if job.reward_model else [])]


def _shard_size(plan: Plan, job: Job) -> Any:
    size = plan.data_parallel // plan.expert_parallel
    return size if plan.fsdp and size > 1 else ABSENT


def _state_dict(plan: Plan, job: Job) -> Any:
    """Spread experts can only be gathered; the weights of a large model would not fit on one rank."""
    if not plan.fsdp:
        return ABSENT
    large = not plan.uses_adapter and job.model.total_parameters > LARGE
    return "SHARDED_STATE_DICT" if large and plan.expert_parallel == 1 else "FULL_STATE_DICT"


def _one_rank_loads(plan: Plan, job: Job) -> Any:
    if not plan.fsdp:
        return ABSENT
    return plan.tensor_parallel == 1 and plan.quantization != "8bit"


TRACKERS: Mapping[str, tuple[str, str]] = {
    "wandb": ("use_wandb", "wandb_name"),
    "mlflow": ("use_mlflow", "mlflow_run_name"),
    "tensorboard": ("use_tensorboard", ""),
    "trackio": ("use_trackio", "trackio_run_name"),
    "swanlab": ("use_swanlab", "swanlab_experiment_name"),
}
"""Tracker -> (key that turns it on, key of the run's name)."""


def _tracker_rows() -> tuple[Derived, ...]:
    found: list[Derived] = []
    for tracker, (switch, name) in TRACKERS.items():
        found.append(_for_tracker(tracker, switch, lambda job: True, "experiment tracker"))
        if name:
            found.append(_for_tracker(tracker, name, lambda job: job.run_name, "name of the run"))
    return (*found, _for_tracker("swanlab", "swanlab_project", lambda job: "axolotl", "it insists on one"))


def _for_tracker(tracker: str, key: str, value: Callable[[Job], Any], why: str) -> Derived:
    return Derived(key, lambda p, j: value(j) if j.tracker == tracker else ABSENT, why, group=SAVE)


MODEL, DATA, BATCH, OPTIM, METHOD, KERNELS, SHARDING, SAVE = (
    "Model",
    "Data",
    "Batch",
    "Optimization",
    "Method",
    "Precision and kernels",
    "How the work is spread over the GPUs",
    "Logging and checkpoints",
)

WHERE_READ: Codec = Codec(lambda value: ABSENT, lambda patterns: "freeze")
"""The patterns are written for a model; that they are there says `freeze`."""

MODEL_ROWS = (
    Derived("base_model", lambda p, j: j.model_path, "the model to start from", group=MODEL),
    Choice(
        ("tuning", "quantization"),
        (
            Case(("full", "none"), {"adapter": ABSENT}),
            Case(("lora", "none"), {"adapter": "lora"}),
            Case(("dora", "none"), {"adapter": "lora", "peft_use_dora": True}, "LoRA with magnitudes apart"),
            Case(("qlora", "4bit"), {"adapter": "qlora", "load_in_4bit": True}, "adapters on a 4-bit base"),
            Case(("qlora", "8bit"), {"adapter": "lora", "load_in_8bit": True}, "adapters on an 8-bit base"),
        ),
        "train low-rank adapters instead of all weights",
        group=MODEL,
        when=lambda p: p.tuning != "freeze",
    ),
    Derived("quantize_moe_experts", _quantized_experts, "else routed experts stay in 16 bit", group=MODEL),
    Key("lora_rank", "lora_r", "rank of the adapters", when=_adapter, group=MODEL),
    Key("lora_alpha", "lora_alpha", "adapter output is scaled by alpha / rank", when=_adapter, group=MODEL),
    Key("lora_dropout", "lora_dropout", "0 keeps fused kernels usable", when=_adapter, group=MODEL),
    Key("lora_targets", "lora_targets", "", document=REPO, codec=LIST, when=_adapter),
    Derived("lora_target_modules", _modules, "modules that get adapters, by name", group=MODEL),
    Derived(
        "lora_target_parameters", _expert_parameters, "routed experts are fused 3-D parameters", group=MODEL
    ),
    Derived(
        "lora_model_dir",
        lambda p, j: (j.adapter or ABSENT) if p.uses_adapter else ABSENT,
        "the adapter to start from",
        group=MODEL,
    ),
    Derived("unfrozen_parameters", _unfrozen, "only these train: the last layers", group=MODEL),
    Key("tuning", "unfrozen_parameters", "", codec=WHERE_READ, when=lambda p: p.tuning == "freeze"),
    Key(
        "freeze_trainable_layers",
        "unfrozen_parameters",
        "",
        codec=Codec(WHERE_READ.to, _count_unfrozen),
        when=lambda p: p.tuning == "freeze",
    ),
)

DATA_ROWS = (
    Derived("datasets", _datasets, "the training rows and how they become samples", group=DATA),
    Const(
        "chat_template",
        "tokenizer_default",
        "the model's own",
        group=DATA,
        when=lambda p: p.method in ("sft", *PREFERENCE, "orpo", "rm"),
    ),
    Const(
        "dataset_prepared_path",
        PREPARED,
        "tokenised rows, made once; run.sh keys them by content",
        group=DATA,
    ),
    Key("seq_len", "sequence_len", "tokens per sample; the default of 512 would lose rows", group=DATA),
    Const(
        "excess_length_strategy",
        "truncate",
        "longer samples are cut; the default drops them",
        group=DATA,
        when=lambda p: not p.online and p.method != "rm",
    ),
    Choice(
        ("packing",),
        (Case((True,), {"sample_packing": True}), Case((False,), {"sample_packing": ABSENT})),
        "fill each sequence with several samples",
        group=DATA,
    ),
    Const(
        "train_on_inputs",
        False,
        "learn the assistant turns only",
        group=DATA,
        when=lambda p: p.method == "sft",
    ),
    Key("prompt_len", "prompt_len", "", document=REPO, absent=0),
)

GRPO = {"rl": "grpo"}
METHOD_ROWS = (
    Key("method", "datasets", "", codec=Codec(lambda method: ABSENT, _method_of), when=_supervised),
    Choice(
        ("method",),
        (
            Case(("dpo",), {"rl": "dpo", "dpo_loss_type": ["sigmoid"]}, "the DPO loss"),
            Case(("ipo",), {"rl": "dpo", "dpo_loss_type": ["ipo"]}, "IPO is a DPO loss here"),
            Case(("kto",), {"rl": "kto", "remove_unused_columns": False}, "KTO needs its columns kept"),
            Case(("orpo",), {"rl": "orpo"}, "odds ratio preference optimization"),
            Case(
                ("simpo",),
                {"rl": "simpo", "simpo_gamma": 0.5, "cpo_alpha": 0.0},
                "target margin 0.5, no SFT term",
            ),
            Case(("rm",), {"reward_model": True}, "a Bradley-Terry scorer on pairs"),
            Case(("grpo",), {**GRPO, "trl.loss_type": "grpo"}, "the loss of the GRPO paper"),
            Case(
                ("dapo",),
                {
                    **GRPO,
                    "trl.loss_type": "dapo",
                    "trl.epsilon_high": 0.28,
                    "trl.mask_truncated_completions": True,
                },
                "DAPO: token-level loss, wider upper clip, cut answers are ignored",
            ),
            Case(
                ("gspo",),
                {
                    **GRPO,
                    "trl.loss_type": "grpo",
                    "trl.importance_sampling_level": "sequence",
                    "trl.epsilon": 3.0e-4,
                    "trl.epsilon_high": 4.0e-4,
                },
                "GSPO: importance ratio per sequence, hence small clips",
            ),
            Case(
                ("dr-grpo",),
                {**GRPO, "trl.loss_type": "dr_grpo", "trl.scale_rewards": "none"},
                "Dr. GRPO: no length or deviation normalisation",
            ),
        ),
        group=METHOD,
        when=lambda p: not _supervised(p),
    ),
    Key(
        "beta",
        "rl_beta",
        "strength of the preference term",
        when=lambda p: p.method in OFFLINE_RL,
        group=METHOD,
    ),
    Key("beta", "trl.beta", "strength of the KL term", when=_online, group=METHOD),
    Derived("trl.reward_funcs", _rewards, "what scores answers", group=METHOD),
    Key("generations", "trl.num_generations", "answers per prompt", when=_online, absent=0, group=METHOD),
    Key(
        "response_len",
        "trl.max_completion_length",
        "longest answer, tokens",
        when=_online,
        absent=0,
        group=METHOD,
    ),
    Const("trl.log_completions", False, "true prints sampled answers", when=_online, group=METHOD),
    Choice(
        ("rollout_engine",),
        (
            Case(("none",), {"trl.use_vllm": ABSENT}),
            Case(("hf",), {"trl.use_vllm": False}, "transformers generates the answers"),
            Case(("vllm",), {"trl.use_vllm": True, "trl.vllm_mode": "colocate"}, "vLLM shares the GPUs"),
        ),
        group=METHOD,
    ),
    Key(
        "rollout_sleep",
        "trl.vllm_enable_sleep_mode",
        "vLLM gives its memory back while the policy trains",
        when=_vllm,
        absent=False,
        group=METHOD,
    ),
    Key(
        "rollout_memory_fraction",
        "vllm.gpu_memory_utilization",
        "share of each GPU that vLLM may take",
        when=_vllm,
        absent=0.0,
        group=METHOD,
    ),
    Key(
        "rollout_tensor_parallel",
        "vllm.tensor_parallel_size",
        "GPUs that share one vLLM engine",
        when=_vllm,
        absent=1,
        group=METHOD,
    ),
)

OPTIM_ROWS = (
    Key("micro_batch_size", "micro_batch_size", "sequences per GPU and pass", group=BATCH),
    Key(
        "gradient_accumulation_steps", "gradient_accumulation_steps", "passes per optimizer step", group=BATCH
    ),
    Key("epochs", "num_epochs", "passes over the data", group=BATCH),
    Key("learning_rate", "learning_rate", "peak learning rate", group=OPTIM),
    Key("lr_scheduler", "lr_scheduler", "shape of the learning rate", group=OPTIM),
    Key(
        "warmup_ratio",
        "warmup_ratio",
        "share of all steps in which it rises",
        when=lambda p: p.method != "simpo",
        group=OPTIM,
    ),
    Derived("warmup_steps", _warmup_steps, "steps in which it rises; SimPO takes no ratio", group=OPTIM),
    Key("warmup_ratio", "warmup_ratio", "", document=REPO, when=lambda p: p.method == "simpo"),
    Key("weight_decay", "weight_decay", "decoupled weight decay", group=OPTIM),
    Key("max_grad_norm", "max_grad_norm", "gradients are scaled down to this norm", group=OPTIM),
    Key(
        "optimizer",
        "optimizer",
        "optimizer and its implementation",
        codec=mapped(
            {
                "adamw": "adamw_torch_fused",
                "adamw_foreach": "adamw_torch",
                "adamw_8bit": "adamw_8bit",
                "paged_adamw_8bit": "paged_adamw_8bit",
                "adafactor": "adafactor",
                "muon": "muon",
            }
        ),
        group=OPTIM,
    ),
    Key("seed", "seed", "shuffling and initialisation", group=OPTIM),
)

LIGER = {"liger_rope": True, "liger_rms_norm": True, "liger_glu_activation": True}
NO_LIGER = dict.fromkeys(LIGER, ABSENT)
LOSSES: Mapping[str, Mapping[str, Any]] = {
    "stock": {},
    "chunked": {"chunked_cross_entropy": True},
    "fused": {"liger_fused_linear_cross_entropy": True},
}

KERNEL_ROWS = (
    Choice(
        ("precision",),
        (
            Case(("bf16",), {"bf16": True, "fp8": ABSENT}, "bf16 autocast"),
            Case(("fp16",), {"bf16": False, "fp16": True}, "fp16 autocast with loss scaling"),
            Case(("fp32",), {"bf16": False, "fp16": False}, "no mixed precision"),
            Case(("fp8",), {"bf16": True, "fp8": True}, "bf16 autocast, matrices multiplied in FP8"),
        ),
        group=KERNELS,
    ),
    Key(
        "attention",
        "attn_implementation",
        "attention kernel",
        codec=mapped({"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}),
        group=KERNELS,
    ),
    Derived("plugins", _plugins, "without it the keys of a plugin are dropped", group=KERNELS),
    Choice(
        ("liger", "loss"),
        tuple(
            Case((liger, loss), {**(LIGER if liger else NO_LIGER), **keys}, "fused kernels")
            for liger in (False, True)
            for loss, keys in LOSSES.items()
        ),
        group=KERNELS,
    ),
    *(
        Derived(
            f"lora_{part}_kernel", _no_lora_kernel, "not made for experts; else on by default", group=KERNELS
        )
        for part in ("mlp", "qkv", "o")
    ),
    Key(
        "gradient_checkpointing", "gradient_checkpointing", "recompute activations in backward", group=KERNELS
    ),
    Derived(
        "gradient_checkpointing_kwargs",
        _reentrant,
        "re-entrant for weights that ZeRO-3 gathers",
        group=KERNELS,
    ),
)

WRAP = "fsdp_config.transformer_layer_cls_to_wrap"
SHARDING_ROWS = (
    Choice(
        ("fsdp",),
        (Case((True,), {"fsdp_version": 2}), Case((False,), {"fsdp_version": ABSENT})),
        "PyTorch's FSDP2",
        group=SHARDING,
    ),
    Key(
        "offload",
        "fsdp_config.offload_params",
        "what each rank holds of the model",
        codec=mapped({"none": False, "all": True}),
        when=_fsdp,
        group=SHARDING,
    ),
    Const("fsdp_config.auto_wrap_policy", "TRANSFORMER_BASED_WRAP", "", when=_fsdp, group=SHARDING),
    Derived(WRAP, lambda p, j: j.model.decoder_layer if p.fsdp else ABSENT, "", group=SHARDING),
    Const("fsdp_config.reshard_after_forward", True, "", when=_fsdp, group=SHARDING),
    Derived("fsdp_config.cpu_ram_efficient_loading", _one_rank_loads, "", group=SHARDING),
    Derived("fsdp_config.state_dict_type", _state_dict, "", group=SHARDING),
    Derived("dp_shard_size", _shard_size, "ranks that share one copy of the weights", group=SHARDING),
    Key("tensor_parallel", "tensor_parallel_size", "ranks that slice every matrix", absent=1, group=SHARDING),
    Key(
        "context_parallel", "context_parallel_size", "ranks that split the sequence", absent=1, group=SHARDING
    ),
    Key("expert_parallel", "expert_parallel_size", "ranks that share the experts", absent=1, group=SHARDING),
    Key("nodes", "nodes", "", document=REPO),
    Key("gpus_per_node", "gpus_per_node", "", document=REPO),
    Const("deepspeed", "deepspeed.json", "what the ranks shard", when=_deepspeed, group=SHARDING),
)

CPU = {"device": "cpu", "pin_memory": True}
AUTO = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)


def _zero(key: str, value: Any, when: Any = _deepspeed) -> Const:
    return Const(f"zero_optimization.{key}", value, "", document="deepspeed", when=when)


DEEPSPEED_ROWS = (
    Choice(
        ("zero_stage",),
        tuple(
            Case((stage,), {"deepspeed:zero_optimization.stage": stage if stage else ABSENT})
            for stage in (0, 1, 2, 3)
        ),
        when=lambda p: not p.fsdp,
    ),
    _zero("overlap_comm", True),
    _zero("contiguous_gradients", True),
    _zero("reduce_bucket_size", "auto", _zero3),
    _zero("stage3_prefetch_bucket_size", "auto", _zero3),
    _zero("stage3_param_persistence_threshold", "auto", _zero3),
    _zero("gather_16bit_weights_on_model_save", True, _zero3),
    Choice(
        ("offload",),
        (
            Case(("none",), {}),
            Case(("optimizer",), {"deepspeed:zero_optimization.offload_optimizer": CPU}),
            Case(
                ("all",),
                {
                    "deepspeed:zero_optimization.offload_optimizer": CPU,
                    "deepspeed:zero_optimization.offload_param": CPU,
                },
            ),
        ),
        when=lambda p: not p.fsdp,
    ),
    *(
        Const(f"{name}.enabled", "auto", "", document="deepspeed", when=_deepspeed)
        for name in ("bf16", "fp16")
    ),
    *(Const(key, "auto", "", document="deepspeed", when=_deepspeed) for key in AUTO),
)

SAVE_ROWS = (
    Derived("output_dir", lambda p, j: j.output_dir, "checkpoints and the final model", group=SAVE),
    Key("save_steps", "save_steps", "steps between checkpoints", group=SAVE),
    Const("save_total_limit", 2, "older checkpoints are deleted", group=SAVE),
    Key("logging_steps", "logging_steps", "steps between log lines", group=SAVE),
    *_tracker_rows(),
)

TABLE = Table(
    NAME,
    (
        *MODEL_ROWS,
        *DATA_ROWS,
        *METHOD_ROWS,
        *OPTIM_ROWS,
        *KERNEL_ROWS,
        *DEEPSPEED_ROWS,
        *SHARDING_ROWS,  # after DeepSpeed: its way to offload wins where it is there
        *SAVE_ROWS,
    ),
)


def command(plan: Plan, job: Job) -> Sequence[str]:
    return ("axolotl", "train", "train.yaml")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    """Raises InputError for a reward model that Axolotl would take for a Python module."""
    if plan.online and job.reward_model:
        _check_reward_model(job.reward_model)
    train = render(
        "axolotl/train.yaml.jinja", document=rendered["train"], command=command(plan, job), job=job
    )
    emitted = [Emitted("train.yaml", "config", train)]
    if _deepspeed(plan):
        content = rendered["deepspeed"].mapping()
        text = render("axolotl/deepspeed.json.jinja", content=content)
        emitted.append(Emitted("deepspeed.json", "deepspeed", text))
    if plan.method == "kto":
        emitted.append(Emitted("chat_rows.py", "script", render("axolotl/chat_rows.py.jinja")))
    if plan.online and job.reward:
        function = job.reward.rpartition(":")[2]
        text = render("axolotl/reward_adapter.py.jinja", function=function)
        emitted.append(Emitted("reward_adapter.py", "reward", text))
    return emitted


def _check_reward_model(name: str) -> None:
    # It imports what stands before the last dot, and goes on only when there is no such module.
    if "." not in name or name.startswith("."):
        raise InputError(
            "reward_model",
            f"Axolotl 0.21.0 reads {name!r} as a Python name and fails; it takes a reward model only when "
            "there is a dot in the middle of its name: rename the folder (reward/v1.0), or choose another "
            "framework",
        )


def smoke(plan: Plan, job: Job) -> Smoke:
    judged = ("config", "deepspeed")
    if not job.model.vision:
        return Smoke(rl=plan.online, judged_roles=judged)
    tool = {"text_part.py": "axolotl/smoke/text_part.py"}
    partial = "the image tower: Axolotl wants an image processor, which no tiny model has"
    return Smoke(files=tool, rl=plan.online, partial=partial, judged_roles=judged)


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    scorers = ["reward_adapter.reward"] if job.reward else []
    return {
        "environment": {"AXOLOTL_DO_NOT_TRACK": "1"},
        "prepared": PREPARED,
        "imports": plan.method == "kto" or plan.online,
        "row_files": [job.data_path, *(["chat_rows.py"] if plan.method == "kto" else [])],
        "trackers": [switch for switch, _ in TRACKERS.values()],
        "batch": _smoke_batch(plan),
        "tiny_unfrozen": json.dumps(_patterns(plan, "^[a-z_.]*layers", (1,))),
        "module_names": json.dumps(linear_module_names(job.model, plan.lora_targets)),
        "scorers": json.dumps([*scorers, "smoke/work/scorer.v1"]),
    }


def _smoke_batch(plan: Plan) -> tuple[int, int]:
    """(micro batch, accumulation): small, a whole group for GRPO, two rows for KTO's KL term."""
    if plan.online:
        return plan.generations, 1
    return min(plan.micro_batch_size, 2), min(plan.gradient_accumulation_steps, 2)
