"""Plan field <-> key of train.yaml and deepspeed.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from advisor.frameworks.axolotl.data import PREFERENCE, datasets_entry, method_of
from advisor.frameworks.axolotl.server import server_rows
from advisor.frameworks.axolotl.values import (
    count_unfrozen,
    deepspeed,
    expert_parameters,
    modules,
    no_lora_kernel,
    one_rank_loads,
    plugins,
    quantized_experts,
    reentrant,
    rewards,
    shard_size,
    state_dict,
    unfrozen,
    warmup_steps,
    zero3,
)
from advisor.frameworks.shared import (
    GROUP_LOSSES,
    adapter_rows,
    batch_rows,
    compile_row,
    engine_width_row,
    generation_rows,
    inputs_away_row,
    loss_cases,
    low_rank_rows,
    optimizer_row,
    save_rows,
    schedule_rows,
    seed_row,
    server_row,
    share_row,
    size_rows,
    sleep_row,
)
from advisor.frameworks.table import (
    ABSENT,
    REPO,
    Case,
    Choice,
    Codec,
    Const,
    Derived,
    Job,
    Key,
    Table,
    mapped,
)
from advisor.plan import Plan

NAME = "axolotl"
OFFLINE_RL = (*PREFERENCE, "orpo", "kto")
PREPARED = "prepared"


def _supervised(plan: Plan) -> bool:
    return plan.method in ("sft", "cpt")


def _online(plan: Plan) -> bool:
    return plan.online


def _fsdp(plan: Plan) -> bool:
    return plan.fsdp


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
    Derived("quantize_moe_experts", quantized_experts, "else routed experts stay in 16 bit", group=MODEL),
    *adapter_rows(MODEL, "0 keeps fused kernels usable"),
    Derived("lora_target_modules", modules, "modules that get adapters, by name", group=MODEL),
    Derived(
        "lora_target_parameters", expert_parameters, "routed experts are fused 3-D parameters", group=MODEL
    ),
    Derived(
        "lora_model_dir",
        lambda p, j: (j.adapter or ABSENT) if p.uses_adapter else ABSENT,
        "the adapter to start from",
        group=MODEL,
    ),
    Derived("unfrozen_parameters", unfrozen, "only these train: the last layers", group=MODEL),
    Key("tuning", "unfrozen_parameters", "", codec=WHERE_READ, when=lambda p: p.tuning == "freeze"),
    Key(
        "freeze_trainable_layers",
        "unfrozen_parameters",
        "",
        codec=Codec(WHERE_READ.to, count_unfrozen),
        when=lambda p: p.tuning == "freeze",
    ),
)

DATA_ROWS = (
    Derived("datasets", datasets_entry, "the training rows and how they become samples", group=DATA),
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
    Key("method", "datasets", "", codec=Codec(lambda method: ABSENT, method_of), when=_supervised),
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
            *loss_cases(GROUP_LOSSES, dict.fromkeys(GROUP_LOSSES, GRPO), "trl."),
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
    Derived("trl.reward_funcs", rewards, "what scores answers", group=METHOD),
    *generation_rows(METHOD, _online, "trl."),
    Const("trl.log_completions", False, "true prints sampled answers", when=_online, group=METHOD),
    server_row(METHOD, "vLLM shares the GPUs", prefix="trl."),
    sleep_row(METHOD, "trl."),
    share_row(METHOD, "vllm.gpu_memory_utilization"),
    engine_width_row(METHOD, "vllm.tensor_parallel_size"),
    *server_rows(METHOD),
)

OPTIM_ROWS = (
    *batch_rows(BATCH, spelled={"micro_batch_size": "micro_batch_size", "epochs": "num_epochs"}),
    *schedule_rows(OPTIM, spelled={"lr_scheduler": "lr_scheduler"}, without=("warmup_ratio",)),
    Key(
        "warmup_ratio",
        "warmup_ratio",
        "share of all steps in which it rises",
        when=lambda p: p.method != "simpo",
        group=OPTIM,
    ),
    Derived("warmup_steps", warmup_steps, "steps in which it rises; SimPO takes no ratio", group=OPTIM),
    Key("warmup_ratio", "warmup_ratio", "", document=REPO, when=lambda p: p.method == "simpo"),
    optimizer_row(OPTIM, key="optimizer", more={"muon": "muon"}),
    *low_rank_rows(OPTIM, as_list=True),
    seed_row(OPTIM),
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
    compile_row(KERNELS),
    inputs_away_row(KERNELS, {"activation_offloading": "hidden_states"}, since="0.18.0"),
    Derived("plugins", plugins, "without it the keys of a plugin are dropped", group=KERNELS),
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
            f"lora_{part}_kernel", no_lora_kernel, "not made for experts; else on by default", group=KERNELS
        )
        for part in ("mlp", "qkv", "o")
    ),
    Key(
        "gradient_checkpointing", "gradient_checkpointing", "recompute activations in backward", group=KERNELS
    ),
    Derived(
        "gradient_checkpointing_kwargs",
        reentrant,
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
    Derived("fsdp_config.cpu_ram_efficient_loading", one_rank_loads, "", group=SHARDING),
    Derived("fsdp_config.state_dict_type", state_dict, "", group=SHARDING),
    Derived("dp_shard_size", shard_size, "ranks that share one copy of the weights", group=SHARDING),
    Key(
        "fsdp_replicas",
        "dp_replicate_size",
        "copies of them; the copies all-reduce gradients",
        when=_fsdp,
        absent=1,
        group=SHARDING,
    ),
    Key("tensor_parallel", "tensor_parallel_size", "ranks that slice every matrix", absent=1, group=SHARDING),
    Key(
        "context_parallel", "context_parallel_size", "ranks that split the sequence", absent=1, group=SHARDING
    ),
    Key("expert_parallel", "expert_parallel_size", "ranks that share the experts", absent=1, group=SHARDING),
    *size_rows(),
    Const("deepspeed", "deepspeed.json", "what the ranks shard", when=deepspeed, group=SHARDING),
)
CPU = {"device": "cpu", "pin_memory": True}

AUTO = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)


def _zero(key: str, value: Any, when: Any = deepspeed) -> Const:
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
    _zero("reduce_bucket_size", "auto", zero3),
    _zero("stage3_prefetch_bucket_size", "auto", zero3),
    _zero("stage3_param_persistence_threshold", "auto", zero3),
    _zero("gather_16bit_weights_on_model_save", True, zero3),
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
        Const(f"{name}.enabled", "auto", "", document="deepspeed", when=deepspeed)
        for name in ("bf16", "fp16")
    ),
    *(Const(key, "auto", "", document="deepspeed", when=deepspeed) for key in AUTO),
)

SAVE_ROWS = (
    *save_rows(SAVE),
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
