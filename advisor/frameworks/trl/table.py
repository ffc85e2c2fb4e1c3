"""Plan field <-> key of train.yaml and accelerate.yaml."""

from __future__ import annotations

from typing import Any

from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.frameworks.shared import (
    SERVER_PATIENCE,
    SERVER_PORT,
    TRL_LOSSES,
    adapter_rows,
    batch_rows,
    compile_row,
    engine_width_row,
    generation_rows,
    inputs_away_row,
    loss_cases,
    low_rank_rows,
    on_server,
    optimizer_row,
    pool_rows,
    save_rows,
    schedule_rows,
    seed_row,
    server_row,
    share_row,
    sleep_row,
    tracker_rows,
)
from advisor.frameworks.table import (
    ABSENT,
    REPO,
    Case,
    Choice,
    Const,
    Derived,
    Job,
    Key,
    Row,
    Table,
    mapped,
)
from advisor.frameworks.trl.accelerate import ACCELERATE_ROWS
from advisor.plan import Plan

NAME = "trl"

SUBCOMMANDS = {
    "cpt": "sft",
    "sft": "sft",
    "dpo": "dpo",
    "ipo": "dpo",
    "kto": "kto",
    "rm": "reward",
    "grpo": "grpo",
    "dapo": "grpo",
    "gspo": "grpo",
    "dr-grpo": "grpo",
    "rloo": "rloo",
    "gkd": "distillation",
}
EXPERIMENTAL = {"orpo": ("orpo", "ORPO"), "simpo": ("cpo", "CPO"), "cpo": ("cpo", "CPO")}
"""Plan method -> (module, class prefix) below trl.experimental."""
TARGET_PARAMETERS = "lora_target_parameters"


def _offline_length(plan: Plan) -> bool:
    return not plan.online and plan.method != "gkd"


def _generates(plan: Plan) -> bool:
    return plan.online or plan.method == "gkd"


def has_command(plan: Plan) -> bool:
    return plan.method in SUBCOMMANDS


def _has_beta(plan: Plan) -> bool:
    return plan.method not in ("cpt", "sft", "rm", "gkd")


def _dtype(plan: Plan, job: Job) -> str:
    half = {"fp16": "float16", "fp32": "float32"}.get(plan.precision, "bfloat16")
    return half if plan.uses_adapter or plan.param_dtype != "fp32" else "float32"


