"""Where online RL generates: on the GPUs that train, or on some of the cluster's GPUs that do nothing else.

GPUs of its own leave an engine's memory to training, and while one side works the other waits (`separate`). A split
is taken where a step is clearly shorter with it, or where nothing fits without. `separate-async`, where both sides
work at the same time, trains on answers that are one step old: that is another algorithm, and taken only when asked.

Few splits are tried: powers of two of one machine's GPUs; of several machines one, and eighths of them; of these the
ones that promise most, for a step that divides the training of the best plan over fewer GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from advisor.estimate.rollout import LEAST_CACHE
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import ROLLOUT_PLACEMENTS, Plan, changed
from advisor.planner.fill import Filler
from advisor.planner.order import Candidate, coarse, order, slowest
from advisor.planner.space import POOL_SHARE, POWERS, Skeleton, pool_engines
from advisor.planner.start import divided
from advisor.resolve import APART
from advisor.rules import FrameworkRules, Reason, allowed_values, cheap_refusals, limit_refusals

MARGIN = 1.1
"""How many times shorter a step has to be with a server of its own, one more process to start, reach and watch
(assumed)."""
MOST_SPLITS = 3
"""The one that promises most and its neighbours, as a rule."""
ALIKE = ("kubeflow", "skypilot")
"""Launchers that start all machines alike: none of them can only generate."""


@dataclass(frozen=True, slots=True)
class Best:
    """What the search found for one skeleton."""

    best: Candidate | None
    refusals: Sequence[Reason]
    closest: Candidate | None
    """The plan that comes closest to fitting."""
    why: Reason | None = None
    """Why the engine is where it is, where that was a choice."""


@dataclass(frozen=True, slots=True)
class Split:
    """GPUs that train, and GPUs that only generate."""

    generating: int
    fields: Mapping[str, Any]
    """Plan fields that say so."""
    between: float
    """Seconds of generation and weight sync for a sequence, at the fastest setting of the engine."""
    least: float
    """Seconds for a sequence that no plan on it gets below."""


Search = Callable[[FrameworkRules, Skeleton, Candidate | None], Best]
"""The best plan of a skeleton that comes before a bar, if there is one."""


def placed(filler: Filler, search: Search, rules: FrameworkRules, skeleton: Skeleton) -> Best:
    """The best plan of a skeleton, wherever it generates."""
    way = _way(filler, rules, skeleton.plan)
    beside = search(rules, skeleton, None)
    if way is None:
        return replace(beside, why=_ahead_only(filler, rules, skeleton.plan, beside))
    tried, refused = splits(filler, rules, skeleton.plan, way, beside.best)
    asked = filler.resolved.request.rollout_placement in APART
    found = Best(None, refused, None) if asked else beside
    for split in tried:
        found = _better(filler, search, rules, skeleton, split, found)
    return found if asked else replace(found, why=_why(filler, beside.best, found.best, tried))


def _way(filler: Filler, rules: FrameworkRules, plan: Plan) -> str | None:
    """The placement with GPUs of its own to try; None where there is nothing to choose."""
    request = filler.resolved.request
    if not plan.online or plan.rollout_gpus or filler.resolved.cluster.world_size == 1:
        return None
    if request.rollout_placement in APART:
        return request.rollout_placement
    if request.rollout_placement == "colocated" or request.launcher in ALIKE:
        return None
    return "separate" if "separate" in _placements(rules, plan) else None


def _placements(rules: FrameworkRules, plan: Plan) -> Sequence[Any]:
    allowed = allowed_values(rules, "rollout_placement", plan.as_dict())
    return ROLLOUT_PLACEMENTS if allowed is None else allowed


def _better(
    filler: Filler, search: Search, rules: FrameworkRules, skeleton: Skeleton, split: Split, so_far: Best
) -> Best:
    """The best plan so far, or one on this split that comes before it."""
    best = so_far.best
    bar = _bar(best)
    if bar is not None and split.least > slowest(bar.plan, coarse(bar.plan, bar.seconds)):
        return so_far
    pool = Skeleton(changed(skeleton.plan, split.fields).normalised(), skeleton.pins)
    found = search(rules, pool, bar)
    if found.best is not None and (best is None or _comes_before(filler, found.best, best)):
        return found
    if best is not None:
        return so_far
    return Best(None, [*so_far.refusals, *found.refusals], _nearer(so_far.closest, found.closest))


def _bar(best: Candidate | None) -> Candidate | None:
    """What a plan on a split has to come before."""
    if best is None or best.plan.rollout_gpus:
        return best
    return replace(best, seconds=best.seconds / MARGIN)


def _comes_before(filler: Filler, found: Candidate, best: Candidate) -> bool:
    """Whether a split fits as well and is faster, for a sequence and for a step: batches need not be of one size, and
    one that was asked for has to stay."""
    batch, other = found.plan.global_batch_size, best.plan.global_batch_size
    if batch != other and "global_batch_size" not in filler.resolved.origins:
        return False
    seconds = found.seconds * max(1.0, batch / other)
    if best.plan.rollout_gpus:
        return order(replace(found, seconds=seconds))[:2] < order(best)[:2]
    if best.memory.fits == "fits" != found.memory.fits:
        return False
    # That it leaves more room, or needs no Megatron-LM, is no reason by itself.
    return seconds * MARGIN < best.seconds and coarse(found.plan, seconds * MARGIN) < coarse(
        best.plan, best.seconds
    )


def _nearer(one: Candidate | None, other: Candidate | None) -> Candidate | None:
    known = [candidate for candidate in (one, other) if candidate is not None]
    return min(known, key=lambda candidate: candidate.memory.excess, default=None)


def splits(
    filler: Filler, rules: FrameworkRules, plan: Plan, way: str, reference: Candidate | None
) -> tuple[list[Split], list[Reason]]:
    """(those worth trying, the most promising first; why the framework has none): by the time of a step that trains as
    the best plan on all GPUs does (`reference`), over fewer; without such a plan those that leave most to training."""
    cluster = filler.resolved.cluster
    batch = reference.plan.global_batch_size if reference else filler.resolved.request.global_batch_size or 1
    found: list[Split] = []
    refusals: dict[str, Reason] = {}
    apart = plan
    group = {"micro_batch_size": max(plan.generations, 1)}  # whole groups, however many ranks train
    known = {
        reason.rule for reason in _said(filler, rules, changed(plan, {**group, "rollout_engine": "vllm"}))
    }
    for generating in counts(cluster):
        apart = changed(plan, {**group, **divided(cluster, generating, way)})
        engines, refused = _engines(filler, rules, apart, known)
        for reason in refused:
            refusals.setdefault(reason.rule, reason)
        if engines:
            found.append(_split(filler, apart, engines, batch))
    if not found:
        return [], list(refusals.values()) or [no_engine(filler, apart)]
    if reference is not None:
        training = max(reference.seconds - filler.generating(reference.plan), 0.0)
        total = cluster.world_size

        def promise(split: Split) -> float:
            trains = training * total / (total - split.generating)
            return max(trains, split.between) if way == "separate-async" else trains + split.between

        found.sort(key=promise)
    return found[:MOST_SPLITS], []


def counts(cluster: ClusterFacts) -> list[int]:
    """GPUs that could be set aside, few first."""
    if cluster.nodes == 1:
        return [count for count in POWERS if count < cluster.gpus_per_node]
    machines = {1, *(cluster.nodes * eighth // 8 for eighth in range(1, 8))}
    return [count * cluster.gpus_per_node for count in sorted(machines) if count]


def _engines(
    filler: Filler, rules: FrameworkRules, apart: Plan, known: Set[str]
) -> tuple[list[Plan], list[Reason]]:
    """(the plan with each engine that the pool could hold and the framework start, what speaks against the others);
    `known`: rules that speak against an engine on the GPUs that train too."""
    cluster, model = filler.resolved.cluster, filler.model
    room = apart.generating_gpus * cluster.gpu_memory_gib * POOL_SHARE * 2**30
    if room < LEAST_CACHE * 2.0 * model.total_parameters:
        return [], []
    found: list[Plan] = []
    refused: list[Reason] = []
    for setting in pool_engines(apart, model, cluster.gpu_memory_gib, spreads(rules, apart, model)):
        engine = changed(apart, setting)
        more = [reason for reason in _said(filler, rules, engine) if reason.rule not in known]
        refused += more
        if not more:
            found.append(engine)
    return found, refused


def _said(filler: Filler, rules: FrameworkRules, plan: Plan) -> list[Reason]:
    return [*cheap_refusals(rules, plan), *limit_refusals(rules, plan, filler.facts)]


def spreads(rules: FrameworkRules, plan: Plan, model: ModelFacts) -> bool:
    """Whether an engine may have data-parallel ranks that share the experts."""
    if model.moe is None:
        return False
    names = ("rollout_data_parallel", "rollout_expert_parallel")
    allowed = [allowed_values(rules, name, plan.as_dict()) for name in names]
    return all(values is None or len(values) > 1 for values in allowed)


def _split(filler: Filler, apart: Plan, engines: Sequence[Plan], batch: int) -> Split:
    """Generation does not ask how training is laid out, but for the batch."""
    whole = {
        "tensor_parallel": apart.world_size, "pipeline_parallel": 1, "context_parallel": 1,
        "micro_batch_size": batch, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    between = min(filler.generating(changed(engine, whole)) for engine in engines)
    training = filler.least_training(apart)
    ahead = apart.rollout_placement == "separate-async"
    fields = {name: getattr(apart, name) for name in DIVIDED}
    return Split(
        apart.generating_gpus, fields, between, max(training, between) if ahead else training + between
    )


DIVIDED = ("nodes", "gpus_per_node", "rollout_engine", "rollout_placement", "rollout_gpus", "rollout_nodes")


# --- reasons ------------------------------------------------------------------------------------------


def _because(text: str) -> Reason:
    return Reason("planner.placement", "set", text, "advisor/planner/pools.py")


NO_ENGINE = "planner.rollout-engine"
"""Why online RL has no plan where the GPUs hold no engine."""


def no_engine(filler: Filler, plan: Plan) -> Reason:
    """Why no engine is left."""
    gpus, weights = plan.generating_gpus, 2.0 * filler.model.total_parameters / 2**30
    text = (
        f"no rollout engine holds the weights: {weights:.0f} GiB over {gpus} GPUs are {weights / gpus:.1f} GiB on "
        f"each, which leaves too little of {filler.resolved.cluster.gpu_memory_gib:.1f} GiB for its cache"
    )
    return Reason(NO_ENGINE, "refuse", text, "advisor/planner/space.py:rollouts")


def _step(candidate: Candidate) -> str:
    return f"{candidate.seconds * candidate.plan.global_batch_size:.3g} s a step"


def _why(
    filler: Filler, beside: Candidate | None, best: Candidate | None, tried: Sequence[Split]
) -> Reason | None:
    """What the choice gains."""
    if best is None or not tried:
        return None
    total = filler.resolved.cluster.world_size
    if not best.plan.rollout_gpus:
        least = min(split.least for split in tried) * best.plan.global_batch_size
        sizes = ", ".join(str(count) for count in sorted(split.generating for split in tried))
        return _because(
            f"the GPUs that train generate too, {_step(best)}: with {sizes} of {total} only generating, one side waits "
            f"for the other, and a step is not {MARGIN - 1:.0%} shorter (nothing below {least:.3g} s is possible)"
        )
    apart = f"{best.plan.generating_gpus} of {total} GPUs only generate"
    if beside is None:
        return _because(f"{apart}: beside an engine on the same GPUs no plan fits")
    return _because(
        f"{apart}: {_step(best)} instead of {_step(beside)} with the engine on the GPUs that train"
    )


def _ahead_only(filler: Filler, rules: FrameworkRules, plan: Plan, found: Best) -> Reason | None:
    """Where the only engine apart works ahead: why that is not the search's to choose."""
    request = filler.resolved.request
    if found.best is None or request.rollout_placement not in (None, "auto") or request.rollout_gpus:
        return None
    if filler.resolved.cluster.world_size == 1 or "separate-async" not in _placements(rules, plan):
        return None
    if not splits(filler, rules, plan, "separate-async", found.best)[0]:
        return None
    return _because(
        "the GPUs that train generate too: with GPUs of its own the engine would work one step ahead, and answers that "
        "are a step old are another algorithm, taken only when asked (--rollout-placement separate-async)"
    )
