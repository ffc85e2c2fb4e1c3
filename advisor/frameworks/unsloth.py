"""Unsloth: a script, `python train.py`, that loads with Unsloth and trains with TRL's trainers.

Its settings stand at the top of the script as keyword dictionaries, one per call. Several GPUs are torchrun;
what they shard is told to Unsloth by variables of launch/env.sh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.facts import rows
from advisor.facts.lora import TOWER_ROLES, expert_parameter_names, linear_module_names
from advisor.facts.types import ModelFacts
from advisor.frameworks.base import DataNeed, Emitted, Smoke, data_kind
from advisor.frameworks.table import (
    ABSENT,
    LIST,
    REPO,
    Case,
    Choice,
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

NAME = "unsloth"
JUDGE = "unsloth.py"

HAND_OPTIMISED = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")
"""Model types with kernels of their own behind FastLanguageModel; FastModel loads every other one."""
BROAD_TARGETS = ("gate_proj", "up_proj", "down_proj", "gate_up_proj")
"""Names that Unsloth takes for the routed experts of a mixture of experts as well."""
MODULES = {"ORPO": "trl.experimental.orpo", "CPO": "trl.experimental.cpo"}
"""Trainer -> where it is imported from, when not from trl."""
READS = {
    "text": ("text",),
    "conversation": ("messages",),
    "preference": ("preference-messages",),
    "label": ("kto",),
    "prompts": ("rl-prompts",),
}
"""One format a kind, made of messages: the tokenizer's chat template applies to whatever the user has."""
HUB = {
    "conversation": ("messages", "prompt-completion"),
    "preference": ("preference-messages", "preference"),
}


def _adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def _generates(plan: Plan) -> bool:
    return plan.online or plan.method == "gkd"


def _vllm(plan: Plan) -> bool:
    return plan.rollout_engine == "vllm"


def _has_beta(plan: Plan) -> bool:
    return plan.method not in ("cpt", "sft", "rm", "gkd")


def _sees(model: ModelFacts) -> bool:
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
    return False if plan.uses_adapter and _sees(job.model) else ABSENT


def _assistant_only(plan: Plan, job: Job) -> Any:
    return True if plan.method == "sft" and job.data_format == "messages" else ABSENT


def _offline_length(plan: Plan, job: Job) -> Any:
    return ABSENT if _generates(plan) else plan.seq_len


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
    Key("lora_rank", "r", "rank of the adapters", "adapter", when=_adapter, group=ADAPTER),
    Key(
        "lora_alpha",
        "lora_alpha",
        "adapter output is scaled by alpha / rank",
        "adapter",
        when=_adapter,
        group=ADAPTER,
    ),
    Key(
        "lora_dropout",
        "lora_dropout",
        "0 keeps Unsloth's fused kernels",
        "adapter",
        when=_adapter,
        group=ADAPTER,
    ),
    Key("lora_targets", "lora_targets", "", REPO, codec=LIST, when=_adapter),
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
    Case(("dpo",), {"script:trainer": "DPO", "loss_type": ["sigmoid"]}, "the DPO loss"),
    Case(("ipo",), {"script:trainer": "DPO", "loss_type": ["ipo"]}, "IPO is a DPO loss in TRL"),
    Case(("kto",), {"script:trainer": "KTO"}),
    Case(("rm",), {"script:trainer": "Reward"}),
    Case(("orpo",), {"script:trainer": "ORPO"}),
    Case(
        ("simpo",),
        {"script:trainer": "CPO", "loss_type": "simpo", "cpo_alpha": 0.0},
        "SimPO is a CPO loss in TRL; alpha 0 drops the SFT term",
    ),
    Case(("cpo",), {"script:trainer": "CPO", "loss_type": "sigmoid"}, "the CPO loss"),
    Case(("grpo",), {"script:trainer": "GRPO", "loss_type": "grpo"}, "the loss of the GRPO paper"),
    Case(
        ("dapo",),
        {
            "script:trainer": "GRPO",
            "loss_type": "dapo",
            "epsilon_high": 0.28,
            "mask_truncated_completions": True,
        },
        "DAPO: token-level loss, wider upper clip, cut answers are ignored",
    ),
    Case(
        ("gspo",),
        {
            "script:trainer": "GRPO",
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": 3.0e-4,
            "epsilon_high": 4.0e-4,
        },
        "GSPO: importance ratio per sequence, hence small clips",
    ),
    Case(
        ("dr-grpo",),
        {"script:trainer": "GRPO", "loss_type": "dr_grpo", "scale_rewards": "none"},
        "Dr. GRPO: no length or deviation normalisation",
    ),
    Case(("rloo",), {"script:trainer": "RLOO"}),
    Case(("gkd",), {"script:trainer": "Distillation"}),
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
    Key(
        "generations",
        "num_generations",
        "answers per prompt",
        when=lambda p: p.online,
        absent=0,
        group=METHOD,
    ),
    Key(
        "response_len",
        "max_completion_length",
        "longest answer, tokens",
        when=_generates,
        absent=0,
        group=METHOD,
    ),
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
    Key(
        "rollout_memory_fraction",
        "gpu_memory_utilization",
        "share of each GPU that vLLM may take",
        "load",
        when=_vllm,
        absent=0.0,
        group=METHOD,
    ),
    Derived(
        "max_lora_rank",
        lambda p, j: p.lora_rank if _vllm(p) else ABSENT,
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
    Key("micro_batch_size", "per_device_train_batch_size", "sequences per GPU and pass", group=BATCH),
    Key(
        "gradient_accumulation_steps", "gradient_accumulation_steps", "passes per optimizer step", group=BATCH
    ),
    Key("epochs", "num_train_epochs", "passes over the data", group=BATCH),
    Key("learning_rate", "learning_rate", "peak learning rate", group=OPTIM),
    Key("lr_scheduler", "lr_scheduler_type", "shape of the learning rate", group=OPTIM),
    Key("warmup_ratio", "warmup_steps", "below 1: share of all steps", group=OPTIM),
    Key("weight_decay", "weight_decay", "decoupled weight decay", group=OPTIM),
    Key("max_grad_norm", "max_grad_norm", "gradients are scaled down to this norm", group=OPTIM),
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
        group=OPTIM,
    ),
    Key("seed", "seed", "shuffling and initialisation", group=OPTIM),
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
    Derived("output_dir", lambda p, j: j.output_dir, "checkpoints and the final model", group=SAVE),
    Key("save_steps", "save_steps", "steps between checkpoints", group=SAVE),
    Const("save_total_limit", 2, "older checkpoints are deleted", group=SAVE),
    Key("logging_steps", "logging_steps", "steps between log lines", group=SAVE),
    Derived("report_to", lambda p, j: j.tracker, "experiment tracker", group=SAVE),
    Derived("run_name", lambda p, j: j.run_name, "name of the run in the tracker", group=SAVE),
)

