"""How a layout is filled: the least recomputation and the largest micro batch that fit it, and what no way of
filling it can beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from advisor.estimate.memory import TrainedMemory, estimate_memory, training_fits
from advisor.estimate.time import (
    StepTime,
    TrainedSeconds,
    between_seconds,
    least_training_seconds,
    planned_step,
    seconds_per_step,
    training_seconds,
)
from advisor.facts.saving import saving_of
from advisor.plan import NO_ENGINE, Plan, changed
from advisor.planner.legality import is_legal, is_legal_batch
from advisor.planner.order import Candidate, coarse, order, slowest
from advisor.planner.space import squeezes
from advisor.resolve import Resolved
from advisor.rules import FrameworkRules, cheap_refusals, describe_cluster, describe_model
from advisor.rules.implied import implied_values

PLANNED = frozenset(
    """method tuning quantization precision lora_rank lora_targets seq_len micro_batch_size
    gradient_accumulation_steps epochs learning_rate nodes gpus_per_node backend zero_stage fsdp
    fsdp_replicas offload tensor_parallel sequence_parallel pipeline_parallel pipeline_first_layers
    pipeline_last_layers virtual_pipeline_parallel expert_parallel expert_tensor_parallel context_parallel
    gradient_checkpointing recompute attention liger prompt_len response_len generations
    rollout_engine rollout_placement rollout_gpus rollout_nodes rollout_tensor_parallel rollout_data_parallel
    rollout_expert_parallel
    rollout_memory_fraction rollout_offload optimizer optimizer_rank""".split()
)
"""Fields the search decides; a framework's habits decide the rest."""

MOST_MICRO_BATCH = 16
TOKENS_PER_PASS = 32768
"""A pass of more tokens than this no longer makes matrices more efficient."""