def _modules(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter:
        return ABSENT
    return linear_module_names(job.model, plan.lora_targets)


def _expert_parameters(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter or plan.lora_targets != ("experts",):
        return ABSENT
    return expert_parameter_names(job.model)


def _datasets(plan: Plan, job: Job) -> Any:
    if not job.data_local:
        return [{"path": job.data_path, "split": "train"}]
    return [{"path": "json", "data_files": job.data_path, "split": "train"}]


def _assistant_only(plan: Plan, job: Job) -> Any:
    multi_turn = plan.method == "sft" and job.data_format in ("messages", "sharegpt")
    return True if multi_turn else ABSENT


def _rewards(plan: Plan, job: Job) -> Any:
    return ["reward_adapter.reward"] if plan.online and job.reward else ABSENT


def _pad_multiple(plan: Plan, job: Job) -> Any:
    return 2 * plan.context_parallel if plan.context_parallel > 1 else ABSENT


MODEL, DATA, BATCH, OPTIM, METHOD, KERNELS, SAVE, LAUNCH = (
    "Model",
    "Data",
    "Batch",
    "Optimization",
    "Method",
    "Precision and kernels",
    "Logging and checkpoints",
    "Launch",
)


def _started(method: str) -> dict[str, str]:
    """How the trainer of a method is reached: a command of TRL, or the starter's own script."""
    if method in SUBCOMMANDS:
        return {"command:subcommand": SUBCOMMANDS[method]}
    return {"command:subcommand": "train.py", "command:trainer": EXPERIMENTAL[method][0]}


MODEL_ROWS: tuple[Row, ...] = (
    Derived("model_name_or_path", lambda p, j: j.model_path, "the model to start from", group=MODEL),
    Derived("dtype", _dtype, "TRL loads float32 unless told", group=MODEL),
    Choice(
        ("tuning", "quantization"),
        (
            Case(("full", "none"), {"use_peft": ABSENT}),
            Case(("lora", "none"), {"use_peft": True}),
            Case(("dora", "none"), {"use_peft": True, "use_dora": True}),
            Case(
                ("qlora", "4bit"),
                {
                    "use_peft": True,
                    "load_in_4bit": True,
                    "bnb_4bit_quant_type": "nf4",
                    "use_bnb_nested_quant": True,
                },
                "4-bit NF4 base with adapters",
            ),
            Case(("qlora", "8bit"), {"use_peft": True, "load_in_8bit": True}, "8-bit base with adapters"),
        ),
        "train low-rank adapters instead of all weights",
        group=MODEL,
    ),
    *adapter_rows(MODEL, "0 keeps fused paths usable"),
    Derived(
        "lora_target_modules", _modules, "modules that get adapters, named: no guess by peft", group=MODEL
    ),
    Derived(TARGET_PARAMETERS, _expert_parameters, "routed experts are fused 3-D parameters", group=MODEL),
    Const(
        "lora_task_type",
        "SEQ_CLS",
        "a reward model is a sequence classifier",
        when=lambda p: p.uses_adapter and p.method == "rm",
        group=MODEL,
    ),
)

DATA_ROWS: tuple[Row, ...] = (
    Derived("datasets", _datasets, "the training rows", group=DATA),
    Key(
        "seq_len",
        "max_length",
        "tokens per sample; TRL's default cuts at 1024",
        when=_offline_length,
        group=DATA,
    ),
    Choice(
        ("packing",),
        (Case((True,), {"packing": True}), Case((False,), {"packing": ABSENT})),
        "fill each sequence with several samples",
        group=DATA,
    ),
    Derived("pad_to_multiple_of", _pad_multiple, "context parallel splits 2 x CP ways", group=DATA),
    Derived("assistant_only_loss", _assistant_only, "learn the assistant turns only", group=DATA),
)

METHOD_ROWS: tuple[Row, ...] = (
    Choice(
        ("method",),
        (
            Case(("cpt",), {"command:subcommand": "sft", "dataset_text_field": "text"}, "raw text column"),
            Case(("sft",), {"command:subcommand": "sft", "dataset_text_field": ABSENT}),
            *loss_cases(TRL_LOSSES, {method: _started(method) for method in TRL_LOSSES}),
        ),
        group=METHOD,
    ),
    Key("beta", "beta", "strength of the preference or KL term", when=_has_beta, group=METHOD),
    Derived(
        "teacher_model_name_or_path",
        lambda p, j: j.teacher if p.method == "gkd" else ABSENT,
        "the model to learn from",
        group=METHOD,
    ),
    Derived("reward_funcs", _rewards, "the function that scores answers", group=METHOD),
    Derived(
        "reward_model_name_or_path",
        lambda p, j: (j.reward_model or ABSENT) if p.online else ABSENT,
        "the model that scores answers",
        group=METHOD,
    ),
    *generation_rows(METHOD, _generates),
    Key("prompt_len", "prompt_len", "", document=REPO, absent=0),
    Const(
        "log_completions",
        False,
        "true prints sampled answers while training",
        when=lambda p: p.online,
        group=METHOD,
    ),
    sleep_row(METHOD),
    server_row(METHOD, "vLLM shares the training GPUs"),
    Const("vllm_server_host", "127.0.0.1", "run.sh names another machine", when=on_server, group=METHOD),
    Const("vllm_server_port", SERVER_PORT, "of launch/rollout.sh", when=on_server, group=METHOD),
    Const(
        "vllm_server_timeout", SERVER_PATIENCE, "seconds it may take to load", when=on_server, group=METHOD
    ),
    share_row(METHOD, "vllm_gpu_memory_utilization"),
    engine_width_row(METHOD, "vllm_tensor_parallel_size"),
    *pool_rows(),
)

OPTIM_ROWS: tuple[Row, ...] = (
    *batch_rows(BATCH),
    # 0.29.1 is the first release read that goes with transformers 5.
    *schedule_rows(OPTIM, ratio_until="0.29.1"),
    optimizer_row(OPTIM),
    *low_rank_rows(OPTIM),
    seed_row(OPTIM),
)

KERNEL_ROWS: tuple[Row, ...] = (
    Choice(
        ("precision",),
        (
            Case(("bf16",), {"bf16": True, "fp16": ABSENT}, "bf16 autocast"),
            Case(
                ("bf16-pure",),
                {"bf16": False, "fp16": ABSENT, "bf16_full_eval": True},
                "weights are bf16: no autocast",
            ),
            Case(("fp16",), {"bf16": False, "fp16": True}, "fp16 autocast with loss scaling"),
            Case(("fp32",), {"bf16": False, "fp16": False}, "no mixed precision"),
        ),
        group=KERNELS,
    ),
    Key(
        "attention",
        "attn_implementation",
        "attention kernel",
        codec=mapped({"flash": "kernels-community/flash-attn2", "sdpa": "sdpa", "eager": "eager"}),
        group=KERNELS,
    ),
    compile_row(KERNELS),
    inputs_away_row(KERNELS, {"activation_offloading": True}),
    Choice(
        ("liger",),
        (
            Case((True,), {"model_init_kwargs": {"use_kernels": True}}, "fused kernels from the Hub"),
            Case((False,), {"model_init_kwargs": ABSENT}),
        ),
        group=KERNELS,
    ),
    Choice(
        ("gradient_checkpointing", "fsdp"),
        (
            Case((True, False), {"gradient_checkpointing": True}, "recompute activations in backward"),
            Case((False, False), {"gradient_checkpointing": False}, "keep activations: faster"),
            Case(
                (True, True),
                {
                    "gradient_checkpointing": False,
                    "accelerate:distributed_type": "FSDP",
                    "accelerate:fsdp_config.fsdp_version": 2,
                    "accelerate:fsdp_config.fsdp_activation_checkpointing": True,
                },
                "under FSDP, accelerate recomputes activations",
            ),
            Case(
                (False, True),
                {
                    "gradient_checkpointing": False,
                    "accelerate:distributed_type": "FSDP",
                    "accelerate:fsdp_config.fsdp_version": 2,
                    "accelerate:fsdp_config.fsdp_activation_checkpointing": False,
                },
                "FSDP2 without recomputation",
            ),
        ),
        group=KERNELS,
    ),
)

SAVE_ROWS: tuple[Row, ...] = (
    *save_rows(SAVE),
    *tracker_rows(SAVE),
    Const(
        "accelerate_config",
        "accelerate.yaml",
        "how processes are started",
        when=has_command,
        group=LAUNCH,
    ),
)

TABLE = Table(
    NAME,
    (*MODEL_ROWS, *DATA_ROWS, *METHOD_ROWS, *OPTIM_ROWS, *KERNEL_ROWS, *SAVE_ROWS, *ACCELERATE_ROWS),
)
