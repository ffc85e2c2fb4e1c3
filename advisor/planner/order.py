"""Which of two plans is better, and how a plan is called in one phrase."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Any

from advisor.estimate.types import MemoryEstimate
from advisor.plan import OFFLOADS, Plan

MEGATRON_MARGIN = 1.5
"""How many times faster than the best plan on transformers one on Megatron has to be (assumed)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    plan: Plan
    memory: MemoryEstimate
    seconds: float
    """Per sequence of the global batch."""


def order(candidate: Candidate) -> tuple[Any, ...]:
    """Fitting before tight before not; then time to within 2 %, then the simpler plan.

    Megatron's kernels must be built for the machine: it is chosen where it is needed or clearly faster.
    """
    plan, memory = candidate.plan, candidate.memory
    rank = ("fits", "tight", "no").index(memory.fits)
    if rank == 2:
        return (rank, memory.excess, 0.0, ())
    return (rank, coarse(plan, candidate.seconds), 0.0, _complexity(plan), memory.total)


def coarse(plan: Plan, seconds: float) -> int:
    """Time to within 2 %."""
    seconds *= _margin(plan)
    return round(log(seconds) / 0.02) if seconds > 0 else 0


def slowest(plan: Plan, coarsely: int) -> float:
    """More seconds than this are coarsely more."""
    return exp((coarsely + 0.5001) * 0.02) / _margin(plan)


def _margin(plan: Plan) -> float:
    """None where experts are spread: what routed layers take on transformers is assumed, not measured
    (rules/catalog/speed.json), and every published run of that kind is on Megatron."""
    spread = plan.expert_parallel * plan.expert_tensor_parallel > 1
    return MEGATRON_MARGIN if plan.backend == "megatron" and not spread else 1.0


def _complexity(plan: Plan) -> tuple[int, ...]:
    degrees = plan.tensor_parallel * plan.pipeline_parallel * plan.context_parallel * plan.expert_parallel
    return (
        degrees * plan.expert_tensor_parallel * plan.virtual_pipeline_parallel,
        OFFLOADS.index(plan.offload),
        plan.zero_stage,
        int(plan.fsdp),
        plan.fsdp_replicas,
        int(plan.liger),
        int(plan.activation_offload),
        plan.gradient_accumulation_steps,
    )


def _degrees(plan: Plan) -> str:
    """TP, PP and EP always, what splits stages and experts further where it does."""
    chunks, slices = plan.virtual_pipeline_parallel, plan.expert_tensor_parallel
    stages = f"PP{plan.pipeline_parallel}" + (f" VPP{chunks}" if chunks > 1 else "")
    experts = f"EP{plan.expert_parallel}" + (f" ETP{slices}" if slices > 1 else "")
    return f"TP{plan.tensor_parallel} {stages} {experts}"


def describe(plan: Plan) -> str:
    """A plan in one phrase, for reasons and tables."""
    parts = [plan.tuning if plan.quantization == "none" else f"{plan.tuning} {plan.quantization}"]
    if plan.low_rank_optimizer:
        name = plan.optimizer.partition("_")[0].upper() if plan.optimizer.startswith("apollo") else "GaLore"
        parts.append(
            f"{name} rank {plan.optimizer_rank}" + (", layer by layer" if plan.steps_layerwise else "")
        )
    if plan.backend == "megatron":
        parts.append(f"Megatron {_degrees(plan)}")
    elif plan.fsdp:
        copies = f", {plan.fsdp_replicas} copies" if plan.fsdp_replicas > 1 else ""
        parts.append(f"FSDP2{copies}")
    elif plan.zero_stage:
        parts.append(f"ZeRO-{plan.zero_stage}")
    elif plan.world_size > 1:
        parts.append("DDP")
    if plan.backend != "megatron":
        spread = (("TP", plan.tensor_parallel), ("EP", plan.expert_parallel))
        parts += [f"{name}{degree}" for name, degree in spread if degree > 1]
    if plan.context_parallel > 1:
        parts.append(f"CP{plan.context_parallel}")
    if plan.compile:
        parts.append("compiled")
    if plan.offload == "experts":
        parts.append("experts on the host")
    elif plan.offload != "none":
        parts.append(f"{plan.offload} offload")
    if plan.gradient_checkpointing:
        parts.append("recompute" if plan.recompute == "none" else f"{plan.recompute} recompute")
    if plan.activation_offload:
        parts.append("inputs on the host")
    if plan.rollout_gpus:
        parts.append(f"{plan.generating_gpus} of {plan.all_gpus} GPUs generate")
    parts.append(f"{plan.micro_batch_size} x {plan.seq_len}")
    return ", ".join(parts)
