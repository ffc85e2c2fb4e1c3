"""Plan field <-> key of train.yaml, deepspeed.json and accelerate.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from advisor.facts.lora import linear_module_names
from advisor.frameworks.shared import (
    adapter_rows,
    batch_rows,
    compile_row,
    inputs_away_row,
    low_rank_keys,
    mesh_rows,
    save_rows,
    schedule_rows,
    seed_row,
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
    mapped,
)
from advisor.paths import rules_root
from advisor.plan import Plan

NAME = "llamafactory"
DATASET = "train"
"""The name under which dataset_info.json declares the rows."""
MANY_ROWS = 10000
"""From here on several processes tokenize."""


@cache
def _registry() -> Mapping[str, Any]:
    return json.loads((rules_root() / "catalog" / "llamafactory_templates.json").read_text("utf-8"))


def _low_rank_cases(name: str) -> tuple[Case, ...]:
    """The trainer asks for this very `optim` and builds its own (train/trainer_utils.py:239, 330)."""
    keys = {"optim": "adamw_torch", f"use_{name}": True}
    layerwise = f"{name}_layerwise"
    return (
        Case((f"{name}_adamw",), {**keys, layerwise: ABSENT}, "full tuning, projected gradients"),
        Case((f"{name}_adamw_layerwise",), {**keys, layerwise: True}, "and no gradient is kept"),
    )


def template(plan: Plan, job: Job) -> Any:
    """By the model's registered name, else by its family; a base model answers without a thinking part."""
    registry, model = _registry(), job.model
    known = registry["models"].get(model.id)
    found = known or registry["by_model_type"].get(model.model_type)
    if found is None:
        return ABSENT
    base = known is None and "base" in model.id.rpartition("/")[2].lower()
    name = found.get("nothink", found["template"]) if base else found["template"]
    if plan.method != "cpt":
        return name
    return name if name == "llama3" else "empty"  # raw text; only for llama3 it picks another end of text


def _frozen(plan: Plan) -> bool:
    return plan.tuning == "freeze"


def _preference(plan: Plan) -> bool:
    return plan.method not in ("cpt", "sft", "rm")


def _fsdp(plan: Plan) -> bool:
    return plan.fsdp


def _deepspeed(plan: Plan) -> bool:
    return plan.zero_stage > 0 and not plan.fsdp


def _zero3(plan: Plan) -> bool:
    return _deepspeed(plan) and plan.zero_stage == 3


def _targets(plan: Plan, job: Job) -> Any:
    return ",".join(linear_module_names(job.model, plan.lora_targets)) if plan.uses_adapter else ABSENT


def _adapter_path(plan: Plan, job: Job) -> Any:
    return job.adapter if job.adapter and plan.uses_adapter else ABSENT


def _workers(plan: Plan, job: Job) -> Any:
    return min(16, job.cpus_per_node) if not job.data_local or job.rows >= MANY_ROWS else ABSENT


def _waiting(plan: Plan, job: Job) -> Any:
    return 36000 if plan.world_size > 1 else ABSENT


def _methods() -> tuple[Case, ...]:
    stages = {
        ("cpt", True): ({"stage": "pt", "packing": True}, "raw text, joined to full blocks"),
        ("cpt", False): ({"stage": "pt", "packing": False}, "raw text, one sample a sequence"),
        ("sft", False): ({"stage": "sft"}, "supervised fine-tuning"),
        ("sft", True): (
            {"stage": "sft", "neat_packing": True},
            "several samples a sequence, kept apart by the mask",
        ),
        ("dpo", False): ({"stage": "dpo", "pref_loss": "sigmoid"}, "the DPO loss"),
        ("ipo", False): ({"stage": "dpo", "pref_loss": "ipo"}, "IPO is a loss of the dpo stage"),
        ("orpo", False): (
            {"stage": "dpo", "pref_loss": "orpo"},
            "ORPO is a loss of the dpo stage; no reference model",
        ),
        ("simpo", False): (
            {"stage": "dpo", "pref_loss": "simpo", "simpo_gamma": 0.5},
            "SimPO is a loss of the dpo stage; gamma is its margin",
        ),
        ("kto", False): ({"stage": "kto"}, "answers labelled good or bad"),
        ("rm", False): ({"stage": "rm"}, "a value head learns which answer is better"),
    }
    return tuple(Case(values, keys, why) for values, (keys, why) in stages.items())


def _quantized(method: str, **releases: str) -> tuple[Case, ...]:
    """The same library, called bitsandbytes at first."""
    return tuple(
        Case(
            ("qlora", f"{bits}bit"),
            {"finetuning_type": "lora", "quantization_bit": bits, "quantization_method": method},
            why,
            **releases,
        )
        for bits, why in ((4, "adapters on a 4-bit NF4 base"), (8, "adapters on an 8-bit base"))
    )