class Filler:
    """Fills layouts for one request; estimates are shared between frameworks, because they know none."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.model = resolved.model
        self.facts: dict[str, Mapping[str, Any]] = {
            "model": describe_model(resolved.model),
            "cluster": describe_cluster(resolved.cluster),
        }
        self.examined = 0
        self._framework = ""
        self._cluster = resolved.cluster
        self._stores: dict[tuple[str, str, float], dict[Plan, Candidate]] = {}
        self._trained: TrainedMemory = {}
        self._training_seconds: TrainedSeconds = {}
        self._generating: dict[tuple[Any, ...], float] = {}
        self._sizes: dict[tuple[Any, ...], list[tuple[int, int]]] = {}

    @property
    def estimated(self) -> int:
        """Different plans among those examined."""
        return sum(len(known) for known in self._stores.values())

    def _look_at(self, framework: str) -> None:
        self._framework = framework
        self._cluster = self.resolved.cluster.under(framework)

    def _fill(
        self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any], bar: Candidate | None = None
    ) -> Candidate | None:
        """The best way to hold this layout: least recomputation, then the largest micro batch that fits. What is too
        slow to come before `bar`, a plan that fits, is left out where all that would be tried after it is slower."""
        if self.is_empty(plan, pins):
            return None
        best: Candidate | None = None
        bounded = bar is not None and plan.backend == "megatron"  # other kernels come last, and are faster
        limit = slowest(plan, coarse(bar.plan, bar.seconds)) if bar and bounded else None
        for squeeze in squeezes(plan, pins):
            for candidate in self._squeezed(rules, plan, squeeze, pins, limit):
                if best is None or order(candidate) < order(best):
                    best = candidate
                if best.memory.fits == "fits":
                    return best
        return best

    def is_empty(self, layout: Plan, pins: Mapping[str, Any]) -> bool:
        """Whether the layout is illegal; no squeeze and no habit changes what legality asks about."""
        if not layout.data_parallel:
            return True
        return not is_legal(self._batch(layout, layout.micro_batch_size, pins), self.model)

    def row(self, rules: FrameworkRules, plan: Plan, pins: Mapping[str, Any]) -> Sequence[Plan]:
        """The plan with the framework's habits at each micro batch; empty where its tables refuse it."""
        shaped = self._settle(rules, plan, pins)
        return list(self.sizes(shaped, pins)) if shaped else ()

    def _squeezed(
        self,
        rules: FrameworkRules,
        plan: Plan,
        squeeze: list[dict[str, Any]],
        pins: Mapping[str, Any],
        limit: float | None,
    ) -> Iterator[Candidate]:
        """The best micro batch of each way; of ways that all hold too much only the one that holds least."""
        smallest = self._settle(rules, changed(plan, squeeze[-1]), pins) if len(squeeze) > 1 else None
        if smallest is not None:
            first = next(self.sizes(smallest, pins), None)
            if limit is not None and first is not None and not self.could_fill(first):
                return
            least = self._estimate(first) if first is not None else None
            if least is not None and least.memory.fits == "no":
                yield least
                return
        for changes in squeeze:
            shaped = self._settle(rules, changed(plan, changes), pins)
            candidate = self._largest_micro_batch(shaped, pins, limit) if shaped is not None else None
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

    def _largest_micro_batch(
        self, plan: Plan, pins: Mapping[str, Any], limit: float | None
    ) -> Candidate | None:
        best: Candidate | None = None
        for tried in self.sizes(plan, pins):
            # The smallest tells whether this way holds at all: what is slower with more recomputed comes after it.
            if limit is not None and best is not None and self._least(tried) > limit:
                continue
            if limit is not None and not self.could_fill(tried):
                break
            candidate = self._estimate(tried)
            if best is None or order(candidate) < order(best):
                best = candidate
            if candidate.memory.fits == "no":
                break
        return best

    def _least(self, plan: Plan) -> float:
        """Seconds of training and, of a plan that generates, of what stands beside it, for a sequence: no more than the
        plan takes."""
        training = self.training_seconds(plan)
        between = self.between_seconds(plan, plan) if plan.online else 0.0
        ahead = plan.rollout_placement == "separate-async"
        return (max(training, between) if ahead else training + between) / plan.global_batch_size

    def sizes(self, plan: Plan, pins: Mapping[str, Any]) -> Iterator[Plan]:
        """The plan at each legal micro batch, smallest first."""
        asked = (
            pins.get("micro_batch_size"),
            pins.get("gradient_accumulation_steps"),
            "virtual_pipeline_parallel" in pins,
        )
        key = (*_batched(plan), *asked)
        sizes = self._sizes.get(key)
        if sizes is None:
            tried = [self._batch(plan, size, pins) for size in self._micro_batches(plan, pins)]
            sizes = self._sizes[key] = [_batch_of(each) for each in tried if is_legal_batch(each)]
        return (_sized(plan, micro, steps) for micro, steps in sizes)

    def _micro_batches(self, plan: Plan, pins: Mapping[str, Any]) -> list[int]:
        if "micro_batch_size" in pins:
            return [pins["micro_batch_size"]]
        per_rank = max(1, (self.resolved.request.global_batch_size or 1) // plan.data_parallel)
        most = min(MOST_MICRO_BATCH, per_rank, max(1, TOKENS_PER_PASS // plan.seq_len))
        smallest = 2 if plan.method == "kto" else 1  # a batch of one has no other completion to compare with
        return [size for size in (1, 2, 4, 8, 16) if smallest <= size <= max(most, smallest)]

    def _batch(self, plan: Plan, micro: int, pins: Mapping[str, Any]) -> Plan:
        """micro x accumulation x DP as near as possible to the wanted batch; whole groups of answers per rank, and of
        micro batches for an interleaved schedule that was asked for."""
        wanted = self.resolved.request.global_batch_size or 1
        pinned = pins.get("gradient_accumulation_steps")
        steps = pinned or max(1, round(wanted / (micro * plan.data_parallel)))
        if pinned is None and plan.steps_layerwise:
            steps = 1
        if pinned is None:
            stages = plan.pipeline_parallel if "virtual_pipeline_parallel" in pins else 1
            while steps % stages or (plan.online and micro * steps % plan.generations):
                steps += 1
        return _sized(plan, micro, steps)

    def _estimate(self, plan: Plan) -> Candidate:
        """Shared between frameworks that save such a plan in the same way, but for those that the user's own runs
        correct."""
        self.examined += 1
        cluster = self._cluster
        way = saving_of(plan, self.model.total_parameters, self._framework)
        own = self._framework if cluster.correction else ""
        known = self._stores.setdefault((own, way.id, way.file_gb), {})
        found = known.get(plan)
        if found is None:
            memory = estimate_memory(
                self.model, plan, cluster, all_stages=False, trained=self._trained, framework=self._framework
            )
            # What does not fit is compared by its size alone.
            seconds = 0.0 if memory.fits == "no" else self._seconds(plan)
            found = known[plan] = Candidate(plan, memory, seconds)
        return found

    def _seconds(self, plan: Plan) -> float:
        """Per sequence. A card without a known speed: plans are then told apart by how simple they are."""
        step = seconds_per_step(self.model, plan, self._cluster, trained=self._training_seconds) or 1.0
        return step / plan.global_batch_size

    def step(self, plan: Plan) -> StepTime | None:
        """A step part by part; None when the card's speed is not known."""
        return planned_step(self.model, plan, self._cluster)

    def could_fill(self, plan: Plan) -> bool:
        """Whether a training step of this plan could fit while no engine takes memory; False is certain."""
        self.examined += 1
        return training_fits(self.model, plan, self._cluster, self._trained)

    def training_seconds(self, plan: Plan) -> float:
        """Of a step, without generation and weight sync."""
        return training_seconds(self.model, plan, self._cluster, self._training_seconds) or 1.0

    def generating(self, plan: Plan) -> float:
        """A sequence's share of generation and weight sync."""
        return sum(between_seconds(self.model, plan, self._cluster)) / plan.global_batch_size

    def least_training(self, plan: Plan) -> float:
        """Seconds of training for a sequence that no layout of these GPUs gets below."""
        return least_training_seconds(self.model, plan, self._cluster)

    def between_seconds(self, plan: Plan, layout: Plan) -> float:
        """Generation and weight sync of a step of `plan`, as `layout` has them."""
        key = (*_engine(layout), plan.global_batch_size, plan.zero_stage, plan.fsdp, plan.fsdp_replicas)
        seconds = self._generating.get(key)
        if seconds is None:
            engine = {name: getattr(layout, name) for name in NO_ENGINE}
            seconds = sum(between_seconds(self.model, changed(plan, engine), self._cluster))
            self._generating[key] = seconds
        return seconds


_engine = attrgetter(*NO_ENGINE)
_batched = attrgetter(
    "method", "seq_len", "generations", "nodes", "gpus_per_node", "tensor_parallel", "pipeline_parallel",
    "virtual_pipeline_parallel", "context_parallel",
)  # fmt: skip
"""What the micro batches of a plan depend on."""
_batch_of = attrgetter("micro_batch_size", "gradient_accumulation_steps")


def _sized(plan: Plan, micro: int, steps: int) -> Plan:
    if micro == plan.micro_batch_size and steps == plan.gradient_accumulation_steps:
        return plan
    return changed(plan, {"micro_batch_size": micro, "gradient_accumulation_steps": steps})


@dataclass(slots=True)
class _Training:
    """One way to train on a layout, while no engine is there."""

    plan: Plan
    batch: int
    seconds: float = 0.0
    """Of a step, once asked for."""
    fits: bool | None = None
    """Whether it could, once asked for."""


class Unfilled:
    """One layout before it is filled, whatever way it generates in."""

    def __init__(self, filler: Filler, rules: FrameworkRules, layout: Plan, pins: Mapping[str, Any]) -> None:
        self.filler, self.rules, self.pins = filler, rules, pins
        self.layout = layout
        self.ways = [] if filler.is_empty(layout, pins) else list(squeezes(layout, pins))
        self.rows: dict[tuple[int, int], Sequence[_Training]] = {}

    def could_pass(self, layout: Plan, bar: Candidate) -> bool:
        """Whether anything that fits on the layout, generating as `layout` does, could come before `bar`: of all that
        holds a training step while no engine takes memory, the fastest training, plus generation and weight sync."""
        if not self._holds():
            return False
        limit = slowest(layout, coarse(bar.plan, bar.seconds))
        between: dict[int, float] = {}
        most: Sequence[int] | None = None
        for group, squeeze in enumerate(self.ways):
            # Recomputing more never takes less time, nor does a step on the host: what is too slow without, is so with.
            open_sizes = most if layout.backend == "megatron" else None
            for way in range(len(squeeze)):
                none_left = open_sizes is not None and not open_sizes
                row = () if none_left else self._row(group, way)
                if not row:
                    continue
                sizes = range(len(row)) if open_sizes is None else open_sizes
                open_sizes = [size for size in sizes if self._seconds(row[size], layout, between) <= limit]
                most = open_sizes if most is None else most
                if open_sizes and self._fits(row[open_sizes[0]]):
                    return True
        return False

    def _holds(self) -> bool:
        """Whether anything fits: the way that holds least, with the smallest micro batch."""
        if not self.ways:
            return False
        least = self._row(len(self.ways) - 1, len(self.ways[-1]) - 1)
        return not least or self._fits(least[0])

    def _fits(self, training: _Training) -> bool:
        if training.fits is None:
            training.fits = self.filler.could_fill(training.plan)
        return training.fits

    def _seconds(self, training: _Training, layout: Plan, between: dict[int, float]) -> float:
        """A sequence's share of the step; of one that trains beside the generation no less than the longer of both."""
        batch = training.batch
        seconds = between.get(batch)
        if seconds is None:
            seconds = between[batch] = self.filler.between_seconds(training.plan, layout)
        if not training.seconds:
            training.seconds = self.filler.training_seconds(training.plan)
        ahead = layout.rollout_placement == "separate-async"
        return (max(training.seconds, seconds) if ahead else training.seconds + seconds) / batch

    def _row(self, group: int, way: int) -> Sequence[_Training]:
        """One way to hold activations, at each micro batch; empty where the framework's tables refuse it."""
        row = self.rows.get((group, way))
        if row is None:
            layout = changed(self.layout, self.ways[group][way])
            row = self.rows[group, way] = [
                _Training(plan, plan.global_batch_size)
                for plan in self.filler.row(self.rules, layout, self.pins)
            ]
        return row
