"""Why the plan is as it is: one reason for each choice that a person would question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advisor.estimate.types import MemoryEstimate
from advisor.plan import Plan
from advisor.planner.here import FACTS
from advisor.resolve import Resolved
from advisor.rules import Reason


@dataclass(frozen=True, slots=True)
class Choice:
    id: str
    topic: str
    """Of `here.FACTS`: the text."""
    worth_saying: Callable[[Plan], bool]


CHOICES = (
    Choice("planner.tuning-auto", "tuning", lambda p: p.tuning in ("lora", "qlora")),
    Choice("planner.ddp", "zero_stage", lambda p: p.world_size > 1 and p.zero_stage == 0),
    Choice("planner.zero", "zero_stage", lambda p: p.backend == "hf" and p.zero_stage > 0 and not p.fsdp),
    Choice("planner.fsdp", "fsdp", lambda p: p.fsdp),
    Choice("planner.fsdp-replicas", "fsdp_replicas", lambda p: p.fsdp_replicas > 1),
    Choice("planner.offload", "offload", lambda p: p.offload != "none"),
    Choice("planner.tensor-parallel", "tensor_parallel", lambda p: p.tensor_parallel > 1),
    Choice("planner.pipeline", "pipeline_parallel", lambda p: p.pipeline_parallel > 1),
    Choice("planner.virtual-stages", "virtual_pipeline_parallel", lambda p: p.virtual_pipeline_parallel > 1),
    Choice("planner.experts", "expert_parallel", lambda p: p.expert_parallel > 1),
    Choice("planner.expert-slices", "expert_tensor_parallel", lambda p: p.expert_tensor_parallel > 1),
    Choice("planner.context", "context_parallel", lambda p: p.context_parallel > 1),
    Choice("planner.recompute", "gradient_checkpointing", lambda p: p.gradient_checkpointing),
    Choice("planner.rollout", "rollout_engine", lambda p: p.rollout_engine == "vllm"),
    Choice("planner.batch", "global_batch_size", lambda p: True),
)


def plan_reasons(plan: Plan, memory: MemoryEstimate, resolved: Resolved) -> list[Reason]:
    """One reason per choice of the plan that needs one."""
    return [
        Reason(choice.id, "set", FACTS[choice.topic](plan, memory, resolved), "advisor/planner/here.py")
        for choice in CHOICES
        if choice.worth_saying(plan)
    ]
