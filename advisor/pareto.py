"""Cost against time: the request planned again over GPU counts and cards, and which points dominate which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advisor.alternatives import LARGER_GPUS
from advisor.errors import InputError
from advisor.facts.gpus import load_gpu
from advisor.judging import Ranked, search_all
from advisor.planner.order import describe
from advisor.planner.search import Searcher
from advisor.request import Request, parse_request
from advisor.resolve import Resolved, resolve
from advisor.reverse import sizes
from advisor.rules import Policy

OF_THIS_CARD = ("gpu_memory_gib", "price_per_gpu_hour", "price_source")
"""Answers that hold for the request's card only."""


@dataclass(frozen=True, slots=True)
class Point:
    """One way to do it, by its hours and its cost."""

    gpu: str
    nodes: int
    gpus_per_node: int
    framework: str
    plan: str
    gib_per_gpu: float
    hours: float
    cost: float
    price_source: str
    dominated_by: Point | None = None
    """A point that is no slower and no dearer, and better in one of the two."""

    @property
    def name(self) -> str:
        gpus = f"{self.gpus_per_node}" if self.nodes == 1 else f"{self.nodes} x {self.gpus_per_node}"
        return f"{gpus} {self.gpu}"

    def as_dict(self) -> dict[str, Any]:
        by = self.dominated_by
        return {
            "gpu": self.gpu,
            "nodes": self.nodes,
            "gpus_per_node": self.gpus_per_node,
            "framework": self.framework,
            "plan": self.plan,
            "gib_per_gpu": round(self.gib_per_gpu, 1),
            "hours": float(f"{self.hours:.3g}"),
            "cost": float(f"{self.cost:.3g}"),
            "price_source": self.price_source,
            "dominated_by": None if by is None else {"gpu": by.gpu, "nodes": by.nodes,
                                                     "gpus_per_node": by.gpus_per_node},
        }  # fmt: skip


def pareto(request: Request, policy: Policy) -> tuple[Point, ...]:
    """Every feasible point, fastest first. Raises InputError where hours or cost cannot be told."""
    if request.minimize or request.what_fits:
        raise InputError("pareto", "answer one question at a time: drop --minimize or --what-fits")
    _answerable(resolve(request))
    found = [point for changes in _changes(request) if (point := _point(request, changes, policy))]
    return judged(found)


def _answerable(resolved: Resolved) -> None:
    gpu = resolved.cluster.gpu
    if not gpu.tflops_bf16:
        raise InputError("pareto", f"the TFLOP/s of a {gpu.name} are not known")
    if gpu.usd_per_gpu_hour is None:
        raise InputError("pareto", f"no price of a {gpu.name} is known; pass --price-per-gpu-hour X")
    if resolved.request.samples is None:
        raise InputError("pareto", "needs the amount of work; pass --samples N or --data FILE")


def _changes(request: Request) -> Iterator[Mapping[str, Any]]:
    """Sizes of the request's card, then of other cards that are rented by the hour."""
    own = load_gpu(str(request.gpu)).id
    ways = sizes(request)
    yield from ways
    for card in LARGER_GPUS:
        facts = load_gpu(card)
        if facts.id == own or facts.usd_per_gpu_hour is None or not facts.tflops_bf16:
            continue
        for way in ways:
            yield {**way, "gpu": facts.id, **dict.fromkeys(OF_THIS_CARD)}


def _point(request: Request, changes: Mapping[str, Any], policy: Policy) -> Point | None:
    values = {name: value for name, value in {**request.given(), **changes}.items() if value is not None}
    try:
        resolved = resolve(parse_request(values))
    except InputError:
        return None
    ranking, _ = search_all(resolved, policy, Searcher(resolved))
    return _of(resolved, ranking[0]) if ranking else None


def _of(resolved: Resolved, row: Ranked) -> Point | None:
    hours, cost, cluster = row.time.hours, row.time.cost, resolved.cluster
    if hours is None or cost is None:
        return None
    return Point(
        cluster.gpu.id, cluster.nodes, cluster.gpus_per_node, row.framework, describe(row.plan),
        row.memory.total, hours, cost, cluster.gpu.price_source or "",
    )  # fmt: skip


def judged(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points, fastest first, each with the cheapest of those that dominate it."""
    ordered = sorted(points, key=lambda point: (point.hours, point.cost))
    return tuple(replace(point, dominated_by=_dominator(point, ordered)) for point in ordered)


def _dominator(point: Point, points: Sequence[Point]) -> Point | None:
    better = [
        other
        for other in points
        if other.hours <= point.hours
        and other.cost <= point.cost
        and (other.hours < point.hours or other.cost < point.cost)
    ]
    return min(better, key=lambda other: (other.cost, other.hours), default=None)
