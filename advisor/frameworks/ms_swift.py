"""ms-swift: `swift pt|sft|rlhf train.yaml` on transformers, `megatron pt|sft|rlhf train.yaml` on Megatron-core.

Both read the same YAML shape with different names for much of it; no value is ever null, because a null
reaches ms-swift as the text "None".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from advisor.errors import InputError
from advisor.facts import rows
from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.facts.types import ModelFacts
from advisor.frameworks.base import DataNeed, Emitted, Smoke, data_kind
from advisor.frameworks.table import (
    ABSENT,
    FLOAT,
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
    Row,
    Table,
    When,
    mapped,
)
from advisor.paths import rules_root
from advisor.plan import Plan
from advisor.rendering import render

NAME = "ms-swift"
JUDGE = "ms_swift.py"

READS = {
    "text": ("text",),
    "conversation": ("messages", "sharegpt", "alpaca", "prompt-completion"),
    "preference": ("preference", "preference-messages"),
    "label": ("kto",),
    "prompts": ("rl-prompts",),
}
SPELLED = ("prompt-completion", "preference-messages", "kto", "rl-prompts")
"""Formats whose rows are rewritten to `messages` on the way into the repo."""
MANY_ROWS = 10000

ANSWERS = {"chosen": "response", "rejected": "rejected_response"}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "text": {"text": "response"},
    "messages": {"messages": "messages", "tools": "tools"},
    "sharegpt": {"conversations": "messages", "system": "system", "tools": "tools"},
    "alpaca": {name: name for name in ("instruction", "input", "output", "system", "history")},
    "preference": {"prompt": "query", **ANSWERS},
}
"""Format -> its field -> the column that ms-swift calls so."""
MUST_BE_MAPPED = ("text", "preference")
"""Formats that ms-swift does not recognise by itself: without the mapping the rejected answer is lost."""
HUB_TURNS = {"chosen": "messages", "rejected": "rejected_messages"}

RLHF = {
    "ipo": "dpo",
    "dapo": "grpo",
    "gspo": "grpo",
    "dr-grpo": "grpo",
    "rloo": "grpo",
    "reinforce++": "grpo",
}
"""Plan method -> `rlhf_type`, where it is not called the same."""
PLUGIN = "reward_plugin.py"
REWARD = "user_reward"
MEGATRON_TRACKERS = ("tensorboard", "wandb", "swanlab")

MEGATRON_MLA = {
    "q_proj": "linear_q_proj",
    "q_a_proj": "linear_q_down_proj",
    "q_b_proj": "linear_q_up_proj",
    "kv_a_proj_with_mqa": "linear_kv_down_proj",
    "kv_b_proj": "linear_kv_up_proj",
    "o_proj": "linear_proj",
}


# --- rows and columns ---------------------------------------------------------------------------


def spell(row: dict[str, Any], format: str) -> dict[str, Any]:
    """The row with its turns in `messages` (and `rejected_messages`), other columns kept."""
    if format not in SPELLED:
        return row
    parsed = rows.neutral(row, format)
    extra = {"tools": parsed["tools"]} if parsed["tools"] else {}
    if format == "prompt-completion":
        return {"messages": parsed["messages"], **extra}
    prompt = parsed["prompt"]
    if format == "kto":
        return {"messages": [*prompt, *parsed["completion"]], "label": parsed["label"], **extra}
    if format == "rl-prompts":
        others = {name: value for name, value in parsed["extra"].items() if name != "messages"}
        return {**others, "messages": prompt, "solution": parsed["solution"], **extra}
    return {
        "messages": [*prompt, *parsed["chosen"]],
        "rejected_messages": [*prompt, *parsed["rejected"]],
        **extra,
    }


def columns(plan: Plan, job: Job) -> Any:
    """The user's columns -> ms-swift's, where it would not find them by itself."""
    format = job.data_format
    if format == "preference-messages" and not job.data_local:
        return dict(HUB_TURNS)
    if format not in COLUMNS:
        return ABSENT
    renamed: Mapping[str, str] = job.data_extra.get("mapping", {})
    there = set(job.data_extra.get("columns", ())) or set(COLUMNS[format])
    found: dict[str, str] = {}
    for field, name in COLUMNS[format].items():
        column = renamed.get(field, field)
        if column in there and column != name and (format in MUST_BE_MAPPED or field in renamed):
            found[column] = name
    return found or ABSENT


# --- models -------------------------------------------------------------------------------------


@cache
def _registry() -> Mapping[str, Any]:
    return json.loads((rules_root() / "catalog" / "ms_swift_models.json").read_text("utf-8"))


def registered(id: str, model_type: str = "") -> tuple[str, str] | None:
    """(model_type, template) of ms-swift: by the model's name, else by the architecture."""
    registry = _registry()
    by_name = registry["models"].get(id.rpartition("/")[2].lower())
    found = by_name or registry["by_config"].get(model_type)
    return (found[0], found[1]) if found else None


