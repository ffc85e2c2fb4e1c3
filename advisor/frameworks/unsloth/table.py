"""Plan field <-> keyword of the calls in train.py, and variable of launch/env.sh."""

from __future__ import annotations

from typing import Any

from advisor.facts.lora import TOWER_ROLES, expert_parameter_names, linear_module_names
from advisor.facts.types import ModelFacts
from advisor.frameworks.shared import (
    GROUP_LOSSES,
    TRL_LOSSES,
    adapter_rows,
    batch_rows,
    generation_rows,
    loss_cases,
    low_rank_rows,
    on_vllm,
    optimizer_row,
    save_rows,
    schedule_rows,
    seed_row,
    share_row,
    size_rows,
    tracker_rows,
)
from advisor.frameworks.table import (
    ABSENT,
    Case,
    Choice,
    Const,
    Derived,
    Job,
    Key,
    Table,
)
from advisor.plan import Plan

NAME = "unsloth"
HAND_OPTIMISED = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")
"""Model types with kernels of their own behind FastLanguageModel; FastModel loads every other one."""
BROAD_TARGETS = ("gate_proj", "up_proj", "down_proj", "gate_up_proj")
"""Names that Unsloth takes for the routed experts of a mixture of experts as well."""


def generates(plan: Plan) -> bool:
    return plan.online or plan.method == "gkd"


def _has_beta(plan: Plan) -> bool:
    return plan.method not in ("cpt", "sft", "rm", "gkd")


def sees(model: ModelFacts) -> bool:
    return any(weight.role in TOWER_ROLES for weight in model.weights)


def loader(model: ModelFacts) -> str:
    """The class that loads and adapts this model."""
    return "FastLanguageModel" if model.model_type in HAND_OPTIMISED else "FastModel"


