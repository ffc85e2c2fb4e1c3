"""Values of keys that are computed from the plan and the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.frameworks.table import (
    ABSENT,
    Job,
)
from advisor.plan import Plan
from advisor.releases import release_key

LIGER_PLUGIN = "axolotl.integrations.liger.LigerPlugin"
EXPERT_PLUGIN = "axolotl.integrations.expert_parallel.ExpertParallelPlugin"
BUILT_IN_SINCE = (0, 21)
"""Release that registers the plugin of expert parallelism unasked (axolotl/integrations/base.py:48)."""
SWANLAB_PLUGIN = "axolotl.integrations.swanlab.SwanLabPlugin"
LARGE = 50e9
"""Parameters from which on a whole checkpoint is not gathered on one rank when all weights train."""


def deepspeed(plan: Plan) -> bool:
    return plan.zero_stage > 0 and not plan.fsdp


def zero3(plan: Plan) -> bool:
    return deepspeed(plan) and plan.zero_stage == 3


def modules(plan: Plan, job: Job) -> Any:
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


def expert_parameters(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter or plan.lora_targets != ("experts",):
        return ABSENT
    return expert_parameter_names(job.model)


def no_lora_kernel(plan: Plan, job: Job) -> Any:
    kernels = plan.uses_adapter and job.model.moe and plan.method in ("sft", "cpt", "rm")
    return False if kernels else ABSENT


def quantized_experts(plan: Plan, job: Job) -> Any:
    return True if plan.quantize_experts and job.model.moe else ABSENT


def unfrozen(plan: Plan, job: Job) -> Any:
    """The last layers, one pattern; a dot in it is a literal dot."""
    if plan.tuning != "freeze":
        return ABSENT
    first = job.model.layers - plan.freeze_trainable_layers
    return unfrozen_patterns(plan, f"^{_stem(job)}layers", range(max(first, 0), job.model.layers))


def unfrozen_patterns(plan: Plan, layers: str, numbers: Iterable[int]) -> list[str]:
    head = ["^score."] if plan.method == "rm" else []
    return [f"{layers}.({'|'.join(map(str, numbers))}).", *head]


def count_unfrozen(patterns: Sequence[str]) -> int:
    return len(re.sub(r"^.*layers\.\(|\)\.$", "", patterns[0]).split("|"))


def reentrant(plan: Plan, job: Job) -> Any:
    return {"use_reentrant": zero3(plan)} if plan.gradient_checkpointing else ABSENT


def warmup_steps(plan: Plan, job: Job) -> Any:
    """SimPO refuses a ratio. Without a count of rows Axolotl's own 3 % hold, at most 100 steps."""
    if plan.method != "simpo" or not job.rows:
        return ABSENT
    return int(plan.warmup_ratio * ceil(job.rows / plan.global_batch_size) * plan.epochs)


def plugins(plan: Plan, job: Job) -> Any:
    liger = [LIGER_PLUGIN] if plan.liger or plan.loss == "fused" else []
    swanlab = [SWANLAB_PLUGIN] if job.tracker == "swanlab" else []
    named = bool(job.version) and release_key(job.version) < BUILT_IN_SINCE
    experts = [EXPERT_PLUGIN] if plan.expert_parallel > 1 and named else []
    return [*liger, *experts, *swanlab] or ABSENT


def rewards(plan: Plan, job: Job) -> Any:
    if not plan.online:
        return ABSENT
    rule = ["reward_adapter.reward"] if job.reward else []
    return [*rule, *([job.reward_model] if job.reward_model else [])]


def shard_size(plan: Plan, job: Job) -> Any:
    size = plan.data_parallel // (plan.expert_parallel * plan.fsdp_replicas)
    return size if plan.fsdp and size > 1 else ABSENT


def state_dict(plan: Plan, job: Job) -> Any:
    """Spread experts can only be gathered; the weights of a large model would not fit on one rank."""
    if not plan.fsdp:
        return ABSENT
    large = not plan.uses_adapter and job.model.total_parameters > LARGE
    return "SHARDED_STATE_DICT" if large and plan.expert_parallel == 1 else "FULL_STATE_DICT"


def one_rank_loads(plan: Plan, job: Job) -> Any:
    if not plan.fsdp:
        return ABSENT
    return plan.tensor_parallel == 1 and plan.quantization != "8bit"
