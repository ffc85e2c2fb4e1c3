"""Peak GPU memory of a plan: the worst moment of a step on the worst pipeline stage."""

from __future__ import annotations

from advisor.estimate.host import host_and_disk
from advisor.estimate.model_sums import model_sums
from advisor.estimate.moments import Alive, moments
from advisor.estimate.rollout import GIB, extras
from advisor.estimate.stage import Setting, StageParts, make_setting, stage_layers, stage_parts
from advisor.estimate.states import sharding_stage
from advisor.estimate.types import MemoryEstimate
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import Plan

CONTEXT_GIB = 1.1
"""CUDA context, cuBLAS workspace, kernels: unsloth's estimator takes 1.4 GB; the Qwen-7B series of published
device usage lies a constant 1.8 GiB above traced allocation, on an old stack."""
CONTEXT_LOW_GIB, CONTEXT_HIGH_GIB = 0.5, 1.8
NCCL_GIB = 0.4
"""Channels of one communicator. Assumed: several groups together take 1 to 3 GB."""
NCCL_LOW_GIB, NCCL_HIGH_GIB = 0.15, 0.7
FRAGMENTATION = 0.05
"""Reserved over allocated, on what is allocated and freed every step: 1.05 to 1.10 between traced and
published rows; long-lived states are large blocks that do not fragment."""
FRAGMENTATION_HIGH = 0.10
MEGATRON_CACHED, MEGATRON_CACHED_HIGH = 0.05, 0.15
"""Megatron keeps blocks of gathers and of the first steps: Megatron-Bridge documents 53.2 reserved for
45.1 GiB allocated (1.18). On gradients and optimizer states, on top of fragmentation."""
STATE_SPREAD = 0.02
"""States are exact arithmetic; padding of flat buffers and small tensors stay."""
KERNEL_LOW, KERNEL_HIGH = 0.80, 1.12
"""Activations, logits and buffers against the traced stock modules: compiled or fused kernels keep less
(published torchtune rows 0.8 to 0.98), padding masks and other versions keep more."""
UNPACKED_LOW = 0.55
"""`seq_len` only caps unpacked samples: published rows at a cap of 2048 differ by that much."""
IMBALANCE_HIGH = 1.3
"""Uneven routing over expert-parallel ranks, on the whole dynamic part. Assumed."""


def estimate_memory(
    model: ModelFacts,
    plan: Plan,
    cluster: ClusterFacts,
    teacher: ModelFacts | None = None,
    *,
    all_stages: bool = True,
) -> MemoryEstimate:
    """Peak memory per GPU, host memory per node.

    Peak = max over stages and moments of (weights + gradients + optimizer + activations + logits +
    reference + rollout + buffers) + overhead. Valid for decoder-only transformers, steady (second) step,
    balanced experts, no padding. Ignores vision activations, evaluation and checkpoint gathering.
    `all_stages=False` looks only
    at the first, second and last pipeline stage, among which the worst one is, and returns no `stages`.
    """
    s = make_setting(model_sums(model), plan)
    counts = stage_layers(plan, s.sums.layers)
    if len(counts) == 1:
        part = stage_parts(s, 0, counts[0], True, True, 1)
        worst = _peak(moments(s, part, extras(s, part, teacher, cluster.gpu_memory_gib, plan.rollout_sleep)))
        return _finish(s, cluster, worst, part, (), teacher)
    found = _all_stages(s, counts, teacher, cluster, plan.rollout_sleep, all_stages)
    worst, part = max(found, key=lambda item: item[0].total)
    stages = tuple(_stage_row(s, alive, p) for alive, p in found) if all_stages else ()
    return _finish(s, cluster, worst, part, stages, teacher)


def _all_stages(
    s: Setting,
    counts: list[int],
    teacher: ModelFacts | None,
    cluster: ClusterFacts,
    sleeps: bool,
    every: bool,
) -> list[tuple[Alive, StageParts]]:
    """1F1B: stage i of n holds min(micro batches, n - i) micro batches in flight."""
    found: list[tuple[Alive, StageParts]] = []
    total, start = len(counts), 0
    for index, count in enumerate(counts):
        if every or index < 2 or index == total - 1:
            flight = min(s.plan.gradient_accumulation_steps, total - index)
            part = stage_parts(s, start, count, index == 0, index == total - 1, flight)
            alive = _peak(moments(s, part, extras(s, part, teacher, cluster.gpu_memory_gib, sleeps)))
            found.append((alive, part))
        start += count
    return found


