"""Finds a framework's best plan: legal, allowed by its rules, fitting, then fastest, then simplest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Any

from advisor.estimate.memory import estimate_memory
from advisor.estimate.time import seconds_per_step
from advisor.estimate.types import MemoryEstimate
from advisor.frameworks import framework
from advisor.plan import Plan
from advisor.planner.legality import illegal, is_legal
from advisor.planner.space import (
    Skeleton,
    changed,
    hf_layouts,
    megatron_layouts,
    rollouts,
    skeletons,
    squeezes,
)
from advisor.resolve import Resolved
from advisor.rules import (
    FrameworkRules,
    Reason,
    allowed_values,
    cheap_refusals,
    describe_cluster,
    describe_model,
    limit_refusals,
)
from advisor.rules.implied import implied_values

PLANNED = frozenset(
    """method tuning quantization precision lora_rank lora_targets seq_len micro_batch_size
    gradient_accumulation_steps epochs learning_rate nodes gpus_per_node backend zero_stage fsdp
    offload tensor_parallel sequence_parallel pipeline_parallel pipeline_first_layers
    pipeline_last_layers expert_parallel expert_tensor_parallel context_parallel
    gradient_checkpointing recompute attention liger prompt_len response_len generations
    rollout_engine rollout_tensor_parallel rollout_data_parallel rollout_expert_parallel
    rollout_memory_fraction rollout_offload optimizer""".split()
)
"""Fields the search decides; a framework's habits decide the rest."""

MOST_MICRO_BATCH = 16
TOKENS_PER_PASS = 32768
"""A pass of more tokens than this no longer makes matrices more efficient."""
MEGATRON_MARGIN = 1.5
"""How many times faster than the best plan on transformers one on Megatron has to be (assumed)."""
RECOMPUTE_MOST = 1.6
"""How much longer a step takes at most for recomputing everything: a forward pass on top of three, with its traffic."""
CANDIDATES_JUDGED = 32
"""How many of the best plans are put to the framework's expression limits before giving up."""


@dataclass(frozen=True, slots=True)
class Candidate:
    plan: Plan
    memory: MemoryEstimate
    seconds: float
    """Per sequence of the global batch."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found for one framework: a plan, or why there is none."""

    best: Candidate | None
    refusals: tuple[Reason, ...]
    examined: int
    closest: Candidate | None = None
    """The plan that comes closest to fitting, when none does."""


