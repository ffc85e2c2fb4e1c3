"""Peak GPU memory of a plan: the worst moment of a step on the worst pipeline stage."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.estimate.host import checkpoint_bytes, host_and_disk
from advisor.estimate.model_sums import model_sums
from advisor.estimate.moments import Alive, moments
from advisor.estimate.phases import other_moments
from advisor.estimate.rollout import GIB, extras
from advisor.estimate.spread import Margins, Range, margins, shares, spread
from advisor.estimate.stage import Setting, StageParts, make_setting, stage_layers, stage_parts
from advisor.estimate.states import sharding_stage
from advisor.estimate.types import MemoryEstimate
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import Plan

STREAMED = ("loss", "backward")
"""Moments whose buffers are gathered weights and reduced gradients; the step's are the optimizer's own."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """One pipeline stage: its worst moment, what it holds, and its range over all moments."""

    alive: Alive
    part: StageParts
    range: Range
    most_buffers: float


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
    reference + rollout + buffers) + overhead, each bound of the range likewise over all moments. Valid for
    decoder-only transformers, balanced experts, no padding. The first optimizer step is no moment of its own:
    the states that it creates are alive in all later ones. Ignores vision activations and evaluation.
    `all_stages=False` looks only at the first, second and last pipeline stage, among which the worst one is, and
    returns no `stages` and no `causes`.
    """
    s = make_setting(model_sums(model), plan)
    m = margins(s)
    counts = stage_layers(plan, s.sums.layers)
    if len(counts) == 1:
        part = stage_parts(s, 0, counts[0], True, True, 1)
        return _finish(s, m, cluster, [_stage(s, m, part, teacher, cluster)], (), teacher, all_stages)
    found = _all_stages(s, m, counts, teacher, cluster, all_stages)
    stages = tuple(_stage_row(s, stage) for stage in found) if all_stages else ()
    return _finish(s, m, cluster, found, stages, teacher, all_stages)


def _likely(stage: _Stage) -> float:
    return stage.range.likely


def _all_stages(
    s: Setting, m: Margins, counts: list[int], teacher: ModelFacts | None, cluster: ClusterFacts, every: bool
) -> list[_Stage]:
    """1F1B: stage i of n holds min(micro batches, n - i) micro batches in flight."""
    found: list[_Stage] = []
    total, start = len(counts), 0
    for index, count in enumerate(counts):
        if every or index < 2 or index == total - 1:
            flight = min(s.plan.gradient_accumulation_steps, total - index)
            part = stage_parts(s, start, count, index == 0, index == total - 1, flight)
            found.append(_stage(s, m, part, teacher, cluster))
        start += count
    return found


def _stage(
    s: Setting, m: Margins, part: StageParts, teacher: ModelFacts | None, cluster: ClusterFacts
) -> _Stage:
    """Low, likely and high are each the largest of any moment; the terms are those of the moment at which most
    is allocated (of equals the earliest)."""
    extra = extras(s, part, teacher, cluster.gpu_memory_gib, s.plan.rollout_sleep)
    alive = [*moments(s, part, extra), *other_moments(s, part, extra)]
    buffers = 0.0
    for moment in alive:
        if moment.moment in STREAMED and moment.buffers > buffers:
            buffers = moment.buffers
    bounds, peak = spread(m, alive, buffers)
    return _Stage(peak, part, bounds, buffers)


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


def _stage_row(s: Setting, stage: _Stage) -> dict[str, float]:
    part = stage.part
    allocated = stage.alive.total / GIB
    state = part.weights + part.gradients + (0.0 if s.states_away else part.optimizer)
    return {
        **_terms(stage.alive),
        "state": state / GIB,
        "overhead": stage.range.likely - allocated,
        "allocated": allocated,
        "total": stage.range.likely,
        "low": stage.range.low,
        "high": stage.range.high,
    }


def _finish(
    s: Setting,
    m: Margins,
    cluster: ClusterFacts,
    found_stages: list[_Stage],
    stages: tuple[dict[str, float], ...],
    teacher: ModelFacts | None,
    every: bool,
) -> MemoryEstimate:
    """The stage that takes most of a GPU, and the one that takes most of its host: the two need not be the same."""
    stage = max(found_stages, key=_likely)
    host, disk = map(max, zip(*(host_and_disk(s, one.part) for one in found_stages), strict=True))
    checkpoint = checkpoint_bytes(s) / GIB
    found = MemoryEstimate(
        moment=stage.alive.moment,
        terms=_terms(stage.alive),
        overhead=stage.range.likely - stage.alive.total / GIB,
        low=stage.range.low,
        high=stage.range.high,
        capacity_gib=cluster.gpu_memory_gib,
        host_gib=host,
        host_capacity_gib=cluster.cpu_memory_gib,
        nvme_gib=disk,
        nvme_capacity_gib=cluster.nvme_gib,
        checkpoint_gib=checkpoint,
        stages=stages,
        notes=_notes(s, teacher),
        causes=shares(m, stage.alive, stage.most_buffers) if every else (),
    )
    known = cluster.correction
    return found.corrected(known.memory, known.text) if known else found


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
        notes.append(
            "Weights and gradients are on the host only while the rollout engine generates."
            if plan.online and plan.backend == "megatron"
            else "Weights stay on the GPU: only sharding stage 3 can move them."
        )
    if s.states.paged and sharding_stage(plan) == 0:
        notes.append("Paged optimizer states are counted in host memory; they visit the GPU at each step.")
    if plan.method == "ppo" and not plan.uses_adapter:
        notes.append("A critic of the policy's size trains beside it.")
    return tuple(notes)
