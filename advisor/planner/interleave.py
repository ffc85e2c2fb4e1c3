"""Model chunks: which layouts the interleaved schedule could make the best, and how their stages then split.

A rank that holds v shorter stages waits for 1 / v of the bubble, keeps the activations of more micro batches and
talks v times as often to its neighbours. The search tries it last, on layouts that it has, and only where one with
the least bubble would beat the best plan known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.facts.types import ModelFacts
from advisor.plan import RECOMPUTES, Plan, changed
from advisor.planner.fill import Filler
from advisor.planner.legality import stage_layers
from advisor.planner.order import Candidate, coarse, slowest
from advisor.rules import FrameworkRules

CHUNKS = (2, 4)
"""Model chunks a rank."""


def chunks_of(model: ModelFacts) -> list[int]:
    """Those that some split of the layers allows: each stage's divide by them."""
    return [chunks for chunks in CHUNKS if model.layers % chunks == 0]


@dataclass(frozen=True, slots=True)
class Staged:
    """A layout with pipeline stages, once the search is through with it."""

    ways: Sequence[Plan]
    """With each setting of the engine, the fastest first."""
    parks: bool
    found: Candidate | None
    """The best plan on it; None where all were too slow to be filled."""


def chunked(plan: Plan, model: ModelFacts, chunks: int, pins: Mapping[str, Any]) -> Plan:
    """The same layout with stages that split into model chunks."""
    first, last = stage_layers(model.layers, plan.pipeline_parallel, chunks)
    return changed(
        plan,
        {
            "virtual_pipeline_parallel": chunks,
            "pipeline_first_layers": pins.get("pipeline_first_layers", first),
            "pipeline_last_layers": pins.get("pipeline_last_layers", last),
        },
    )


FREEST: Mapping[str, Any] = {"recompute": "none", "gradient_checkpointing": False, "offload": "none"}


def by_promise(
    filler: Filler, layouts: Sequence[Staged], pins: Mapping[str, Any]
) -> list[tuple[float, Staged]]:
    """(seconds per sequence that it cannot get below, layout): those that hold a plan first, the fastest at their
    head."""
    found: list[tuple[float, Staged]] = []
    for layout in layouts:
        plan = layout.found.plan if layout.found else changed(layout.ways[0], FREEST)
        if layout.found or not filler.is_empty(plan, pins):
            found += [(least, layout) for least in _least(filler, plan, pins)]
    return sorted(
        found, key=lambda pair: (not pair[1].found, pair[1].found.seconds if pair[1].found else pair[0])
    )


def could_pass(
    filler: Filler,
    rules: FrameworkRules,
    least: float,
    layout: Staged,
    best: Candidate,
    pins: Mapping[str, Any],
) -> bool:
    """Whether a layout with chunks could be faster than the best plan."""
    limit = slowest(layout.ways[0], coarse(best.plan, best.seconds) - 1)
    if least > limit or layout.found:
        return least <= limit
    return any(held <= limit for held in _least_held(filler, rules, layout.ways[0], pins))


def _least_held(
    filler: Filler, rules: FrameworkRules, layout: Plan, pins: Mapping[str, Any]
) -> Iterator[float]:
    """`_least` of a layout that is not filled, at the least recomputation with which a training step fits; nothing
    where none does."""
    for recompute in RECOMPUTES:
        way = {"recompute": recompute, "gradient_checkpointing": recompute != "none"}
        smallest = filler.row(rules, changed(layout, {**way, "offload": "optimizer"}), pins)
        if smallest and filler.could_fill(smallest[0]):
            yield from _least(filler, changed(layout, {**FREEST, **way}), pins)
            return


def _least(filler: Filler, plan: Plan, pins: Mapping[str, Any]) -> Iterator[float]:
    """Seconds per sequence that no plan of the layout with chunks gets below, which only add to what is held, so that no
    less is recomputed and moved than in `plan`: a pass takes what it does at the largest micro batch, the bubble is
    what the smallest leaves of it at the most chunks. Nothing where a replica has fewer micro batches than stages."""
    sizes = filler.sizes(plan, pins)
    filled = [tried for tried in sizes if tried.gradient_accumulation_steps >= plan.pipeline_parallel]
    step = filler.step(filled[-1]) if filled else None
    if step is not None:
        steps = [tried.gradient_accumulation_steps for tried in (filled[0], filled[-1])]
        shorter = steps[1] / steps[0] / max(chunks_of(filler.model))
        yield (step.total - (1 - shorter) * step.bubble) / filled[-1].global_batch_size
