"""Finds a framework's best plan: legal, allowed by its rules, fitting, then fastest, then simplest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Any

from advisor.frameworks import framework
from advisor.plan import Plan, changed
from advisor.planner.fill import PLANNED, Filler, Unfilled
from advisor.planner.interleave import Staged, by_promise, chunked, chunks_of, could_pass
from advisor.planner.legality import illegal
from advisor.planner.order import Candidate, describe, order
from advisor.planner.pools import Best, no_engine, placed, spreads
from advisor.planner.space import (
    Skeleton,
    hf_layouts,
    megatron_layouts,
    rollouts,
    skeletons,
    with_copies,
)
from advisor.planner.start import on_host
from advisor.resolve import APART, Resolved
from advisor.rules import (
    FrameworkRules,
    Reason,
    allowed_values,
    cheap_refusals,
    limit_refusals,
)
from advisor.rules.implied import implied_values

RECOMPUTE_MOST = 1.6
"""How much longer a step takes at most for recomputing everything: a forward pass on top of three, with its traffic."""
CANDIDATES_JUDGED = 32
"""How many of the best plans are put to the framework's expression limits before giving up."""
LIMITS_ASKED = 8
"""How many refused plans it takes to give up bounding the search by an allowed one."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found for one framework: a plan, or why there is none."""

    best: Candidate | None
    refusals: tuple[Reason, ...]
    examined: int
    closest: Candidate | None = None
    """The plan that comes closest to fitting, when none does."""
    placement: Reason | None = None
    """Why online RL generates where it does."""


class _Bar:
    """The best plan so far that fits and that no limit refuses: what cannot come before it need not be tried. Limits
    that refuse one plan after another are not asked again and again."""

    def __init__(self, known: Candidate | None) -> None:
        self.known = known
        self.asked = 0

    def is_passed(self, candidate: Candidate) -> bool:
        return self.asked < LIMITS_ASKED and (self.known is None or order(candidate) < order(self.known))

    def set(self, candidate: Candidate, allowed: bool) -> None:
        if allowed:
            self.known = candidate
        else:
            self.asked += 1


