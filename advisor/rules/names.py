"""What a rule may talk about: every name with its type, and the values it takes when a case leaves it open.

A name that is not here is refused when a rules file is loaded. The examples describe one ordinary
situation (LoRA on an 8B dense model, eight 80 GB cards), which the cases beside each rule start from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from advisor import plan as plans
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import Plan

BOOL, INT, DOUBLE, STRING, STRINGS = "bool", "int", "double", "string", "list<string>"


@dataclass(frozen=True, slots=True)
class Name:
    type: str
    example: Any
    choices: tuple[Any, ...] = ()
    """Every value there is, where that is known; a rule comparing with another one is a slip."""


PLAN_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "method": plans.METHODS,
    "tuning": plans.TUNINGS,
    "quantization": plans.QUANTIZATIONS,
    "precision": plans.PRECISIONS,
    "param_dtype": ("bf16", "fp32"),
    "lr_scheduler": ("cosine", "linear", "constant"),
    "optimizer": plans.OPTIMIZERS,
    "backend": plans.BACKENDS,
    "zero_stage": (0, 1, 2, 3),
    "offload": plans.OFFLOADS,
    "recompute": plans.RECOMPUTES,
    "attention": plans.ATTENTIONS,
    "loss": plans.LOSSES,
    "rollout_engine": plans.ROLLOUT_ENGINES,
    "rollout_placement": plans.ROLLOUT_PLACEMENTS,
}

_TYPES: Mapping[type, str] = {bool: BOOL, int: INT, float: DOUBLE, str: STRING, list: STRINGS}

PLAN_FIELDS = tuple(f.name for f in fields(Plan))
DERIVED_PLAN_FIELDS = ("world_size", "data_parallel", "global_batch_size")

PLAN = {
    name: Name(_TYPES[type(value)], value, PLAN_CHOICES.get(name, ()))
    for name, value in Plan().as_dict().items()
}

REQUEST = {
    "method": Name(STRING, "sft", plans.METHODS),
    "tuning": Name(STRING, "auto", ("auto", *plans.TUNINGS)),
    "quantization": Name(STRING, "none", plans.QUANTIZATIONS),
    "prefer": Name(STRING, "none", ("none", "simplicity", "memory", "speed", "stability", "community")),
    "framework": Name(STRING, "none"),
    "avoid": Name(STRINGS, []),
    "launcher": Name(STRING, "auto", ("auto", "local", "torchrun", "slurm", "ray", "kubeflow", "skypilot")),
    "tracker": Name(STRING, "none", ("none", "wandb", "mlflow", "tensorboard", "swanlab", "trackio")),
    "hub": Name(STRING, "hf", ("hf", "modelscope")),
    "seq_len": Name(INT, 2048),
    "max_hours": Name(DOUBLE, None),
    "max_cost": Name(DOUBLE, None),
    "minimize": Name(STRING, "none", ("none", "gpus", "hours", "cost")),
    "precision": Name(STRING, "bf16", plans.PRECISIONS),
    "optimizer": Name(STRING, "adamw"),
    "samples": Name(INT, 10_000),
}

MODEL = {
    "id": Name(STRING, "example/dense-8b"),
    "model_type": Name(STRING, "llama"),
    "hidden": Name(INT, 4096),
    "layers": Name(INT, 32),
    "heads": Name(INT, 32),
    "kv_heads": Name(INT, 8),
    "vocab": Name(INT, 128_256),
    "tied_embeddings": Name(BOOL, False),
    "moe": Name(BOOL, False),
    "experts": Name(INT, 0),
    "mla": Name(BOOL, False),
    "vision": Name(BOOL, False),
    "native_dtype": Name(STRING, "bf16"),
    "total_parameters": Name(INT, 8_030_000_000),
    "active_parameters": Name(INT, 8_030_000_000),
    "billions": Name(DOUBLE, 8.03),
}

CLUSTER = {
    "gpu": Name(STRING, "h100-sxm"),
    "gpu_memory_gib": Name(DOUBLE, 79.2),
    "gpus_per_node": Name(INT, 8),
    "nodes": Name(INT, 1),
    "world_size": Name(INT, 8),
    "cpu_memory_gib": Name(DOUBLE, 1024.0),
    "nvlink": Name(BOOL, True),
    "vendor": Name(STRING, "nvidia"),
    "compute_capability": Name(DOUBLE, 9.0),
}

FRAMEWORK = {"name": Name(STRING, "none"), "version": Name(STRING, "0")}

MEMORY = {
    "total_gib": Name(DOUBLE, 40.0),
    "capacity_gib": Name(DOUBLE, 79.2),
    "headroom": Name(DOUBLE, 0.5),
    "fits": Name(STRING, "fits", ("fits", "tight", "no")),
}

TIME = {
    "hours": Name(DOUBLE, 10.0),
    "cost": Name(DOUBLE, 100.0),
    "slowdown": Name(DOUBLE, 1.0),
}

ROOTS: Mapping[str, Mapping[str, Name]] = {
    "request": REQUEST,
    "plan": PLAN,
    "model": MODEL,
    "cluster": CLUSTER,
    "framework": FRAMEWORK,
    "memory": MEMORY,
    "time": TIME,
}
"""`memory.headroom`: 1 - total / capacity. `time.slowdown`: hours over the fastest candidate's hours."""

LIMIT_ROOTS = ("plan", "model", "cluster", "framework")
"""A framework's limits speak of what is to be run, never of who asked or how it ranks."""


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Plan.as_dict without its deep copy, which the search would pay for each candidate."""
    named = {name: getattr(plan, name) for name in PLAN}
    return named | {"lora_targets": list(plan.lora_targets)}


def describe_model(model: ModelFacts) -> dict[str, Any]:
    """The names of `model.` in rules."""
    total = model.total_parameters
    plain = ("id", "model_type", "hidden", "layers", "heads", "kv_heads", "vocab", "tied_embeddings")
    named = {name: getattr(model, name) for name in (*plain, "mla", "vision", "native_dtype")}
    return named | {
        "moe": model.moe is not None,
        "experts": model.moe.experts if model.moe else 0,
        "total_parameters": total,
        "active_parameters": model.active_parameters,
        "billions": total / 1e9,
    }


def describe_cluster(cluster: ClusterFacts) -> dict[str, Any]:
    """The names of `cluster.` in rules."""
    gpu = cluster.gpu
    plain = ("gpu_memory_gib", "gpus_per_node", "nodes", "world_size", "cpu_memory_gib")
    return {name: getattr(cluster, name) for name in plain} | {
        "gpu": gpu.id,
        "nvlink": gpu.nvlink,
        "vendor": gpu.vendor,
        "compute_capability": gpu.compute_capability,
    }


def examples(roots: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A fresh copy of the situation that cases start from."""
    return {root: {name: spec.example for name, spec in ROOTS[root].items()} for root in roots}