class Searcher:
    """Searches all frameworks for one request; estimates are shared, because they know no framework."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.model = resolved.model
        self.facts: dict[str, Mapping[str, Any]] = {
            "model": describe_model(resolved.model),
            "cluster": describe_cluster(resolved.cluster),
        }
        self.examined = 0
        self._known: dict[Plan, Candidate] = {}
        self._cluster = resolved.cluster
        self._stores: dict[str, dict[Plan, Candidate]] = {"": self._known}

    @property
    def estimated(self) -> int:
        """Different plans among those examined."""
        return sum(len(known) for known in self._stores.values())

    def _look_at(self, framework: str) -> None:
        """Estimates are shared between frameworks but for those that the user's own runs correct."""
        self._cluster = self.resolved.cluster.under(framework)
        own = framework if self._cluster.correction else ""
        self._known = self._stores.setdefault(own, {})

    def search(self, rules: FrameworkRules) -> Found:
        """The best plan of one framework, trying the tunings in order."""
        self._look_at(rules.framework)
        before = self.examined
        refusals: list[Reason] = []
        closest: Candidate | None = None
        for skeleton in skeletons(self.resolved):
            candidates, refused, near = self._candidates(rules, skeleton)
            refusals += refused
            best, limited = self._first_allowed(rules, candidates, skeleton.pins)
            refusals += limited
            if best:
                return Found(best, (), self.examined - before)
            if near and (closest is None or near.memory.excess < closest.memory.excess):
                closest = near
        if closest is not None:
            closest = replace(closest, seconds=self._seconds(closest.plan))
            refusals.append(_too_big(closest))
        # One rule breaks for many layouts, each with its own numbers: the first is shown.
        first = {reason.rule: reason for reason in reversed(refusals)}
        shown = tuple(reason for reason in refusals if first[reason.rule] is reason)
        return Found(None, shown, self.examined - before, closest)

    def _first_allowed(
        self, rules: FrameworkRules, candidates: list[Candidate], pins: Mapping[str, Any]
    ) -> tuple[Candidate | None, list[Reason]]:
        """The best candidate that no limit refuses; of candidates of one kind only the first few are asked."""
        refused: list[Reason] = []
        for candidate in self._judged(rules, candidates, pins):
            found = [
                *limit_refusals(rules, candidate.plan, self.facts),
                *_keyless(rules, candidate.plan, pins),
            ]
            if not found:
                return candidate, []
            refused += found
        return None, refused

    def _judged(
        self, rules: FrameworkRules, candidates: list[Candidate], pins: Mapping[str, Any]
    ) -> Iterator[Candidate]:
        """The best ones; then, for a limit may speak against what all of these share, the best of each other
        kind, and of every kind with the attention kernels that were not the first choice."""
        ordered = sorted(candidates, key=_order)
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
        self, rules: FrameworkRules, skeleton: Skeleton
    ) -> tuple[list[Candidate], list[Reason], Candidate | None]:
        fitting: list[Candidate] = []
        refusals: dict[Reason, None] = {}
        closest: Candidate | None = None
        open_cell = False
        for plan in self._backends(rules, skeleton):
            refused = [r for r in cheap_refusals(rules, plan) if not _about_layout(rules, r)]
            if refused:
                refusals.update(dict.fromkeys(refused))
                continue
            open_cell = True
            fastest = float("inf")
            parks = plan.online and _open(rules, "rollout_offload", plan)
            for ways in self._ways(rules, plan, skeleton.pins):
                candidate = self._best_way(rules, ways, skeleton.pins, parks, fastest)
                if candidate is None:
                    continue
                if candidate.memory.fits == "fits":
                    fastest = min(fastest, candidate.seconds)
                if candidate.memory.fits != "no":
                    fitting.append(candidate)
                elif closest is None or candidate.memory.excess < closest.memory.excess:
                    closest = candidate
        if open_cell and not fitting and closest is None:
            refusals.update(dict.fromkeys(self._no_layout(rules, skeleton)))
        return fitting, [] if open_cell and (fitting or closest) else list(refusals), closest

    def _backends(self, rules: FrameworkRules, skeleton: Skeleton) -> Iterator[Plan]:
        pin = skeleton.pins.get("backend")
        for backend in (pin,) if pin else ("hf", "megatron"):
            plan = replace(skeleton.plan, backend=backend)
            if backend == "megatron":
                plan = self._for_megatron(plan)
            yield plan

    def _for_megatron(self, plan: Plan) -> Plan:
        """Megatron's own linears include the routed experts: on an MoE "all linear" is `experts` there."""
        plan = replace(plan, zero_stage=1, recompute="full", gradient_checkpointing=True, attention="flash")
        if self.resolved.model.moe and plan.lora_targets == ("all-linear",):
            plan = replace(plan, lora_targets=("experts",))
        return plan

    def _best_way(
        self,
        rules: FrameworkRules,
        ways: Iterator[Plan],
        pins: Mapping[str, Any],
        parks: bool,
        fastest: float,
    ) -> Candidate | None:
        """The best way to generate on one layout. A training state that waits on the host (`parks`), or a smaller
        share for the engine, changes nothing but the generation: it is tried where that is what does not fit."""
        tried: list[Candidate] = []
        for layout in ways:
            if tried and not _room_with(layout, tried[0]):
                continue
            candidate = self._fill(rules, layout, pins)
            if candidate is None:
                return None
            tried.append(candidate)
            # The first setting generates fastest; another one may save the recomputation, but no more.
            if not _generation_is_worst(candidate) or tried[0].seconds > RECOMPUTE_MOST * fastest:
                break
            if parks and len(tried) == 1:
                parked = self._fill(rules, changed(layout, {"rollout_offload": True}), pins)
                tried += [parked] if parked else []
                if parked is None or parked.memory.fits == "no":
                    break  # training itself does not fit
        return min(tried, key=_order, default=None)

    def _layouts(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> Iterator[Plan]:
        return chain.from_iterable(self._ways(rules, plan, pins))

    def _ways(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> Iterator[Iterator[Plan]]:
        """For each layout and engine the settings of that engine, fastest first."""
        model = self.resolved.model
        engines = allowed_values(rules, "rollout_engine", plan.as_dict()) if plan.online else None
        shapes = megatron_layouts(plan, model, pins) if plan.backend == "megatron" else hf_layouts(plan, pins)
        attention = self._attention(rules, plan, pins)
        spreads = [{**shape, "attention": attention} for shape in shapes if _agrees(shape, pins)]
        several = plan.online and all(
            _open(rules, field, plan) for field in ("rollout_data_parallel", "rollout_expert_parallel")
        )
        for settings in rollouts(plan, model, self.resolved.cluster.gpu_memory_gib, engines, several):
            for shape in spreads:
                yield (changed(plan, {**shape, **setting}) for setting in settings)

    def _attention(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> str:
        return pins.get("attention") or next(iter(self._attentions(rules, plan)), "sdpa")

    def _attentions(self, rules: FrameworkRules, plan: Plan) -> tuple[str, ...]:
        """Kernels that the framework and the card have, fastest first."""
        allowed = allowed_values(rules, "attention", plan.as_dict())
        kernels = (
            ("flash", "sdpa", "eager") if self.resolved.cluster.gpu.supports_flash2 else ("sdpa", "eager")
        )
        return tuple(kind for kind in kernels if allowed is None or kind in allowed)

    def _fill(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> Candidate | None:
        """The best way to hold this layout: least recomputation, then the largest micro batch that fits."""
        # No squeeze and no habit changes what legality asks about.
        if not plan.data_parallel or not is_legal(self._batch(plan, plan.micro_batch_size, pins), self.model):
            return None
        best: Candidate | None = None
        for squeeze in squeezes(plan, pins):
            for candidate in self._squeezed(rules, plan, squeeze, pins):
                if best is None or _order(candidate) < _order(best):
                    best = candidate
                if best.memory.fits == "fits":
                    return best
        return best

    def _squeezed(
        self, rules: FrameworkRules, plan: Plan, squeeze: list[dict[str, Any]], pins: Mapping[str, Any]
    ) -> Iterator[Candidate]:
        """The best micro batch of each way; of ways that all hold too much only the one that holds least."""
        smallest = self._settle(rules, changed(plan, squeeze[-1]), pins) if len(squeeze) > 1 else None
        if smallest is not None:
            least = self._first_micro_batch(smallest, pins)
            if least is not None and least.memory.fits == "no":
                yield least
                return
        for changes in squeeze:
            shaped = self._settle(rules, changed(plan, changes), pins)
            candidate = self._largest_micro_batch(shaped, pins) if shaped is not None else None
            if candidate is not None:
                yield candidate

    def _settle(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> Plan | None:
        """The plan with the framework's habits; None when its tables refuse it."""
        plan = changed(plan, self._implied(rules, plan, pins)).normalised()
        plan = self._batch(plan, plan.micro_batch_size, pins)
        return None if cheap_refusals(rules, plan) else plan

    def _implied(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> dict[str, Any]:
        implied = implied_values(rules, plan)
        return {
            name: value
            for name, value in implied.items()
            if name not in PLANNED and name not in pins and getattr(plan, name) != value
        }

    def _largest_micro_batch(self, plan: Plan, pins: Mapping[str, Any]) -> Candidate | None:
        best: Candidate | None = None
        for candidate in self._by_micro_batch(plan, pins):
            if best is None or _order(candidate) < _order(best):
                best = candidate
            if candidate.memory.fits == "no":
                break
        return best

    def _first_micro_batch(self, plan: Plan, pins: Mapping[str, Any]) -> Candidate | None:
        return next(self._by_micro_batch(plan, pins), None)

    def _by_micro_batch(self, plan: Plan, pins: Mapping[str, Any]) -> Iterator[Candidate]:
        """The plan at each micro batch, smallest first."""
        for size in self._micro_batches(plan, pins):
            tried = self._batch(plan, size, pins)
            # Of the legality table only the groups of online RL ask for the batch.
            if not plan.online or is_legal(tried, self.model):
                yield self._estimate(tried)

    def _micro_batches(self, plan: Plan, pins: Mapping[str, Any]) -> list[int]:
        if "micro_batch_size" in pins:
            return [pins["micro_batch_size"]]
        per_rank = max(1, (self.resolved.request.global_batch_size or 1) // plan.data_parallel)
        most = min(MOST_MICRO_BATCH, per_rank, max(1, TOKENS_PER_PASS // plan.seq_len))
        smallest = 2 if plan.method == "kto" else 1  # a batch of one has no other completion to compare with
        return [size for size in (1, 2, 4, 8, 16) if smallest <= size <= max(most, smallest)]

    def _batch(self, plan: Plan, micro: int, pins: Mapping[str, Any]) -> Plan:
        """micro x accumulation x DP as near as possible to the wanted batch; whole groups of answers per rank."""
        wanted = self.resolved.request.global_batch_size or 1
        steps = pins.get("gradient_accumulation_steps") or max(
            1, round(wanted / (micro * plan.data_parallel))
        )
        if plan.online and "gradient_accumulation_steps" not in pins:
            while micro * steps % plan.generations:
                steps += 1
        if micro == plan.micro_batch_size and steps == plan.gradient_accumulation_steps:
            return plan
        return changed(plan, {"micro_batch_size": micro, "gradient_accumulation_steps": steps})

    def _estimate(self, plan: Plan) -> Candidate:
        self.examined += 1
        found = self._known.get(plan)
        if found is None:
            cluster = self._cluster
            memory = estimate_memory(self.model, plan, cluster, all_stages=False)
            # What does not fit is compared by its size alone.
            seconds = 0.0 if memory.fits == "no" else self._seconds(plan)
            found = self._known[plan] = Candidate(plan, memory, seconds)
        return found

    def _seconds(self, plan: Plan) -> float:
        """Per sequence. A card without a known speed: plans are then told apart by how simple they are."""
        step = seconds_per_step(self.model, plan, self._cluster) or 1.0
        return step / plan.global_batch_size

    def _no_layout(self, rules: FrameworkRules, skeleton: Skeleton) -> list[Reason]:
        """Why no layout of an open cell is left: broken divisibility, or layouts the framework lacks."""
        reasons: dict[Reason, None] = {}
        for plan in self._backends(rules, skeleton):
            as_pinned = replace(plan, **skeleton.pins)
            for layout in (as_pinned, *self._layouts(rules, plan, skeleton.pins)):
                for row, text in illegal(layout, self.resolved.model):
                    reasons[Reason(row.id, "refuse", text, row.source)] = None
                reasons.update(dict.fromkeys(cheap_refusals(rules, layout)))
        if not reasons:
            reasons[
                Reason("planner.pins", "refuse", "no layout agrees with the pinned plan fields", "request")
            ] = None
        return list(reasons)[:6]


def _agrees(shape: Mapping[str, Any], pins: Mapping[str, Any]) -> bool:
    return all(pins.get(field, value) == value for field, value in shape.items())


def _order(candidate: Candidate) -> tuple[Any, ...]:
    """Fitting before tight before not; then time to within 2 %, then the simpler plan.

    Megatron's kernels must be built for the machine: it is chosen where it is needed or clearly faster.
    """
    plan, memory = candidate.plan, candidate.memory
    rank = ("fits", "tight", "no").index(memory.fits)
    if rank == 2:
        return (rank, memory.excess, 0.0, ())
    coarse = round(_log(candidate.seconds * (_margin(plan))) / 0.02)
    return (rank, coarse, 0.0, _complexity(plan), memory.total)


def _margin(plan: Plan) -> float:
    """None where experts are spread: what routed layers take on transformers is assumed, not measured
    (rules/catalog/speed.json), and every published run of that kind is on Megatron."""
    return MEGATRON_MARGIN if plan.backend == "megatron" and plan.expert_parallel == 1 else 1.0


def _complexity(plan: Plan) -> tuple[int, ...]:
    degrees = plan.tensor_parallel * plan.pipeline_parallel * plan.context_parallel * plan.expert_parallel
    return (
        degrees,
        ("none", "optimizer", "all", "nvme").index(plan.offload),
        plan.zero_stage,
        int(plan.fsdp),
        int(plan.liger),
        plan.gradient_accumulation_steps,
    )


def _log(value: float) -> float:
    import math

    return math.log(value) if value > 0 else 0.0


_kind = attrgetter("backend", "rollout_engine", "zero_stage", "fsdp", "offload", "liger", "recompute")


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
    """zero_stage fsdp offload tensor_parallel sequence_parallel pipeline_parallel
    pipeline_first_layers pipeline_last_layers expert_parallel expert_tensor_parallel
    context_parallel gradient_checkpointing recompute attention liger loss param_dtype
    master_weights rollout_engine rollout_tensor_parallel rollout_data_parallel rollout_expert_parallel
    rollout_memory_fraction rollout_offload lora_dropout
    micro_batch_size""".split()
)


def _too_big(closest: Candidate) -> Reason:
    memory, plan = closest.memory, closest.plan
    lead = f"the plan that comes closest ({describe(plan)}) needs"
    if memory.total > memory.capacity_gib:
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


def describe(plan: Plan) -> str:
    """A plan in one phrase, for reasons and tables."""
    parts = [plan.tuning if plan.quantization == "none" else f"{plan.tuning} {plan.quantization}"]
    if plan.backend == "megatron":
        parts.append(f"Megatron TP{plan.tensor_parallel} PP{plan.pipeline_parallel} EP{plan.expert_parallel}")
    elif plan.fsdp:
        parts.append("FSDP2")
    elif plan.zero_stage:
        parts.append(f"ZeRO-{plan.zero_stage}")
    elif plan.world_size > 1:
        parts.append("DDP")
    if plan.context_parallel > 1:
        parts.append(f"CP{plan.context_parallel}")
    if plan.offload != "none":
        parts.append(f"{plan.offload} offload")
    if plan.gradient_checkpointing:
        parts.append("recompute" if plan.recompute == "none" else f"{plan.recompute} recompute")
    parts.append(f"{plan.micro_batch_size} x {plan.seq_len}")
    return ", ".join(parts)
