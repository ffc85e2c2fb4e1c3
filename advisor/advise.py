"""Request -> Advice: resolve, plan, judge, rank, explain. The story on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advisor import __version__, schemas
from advisor.ahead import gained_ahead
from advisor.alternatives import Change, asked_for, changes, least_times, no_nearer
from advisor.errors import InputError
from advisor.estimate.types import MemoryEstimate
from advisor.flips import with_flips
from advisor.judging import Ranked, Rejected, evidence_of, parameters_dict, search_all, time_dict
from advisor.pareto import Point, pareto
from advisor.planner.order import describe
from advisor.planner.search import Searcher
from advisor.request import Request, parse_request
from advisor.resolve import Resolved, resolve
from advisor.reverse import Answer, answer
from advisor.rules import Policy, framework_names, load_framework, load_policy
from advisor.unseat import unseated_by

__all__ = [
    "Advice",
    "Alternative",
    "Ranked",
    "Rejected",
    "advise",
    "check_names",
    "check_release",
    "evidence_of",
    "explain",
    "parameters_dict",
    "time_dict",
]

MOST_ALTERNATIVES = 8
MOST_TRIED = 48
MOST_OF_A_KIND = {"model": 2}
"""Alternatives of one lever: one, the nearest, where nothing is said."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A changed request that is feasible."""

    change: str
    request: Mapping[str, Any]
    framework: str
    memory: MemoryEstimate

    def as_dict(self) -> dict[str, Any]:
        return {
            "change": self.change,
            "request": dict(self.request),
            "framework": self.framework,
            "memory": self.memory.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Advice:
    resolved: Resolved
    ranking: tuple[Ranked, ...]
    rejected: tuple[Rejected, ...]
    alternatives: tuple[Alternative, ...]
    warnings: tuple[str, ...]
    versions: Mapping[str, str]
    pareto: tuple[Point, ...] | None = None
    """Cost against time, where asked for."""
    reverse: Answer | None = None
    """The answer to --minimize or --what-fits: the rest of the advice is for what it chose."""

    @property
    def best(self) -> Ranked | None:
        return self.ranking[0] if self.ranking else None

    def as_dict(self) -> dict[str, Any]:
        request = self.resolved.as_dict()
        if self.reverse:
            # As an answers file the request gives this plan again, so it holds the answer, not the question.
            del request[self.reverse.question]
        request.pop("pareto", None)
        return {
            "request": request,
            "model": model_dict(self.resolved),
            "cluster": cluster_dict(self.resolved),
            "ranking": [row.as_dict() for row in self.ranking],
            "rejected": [row.as_dict() for row in self.rejected],
            "alternatives": [row.as_dict() for row in self.alternatives],
            "warnings": list(self.warnings),
            "versions": dict(self.versions),
        } | self._asked()

    def _asked(self) -> dict[str, Any]:
        """What only some requests ask for."""
        found: dict[str, Any] = {}
        if self.reverse:
            found[self.reverse.question] = self.reverse.as_dict()
        if self.pareto is not None:
            found["pareto"] = [point.as_dict() for point in self.pareto]
        return found


def advise(request: Request) -> Advice:
    """The whole advice. Raises InputError for bad input; infeasible requests yield an empty ranking."""
    check_names(request)
    policy = _policy(request)
    reverse = answer(request, policy)
    resolved = resolve(reverse.request if reverse else request)
    ranking, rejected = search_all(resolved, policy, Searcher(resolved))
    alternatives = () if ranking else _alternatives(resolved, policy, rejected)
    versions = {"advisor": __version__} | {name: load_framework(name).version for name in framework_names()}
    if request.framework and request.framework_version:
        versions[request.framework] = request.framework_version
    warnings = (*_warnings(resolved), *_unknown_limits(resolved, ranking))
    points = pareto(request, policy) if request.pareto else None
    return Advice(
        resolved, tuple(ranking), tuple(rejected), alternatives, warnings, versions, points, reverse
    )


def explain(advice: Advice) -> Advice:
    """The advice with what would change it: `flips` of the rejected, `unseated_by` of the first (of online RL also what
    it would gain one step ahead)."""
    policy = _policy(advice.resolved.request)
    ranking = advice.ranking
    if ranking:
        found = (*unseated_by(ranking, policy), *gained_ahead(advice.resolved, policy, ranking))
        ranking = (replace(ranking[0], unseated_by=found), *ranking[1:])
    rejected = with_flips(advice.resolved, policy, advice.rejected)
    return replace(advice, ranking=ranking, rejected=rejected)


def _policy(request: Request) -> Policy:
    return load_policy([Path(path) for path in request.rules or ()])


def check_names(request: Request) -> None:
    """Raises InputError for a framework or release that there is none of."""
    known = framework_names()
    for field, names in (
        ("framework", [request.framework] if request.framework else []),
        ("avoid", request.avoid or ()),
    ):
        for name in names:
            if name not in known:
                raise InputError(field, f"{name!r} is not known; there are {', '.join(known)}")
    if request.framework_version:
        if not request.framework:
            raise InputError("framework_version", "needs --framework")
        check_release(request.framework, request.framework_version)


def check_release(framework: str, version: str) -> None:
    """Raises InputError for a release whose keys are not known."""
    known = schemas.versions(framework)
    if version not in known:
        raise InputError(
            "framework_version",
            f"there is no snapshot of {framework} {version}; there are {', '.join(known)}",
        )


def _alternatives(
    resolved: Resolved, policy: Policy, rejected: Sequence[Rejected]
) -> tuple[Alternative, ...]:
    """The nearest feasible requests, each planned and estimated like the first."""
    found: list[Alternative] = []
    enough: list[Change] = []
    kinds: Counter[str] = Counter()
    near = [least_times(row.closest) for row in rejected if row.closest]
    tried = 0
    for change in changes(resolved, min(near, default=1.0)):
        if kinds[change.kind] >= MOST_OF_A_KIND.get(change.kind, 1) or no_nearer(change, enough):
            continue
        tried += 1
        alternative = _try(change, resolved, policy)
        if alternative:
            found.append(alternative)
            enough.append(change)
            kinds[change.kind] += 1
        if len(found) == MOST_ALTERNATIVES or tried == MOST_TRIED:
            break
    return tuple(found)


def _try(change: Change, asked: Resolved, policy: Policy) -> Alternative | None:
    request = change.request(asked_for(asked))
    try:
        resolved = resolve(parse_request(request))
    except InputError:
        return None
    ranking, _ = search_all(resolved, policy, Searcher(resolved))
    if not ranking:
        return None
    best = ranking[0]
    text = f"{change.text}: {best.framework}, {describe(best.plan)}"
    if best.plan.offload == "experts":
        text += f" ({best.memory.host_gib:.0f} GiB of host memory)"
    return Alternative(text, request, best.framework, best.memory)


def _unknown_limits(resolved: Resolved, ranking: Sequence[Ranked]) -> list[str]:
    """A limit that nothing could be held against is said, not taken as kept."""
    request, found = resolved.request, list[str]()
    for row in ranking[:1]:
        for flag, limit, known in (
            ("--max-hours", request.max_hours, row.time.hours),
            ("--max-cost", request.max_cost, row.time.cost),
        ):
            if limit is not None and known is None:
                more = "; pass --samples N" if row.time.hours is None and request.samples is None else ""
                found.append(f"{flag} {limit:g} was not checked: {row.time.reason}{more}")
    return found


def _warnings(resolved: Resolved) -> tuple[str, ...]:
    found: list[str] = []
    for dataset in resolved.datasets:
        if dataset.bad_rows:
            lines = ", ".join(f"line {number}: {why}" for number, why in dataset.bad_rows[:3])
            found.append(f"{dataset.path}: {len(dataset.bad_rows)} rows are left out ({lines})")
        if not dataset.local:
            found.append(f"{dataset.path}: not read (a hub id); its columns were not checked")
    if resolved.model.native_dtype == "fp8":
        found.append(
            f"{resolved.model.id} is published in FP8; prepare_model.sh makes the bf16 copy that training needs"
        )
    return tuple(found)


def model_dict(resolved: Resolved) -> dict[str, Any]:
    model = resolved.model
    return {
        "id": model.id,
        "model_type": model.model_type,
        "architecture": model.architecture,
        "parameters": {"total": model.total_parameters, "active": model.active_parameters},
        "layers": model.layers,
        "hidden": model.hidden,
        "moe": None if model.moe is None else {
            "experts": model.moe.experts, "experts_per_token": model.moe.experts_per_token
        },
        "mla": model.mla,
        "vision": model.vision,
        "max_positions": model.max_positions,
        "native_dtype": model.native_dtype,
        "source": model.source,
    }  # fmt: skip


def cluster_dict(resolved: Resolved) -> dict[str, Any]:
    cluster = resolved.cluster
    return {
        "gpu": cluster.gpu.id,
        "gpus_per_node": cluster.gpus_per_node,
        "nodes": cluster.nodes,
        "world_size": cluster.world_size,
        "gpu_memory_gib": round(cluster.gpu_memory_gib, 2),
        "cpu_memory_gib": round(cluster.cpu_memory_gib, 1),
        "interconnect": cluster.interconnect,
        "usd_per_gpu_hour": cluster.gpu.usd_per_gpu_hour,
        "price_source": cluster.gpu.price_source,
    }
