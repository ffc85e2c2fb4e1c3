"""Values of keys that are computed from the plan and the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from advisor.errors import InputError
from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.facts.types import ModelFacts
from advisor.frameworks.table import (
    ABSENT,
    Job,
)
from advisor.paths import rules_root
from advisor.plan import Plan

NAME = "ms-swift"
MANY_ROWS = 10000

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


@cache
def _registry() -> Mapping[str, Any]:
    return json.loads((rules_root() / "catalog" / "ms_swift_models.json").read_text("utf-8"))


def registered(id: str, model_type: str = "") -> tuple[str, str] | None:
    """(model_type, template) of ms-swift: by the model's name, else by the architecture."""
    registry = _registry()
    by_name = registry["models"].get(id.rpartition("/")[2].lower())
    found = by_name or registry["by_config"].get(model_type)
    return (found[0], found[1]) if found else None


def registered_names(job: Job) -> tuple[str, str]:
    found = registered(job.model.id, job.model.model_type)
    if found is None:
        raise InputError(
            "framework",
            f"ms-swift registers neither {job.model.id} nor the architecture {job.model.model_type}; "
            "choose another framework",
        )
    return found


def other_type(id: str | None) -> Any:
    """`model_type` of a teacher or reward model, where its name tells."""
    found = registered(id) if id else None
    return found[0] if found else ABSENT


Compute = Callable[[Plan, Job], Any]


def hf(plan: Plan) -> bool:
    return plan.backend == "hf"


def megatron(plan: Plan) -> bool:
    return plan.backend == "megatron"


def adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def grouped(plan: Plan) -> bool:
    """The methods of `rlhf_type: grpo`."""
    return plan.online and plan.method != "ppo"


def generates(plan: Plan) -> bool:
    return plan.online or plan.method == "gkd"


def vllm(plan: Plan) -> bool:
    return plan.rollout_engine == "vllm"


def has_beta(plan: Plan) -> bool:
    return plan.method not in ("cpt", "sft", "rm", "gkd", "ppo")


def target_modules(plan: Plan, job: Job) -> Any:
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


def expert_parameters(plan: Plan, job: Job) -> Any:
    wanted = hf(plan) and plan.uses_adapter and plan.lora_targets == ("experts",)
    return expert_parameter_names(job.model) if wanted else ABSENT


def layer_prefix(model: ModelFacts) -> str:
    attention = next(w.name for w in model.weights if w.role == "attention" and ".*." in w.name)
    return attention.partition("*")[0]


def last_layers(plan: Plan, job: Job) -> Any:
    """Prefixes of the layers that train; the closing dot keeps layer 3 apart from layer 30."""
    if plan.tuning != "freeze":
        return ABSENT
    first = max(0, job.model.layers - plan.freeze_trainable_layers)
    return [f"{layer_prefix(job.model)}{layer}." for layer in range(first, job.model.layers)]


def adapters(plan: Plan, job: Job) -> Any:
    return [job.adapter] if job.adapter and plan.uses_adapter else ABSENT


def reference_adapters(plan: Plan, job: Job) -> Any:
    has_reference = RLHF.get(plan.method, plan.method) in ("dpo", "kto", "grpo")
    return adapters(plan, job) if has_reference else ABSENT


def workers(plan: Plan, job: Job) -> Any:
    return min(16, job.cpus_per_node) if not job.data_local or job.rows >= MANY_ROWS else ABSENT


def report_to(plan: Plan, job: Job) -> Any:
    if hf(plan):
        return [job.tracker]
    if job.tracker not in ("none", *MEGATRON_TRACKERS):
        known = ", ".join(MEGATRON_TRACKERS)
        raise InputError("tracker", f"Megatron-SWIFT does not know {job.tracker}; choose {known}")
    return ["tensorboard" if job.tracker == "none" else job.tracker]


def truncation(plan: Plan, job: Job) -> Any:
    return "left" if grouped(plan) else "right" if plan.method != "ppo" else ABSENT


def reward_funcs(plan: Plan, job: Job) -> Any:
    return [REWARD] if grouped(plan) and job.reward else ABSENT


def reward_models(plan: Plan, job: Job) -> Any:
    return [job.reward_model] if plan.online and job.reward_model else ABSENT


def reward_types(plan: Plan, job: Job) -> Any:
    known = other_type(job.reward_model) if plan.online else ABSENT
    return ABSENT if known is ABSENT else [known]
