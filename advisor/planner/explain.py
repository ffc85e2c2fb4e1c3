"""Why the plan is as it is: one reason for each choice that a person would question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advisor.estimate.types import MemoryEstimate
from advisor.plan import Plan
from advisor.resolve import Resolved
from advisor.rules import Reason


@dataclass(frozen=True, slots=True)
class Choice:
    id: str
    chosen: Callable[[Plan], bool]
    because: Callable[[Plan, MemoryEstimate, Resolved], str]


CHOICES = (
    Choice("planner.tuning-auto", lambda p: p.tuning in ("lora", "qlora"), lambda p, m, r: (
        f"{'a quantized base' if p.tuning == 'qlora' else 'LoRA'} is the first of the tunings tried that fits"
        if r.origins.get("tuning") else f"--tuning {r.request.tuning} was asked for")),
    Choice("planner.ddp", lambda p: p.world_size > 1 and p.zero_stage == 0, lambda p, m, r: (
        f"the whole model fits each GPU ({m.total:.0f} of {m.capacity_gib:.0f} GiB), so nothing is sharded")),
    Choice("planner.zero", lambda p: p.backend == "hf" and p.zero_stage > 0 and not p.fsdp, lambda p, m, r: (
        f"ZeRO-{p.zero_stage} is the lowest-cost stage that fits: {m.total:.0f} of {m.capacity_gib:.0f} GiB")),
    Choice("planner.fsdp", lambda p: p.fsdp, lambda p, m, r: (
        f"weights, gradients and states are sharded over {p.world_size} GPUs: "
        f"{m.total:.0f} of {m.capacity_gib:.0f} GiB each")),
    Choice("planner.offload", lambda p: p.offload != "none", lambda p, m, r: (
        f"without offload it does not fit; {m.host_gib:.0f} GiB a node move to host memory")),
    Choice("planner.tensor-parallel", lambda p: p.tensor_parallel > 1, lambda p, m, r: (
        f"TP = {p.tensor_parallel} slices every matrix inside a node")),
    Choice("planner.pipeline", lambda p: p.pipeline_parallel > 1, lambda p, m, r: (
        f"PP = {p.pipeline_parallel} splits {r.model.layers} layers"
        + (f", {p.pipeline_first_layers} in the first and {p.pipeline_last_layers} in the last stage"
           if p.pipeline_first_layers else ""))),
    Choice("planner.experts", lambda p: p.expert_parallel > 1, lambda p, m, r: (
        f"EP = {p.expert_parallel}: each rank holds {r.model.moe.experts // p.expert_parallel if r.model.moe else 0} "
        f"of {r.model.moe.experts if r.model.moe else 0} experts, and one layer no longer has to fit whole")),
    Choice("planner.context", lambda p: p.context_parallel > 1, lambda p, m, r: (
        f"CP = {p.context_parallel} splits {p.seq_len} tokens")),
    Choice("planner.recompute", lambda p: p.gradient_checkpointing, lambda p, m, r: (
        "activations are recomputed in backward: they would not fit, or leave no room, otherwise")),
    Choice("planner.rollout", lambda p: p.rollout_engine == "vllm", lambda p, m, r: (
        f"vLLM generates with TP = {p.rollout_tensor_parallel} in {p.rollout_memory_fraction:.0%} of each GPU: "
        f"{2 * r.model.total_parameters / 2**30 / p.rollout_tensor_parallel:.0f} GiB of weights and its cache")),
    Choice("planner.batch", lambda p: True, lambda p, m, r: (
        f"{p.micro_batch_size} x {p.gradient_accumulation_steps} x {p.data_parallel} = {p.global_batch_size} "
        f"sequences a step (asked for: {r.request.global_batch_size})")),
)  # fmt: skip


def plan_reasons(plan: Plan, memory: MemoryEstimate, resolved: Resolved) -> list[Reason]:
    """One reason per choice of the plan that needs one."""
    return [
        Reason(choice.id, "set", choice.because(plan, memory, resolved), "advisor/planner/search.py")
        for choice in CHOICES
        if choice.chosen(plan)
    ]