class Searcher(Filler):
    """Searches all frameworks for one request."""

    def __init__(self, resolved: Resolved) -> None:
        super().__init__(resolved)
        self._led: set[tuple[Any, ...]] = set()
        """Layouts of the best plans so far."""

    def search(self, rules: FrameworkRules) -> Found:
        """The best plan of one framework, trying the tunings in order."""
        self._look_at(rules.framework)
        before = self.examined
        refusals: list[Reason] = []
        closest: Candidate | None = None
        for skeleton in self._skeletons(rules):
            found = placed(self, self.planned, rules, skeleton)
            if found.best:
                self._led.add(_layout(found.best.plan))
                return Found(found.best, (), self.examined - before, placement=found.why)
            refusals += found.refusals
            near = found.closest
            if near and (closest is None or near.memory.excess < closest.memory.excess):
                closest = near
        if closest is not None:
            closest = replace(closest, seconds=self._seconds(closest.plan))
            refusals.append(_too_big(closest))
        # One rule breaks for many layouts, each with its own numbers: the first is shown.
        first = {reason.rule: reason for reason in reversed(refusals)}
        shown = tuple(reason for reason in refusals if first[reason.rule] is reason)
        return Found(None, shown, self.examined - before, closest)

    def planned(self, rules: FrameworkRules, skeleton: Skeleton, bar: Candidate | None) -> Best:
        """The best plan of a skeleton; `bar`: of those that come before this one."""
        staged: list[Staged] = []
        candidates, refused, near = self._candidates(rules, skeleton, staged, bar)
        best, limited = self._first_allowed(rules, candidates, skeleton.pins)
        if best:
            best = self._interleaved(rules, staged, best, skeleton.pins)
        return Best(best, [*refused, *limited], near)

    def _skeletons(self, rules: FrameworkRules) -> Iterator[Skeleton]:
        """As asked; then, where all of those fail, LoRA with the routed experts in host memory, for frameworks that
        have it. A search stops at the first that has a plan, so that this one never stands before a GPU's own."""
        asked = list(skeletons(self.resolved))
        yield from (_restricted(rules, skeleton) for skeleton in asked)
        if self.model.moe is None or self.resolved.cluster.nodes > 1:
            return
        for skeleton in asked:
            plan = on_host(replace(skeleton.plan, offload="experts"))
            allowed = allowed_values(rules, "offload", plan.as_dict())
            if plan.tuning == "lora" and "offload" not in skeleton.pins and allowed and "experts" in allowed:
                yield _restricted(rules, Skeleton(plan, {**skeleton.pins, "offload": "experts"}))

    def _first_allowed(
        self, rules: FrameworkRules, candidates: list[Candidate], pins: Mapping[str, Any]
    ) -> tuple[Candidate | None, list[Reason]]:
        """The best candidate that no limit refuses; of candidates of one kind only the first few are asked."""
        refused: list[Reason] = []
        for candidate in self._judged(rules, candidates, pins):
            found = self._limited(rules, candidate, pins)
            if not found:
                return candidate, []
            refused += found
        return None, refused

    def _interleaved(
        self, rules: FrameworkRules, staged: list[Staged], best: Candidate, pins: Mapping[str, Any]
    ) -> Candidate:
        """The best plan, now that layouts are known also with the interleaved schedule, where it could be better."""
        staged = [layout for layout in staged if layout.found is None or layout.found.memory.fits != "no"]
        sizes = chunks_of(self.model)
        if not staged or not sizes or "virtual_pipeline_parallel" in pins:
            return best
        if not _open(rules, "virtual_pipeline_parallel", staged[0].ways[0]):
            return best
        for least, layout in by_promise(self, staged, pins):
            if not could_pass(self, rules, least, layout, best, pins):
                continue
            for chunks in sizes:
                ways = [chunked(way, self.model, chunks, pins) for way in layout.ways]
                found = self._best_way(rules, ways, pins, layout.parks, best.seconds, best)
                if found and order(found) < order(best) and not self._limited(rules, found, pins):
                    best = found
        return best

    def _limited(self, rules: FrameworkRules, candidate: Candidate, pins: Mapping[str, Any]) -> list[Reason]:
        return [*limit_refusals(rules, candidate.plan, self.facts), *_keyless(rules, candidate.plan, pins)]

    def _judged(
        self, rules: FrameworkRules, candidates: list[Candidate], pins: Mapping[str, Any]
    ) -> Iterator[Candidate]:
        """The best ones; then, for a limit may speak against what all of these share, the best of each other
        kind, and of every kind with the attention kernels that were not the first choice."""
        ordered = sorted(candidates, key=order)
        yield from ordered[:CANDIDATES_JUDGED]
        kinds: dict[tuple[Any, ...], Candidate] = {}
        for candidate in ordered:
            kinds.setdefault(_kind(candidate.plan), candidate)
        yield from kinds.values()
        for candidate in () if "attention" in pins else kinds.values():
            for other in self._attentions(rules, candidate.plan):
                if other != candidate.plan.attention:
                    variant = self._estimate(replace(candidate.plan, attention=other))
                    if variant.memory.fits != "no":
                        yield variant

    def _candidates(
        self, rules: FrameworkRules, skeleton: Skeleton, staged: list[Staged], before: Candidate | None = None
    ) -> tuple[list[Candidate], list[Reason], Candidate | None]:
        """(the best plan of each layout, why there is none, the plan that comes closest); `staged` gets the layouts
        with pipeline stages. `before`: a plan that others have to come before."""
        fitting: list[Candidate] = []
        refusals: dict[Reason, None] = {}
        closest: Candidate | None = None
        bar = _Bar(before)
        open_cell = False
        for plan in self._backends(rules, skeleton):
            refused = [r for r in cheap_refusals(rules, plan) if not _about_layout(rules, r)]
            if refused:
                refusals.update(dict.fromkeys(refused))
                continue
            open_cell = True
            fastest = float("inf")
            parks = plan.online and _open(rules, "rollout_offload", plan)
            # What was best for another framework is tried first: the rest then has a plan to come before.
            hopeful = sorted(
                self._ways(rules, plan, skeleton.pins), key=lambda ways: _layout(ways[0]) not in self._led
            )
            for ways in hopeful:
                candidate = self._best_way(rules, ways, skeleton.pins, parks, fastest, bar.known)
                if ways[0].pipeline_parallel > 1:
                    staged.append(Staged(ways, parks, candidate))
                if candidate is None:
                    continue
                if candidate.memory.fits == "fits":
                    fastest = min(fastest, candidate.seconds)
                    if bar.is_passed(candidate):
                        bar.set(candidate, not self._limited(rules, candidate, skeleton.pins))
                if candidate.memory.fits != "no":
                    fitting.append(candidate)
                elif closest is None or candidate.memory.excess < closest.memory.excess:
                    closest = candidate
        if open_cell and not fitting and closest is None:
            # Why the open way to train has no layout says more than that the other way is closed.
            refusals = {**dict.fromkeys(self._no_layout(rules, skeleton)), **refusals}
        if bar.known and bar.known is not before:
            fitting.append(bar.known)
        return fitting, [] if open_cell and (fitting or closest) else list(refusals), closest

    def _backends(self, rules: FrameworkRules, skeleton: Skeleton) -> Iterator[Plan]:
        pin = skeleton.pins.get("backend")
        for backend in (pin,) if pin else ("hf", "megatron"):
            plan = replace(skeleton.plan, backend=backend)
            if plan.rollout_gpus and self.resolved.request.rollout_placement not in APART:
                plan = self._placed(rules, plan)
            if backend == "megatron":
                plan = self._for_megatron(plan)
            yield plan

    def _placed(self, rules: FrameworkRules, plan: Plan) -> Plan:
        """GPUs that only generate, in the way that the framework has, if it has one."""
        allowed = allowed_values(rules, "rollout_placement", plan.as_dict()) or (plan.rollout_placement,)
        ways = [placement for placement in allowed if placement != "colocated"]
        return (
            plan if plan.rollout_placement in ways or not ways else replace(plan, rollout_placement=ways[0])
        )

    def _for_megatron(self, plan: Plan) -> Plan:
        """Megatron's own linears include the routed experts: on an MoE "all linear" is `experts` there."""
        plan = replace(plan, zero_stage=1, recompute="full", gradient_checkpointing=True, attention="flash")
        if self.resolved.model.moe and plan.lora_targets == ("all-linear",):
            plan = replace(plan, lora_targets=("experts",))
        return plan

    def _best_way(
        self,
        rules: FrameworkRules,
        ways: Sequence[Plan],
        pins: Mapping[str, Any],
        parks: bool,
        fastest: float,
        bar: Candidate | None,
    ) -> Candidate | None:
        """The best way to generate on one layout. A training state that waits on the host (`parks`), or a smaller
        share for the engine, changes nothing but the generation: it is tried where that is what does not fit.
        Ways that cannot come before `bar`, a plan that is known to be allowed, are left out."""
        tried: list[Candidate] = []
        unfilled: Unfilled | None = None
        for layout in ways:
            if tried and not _room_with(layout, tried[0]):
                continue
            if bar is not None:
                unfilled = unfilled or Unfilled(
                    self, rules, changed(layout, {"rollout_offload": False}), pins
                )
                if not unfilled.could_pass(layout, bar):
                    continue
            candidate = self._fill(rules, layout, pins, bar)
            if candidate is None:
                return None
            tried.append(candidate)
            # The first setting generates fastest; another one may save the recomputation, but no more.
            if not _generation_is_worst(candidate) or tried[0].seconds > RECOMPUTE_MOST * fastest:
                break
            if parks and len(tried) == 1:
                parked = self._fill(rules, changed(layout, {"rollout_offload": True}), pins, bar)
                tried += [parked] if parked else []
                if parked is None or parked.memory.fits == "no":
                    break  # training itself does not fit
        return min(tried, key=order, default=None)

    def _layouts(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> Iterator[Plan]:
        return chain.from_iterable(self._ways(rules, plan, pins))

    def _ways(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> Iterator[Sequence[Plan]]:
        """For each layout and engine the settings of that engine, fastest first."""
        model = self.resolved.model
        shapes = megatron_layouts(plan, model, pins) if plan.backend == "megatron" else hf_layouts(plan, pins)
        if plan.nodes > 1 and _open(rules, "fsdp_replicas", plan):
            shapes = with_copies(shapes, plan, model, self._cluster, pins)
        attention = self._attention(rules, plan, pins)
        shaped = [{**shape, "attention": attention} for shape in shapes if _agrees(shape, pins)]
        for settings in self._engines(rules, plan):
            for shape in shaped:
                yield [changed(plan, {**shape, **setting}) for setting in settings]

    def _engines(self, rules: FrameworkRules, plan: Plan) -> list[list[dict[str, Any]]]:
        """For each engine that the framework has and that the GPUs hold, its settings, fastest first."""
        engines = allowed_values(rules, "rollout_engine", plan.as_dict()) if plan.online else None
        several = plan.online and spreads(rules, plan, self.model)
        return rollouts(plan, self.model, self.resolved.cluster.gpu_memory_gib, engines, several)

    def _attention(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> str:
        return pins.get("attention") or next(iter(self._attentions(rules, plan)), "sdpa")

    def _attentions(self, rules: FrameworkRules, plan: Plan) -> tuple[str, ...]:
        """Kernels that the framework and the card have, fastest first."""
        allowed = allowed_values(rules, "attention", plan.as_dict())
        kernels = (
            ("flash", "sdpa", "eager") if self.resolved.cluster.gpu.supports_flash2 else ("sdpa", "eager")
        )
        return tuple(kind for kind in kernels if allowed is None or kind in allowed)

    def _no_layout(self, rules: FrameworkRules, skeleton: Skeleton) -> list[Reason]:
        """Why no layout of an open cell is left: broken divisibility, or layouts the framework lacks."""
        reasons: dict[Reason, None] = {}
        for plan in self._backends(rules, skeleton):
            if plan.online and not self._engines(rules, plan):
                reasons[no_engine(self, plan)] = None
                continue
            as_pinned = replace(plan, **skeleton.pins)
            for layout in (as_pinned, *self._layouts(rules, plan, skeleton.pins)):
                filled = (
                    self._batch(layout, layout.micro_batch_size, skeleton.pins)
                    if layout.data_parallel
                    else layout
                )
                for row, text in illegal(filled, self.resolved.model):
                    reasons[Reason(row.id, "refuse", text, row.source)] = None
                reasons.update(dict.fromkeys(cheap_refusals(rules, layout)))
        if not reasons:
            reasons[
                Reason("planner.pins", "refuse", "no layout agrees with the pinned plan fields", "request")
            ] = None
        return list(reasons)[:6]


def _restricted(rules: FrameworkRules, skeleton: Skeleton) -> Skeleton:
    """With the micro batch that the framework leaves to a plan whose experts are on the host, where it leaves one."""
    if skeleton.plan.offload != "experts" or "micro_batch_size" in skeleton.pins:
        return skeleton
    allowed = allowed_values(rules, "micro_batch_size", skeleton.plan.as_dict())
    if allowed is None or len(allowed) != 1:
        return skeleton
    return Skeleton(skeleton.plan, {**skeleton.pins, "micro_batch_size": allowed[0]})


def _agrees(shape: Mapping[str, Any], pins: Mapping[str, Any]) -> bool:
    return all(pins.get(field, value) == value for field, value in shape.items())


_kind = attrgetter(
    "backend", "rollout_engine", "zero_stage", "fsdp", "fsdp_replicas", "offload", "liger", "recompute"
)


_layout = attrgetter(
    "backend", "zero_stage", "fsdp", "fsdp_replicas", "tensor_parallel", "pipeline_parallel", "expert_parallel",
    "expert_tensor_parallel", "context_parallel",
)  # fmt: skip


def _keyless(rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> list[Reason]:
    """Pinned values that the framework's configuration has no key for. The search itself leaves such fields to
    the framework's habits, so without such a pin the tables are not even loaded."""
    if not pins.keys() - PLANNED:
        return []
    module = framework(rules.framework)
    missing = module.TABLE.inexpressible(plan, lambda p: implied_values(rules, p), rules.version)
    source = f"{rules.title} {rules.version}: the keys of its configuration"
    return [Reason(f"{rules.framework}.no-key", "refuse", f"{name}: {why}", source) for name, why in missing]


def _open(rules: FrameworkRules, field: str, plan: Plan) -> bool:
    """Whether the framework leaves a field of such a plan free."""
    values = allowed_values(rules, field, plan.as_dict())
    return values is None or len(values) > 1


def _generation_is_worst(candidate: Candidate) -> bool:
    """Whether memory peaks while the engine holds its share (at every moment, when it never sleeps), and the
    training state alone would fit."""
    memory = candidate.memory
    if candidate.plan.rollout_engine != "vllm" or memory.fits == "fits" or not memory.terms["rollout"]:
        return False
    return memory.total - memory.terms["rollout"] <= memory.capacity_gib


def _room_with(layout: Plan, candidate: Candidate) -> bool:
    """Whether the candidate, which peaks while it generates, would fit with the share of this layout."""
    less = candidate.plan.rollout_memory_fraction - layout.rollout_memory_fraction
    return candidate.memory.total - less * candidate.memory.capacity_gib <= candidate.memory.capacity_gib


def _about_layout(rules: FrameworkRules, reason: Reason) -> bool:
    """Whether a refusal is about a field that the layout will still set."""
    row = next((row for row in rules.only if row.id == reason.rule), None)
    return row is not None and row.field in LAYOUT_FIELDS


LAYOUT_FIELDS = frozenset(
    """zero_stage fsdp fsdp_replicas offload tensor_parallel sequence_parallel pipeline_parallel
    pipeline_first_layers pipeline_last_layers virtual_pipeline_parallel expert_parallel expert_tensor_parallel
    context_parallel gradient_checkpointing recompute attention liger loss param_dtype
    master_weights rollout_engine rollout_tensor_parallel rollout_data_parallel rollout_expert_parallel
    rollout_memory_fraction rollout_offload lora_dropout
    micro_batch_size""".split()
)


def _too_big(closest: Candidate) -> Reason:
    memory, plan = closest.memory, closest.plan
    lead = f"the plan that comes closest ({describe(plan)}) needs"
    if memory.pool_gib > memory.pool_capacity_gib:
        text = (
            f"{lead} {memory.pool_gib:.1f} GiB on each GPU that generates (weights and the least cache); the engine "
            f"may take {memory.pool_capacity_gib:.1f} GiB"
        )
    elif memory.total > memory.capacity_gib:
        text = (
            f"{lead} {memory.total:.1f} GiB a GPU at the {memory.moment}; "
            f"{memory.capacity_gib:.1f} GiB are there"
        )
    elif memory.host_gib > memory.host_capacity_gib:
        text = (
            f"{lead} {memory.host_gib:.0f} GiB of host memory a node; "
            f"{memory.host_capacity_gib:.0f} GiB are there"
        )
    else:
        text = (
            f"{lead} {memory.nvme_gib:.0f} GiB of NVMe a node; {memory.nvme_capacity_gib:.0f} GiB are there"
        )
    return Reason("planner.memory", "refuse", text, "advisor/estimate/memory.py")