def _modules(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter:
        return ABSENT
    names = linear_module_names(job.model, plan.lora_targets)
    return [name for name in names if not (job.model.moe and name in BROAD_TARGETS)]


def _expert_parameters(plan: Plan, job: Job) -> Any:
    experts = plan.uses_adapter and plan.lora_targets == ("experts",)
    return expert_parameter_names(job.model) if experts else ABSENT


def _no_vision(plan: Plan, job: Job) -> Any:
    return False if plan.uses_adapter and sees(job.model) else ABSENT


def _assistant_only(plan: Plan, job: Job) -> Any:
    return True if plan.method == "sft" and job.data_format == "messages" else ABSENT


def _offline_length(plan: Plan, job: Job) -> Any:
    return ABSENT if generates(plan) else plan.seq_len


MODEL, ADAPTER, DATA, BATCH, OPTIM, METHOD, KERNELS, SAVE = (
    "Model",
    "Adapter",
    "Data",
    "Batch",
    "Optimization",
    "Method",
    "Precision and kernels",
    "Logging and checkpoints",
)


def _sharding(fsdp: bool, offload: str) -> dict[str, Any]:
    return {
        "environment:UNSLOTH_FSDP2": "1" if fsdp else ABSENT,
        # Without it frozen weights stay whole on every GPU when they fit: not what the estimate counts.
        "environment:UNSLOTH_FSDP2_LAYOUT": "sharded" if fsdp else ABSENT,
        "environment:UNSLOTH_FSDP2_CPU_OFFLOAD": "1" if offload == "all" else ABSENT,
    }


LOAD_ROWS = (
    Derived("model_name", lambda p, j: j.model_path, "the model to start from", "load", MODEL),
    Key("seq_len", "max_seq_length", "longest sequence, tokens", "load", group=MODEL),
    Choice(
        ("tuning", "quantization"),
        (
            Case(
                ("full", "none"),
                {"full_finetuning": True, "load_in_4bit": False},
                "all weights train, in 16 bit",
            ),
            Case(
                ("lora", "none"),
                {"load_in_4bit": False, "load_in_16bit": True},
                "16-bit base; the default is 4 bit",
            ),
            Case(
                ("dora", "none"),
                {"load_in_4bit": False, "load_in_16bit": True, "adapter:use_dora": True},
                "DoRA over a 16-bit base; the default is 4 bit",
            ),
            Case(("qlora", "4bit"), {"load_in_4bit": True}, "4-bit NF4 base"),
            Case(("qlora", "8bit"), {"load_in_4bit": False, "load_in_8bit": True}, "8-bit base"),
        ),
        document="load",
        group=MODEL,
    ),
    Derived(
        "num_labels",
        lambda p, j: 1 if p.method == "rm" else ABSENT,
        "a reward model: one score instead of words",
        "load",
        METHOD,
    ),
    Derived("random_state", lambda p, j: p.seed, "initialisation", "load", MODEL),
)

ADAPTER_ROWS = (
    *adapter_rows(ADAPTER, "0 keeps Unsloth's fused kernels", document="adapter", rank_key="r"),
    Derived("target_modules", _modules, "modules that get adapters, named", "adapter", ADAPTER),
    Derived(
        "target_parameters", _expert_parameters, "routed experts are fused 3-D parameters", "adapter", ADAPTER
    ),
    Derived(
        "finetune_vision_layers", _no_vision, "text only: the image tower stays as it is", "adapter", ADAPTER
    ),
    Derived(
        "use_gradient_checkpointing",
        lambda p, j: ("unsloth" if p.gradient_checkpointing else False) if p.uses_adapter else ABSENT,
        "as above",
        "adapter",
        ADAPTER,
    ),
    Derived(
        "random_state",
        lambda p, j: p.seed if p.uses_adapter else ABSENT,
        "initialisation",
        "adapter",
        ADAPTER,
    ),
)

TRAINERS = {
    "dpo": "DPO",
    "ipo": "DPO",
    "kto": "KTO",
    "rm": "Reward",
    "orpo": "ORPO",
    "simpo": "CPO",
    "cpo": "CPO",
    **dict.fromkeys(GROUP_LOSSES, "GRPO"),
    "rloo": "RLOO",
    "gkd": "Distillation",
}
METHOD_CASES = (
    Case(
        ("cpt",),
        {"script:trainer": "SFT", "dataset_text_field": "text", "loss_type": "nll"},
        "raw text, Unsloth's fused cross-entropy",
    ),
    Case(
        ("sft",),
        {"script:trainer": "SFT", "dataset_text_field": ABSENT, "loss_type": "nll"},
        "Unsloth's fused cross-entropy",
    ),
    *loss_cases(TRL_LOSSES, {method: {"script:trainer": TRAINERS[method]} for method in TRL_LOSSES}),
)

TRAIN_ROWS = (
    Derived("max_length", _offline_length, "tokens per sample; TRL's default cuts at 1024", group=DATA),
    Choice(
        ("packing",),
        (Case((True,), {"packing": True}), Case((False,), {"packing": ABSENT})),
        "fill each sequence with several samples",
        group=DATA,
    ),
    Derived("assistant_only_loss", _assistant_only, "learn the assistant turns only", group=DATA),
    Choice(("method",), METHOD_CASES, group=METHOD),
    Key("beta", "beta", "strength of the preference or KL term", when=_has_beta, group=METHOD),
    *generation_rows(METHOD, generates),
    Choice(
        ("rollout_engine",),
        (
            Case(("none",), {"load:fast_inference": ABSENT, "train:use_vllm": ABSENT}),
            Case(
                ("hf",), {"load:fast_inference": False, "train:use_vllm": False}, "the model itself generates"
            ),
            Case(
                ("vllm",),
                {"load:fast_inference": True, "train:use_vllm": True, "train:vllm_mode": "colocate"},
                "vLLM generates, in this process and with the same weights",
            ),
        ),
        group=METHOD,
    ),
    share_row(METHOD, "gpu_memory_utilization", "load"),
    Derived(
        "max_lora_rank",
        lambda p, j: p.lora_rank if on_vllm(p) else ABSENT,
        "vLLM reserves room for it",
        "load",
        METHOD,
    ),
    Derived(
        "teacher_model_init_kwargs",
        lambda p, j: {"dtype": "bfloat16"} if p.method == "gkd" else ABSENT,
        "TRL loads float32 unless told",
        group=METHOD,
    ),
    *batch_rows(BATCH),
    *schedule_rows(OPTIM),
    optimizer_row(OPTIM),
    *low_rank_rows(OPTIM),
    seed_row(OPTIM),
    Choice(
        ("precision",),
        (
            Case(("bf16",), {"load:dtype": "bfloat16", "bf16": True, "fp16": False}, "bf16 autocast"),
            Case(("fp16",), {"load:dtype": "float16", "bf16": False, "fp16": True}, "fp16 with loss scaling"),
        ),
        group=KERNELS,
    ),
    Choice(
        ("gradient_checkpointing",),
        (
            Case(
                (True,),
                {"load:use_gradient_checkpointing": "unsloth", "train:gradient_checkpointing": True},
                "activations are recomputed, their inputs wait in host memory",
            ),
            Case(
                (False,),
                {"load:use_gradient_checkpointing": False, "train:gradient_checkpointing": False},
                "activations are kept: faster",
            ),
        ),
        group=KERNELS,
    ),
    *save_rows(SAVE),
    *tracker_rows(SAVE),
)

DATA_ROWS = (
    Derived("path", lambda p, j: "json" if j.data_local else j.data_path, "the training rows", "data"),
    Derived("data_files", lambda p, j: j.data_path if j.data_local else ABSENT, "the file", "data"),
    Const("split", "train", "which part of it", "data"),
    Key("prompt_len", "tokens", "rows with a longer prompt are left out", "prompt", when=generates, absent=0),
)

LAUNCH_ROWS = (
    Derived("loader", lambda p, j: loader(j.model), "", "script"),
    *size_rows(),
    Choice(
        ("zero_stage", "fsdp", "offload"),
        (
            Case((0, False, "none"), _sharding(False, "none")),
            Case((3, True, "none"), _sharding(True, "none"), "Unsloth's own FSDP2"),
            Case((3, True, "all"), _sharding(True, "all"), "Unsloth's own FSDP2, parked in host memory"),
        ),
        document="environment",
    ),
    Choice(
        ("rollout_sleep",),
        (
            Case(
                (True,), {"UNSLOTH_VLLM_STANDBY": "1"}, "vLLM gives its memory back while the policy trains"
            ),
            Case((False,), {"UNSLOTH_VLLM_STANDBY": ABSENT}),
        ),
        document="environment",
    ),
)

TABLE = Table(NAME, (*LOAD_ROWS, *ADAPTER_ROWS, *TRAIN_ROWS, *DATA_ROWS, *LAUNCH_ROWS))