def _peak(alive: list[Alive]) -> Alive:
    """The largest moment; of equals the earliest in the step."""
    return max(alive, key=lambda moment: moment.total)


def _spread(s: Setting, alive: Alive) -> tuple[float, float, float]:
    """(overhead, low, high) in GiB."""
    plan = s.plan
    parallel = (
        plan.world_size > 1, plan.tensor_parallel > 1, plan.pipeline_parallel > 1,
        plan.context_parallel > 1, plan.expert_parallel > 1,
    )  # fmt: skip
    groups = sum(parallel)
    dynamic = (alive.activations + alive.logits + alive.buffers) / GIB
    static = alive.total / GIB - dynamic
    cached = (alive.gradients + alive.optimizer) / GIB if plan.backend == "megatron" else 0.0
    overhead = CONTEXT_GIB + groups * NCCL_GIB + FRAGMENTATION * dynamic + MEGATRON_CACHED * cached
    shorter = 1.0 if plan.packing or plan.method == "cpt" or plan.online else UNPACKED_LOW
    low = static * (1 - STATE_SPREAD) + dynamic * KERNEL_LOW * shorter
    low += CONTEXT_LOW_GIB + groups * NCCL_LOW_GIB
    grow = KERNEL_HIGH * (IMBALANCE_HIGH if plan.expert_parallel > 1 else 1.0) + FRAGMENTATION_HIGH
    high = static * (1 + STATE_SPREAD) + dynamic * grow + MEGATRON_CACHED_HIGH * cached
    high += CONTEXT_HIGH_GIB + groups * NCCL_HIGH_GIB
    return overhead, low, high


def _terms(alive: Alive) -> dict[str, float]:
    return {
        "weights": alive.weights / GIB,
        "gradients": alive.gradients / GIB,
        "optimizer": alive.optimizer / GIB,
        "activations": alive.activations / GIB,
        "logits": alive.logits / GIB,
        "reference": alive.reference / GIB,
        "rollout": alive.rollout / GIB,
        "buffers": alive.buffers / GIB,
    }


def _stage_row(s: Setting, alive: Alive, part: StageParts) -> dict[str, float]:
    overhead, low, high = _spread(s, alive)
    allocated = alive.total / GIB
    state = part.weights + part.gradients + (0.0 if s.states_away else part.optimizer)
    return {
        **_terms(alive),
        "state": state / GIB,
        "overhead": overhead,
        "allocated": allocated,
        "total": allocated + overhead,
        "low": low,
        "high": high,
    }


def _finish(
    s: Setting,
    cluster: ClusterFacts,
    alive: Alive,
    part: StageParts,
    stages: tuple[dict[str, float], ...],
    teacher: ModelFacts | None,
) -> MemoryEstimate:
    overhead, low, high = _spread(s, alive)
    host, disk = host_and_disk(s, part)
    return MemoryEstimate(
        moment=alive.moment,
        terms=_terms(alive),
        overhead=overhead,
        low=low,
        high=high,
        capacity_gib=cluster.gpu_memory_gib,
        host_gib=host,
        host_capacity_gib=cluster.cpu_memory_gib,
        nvme_gib=disk,
        nvme_capacity_gib=cluster.nvme_gib,
        stages=stages,
        notes=_notes(s, teacher),
    )


def _notes(s: Setting, teacher: ModelFacts | None) -> tuple[str, ...]:
    """What a reader should know about this number."""
    plan = s.plan
    notes: list[str] = []
    if plan.fsdp and plan.world_size > 1:
        notes.append("Host memory counts one rank per node reading the whole model while loading.")
    if plan.quantization != "none" and s.sums.moe_layers and s.expert_bytes == 2.0:
        notes.append("Routed experts are counted in 16 bit: stock bitsandbytes packs plain linears only.")
    if plan.gradient_accumulation_steps > 1 and plan.fsdp and s.base_trains:
        notes.append(
            "Gradients are counted as reduced every micro batch; without that FSDP keeps them unsharded."
        )
    if plan.method == "gkd" and teacher is None:
        notes.append("The teacher is not counted: its size is not known.")
    if plan.offload in ("all", "nvme") and not s.weights_away:
        notes.append("Weights stay on the GPU: only sharding stage 3 can move them.")
    if s.states.paged and sharding_stage(plan) == 0:
        notes.append("Paged optimizer states are counted in host memory; they visit the GPU at each step.")
    if plan.method == "ppo" and not plan.uses_adapter:
        notes.append("A critic of the policy's size trains beside it.")
    return tuple(notes)
