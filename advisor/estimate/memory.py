"""Peak GPU memory of a plan: the worst moment of a step on the worst pipeline stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from advisor.estimate.host import NodeNeeds, node_needs
from advisor.estimate.model_sums import model_sums
from advisor.estimate.moments import Alive, moments
from advisor.estimate.phases import other_moments
from advisor.estimate.rollout import GIB, extras, pool_gib
from advisor.estimate.saving import checkpoint
from advisor.estimate.spread import Margins, Range, margins, shares, spread
from advisor.estimate.stage import Setting, StageParts, make_setting, stage_layers, stage_parts
from advisor.estimate.states import sharding_stage
from advisor.estimate.types import MemoryEstimate
from advisor.facts.saving import Saving, saving_of
from advisor.facts.software import TODAY, Software
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import NO_ENGINE, Plan, changed, without_engine

STREAMED = ("loss", "backward")
"""Moments whose buffers are gathered weights and reduced gradients; the step's are the optimizer's own."""


@dataclass(slots=True)
class _Stage:
    """One pipeline stage: its worst moment, what it holds, and its range over all moments."""

    alive: Alive
    part: StageParts
    range: Range
    most_buffers: float


@dataclass(slots=True)
class TrainingMemory:
    """The moments of a training step, which do not depend on how a plan generates between steps."""

    setting: Setting
    margins: Margins
    known: list[_Stage]
    rest: Iterator[_Stage]
    """Stages that nobody has asked for yet."""

    def stages(self) -> Iterator[_Stage]:
        """Stage by stage, each worked out once."""
        yield from self.known
        for stage in self.rest:
            self.known.append(stage)
            yield stage


TrainedMemory = dict[tuple[Any, ...], TrainingMemory]
"""What plans share that differ only in how they generate."""


def estimate_memory(
    model: ModelFacts,
    plan: Plan,
    cluster: ClusterFacts,
    teacher: ModelFacts | None = None,
    *,
    all_stages: bool = True,
    trained: TrainedMemory | None = None,
    software: Software = TODAY,
    framework: str | None = None,
) -> MemoryEstimate:
    """Peak memory per GPU, host memory per node.

    Peak = max over stages and moments of (weights + gradients + optimizer + activations + logits +
    reference + rollout + buffers) + overhead, each bound of the range likewise over all moments. Valid for
    decoder-only transformers, balanced experts, no padding. The first optimizer step is no moment of its own:
    the states that it creates are alive in all later ones. Ignores vision activations and evaluation.
    `all_stages=False` looks only at the first, second and last pipeline stage, among which the worst one is, and
    returns no `stages` and no `causes`. `trained` (then): where a caller that asks about many plans of one model,
    cluster and teacher keeps what those share that differ only in how they generate. `software`: where libraries work
    otherwise than today's. `framework`: whose way of saving is counted; without one, that of the libraries beneath.
    """
    beside = plan.rollout_engine == "vllm" and not plan.rollout_sleep and not plan.generates_apart
    if trained is None or beside:
        training = _training(model, plan, cluster, teacher, all_stages, software)
    else:
        training = _shared(model, plan, cluster, teacher, trained)
    s, m = training.setting, training.margins
    if s.plan is not plan:
        s = replace(s, plan=plan)
    way = saving_of(plan, model.total_parameters, framework)
    found = [_between(s, m, stage, teacher, cluster, way) for stage in training.stages()]
    stages = tuple(_stage_row(s, stage) for stage in found) if all_stages and len(found) > 1 else ()
    return _finish(s, m, cluster, found, stages, teacher, all_stages, way)


def training_fits(model: ModelFacts, plan: Plan, cluster: ClusterFacts, trained: TrainedMemory) -> bool:
    """Whether a training step could fit a GPU while no engine takes memory; False is certain. `trained` as for
    `estimate_memory` without all stages."""
    training = _shared(model, plan, cluster, None, trained)
    factor = cluster.correction.memory if cluster.correction else 1.0
    room = cluster.gpu_memory_gib / factor
    surely = False
    for stage in training.stages():
        if stage.range.likely > room:
            return False
        surely = surely or stage.range.high <= room
    return surely


def _shared(
    model: ModelFacts, plan: Plan, cluster: ClusterFacts, teacher: ModelFacts | None, trained: TrainedMemory
) -> TrainingMemory:
    """No moment of a training step sees how the plan generates, once the engine sleeps."""
    key = without_engine(plan)
    training = trained.get(key)
    if training is None:
        alone = changed(plan, NO_ENGINE)
        training = trained[key] = _training(model, alone, cluster, teacher, False)
    return training


def _training(
    model: ModelFacts,
    plan: Plan,
    cluster: ClusterFacts,
    teacher: ModelFacts | None,
    every: bool,
    software: Software = TODAY,
) -> TrainingMemory:
    """Stage by stage, with the micro batches it has in flight."""
    s = make_setting(model_sums(model), plan, software)
    m = margins(s, cluster.gpu.nvlink)
    return TrainingMemory(s, m, [], _stages(s, m, teacher, cluster, every))


def _stages(
    s: Setting, m: Margins, teacher: ModelFacts | None, cluster: ClusterFacts, every: bool
) -> Iterator[_Stage]:
    counts = stage_layers(s.plan, s.sums.layers)
    total, start = len(counts), 0
    for index, count in enumerate(counts):
        if every or index < 2 or index == total - 1:
            flight = in_flight(s.plan, index)
            part = stage_parts(s, start, count, index == 0, index == total - 1, flight)
            yield _stage(s, m, part, teacher, cluster)
        start += count


def in_flight(plan: Plan, stage: int) -> float:
    """Micro batches whose activations a pipeline stage keeps at the most.

    1F1B: stage i of n forwards n - i - 1 before its first backward and holds one more. Interleaved, with v model
    chunks a rank, it forwards 2 (n - i - 1) + (v - 1) n chunks, each 1 / v of the stage, and holds one more: n +
    (n - 1) / v micro batches on the first stage. Never more than a step has. Source: megatron-core 0.16.1,
    pipeline_parallel/schedules.py:738 (get_pp_rank_microbatches); Megatron-LM's theoretical_memory_usage.py has the
    same for its first stage, 1 + (n - 1) / (n v) times n.
    """
    stages, chunks = plan.pipeline_parallel, plan.virtual_pipeline_parallel
    held = float(stages - stage)
    if chunks > 1:
        held = (2 * (stages - stage - 1) + (chunks - 1) * stages + 1) / chunks
    return min(float(plan.gradient_accumulation_steps), held)


def _likely(stage: _Stage) -> float:
    return stage.range.likely


def _stage(
    s: Setting, m: Margins, part: StageParts, teacher: ModelFacts | None, cluster: ClusterFacts
) -> _Stage:
    """The moments of a training step. Low, likely and high are each the largest of any moment; the terms are those
    of the moment at which most is allocated (of equals the earliest)."""
    extra = extras(s, part, teacher, cluster.gpu_memory_gib, s.plan.rollout_sleep)
    alive = moments(s, part, extra)
    buffers = 0.0
    for moment in alive:
        if moment.moment in STREAMED and moment.buffers > buffers:
            buffers = moment.buffers
    bounds, peak = spread(m, alive, buffers)
    return _Stage(peak, part, bounds, buffers)


def _between(
    s: Setting, m: Margins, stage: _Stage, teacher: ModelFacts | None, cluster: ClusterFacts, way: Saving
) -> _Stage:
    """With the moments between training steps."""
    extra = extras(s, stage.part, teacher, cluster.gpu_memory_gib, s.plan.rollout_sleep)
    bounds, peak = spread(m, other_moments(s, stage.part, extra, way), stage.most_buffers)
    known = stage.range
    widest = Range(max(known.likely, bounds.likely), max(known.low, bounds.low), max(known.high, bounds.high))
    return _Stage(
        peak if peak.total > stage.alive.total else stage.alive, stage.part, widest, stage.most_buffers
    )


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
    way: Saving,
) -> MemoryEstimate:
    """The stage that takes most of a GPU, and the one that takes most of its host: the two need not be the same."""
    stage = max(found_stages, key=_likely)
    needs = [node_needs(s, one.part, way) for one in found_stages]
    node = max(needs, key=lambda each: each.host)
    saved = checkpoint(s, way)
    found = MemoryEstimate(
        moment=stage.alive.moment,
        terms=_terms(stage.alive),
        overhead=stage.range.likely - stage.alive.total / GIB,
        low=stage.range.low,
        high=stage.range.high,
        capacity_gib=cluster.gpu_memory_gib,
        host_gib=node.host,
        host_parts=node.parts,
        host_capacity_gib=cluster.cpu_memory_gib,
        nvme_gib=max(each.nvme for each in needs),
        nvme_capacity_gib=cluster.nvme_gib,
        checkpoint_gib=saved.total / GIB,
        checkpoint_parts={
            "model": saved.model / GIB,
            "resume": saved.resume / GIB,
            "optimizer": saved.optimizer / GIB,
        },
        model_gib=saved.final / GIB,
        pool_gib=pool_gib(s.sums, s.plan),
        pool_capacity_gib=s.plan.rollout_memory_fraction * cluster.gpu_memory_gib,
        stages=stages,
        notes=(*_notes(s, teacher), *_saving_note(node, way)),
        causes=shares(m, stage.alive, stage.most_buffers) if every else (),
    )
    known = cluster.correction
    return found.corrected(known.memory, known.text) if known else found


def _saving_note(node: NodeNeeds, way: Saving) -> tuple[str, ...]:
    """Where saving is what a node needs most host memory for."""
    parts = node.parts
    if parts["saving"] <= 1.0 or parts["offloading"] + parts["saving"] <= max(
        parts["loading"], parts["computing"]
    ):
        return ()
    return (f"Host memory peaks while saving, which adds {parts['saving']:.0f} GiB on a node: {way.text}.",)


def _notes(s: Setting, teacher: ModelFacts | None) -> tuple[str, ...]:
    """What a reader should know about this number."""
    plan = s.plan
    notes: list[str] = []
    if plan.fsdp and plan.world_size > 1:
        notes.append("Host memory counts one rank per node reading the whole model while loading.")
    if plan.offload == "experts":
        notes.append(
            "Host memory counts the experts with their adapters; the one published peak of such a run's processes "
            "(Qwen3-235B-A22B, 545 GiB) is 15 to 20 % higher."
        )
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
    if plan.generates_apart and not plan.rollout_gpus:
        notes.append(
            "The GPUs that generate are not counted: the configuration does not say how many there are."
        )
    if plan.method == "ppo" and not plan.uses_adapter:
        notes.append("A critic of the policy's size trains beside it.")
    return tuple(notes)