def _registered(job: Job) -> tuple[str, str]:
    found = registered(job.model.id, job.model.model_type)
    if found is None:
        raise InputError(
            "framework",
            f"ms-swift registers neither {job.model.id} nor the architecture {job.model.model_type}; "
            "choose another framework",
        )
    return found


def _other_type(id: str | None) -> Any:
    """`model_type` of a teacher or reward model, where its name tells."""
    found = registered(id) if id else None
    return found[0] if found else ABSENT


Compute = Callable[[Plan, Job], Any]


# --- what a value is ----------------------------------------------------------------------------


def hf(plan: Plan) -> bool:
    return plan.backend == "hf"


def megatron(plan: Plan) -> bool:
    return plan.backend == "megatron"


def _adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def _grouped(plan: Plan) -> bool:
    """The methods of `rlhf_type: grpo`."""
    return plan.online and plan.method != "ppo"


def _generates(plan: Plan) -> bool:
    return plan.online or plan.method == "gkd"


def _vllm(plan: Plan) -> bool:
    return plan.rollout_engine == "vllm"


def _has_beta(plan: Plan) -> bool:
    return plan.method not in ("cpt", "sft", "rm", "gkd", "ppo")


def _modules(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter:
        return ABSENT
    if hf(plan):
        return linear_module_names(job.model, plan.lora_targets)
    if plan.lora_targets != ("attention",):
        return ["all-linear"]
    if not job.model.mla:
        return ["self_attention.linear_qkv", "self_attention.linear_proj"]
    named = linear_module_names(job.model, plan.lora_targets)
    return [f"self_attention.{MEGATRON_MLA[name]}" for name in named if name in MEGATRON_MLA]


def _expert_parameters(plan: Plan, job: Job) -> Any:
    wanted = hf(plan) and plan.uses_adapter and plan.lora_targets == ("experts",)
    return expert_parameter_names(job.model) if wanted else ABSENT


def _layer_prefix(model: ModelFacts) -> str:
    attention = next(w.name for w in model.weights if w.role == "attention" and ".*." in w.name)
    return attention.partition("*")[0]


def _last_layers(plan: Plan, job: Job) -> Any:
    """Prefixes of the layers that train; the closing dot keeps layer 3 apart from layer 30."""
    if plan.tuning != "freeze":
        return ABSENT
    first = max(0, job.model.layers - plan.freeze_trainable_layers)
    return [f"{_layer_prefix(job.model)}{layer}." for layer in range(first, job.model.layers)]


def _adapters(plan: Plan, job: Job) -> Any:
    return [job.adapter] if job.adapter and plan.uses_adapter else ABSENT


def _reference_adapters(plan: Plan, job: Job) -> Any:
    has_reference = RLHF.get(plan.method, plan.method) in ("dpo", "kto", "grpo")
    return _adapters(plan, job) if has_reference else ABSENT


def _workers(plan: Plan, job: Job) -> Any:
    return min(16, job.cpus_per_node) if not job.data_local or job.rows >= MANY_ROWS else ABSENT


def _report_to(plan: Plan, job: Job) -> Any:
    if hf(plan):
        return [job.tracker]
    if job.tracker not in ("none", *MEGATRON_TRACKERS):
        known = ", ".join(MEGATRON_TRACKERS)
        raise InputError("tracker", f"Megatron-SWIFT does not know {job.tracker}; choose {known}")
    return ["tensorboard" if job.tracker == "none" else job.tracker]


def _truncation(plan: Plan, job: Job) -> Any:
    return "left" if _grouped(plan) else "right" if plan.method != "ppo" else ABSENT


def _reward_funcs(plan: Plan, job: Job) -> Any:
    return [REWARD] if _grouped(plan) and job.reward else ABSENT


def _reward_models(plan: Plan, job: Job) -> Any:
    return [job.reward_model] if plan.online and job.reward_model else ABSENT


def _reward_types(plan: Plan, job: Job) -> Any:
    known = _other_type(job.reward_model) if plan.online else ABSENT
    return ABSENT if known is ABSENT else [known]


def _only(condition: When, compute: Compute) -> Compute:
    """A Derived that is there only where the condition holds."""
    return lambda plan, job: compute(plan, job) if condition(plan) else ABSENT


def _run_name(tracker: str) -> Compute:
    return _only(megatron, lambda p, j: j.run_name if j.tracker == tracker else ABSENT)


WHOLE = Codec(int, float, tuple(float(n) for n in range(1, 101)), closed=True)

MODEL, DATA, METHOD, BATCH, OPTIM, KERNELS, SPREAD, SAVE = (
    "Model and what trains",
    "Data",
    "Method",
    "Batch",
    "Optimization",
    "Precision and kernels",
    "How it is spread over the GPUs",
    "Logging and checkpoints",
)


# --- the table ----------------------------------------------------------------------------------


def _methods() -> tuple[Case, ...]:
    dapo = {"loss_type": "dapo", "epsilon_high": 0.28, "dynamic_sample": True, "overlong_filter": True}
    gspo = {"importance_sampling_level": "sequence", "epsilon": 3.0e-4, "epsilon_high": 4.0e-4}
    simpo = {"rlhf_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 1.0}
    grpo = {"rlhf_type": "grpo", "loss_type": "grpo"}
    rlhf: dict[str, tuple[dict[str, Any], str]] = {
        "dpo": ({"rlhf_type": "dpo", "loss_type": "sigmoid"}, "the DPO loss"),
        "ipo": ({"rlhf_type": "dpo", "loss_type": "ipo"}, "IPO is a DPO loss here"),
        "kto": ({"rlhf_type": "kto"}, "answers labelled good or bad"),
        "orpo": ({"rlhf_type": "orpo"}, "no reference model"),
        "simpo": (simpo, "alpha 0 drops the SFT term; gamma is the margin"),
        "cpo": ({"rlhf_type": "cpo", "loss_type": "sigmoid"}, "the CPO loss"),
        "rm": ({"rlhf_type": "rm"}, "a score head learns which answer is better"),
        "ppo": ({"rlhf_type": "ppo"}, "a value model beside the policy"),
        "grpo": (grpo, "the loss of the GRPO paper"),
        "dapo": (
            {**grpo, **dapo},
            "DAPO: token-level loss, wider upper clip, dull groups and cut answers ignored",
        ),
        "gspo": ({**grpo, **gspo}, "GSPO: importance ratio per sequence, hence small clips"),
        "dr-grpo": (
            {**grpo, "loss_type": "dr_grpo", "scale_rewards": "none"},
            "Dr. GRPO: no length or deviation normalisation",
        ),
        "rloo": ({**grpo, "advantage_estimator": "rloo"}, "RLOO: the other answers are the baseline"),
        "reinforce++": (
            {**grpo, "advantage_estimator": "reinforce_plus_plus"},
            "REINFORCE++: advantages normalised over the batch",
        ),
        "gkd": ({"rlhf_type": "gkd"}, "learn from a teacher's distribution"),
    }
    cases = [
        Case(("cpt",), {"command:subcommand": "pt"}, "raw text"),
        Case(("sft",), {"command:subcommand": "sft"}, "answers to prompts"),
    ]
    for method, (keys, why) in rlhf.items():
        cases.append(Case((method,), {"command:subcommand": "rlhf", **keys}, why))
    return tuple(cases)


MODEL_ROWS: tuple[Row, ...] = (
    Choice(
        ("backend",),
        (Case(("hf",), {"command:program": "swift"}), Case(("megatron",), {"command:program": "megatron"})),
    ),
    Derived("model", lambda p, j: j.model_path, "the model to start from", group=MODEL),
    Derived("model_type", lambda p, j: _registered(j)[0], "never guessed from a folder's name", group=MODEL),
    Derived("template", lambda p, j: _registered(j)[1], "chat format", group=MODEL),
    Derived(
        "use_hf",
        lambda p, j: True if j.hub == "hf" else ABSENT,
        "models and datasets from Hugging Face, not ModelScope",
        group=MODEL,
    ),
    Derived("adapters", _adapters, "the adapter to go on with", group=MODEL),
    Derived("ref_adapters", _reference_adapters, "the reference starts from it too", group=MODEL),
    Choice(
        ("tuning", "quantization"),
        (
            Case(("full", "none"), {"tuner_type": "full"}, "all weights"),
            Case(
                ("freeze", "none"),
                {"tuner_type": "full", "freeze_parameters_ratio": 1.0},
                "all but the last layers",
            ),
            Case(("lora", "none"), {"tuner_type": "lora"}, "low-rank adapters"),
            Case(
                ("dora", "none"),
                {"tuner_type": "lora", "use_dora": True},
                "adapters with a learned magnitude",
            ),
            Case(
                ("qlora", "4bit"),
                {"tuner_type": "lora", "quant_method": "bnb", "quant_bits": 4},
                "adapters on a 4-bit NF4 base",
            ),
            Case(
                ("qlora", "8bit"),
                {"tuner_type": "lora", "quant_method": "bnb", "quant_bits": 8},
                "adapters on an 8-bit base",
            ),
        ),
        group=MODEL,
    ),
    Derived("trainable_parameters", _last_layers, "the layers that train", group=MODEL),
    Key("freeze_trainable_layers", "freeze_trainable_layers", "", REPO, when=lambda p: p.tuning == "freeze"),
    Key("lora_rank", "lora_rank", "rank of the adapters", when=_adapter, group=MODEL),
    Key("lora_alpha", "lora_alpha", "adapter output is scaled by alpha / rank", when=_adapter, group=MODEL),
    Key(
        "lora_dropout", "lora_dropout", "0: the default 0.05 breaks fused experts", when=_adapter, group=MODEL
    ),
    Key("lora_targets", "lora_targets", "", REPO, LIST, when=_adapter),
    Derived("target_modules", _modules, "modules that get adapters", group=MODEL),
    Derived("target_parameters", _expert_parameters, "routed experts are fused 3-D parameters", group=MODEL),
)

DATA_ROWS: tuple[Row, ...] = (
    Derived("dataset", lambda p, j: [j.data_path], "the training rows", group=DATA),
    Derived("columns", columns, "your columns -> ms-swift's", group=DATA),
    Key(
        "prompt_len",
        "max_length",
        "longest prompt, tokens",
        when=lambda p: p.online,
        absent=0,
        group=DATA,
    ),
    Key("seq_len", "max_length", "tokens per sample", when=lambda p: not p.online, group=DATA),
    Key("prompt_len", "prompt_len", "", REPO, when=lambda p: p.method == "gkd"),
    Derived("truncation_strategy", _truncation, "longer rows are cut; the default drops them", group=DATA),
    Key("packing", "packing", "fill each sequence with several samples", absent=False, group=DATA),
    Derived("dataset_num_proc", _workers, "processes that tokenize", group=DATA),
)

METHOD_ROWS: tuple[Row, ...] = (
    Choice(("method",), _methods(), group=METHOD),
    Key("beta", "beta", "strength of the preference or KL term", when=_has_beta, group=METHOD),
    Key("beta", "kl_coef", "strength of the KL term", when=lambda p: p.method == "ppo", group=METHOD),
    Derived("teacher_model", _only(lambda p: p.method == "gkd", lambda p, j: j.teacher), "to learn from", group=METHOD),
    Derived(
        "teacher_model_type",
        _only(lambda p: p.method == "gkd", lambda p, j: _other_type(j.teacher)),
        "of the teacher",
        group=METHOD,
    ),
    Const(
        "lmbda",
        0.0,
        "the rows' own answers: no rollout engine runs beside Megatron",
        when=lambda p: p.method == "gkd" and megatron(p),
        group=METHOD,
    ),
    Const(
        "lmbda", 0.5, "share of batches that the student answers itself", when=lambda p: p.method == "gkd" and hf(p),
        group=METHOD,
    ),
    Derived("external_plugins", _only(_grouped, lambda p, j: [PLUGIN] if j.reward else ABSENT), "your reward",
            group=METHOD),
    Derived("reward_funcs", _reward_funcs, "the function that scores answers", group=METHOD),
    Derived("reward_model", _reward_models, "the model that scores answers", group=METHOD),
    Derived("reward_model_type", _reward_types, "of the reward model", group=METHOD),
    Key("generations", "num_generations", "answers per prompt", when=_grouped, group=METHOD),
    Key("generations", "generations", "", REPO, when=lambda p: p.method == "ppo"),
    Key("response_len", "max_completion_length", "longest answer, tokens", when=_generates, group=METHOD),
    Const("temperature", 1.0, "answers are drawn from the policy itself", when=lambda p: p.online, group=METHOD),
    Choice(
        ("rollout_engine",),
        (
            Case(("hf",), {"use_vllm": False}, "transformers generates the answers"),
            Case(("vllm",), {"use_vllm": True, "vllm_mode": "colocate"}, "vLLM shares the training GPUs"),
        ),
        when=_grouped,
        group=METHOD,
    ),
    Const("use_vllm", False, "no rollout engine", when=lambda p: p.method == "gkd", group=METHOD),
    Key("rollout_engine", "rollout_engine", "", REPO, when=lambda p: p.method == "ppo"),
    Key("rollout_memory_fraction", "vllm_gpu_memory_utilization", "share of each GPU that vLLM may take", when=_vllm,
        group=METHOD),
    Key("rollout_tensor_parallel", "vllm_tensor_parallel_size", "GPUs that share one vLLM engine", when=_vllm,
        group=METHOD),
    Derived("vllm_max_model_len", _only(_vllm, lambda p, j: p.seq_len), "prompt and answer", group=METHOD),
    Key("rollout_sleep", "sleep_level", "1: vLLM gives its memory back while the policy trains",
        codec=mapped({True: 1, False: 0}), when=_vllm, group=METHOD),
)  # fmt: skip


def _shardings() -> tuple[Case, ...]:
    """(zero_stage, fsdp, offload, gradient_checkpointing) on transformers."""
    presets = {
        (0, "none"): ABSENT,
        (1, "none"): "zero1",
        (2, "none"): "zero2",
        (3, "none"): "zero3",
        (2, "optimizer"): "zero2_offload",
        (3, "all"): "zero3_offload",
    }
    cases: list[Case] = []
    for kept in (True, False):
        for (stage, offload), preset in presets.items():
            why = "what the ranks shard" if stage else "every rank holds everything"
            cases.append(
                Case(
                    (stage, False, offload, kept), {"deepspeed": preset, "gradient_checkpointing": kept}, why
                )
            )
        # The zero3 preset with the optimizer alone in host memory.
        there = {f"{OFFLOADED}.offload_optimizer.device": "cpu", "gradient_checkpointing": kept}
        cases.append(Case((3, False, "optimizer", kept), there, "ZeRO-3, optimizer in host memory"))
        for offload, options in (("none", "full_shard auto_wrap"), ("all", "full_shard auto_wrap offload")):
            keys = {
                "fsdp.fsdp": options,
                "fsdp.fsdp_config.activation_checkpointing": kept,
                "gradient_checkpointing": False,
            }
            cases.append(Case((3, True, offload, kept), keys, "FSDP2; it recomputes activations itself"))
    return tuple(cases)


OFFLOADED = "deepspeed.zero_optimization"


def _zero3_optimizer(plan: Plan) -> bool:
    return hf(plan) and not plan.fsdp and plan.zero_stage == 3 and plan.offload == "optimizer"


FSDP = {
    "fsdp_version": 2,
    "reshard_after_forward": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "cpu_ram_efficient_loading": True,
    "state_dict_type": "FULL_STATE_DICT",
}
"""The `fsdp2` preset, except that it saves sharded state only: no adapter and no model file."""
ZERO3_OPTIMIZER = {
    "bf16.enabled": "auto",
    "fp16.enabled": "auto",
    "zero_optimization.stage": 3,
    "zero_optimization.offload_optimizer.pin_memory": True,
    "zero_optimization.overlap_comm": False,
    "zero_optimization.contiguous_gradients": True,
    "zero_optimization.reduce_bucket_size": "auto",
    "zero_optimization.stage3_prefetch_bucket_size": "auto",
    "zero_optimization.stage3_param_persistence_threshold": "auto",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": True,
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}

HF_ROWS: tuple[Row, ...] = (
    Key(
        "micro_batch_size", "per_device_train_batch_size", "sequences per GPU and pass", when=hf, group=BATCH
    ),
    Key(
        "gradient_accumulation_steps",
        "gradient_accumulation_steps",
        "passes per optimizer step",
        when=hf,
        group=BATCH,
    ),
    Key("epochs", "num_train_epochs", "passes over the data", codec=FLOAT, when=hf, group=BATCH),
    Key("learning_rate", "learning_rate", "peak learning rate", when=hf, group=OPTIM),
    Key(
        "lr_scheduler",
        "lr_scheduler_type",
        "shape of the learning rate",
        codec=mapped({"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}),
        when=hf,
        group=OPTIM,
    ),
    Key("warmup_ratio", "warmup_ratio", "share of all steps", when=hf, group=OPTIM),
    Key("weight_decay", "weight_decay", "decoupled weight decay; the default is 0.1", group=OPTIM),
    Key("max_grad_norm", "max_grad_norm", "gradients are scaled down to this norm", when=hf, group=OPTIM),
    Key(
        "optimizer",
        "optim",
        "optimizer and its implementation",
        codec=mapped(
            {
                "adamw": "adamw_torch_fused",
                "adamw_foreach": "adamw_torch",
                "adamw_8bit": "adamw_8bit",
                "paged_adamw_8bit": "paged_adamw_8bit",
                "adafactor": "adafactor",
            }
        ),
        when=hf,
        group=OPTIM,
    ),
    Key("seed", "seed", "shuffling and initialisation", group=OPTIM),
    Choice(
        ("precision",),
        (
            Case(("bf16",), {"torch_dtype": "bfloat16", "bf16": True}, "bf16 weights and autocast"),
            Case(("fp16",), {"torch_dtype": "float16", "fp16": True}, "fp16 with loss scaling"),
            Case(
                ("fp32",),
                {"torch_dtype": "float32", "bf16": False, "fp16": False},
                "float32 alone would turn fp16 on",
            ),
        ),
        when=hf,
        group=KERNELS,
    ),
    Key(
        "attention",
        "attn_impl",
        "attention kernel",
        codec=mapped({"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}),
        when=hf,
        group=KERNELS,
    ),
    Key("liger", "use_liger_kernel", "Liger's fused kernels", when=hf, absent=False, group=KERNELS),
    Choice(("zero_stage", "fsdp", "offload", "gradient_checkpointing"), _shardings(), when=hf, group=SPREAD),
    *(
        Const(f"fsdp.fsdp_config.{key}", value, "", when=lambda p: hf(p) and p.fsdp, group=SPREAD)
        for key, value in FSDP.items()
    ),
    *(
        Const(f"deepspeed.{key}", value, "", when=_zero3_optimizer, group=SPREAD)
        for key, value in ZERO3_OPTIMIZER.items()
    ),
    Key(
        "context_parallel",
        "sequence_parallel_size",
        "GPUs that split each sequence",
        when=lambda p: hf(p) and p.context_parallel > 1,
        group=SPREAD,
    ),
)

MEGATRON_ROWS: tuple[Row, ...] = (
    Key("micro_batch_size", "micro_batch_size", "sequences per replica and pass", when=megatron, group=BATCH),
    Derived("global_batch_size", _only(megatron, lambda p, j: p.global_batch_size), "sequences per step", group=BATCH),
    Key("gradient_accumulation_steps", "gradient_accumulation_steps", "", REPO, when=megatron),
    Key("epochs", "num_train_epochs", "passes over the data", codec=WHOLE, when=megatron, group=BATCH),
    Key("learning_rate", "lr", "peak learning rate", when=megatron, group=OPTIM),
    Key("lr_scheduler", "lr_decay_style", "shape of the learning rate", when=megatron, group=OPTIM),
    Key("warmup_ratio", "lr_warmup_fraction", "share of all steps", when=megatron, group=OPTIM),
    Key("max_grad_norm", "clip_grad", "gradients are scaled down to this norm", when=megatron, group=OPTIM),
    Key("optimizer", "optimizer", "Adam with decoupled weight decay", codec=mapped({"adamw": "adam"}), when=megatron,
        group=OPTIM),
    Choice(
        ("precision",),
        (
            Case(("bf16",), {"torch_dtype": "bfloat16", "bf16": True, "fp8_format": ABSENT},
                 "bf16 weights, fp32 gradients and master weights"),
            Case(("fp8",), {"torch_dtype": "bfloat16", "bf16": True, "fp8_format": "e4m3", "fp8_recipe": "blockwise"},
                 "matrices in FP8, blockwise scales (Hopper, CUDA 12.9 or newer)"),
        ),
        when=megatron,
        group=KERNELS,
    ),
    Key("attention", "attention_backend", "attention kernel", codec=mapped({"flash": "flash"}), when=megatron,
        group=KERNELS),
    Derived("moe_permute_fusion", _only(megatron, lambda p, j: True if j.model.moe else ABSENT),
            "one kernel sorts tokens by expert", group=KERNELS),
    Derived(
        "moe_aux_loss_coeff",
        _only(lambda p: megatron(p) and p.tuning == "full" and p.method in ("cpt", "sft"),
              lambda p, j: 1.0e-3 if j.model.moe else ABSENT),
        "keeps experts evenly used",
        group=METHOD,
    ),
    Choice(
        ("recompute",),
        (
            Case(("none",), {"recompute_granularity": "none"}, "keep activations: faster"),
            Case(("selective",), {"recompute_granularity": "selective"}, "recompute the attention core"),
            Case(
                ("full",),
                {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
                "recompute every layer",
            ),
        ),
        when=megatron,
        group=KERNELS,
    ),
    Key("tensor_parallel", "tensor_model_parallel_size", "ranks that slice every matrix", when=megatron, group=SPREAD),
    Key("sequence_parallel", "sequence_parallel", "norms are split along the sequence too",
        when=lambda p: megatron(p) and p.tensor_parallel > 1, group=SPREAD),
    Key("pipeline_parallel", "pipeline_model_parallel_size", "stages of layers", when=megatron, group=SPREAD),
    Key("pipeline_first_layers", "decoder_first_pipeline_num_layers", "layers of the first stage",
        when=lambda p: megatron(p) and p.pipeline_first_layers > 0, group=SPREAD),
    Key("pipeline_last_layers", "decoder_last_pipeline_num_layers", "layers of the last stage",
        when=lambda p: megatron(p) and p.pipeline_last_layers > 0, group=SPREAD),
    Key("context_parallel", "context_parallel_size", "ranks that split the sequence", when=megatron, group=SPREAD),
    Key("expert_parallel", "expert_model_parallel_size", "ranks over which experts are spread", when=megatron,
        group=SPREAD),
    Key("expert_tensor_parallel", "expert_tensor_parallel_size", "ranks that slice each expert", when=megatron,
        group=SPREAD),
    Choice(
        ("offload",),
        (
            Case(("none",), {"optimizer_cpu_offload": False}, "optimizer states stay on the GPU"),
            Case(
                ("optimizer",),
                {
                    "optimizer_cpu_offload": True,
                    "use_precision_aware_optimizer": True,
                    "optimizer_offload_fraction": 1.0,
                },
                "optimizer states and step in host memory",
            ),
        ),
        when=megatron,
        group=SPREAD,
    ),
)  # fmt: skip

SAVE_ROWS: tuple[Row, ...] = (
    Derived("output_dir", lambda p, j: j.output_dir, "checkpoints and the final model", group=SAVE),
    Const("add_version", False, "no vN-timestamp folder below it", group=SAVE),
    Const("save_safetensors", True, "checkpoints are Hugging Face files", when=megatron, group=SAVE),
    Const("merge_lora", False, "save the adapter alone, not a merged model",
          when=lambda p: megatron(p) and p.uses_adapter, group=SAVE),
    Key("save_steps", "save_steps", "steps between checkpoints", group=SAVE),
    Const("save_total_limit", 2, "older checkpoints are deleted", group=SAVE),
    Key("logging_steps", "logging_steps", "steps between log lines", group=SAVE),
    Derived("report_to", _report_to, "experiment tracker", group=SAVE),
    Derived("run_name", _only(hf, lambda p, j: j.run_name), "name of the run in the tracker", group=SAVE),
    *(
        Derived(
            f"{tracker}_exp_name",
            _run_name(tracker),
            "name of the run in the tracker",
            group=SAVE,
        )
        for tracker in ("wandb", "swanlab")
    ),
    Key("nodes", "nodes", "", REPO),
    Key("gpus_per_node", "gpus_per_node", "", REPO),
)  # fmt: skip

TABLE = Table(NAME, (*MODEL_ROWS, *DATA_ROWS, *METHOD_ROWS, *HF_ROWS, *MEGATRON_ROWS, *SAVE_ROWS))


# --- the module's interface ---------------------------------------------------------------------


def data_need(plan: Plan) -> DataNeed:
    return DataNeed(READS[data_kind(plan.method)], spell, SPELLED)


def command(plan: Plan, job: Job) -> Sequence[str]:
    subcommand = {"cpt": "pt", "sft": "sft"}.get(plan.method, "rlhf")
    return ("swift" if hf(plan) else "megatron", subcommand, "train.yaml")


def nearest(plan: Plan) -> Plan:
    """The transformers plan that a CPU trains in place of a Megatron one."""
    single = dict.fromkeys(("tensor_parallel", "pipeline_parallel", "context_parallel", "expert_parallel"), 1)
    near = replace(
        plan, **single, backend="hf", expert_tensor_parallel=1, precision="bf16", zero_stage=0, offload="none",
        nodes=1, gpus_per_node=1,
    )  # fmt: skip
    return near.normalised()


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    emitted = [_config("train.yaml", "config", plan, job, rendered)]
    if megatron(plan):
        near = nearest(plan)
        documents = TABLE.render(near, job, lambda _: near.as_dict())
        emitted.append(_config("smoke/nearest.yaml", "smoke", near, job, documents))
    if _grouped(plan) and job.reward:
        function = job.reward.rpartition(":")[2]
        plugin = render(f"{NAME}/{PLUGIN}.jinja", function=function, name=REWARD)
        emitted.append(Emitted(PLUGIN, "reward", plugin))
    return emitted


def _config(path: str, role: str, plan: Plan, job: Job, rendered: Rendered) -> Emitted:
    text = render(f"{NAME}/train.yaml.jinja", document=rendered["train"], command=command(plan, job), job=job)
    return Emitted(path, role, text)


def smoke(plan: Plan, job: Job) -> Smoke:
    left_out = "Megatron needs GPUs: the same method was trained on transformers" if megatron(plan) else ""
    return Smoke(rl=plan.online, partial=left_out)


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    near = nearest(plan) if megatron(plan) else plan
    return {
        "trained": near,
        "trained_file": "smoke/nearest.yaml" if megatron(plan) else "train.yaml",
        "trained_command": command(near, job),
        "model_type": _registered(job)[0],
        "layer_prefix": _layer_prefix(job.model),
        "smoke_batch": plan.generations if _grouped(plan) else 2,
    }