KTRANSFORMERS = {"use_kt": True, "use_reentrant_gc": False}
KT_ALONE = (
    "KTransformers computes the routed experts in host memory; it recomputes layers without re-entrance only"
)
KT_SHARDED = f"FSDP shards all but the routed experts. {KT_ALONE}"


def _shardings() -> tuple[Case, ...]:
    """(zero_stage, fsdp, offload): DeepSpeed by its JSON, FSDP by the accelerate file."""
    place = "deepspeed:zero_optimization.offload_{}."
    states, weights = (
        {place.format(part) + "device": "cpu", place.format(part) + "pin_memory": True}
        for part in ("optimizer", "param")
    )
    offloads = {"none": {}, "optimizer": states, "all": {**states, **weights}}
    cases = [Case((0, False, "none"), {"deepspeed": ABSENT, "accelerate:distributed_type": ABSENT})]
    for stage in (1, 2, 3):
        for offload, keys in offloads.items():
            if offload != "all" or stage == 3:
                here = {"deepspeed": "deepspeed.json", "deepspeed:zero_optimization.stage": stage, **keys}
                cases.append(Case((stage, False, offload), here, f"ZeRO-{stage}"))
    for offload, flag in (("none", False), ("all", True)):
        keys = {"accelerate:distributed_type": "FSDP", "accelerate:fsdp_config.fsdp_offload_params": flag}
        cases.append(Case((3, True, offload), keys, "FSDP shards weights, gradients and states"))
    one = {"deepspeed": ABSENT, "accelerate:distributed_type": ABSENT}
    several = {"accelerate:distributed_type": "FSDP", "accelerate:fsdp_config.fsdp_offload_params": False}
    for values, keys, why in (((0, False), one, KT_ALONE), ((3, True), several, KT_SHARDED)):
        cases.append(Case((*values, "experts"), {**keys, **KTRANSFORMERS}, why, since="0.9.5"))
    return tuple(cases)


MODEL, DATA, METHOD, TUNING, BATCH, OPTIM, KERNELS, SAVE = (
    "Model",
    "Data",
    "Method",
    "What trains",
    "Batch",
    "Optimization",
    "Precision, kernels and sharding",
    "Logging and checkpoints",
)

TRAIN_ROWS = (
    Derived("model_name_or_path", lambda p, j: j.model_path, "the model to start from", group=MODEL),
    Derived("adapter_name_or_path", _adapter_path, "the adapter to go on with", group=MODEL),
    Choice(("method", "packing"), _methods(), group=METHOD),
    Const("do_train", True, "without it nothing is trained", group=METHOD),
    Key("beta", "pref_beta", "strength of the preference term", when=_preference, group=METHOD),
    Choice(
        ("tuning", "quantization"),
        (
            Case(("full", "none"), {"finetuning_type": "full"}, "all weights"),
            Case(("freeze", "none"), {"finetuning_type": "freeze"}, "the last layers"),
            Case(("lora", "none"), {"finetuning_type": "lora"}, "low-rank adapters"),
            Case(
                ("dora", "none"),
                {"finetuning_type": "lora", "use_dora": True},
                "adapters with a learned magnitude",
            ),
            *_quantized("bnb", since="0.9.3"),
            *_quantized("bitsandbytes", until="0.9.3"),
        ),
        group=TUNING,
    ),
    Key(
        "freeze_trainable_layers",
        "freeze_trainable_layers",
        "last layers that train",
        when=_frozen,
        group=TUNING,
    ),
    *adapter_rows(TUNING, "dropout on the adapters' input", rank_key="lora_rank"),
    Derived(
        "lora_target",
        _targets,
        "modules that get adapters, named: `all` depends on transformers",
        group=TUNING,
    ),
    Const("dataset", DATASET, "its entry in dataset_info.json", group=DATA),
    Const("dataset_dir", "data", "where dataset_info.json is", group=DATA),
    Derived(
        "template", template, "chat format; a wrong one fails only when the model has loaded", group=DATA
    ),
    Key("seq_len", "cutoff_len", "tokens per sample", group=DATA),
    Derived("preprocessing_num_workers", _workers, "processes that tokenize", group=DATA),
    Derived(
        "ddp_timeout", _waiting, "seconds that others wait while the first process tokenizes", group=DATA
    ),
    *batch_rows(BATCH),
    *schedule_rows(OPTIM, ratio_until="0.9.5"),
    Choice(
        ("optimizer",),
        (
            Case(("adamw",), {"optim": "adamw_torch_fused"}),
            Case(("adamw_foreach",), {"optim": "adamw_torch"}),
            Case(("adamw_8bit",), {"optim": "adamw_8bit"}),
            Case(("paged_adamw_8bit",), {"optim": "paged_adamw_8bit"}),
            Case(("adafactor",), {"optim": "adafactor"}),
            Case(("muon",), {"use_muon": True}, "Muon for matrices, AdamW for the rest"),
            *_low_rank_cases("galore"),
            *_low_rank_cases("apollo"),
        ),
        "optimizer and its implementation",
        group=OPTIM,
    ),
    *low_rank_keys("galore", "galore_rank", "galore_update_interval", "galore_scale", OPTIM),
    *low_rank_keys("apollo", "apollo_rank", "apollo_update_interval", "apollo_scale", OPTIM),
    seed_row(OPTIM),
    Choice(
        ("precision",),
        (
            Case(
                ("bf16",),
                {"bf16": True},
                "bf16 autocast; trainable weights in fp32 unless DeepSpeed holds them",
            ),
            Case(("bf16-pure",), {"pure_bf16": True}, "weights and optimizer in bf16: no autocast"),
            Case(("fp16",), {"fp16": True}, "fp16 autocast with loss scaling"),
            Case(("fp32",), {"bf16": False}, "no mixed precision"),
        ),
        group=KERNELS,
    ),
    Key(
        "attention",
        "flash_attn",
        "attention kernel",
        codec=mapped({"flash": "fa2", "sdpa": "sdpa", "eager": "disabled"}),
        group=KERNELS,
    ),
    compile_row(KERNELS),
    inputs_away_row(KERNELS, {"use_unsloth_gc": True}),
    Key("liger", "enable_liger_kernel", "fused norms, RoPE, MLP and loss", absent=False, group=KERNELS),
    Choice(
        ("gradient_checkpointing",),
        (
            Case((True,), {"disable_gradient_checkpointing": False}, "recompute activations in backward"),
            Case((False,), {"disable_gradient_checkpointing": True}, "keep activations: faster"),
        ),
        group=KERNELS,
    ),
    Choice(("zero_stage", "fsdp", "offload"), _shardings()),
    *save_rows(SAVE, output="checkpoints and the final model; a second run resumes"),
    *tracker_rows(SAVE),
    Derived(
        "project",
        lambda p, j: j.run_name if j.tracker == "trackio" else ABSENT,
        "trackio needs one",
        group=SAVE,
    ),
    *size_rows(),
)

