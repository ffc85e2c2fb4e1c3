"""From what is allocated to low, likely and high: the named causes put to a plan and a moment.

likely = allocated + sum of what each cause adds. high lies the root of the summed squares of the causes'
distances above it, because the causes are independent of each other (a sum would need all of them to be at their
worst together). low likewise below, from a figure without the CUDA context and NCCL: they are not uncertain but
left out by PyTorch's own counters, and low is meant to hold for those too.
Every cause is a row of `advisor.facts.memory_causes` with its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

from advisor.estimate.communicators import communicator_count, direct_peers
from advisor.estimate.moments import Alive
from advisor.estimate.rollout import GIB
from advisor.estimate.stage import Setting
from advisor.estimate.types import CauseShare
from advisor.facts.memory_causes import Cause, memory_causes

BASES = ("gib", "dynamic", "gathered", "allocated", "static", "total")


@dataclass(frozen=True, slots=True)
class Margins:
    """Per basis: what is added, and the squared distances to low and high, of all causes that apply."""

    causes: tuple[tuple[Cause, float], ...]
    """Each with what its numbers are multiplied by beside the basis: communicators, peers, or 1."""
    likely: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]


@dataclass(slots=True)
class Range:
    """GiB of one moment."""

    likely: float
    low: float
    high: float


COUNTED = ("gib_per_communicator", "gib_per_peer")
"""Bases that are GiB times a number that the plan says."""


@lru_cache(maxsize=1024)
def _margins(applying: tuple[str, ...], communicators: int, peers: float) -> Margins:
    likely, below, above = ([0.0] * len(BASES) for _ in range(3))
    chosen: list[tuple[Cause, float]] = []
    for cause in memory_causes():
        if cause.when not in applying:
            continue
        times = _times(cause, communicators, peers)
        index = BASES.index(_basis(cause))
        likely[index] += cause.likely * times
        if index:
            below[index] += ((cause.likely - cause.low) * times) ** 2
        above[index] += ((cause.high - cause.likely) * times) ** 2
        chosen.append((cause, times))
    return Margins(tuple(chosen), tuple(likely), tuple(below), tuple(above))


def _times(cause: Cause, communicators: int, peers: float) -> float:
    if cause.basis == "gib_per_communicator":
        return float(communicators)
    return peers if cause.basis == "gib_per_peer" else 1.0


def _basis(cause: Cause) -> str:
    return "gib" if cause.basis in COUNTED else cause.basis


def margins(s: Setting, nvlink: bool = True) -> Margins:
    """The causes that apply to a plan on cards with or without NVLink."""
    plan = s.plan
    megatron = plan.backend == "megatron"
    applying = ["always", "compiled" if plan.compile else "as-written"]
    applying.append("megatron" if megatron else "not-megatron")
    if not megatron and s.shards.data > 1:
        applying.append("sharded")
    if not (plan.packing or plan.method == "cpt" or plan.online):
        applying.append("unpacked")
    routed = s.sums.moe_layers > 0
    if plan.expert_parallel > 1:
        applying.append("experts")
    if plan.offload == "experts":
        applying.append("experts_on_host")
    if plan.optimizer.startswith("galore"):
        applying.append("svd")
    return _margins(tuple(applying), communicator_count(plan, routed), direct_peers(plan, routed, nvlink))


def _bases(alive: Alive, most_buffers: float) -> tuple[float, ...]:
    """GiB of each basis but `total`, in the order of BASES."""
    dynamic = (alive.activations + alive.logits + alive.buffers) / GIB
    allocated = alive.total / GIB
    gathered = max(most_buffers - alive.buffers, 0.0) / GIB
    return 1.0, dynamic, gathered, allocated, allocated - dynamic


def spread(m: Margins, alive: Sequence[Alive], most_buffers: float) -> tuple[Range, Alive]:
    """The range of a step and the moment at which most is allocated (of equals the earliest): low, likely and high
    are each the largest of all moments. Written out basis by basis, in bytes: a search does this some ten thousand
    times."""
    gib, dyn, gat, alo, sta, _ = m.likely
    _, dyn_b, gat_b, alo_b, sta_b, tot_b = m.below
    gib_a, dyn_a, gat_a, alo_a, sta_a, tot_a = m.above
    gib *= GIB
    gib_a *= GIB * GIB
    most = low = high = top = 0.0
    peak = alive[0]
    for moment in alive:
        buffers, total = moment.buffers, moment.total
        dynamic = moment.activations + moment.logits + buffers
        gathered = most_buffers - buffers if most_buffers > buffers else 0.0
        static = total - dynamic
        likely = total + gib + dyn * dynamic + gat * gathered + alo * total + sta * static
        d2, g2, t2, s2, y2 = (
            dynamic * dynamic, gathered * gathered, total * total, static * static, likely * likely,
        )  # fmt: skip
        below = dyn_b * d2 + gat_b * g2 + alo_b * t2 + sta_b * s2 + tot_b * y2
        above = gib_a + dyn_a * d2 + gat_a * g2 + alo_a * t2 + sta_a * s2 + tot_a * y2
        least, utmost = likely - gib - sqrt(below), likely + sqrt(above)
        if total > top:
            top, peak = total, moment
        if likely > most:
            most = likely
        if least > low:
            low = least
        if utmost > high:
            high = utmost
    return Range(most / GIB, low / GIB, high / GIB), peak


def shares(m: Margins, alive: Alive, most_buffers: float) -> tuple[CauseShare, ...]:
    """Each cause at one moment, the largest first; causes that change nothing are left out."""
    sizes: dict[str, float] = dict(zip(BASES, _bases(alive, most_buffers), strict=False))
    sizes["total"] = spread(m, (alive,), most_buffers)[0].likely
    found: list[CauseShare] = []
    for cause, times in m.causes:
        size = times * sizes[_basis(cause)]
        share = CauseShare(
            cause.name, cause.what, cause.likely * size, (cause.low - cause.likely) * size,
            (cause.high - cause.likely) * size, cause.tag, cause.source,
        )  # fmt: skip
        if max(share.likely_gib, -share.low_gib, share.high_gib) >= 0.005:
            found.append(share)
    return tuple(sorted(found, key=lambda share: share.low_gib - share.high_gib))