DATA_ROWS = (
    Derived("path", lambda p, j: "json" if j.data_local else j.data_path, "the training rows", "data"),
    Derived("data_files", lambda p, j: j.data_path if j.data_local else ABSENT, "the file", "data"),
    Const("split", "train", "which part of it", "data"),
    Key(
        "prompt_len", "tokens", "rows with a longer prompt are left out", "prompt", when=_generates, absent=0
    ),
)

LAUNCH_ROWS = (
    Derived("loader", lambda p, j: loader(j.model), "", "script"),
    Key("nodes", "nodes", "", REPO),
    Key("gpus_per_node", "gpus_per_node", "", REPO),
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


def spell(row: dict[str, Any], format: str) -> dict[str, Any]:
    """Labelled rows as messages, so that the chat template applies to bare strings too."""
    if format != "kto":
        return row
    parsed = rows.neutral(row, format)
    tools = {"tools": parsed["tools"]} if parsed["tools"] else {}
    return {"prompt": parsed["prompt"], "completion": parsed["completion"], "label": parsed["label"], **tools}


def data_need(plan: Plan) -> DataNeed:
    if plan.method == "gkd":  # the student answers itself: only the prompt is read
        return DataNeed(("prompt-completion", "rl-prompts"))
    kind = data_kind(plan.method)
    return DataNeed(READS[kind], spell, ("kto",), HUB.get(kind))


def command(plan: Plan, job: Job) -> Sequence[str]:
    return ("python", "train.py")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    """The script, with its settings on top, and what stands between TRL and the user's reward."""
    trainer = rendered["script"].get("trainer")
    function = job.reward.rpartition(":")[2] if plan.online and job.reward else ""
    text = render(
        "unsloth/train.py.jinja",
        plan=plan,
        job=job,
        documents=rendered,
        loader=rendered["script"].get("loader"),
        trainer=trainer,
        module=MODULES.get(trainer, "trl"),
        function=function,
        prompts=_generates(plan),
    )
    emitted = [Emitted("train.py", "config", text)]
    if function:
        adapter = render("unsloth/reward_adapter.py.jinja", function=function)
        emitted.append(Emitted("reward_adapter.py", "reward", adapter))
    return emitted


def smoke(plan: Plan, job: Job) -> Smoke:
    seen: dict[str, str] = {"causal.py": "unsloth/smoke/causal.py"} if _sees(job.model) else {}
    partial = ""
    if plan.method == "rm":
        partial = "the score head: without a GPU, Unsloth keeps the head for words"
    elif seen:
        partial = "the loader of models that see: without a GPU, Unsloth has one for text only"
    return Smoke(files=seen, reward_head=False, partial=partial, rl=plan.online)


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    environment = dict(rendered["environment"].flat())
    if job.hub == "modelscope":
        environment["UNSLOTH_USE_MODELSCOPE"] = "1"
    return {"environment": environment, "prompts": _generates(plan)}