AUTO = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16.enabled",
    "fp16.enabled",
)

DEEPSPEED_ROWS = (
    *(Const(key, "auto", "filled from train.yaml", document="deepspeed", when=_deepspeed) for key in AUTO),
    Const("zero_allow_untested_optimizer", True, "as Muon or 8-bit AdamW", document="deepspeed",
          when=_deepspeed),
    Const("zero_optimization.overlap_comm", True, "reduce while backward goes on", document="deepspeed",
          when=_deepspeed),
    Const("zero_optimization.contiguous_gradients", True, "less fragmentation", document="deepspeed",
          when=_deepspeed),
    *(
        Const(f"zero_optimization.{key}", value, why, document="deepspeed", when=_zero3)
        for key, value, why in (
            ("reduce_bucket_size", "auto", "from the hidden size"),
            ("stage3_prefetch_bucket_size", "auto", "from the hidden size"),
            ("stage3_param_persistence_threshold", "auto", "from the hidden size"),
            ("stage3_gather_16bit_weights_on_model_save", True, "gather the weights when saving"),
        )
    ),
)  # fmt: skip

ACCELERATE = {
    "compute_environment": "LOCAL_MACHINE",
    "fsdp_config.fsdp_version": 2,
    "fsdp_config.fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_config.fsdp_reshard_after_forward": True,
    "fsdp_config.fsdp_state_dict_type": "FULL_STATE_DICT",
    "fsdp_config.fsdp_cpu_ram_efficient_loading": True,
    "machine_rank": 0,
    "main_training_function": "main",
    "rdzv_backend": "static",
    "same_network": True,
    "use_cpu": False,
}

ACCELERATE_ROWS = (
    *(Const(key, value, "", document="accelerate", when=_fsdp) for key, value in ACCELERATE.items()),
    Const("fsdp_config.fsdp_activation_checkpointing", False, "LLaMA-Factory recomputes by itself",
          document="accelerate", when=_fsdp),
    Derived("fsdp_config.fsdp_transformer_layer_cls_to_wrap",
            lambda p, j: j.model.decoder_layer if p.fsdp else ABSENT, "one unit per layer",
            document="accelerate"),
    Derived("mixed_precision",
            lambda p, j: {"bf16": "bf16", "fp16": "fp16"}.get(p.precision, "no") if p.fsdp else ABSENT,
            "as in train.yaml", document="accelerate"),
    Derived("num_machines", lambda p, j: p.nodes if p.fsdp else ABSENT, "", document="accelerate"),
    Derived("num_processes", lambda p, j: p.world_size if p.fsdp else ABSENT, "one process per GPU",
            document="accelerate"),
    *mesh_rows(),
)  # fmt: skip

TABLE = Table(NAME, (*TRAIN_ROWS, *DEEPSPEED_ROWS, *ACCELERATE_ROWS))
