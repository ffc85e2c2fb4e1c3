"""Request -> Advice: resolve, plan, judge, rank, explain. The story on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor import __version__
from advisor.alternatives import Change, changes
from advisor.errors import InputError
from advisor.estimate.memory import estimate_memory
from advisor.estimate.parameters import count_parameters
from advisor.estimate.time import estimate_time
from advisor.estimate.types import MemoryEstimate, ParameterCounts, TimeEstimate
from advisor.plan import Plan
from advisor.planner.explain import plan_reasons
from advisor.planner.search import Candidate, Found, Searcher, describe
from advisor.request import Request, parse_request
from advisor.resolve import Resolved, resolve
from advisor.rules import (
    FrameworkRules,
    Policy,
    Reason,
    Scope,
    cell_evidence,
    describe_cluster,
    describe_model,
    describe_plan,
    evaluate,
    framework_names,
    load_framework,
    load_policy,
    reasons,
    rejections,
    score,
    traps,
    warnings,
)

MOST_ALTERNATIVES = 6
MOST_OF_A_KIND = 2


@dataclass(frozen=True, slots=True)
class Ranked:
    """A framework that can do it, with the plan it would run."""

    framework: str
    title: str
    version: str
    score: float
    plan: Plan
    memory: MemoryEstimate
    time: TimeEstimate
    parameters: ParameterCounts
    reasons: tuple[Reason, ...]
    evidence: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "framework": self.framework,
            "version": self.version,
            "score": round(self.score, 2),
            "plan": self.plan.as_dict(),
            "parameters": parameters_dict(self.parameters),
            "memory": self.memory.as_dict(),
            "time": time_dict(self.time),
            "reasons": [reason.as_dict() for reason in self.reasons],
            "evidence": dict(self.evidence),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    framework: str
    title: str
    version: str
    reasons: tuple[Reason, ...]
    flips: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "framework": self.framework,
            "version": self.version,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "flips": list(self.flips),
        }


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

    @property
    def best(self) -> Ranked | None:
        return self.ranking[0] if self.ranking else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "request": self.resolved.as_dict(),
            "model": model_dict(self.resolved),
            "cluster": cluster_dict(self.resolved),
            "ranking": [row.as_dict() for row in self.ranking],
            "rejected": [row.as_dict() for row in self.rejected],
            "alternatives": [row.as_dict() for row in self.alternatives],
            "warnings": list(self.warnings),
            "versions": dict(self.versions),
        }


def advise(request: Request) -> Advice:
    """The whole advice. Raises InputError for bad input; infeasible requests yield an empty ranking."""
    check_names(request)
    resolved = resolve(request)
    policy = load_policy([Path(path) for path in request.rules or ()])
    searcher = Searcher(resolved)
    ranking, rejected = _judge_all(resolved, policy, searcher)
    alternatives = () if ranking else _alternatives(resolved, policy, rejected)
    versions = {"advisor": __version__} | {name: load_framework(name).version for name in framework_names()}
    return Advice(resolved, tuple(ranking), tuple(rejected), alternatives, _warnings(resolved), versions)


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
        releases = [release.version for release in load_framework(request.framework).releases]
        if request.framework_version not in releases:
            raise InputError(
                "framework_version",
                f"{request.framework} {request.framework_version} is not in the rules; there is {', '.join(releases)}",
            )


def _judge_all(resolved: Resolved, policy: Policy, searcher: Searcher) -> tuple[list[Ranked], list[Rejected]]:
    candidates: list[tuple[FrameworkRules, Candidate]] = []
    rejected: list[Rejected] = []
    for name in framework_names():
        rules = load_framework(name)
        gates = _gates(resolved, policy, rules)
        found = Found(None, tuple(gates), 0) if gates else searcher.search(rules)
        if found.best is None:
            rejected.append(_rejected(resolved, rules, found))
        else:
            candidates.append((rules, found.best))
    fastest = min((c.seconds for _, c in candidates), default=1.0)
    ranking: list[Ranked] = []
    for rules, candidate in candidates:
        row, refused = _rank(resolved, policy, rules, candidate, fastest)
        if row:
            ranking.append(row)
        else:
            rejected.append(Rejected(rules.framework, rules.title, rules.version, tuple(refused), ()))
    ranking.sort(key=lambda row: (-row.score, row.framework))
    rejected.sort(key=lambda row: row.framework)
    return ranking, rejected


def _gates(resolved: Resolved, policy: Policy, rules: FrameworkRules) -> list[Reason]:
    """Gates that look at the framework's name alone are asked before any plan is searched."""
    judged = evaluate(policy, _scope(resolved, rules, None, 1.0))
    return rejections(judgement for judgement in judged if not judgement.why)


def _rank(
    resolved: Resolved, policy: Policy, rules: FrameworkRules, candidate: Candidate, fastest: float
) -> tuple[Ranked | None, list[Reason]]:
    judged = evaluate(policy, _scope(resolved, rules, candidate, fastest))
    refused = rejections(judged)
    if refused:
        return None, refused
    plan = candidate.plan
    mean = (resolved.dataset.mean_chars * 0.3 if resolved.dataset else 0) or None
    row = Ranked(
        framework=rules.framework,
        title=rules.title,
        version=rules.version,
        score=score(judged),
        plan=plan,
        memory=estimate_memory(resolved.model, plan, resolved.cluster),
        time=estimate_time(resolved.model, plan, resolved.cluster, resolved.request.samples, mean),
        parameters=count_parameters(resolved.model, plan),
        reasons=(*reasons(judged), *plan_reasons(plan, candidate.memory, resolved), *_can(rules, plan)),
        evidence=evidence_of(rules, plan),
        warnings=(
            *(w.because for w in warnings(judged) if "not decided" not in w.because),
            *(t.text for t in traps(rules, plan)),
        ),
    )
    return row, []


def _can(rules: FrameworkRules, plan: Plan) -> list[Reason]:
    return [Reason(row.id, "can", row.because, row.evidence[0].ref) for row in cell_evidence(rules, plan)]


def evidence_of(rules: FrameworkRules, plan: Plan) -> dict[str, Any]:
    """What was proven for this combination: parsed, ran_cpu, ran_gpu, each with version and date, or None."""
    proven: dict[str, Any] = {"parsed": None, "ran_cpu": None, "ran_gpu": None}
    for row in cell_evidence(rules, plan):
        for evidence in row.evidence:
            if evidence.kind in proven:
                proven[evidence.kind] = {
                    "version": rules.version,
                    "date": evidence.checked,
                    "ref": evidence.ref,
                }
    return proven


def _scope(resolved: Resolved, rules: FrameworkRules, candidate: Candidate | None, fastest: float) -> Scope:
    request = resolved.request
    asked = {
        "method": request.method,
        "tuning": request.tuning or "auto",
        "quantization": request.quantization or "none",
        "prefer": request.prefer or "none",
        "framework": request.framework or "none",
        "avoid": list(request.avoid or ()),
        "launcher": request.launcher or "auto",
        "tracker": request.tracker or "none",
        "hub": request.hub or "hf",
        "seq_len": request.seq_len,
        "max_hours": request.max_hours,
        "max_cost": request.max_cost,
        "minimize": "none",
        "precision": request.precision,
        "optimizer": request.optimizer or "adamw",
        "samples": request.samples,
    }
    roots: dict[str, Mapping[str, Any]] = {
        "request": asked,
        "model": describe_model(resolved.model),
        "cluster": describe_cluster(resolved.cluster),
        "framework": {"name": rules.framework, "version": rules.version},
    }
    if candidate:
        memory = candidate.memory
        roots["plan"] = describe_plan(candidate.plan)
        roots["memory"] = {
            "total_gib": memory.total,
            "capacity_gib": memory.capacity_gib,
            "headroom": 1 - memory.total / memory.capacity_gib,
            "fits": memory.fits,
        }
        time = estimate_time(resolved.model, candidate.plan, resolved.cluster, request.samples, None)
        roots["time"] = {"hours": time.hours, "cost": time.cost, "slowdown": candidate.seconds / fastest}
    return Scope(**roots)


def _rejected(resolved: Resolved, rules: FrameworkRules, found: Found) -> Rejected:
    return Rejected(rules.framework, rules.title, rules.version, found.refusals[:8], _flips(resolved, found))


def _flips(resolved: Resolved, found: Found) -> tuple[str, ...]:
    """The smallest changes of the request that would admit the framework."""
    flips: list[str] = []
    closest = found.closest
    if closest is not None:
        memory = closest.memory
        if memory.total > memory.capacity_gib:
            flips.append(f"gpu_memory_gib of at least {memory.total:.0f}, or more GPUs")
        elif memory.host_gib > memory.host_capacity_gib:
            flips.append(f"cpu_memory_gib of at least {memory.host_gib:.0f} a node")
        else:
            flips.append(f"nvme_gib of at least {memory.nvme_gib:.0f} a node")
        return tuple(flips)
    for reason in found.refusals:
        if reason.effect == "require" or reason.rule.startswith("request."):
            flips.append("drop the pin or the avoid list")
            break
    return tuple(flips)


def _alternatives(
    resolved: Resolved, policy: Policy, rejected: Sequence[Rejected]
) -> tuple[Alternative, ...]:
    """The nearest feasible requests, each planned and estimated like the first."""
    found: list[Alternative] = []
    kinds: Counter[str] = Counter()
    for change in changes(resolved):
        if kinds[change.kind] == MOST_OF_A_KIND:
            continue
        alternative = _try(change, policy)
        if alternative:
            found.append(alternative)
            kinds[change.kind] += 1
        if len(found) == MOST_ALTERNATIVES:
            break
    return tuple(found)


def _try(change: Change, policy: Policy) -> Alternative | None:
    try:
        resolved = resolve(parse_request(change.request))
    except InputError:
        return None
    ranking, _ = _judge_all(resolved, policy, Searcher(resolved))
    if not ranking:
        return None
    best = ranking[0]
    request = {**change.request, "framework": best.framework} if change.pin else dict(change.request)
    return Alternative(
        f"{change.text}: {best.framework}, {describe(best.plan)}", request, best.framework, best.memory
    )


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


def parameters_dict(counts: ParameterCounts) -> dict[str, int]:
    return {"total": counts.total, "active": counts.active, "trainable": counts.trainable}


def time_dict(time: TimeEstimate) -> dict[str, Any] | None:
    if time.hours is None and time.tokens_per_second is None:
        return {"reason": time.reason}
    shown = {"tokens_per_second": time.tokens_per_second, "hours": time.hours, "gpu_hours": time.gpu_hours,
             "cost": time.cost, "low": time.low, "high": time.high}  # fmt: skip
    rounded: dict[str, Any] = {k: None if v is None else float(f"{v:.3g}") for k, v in shown.items()}
    return rounded | ({"reason": time.reason} if time.reason else {})


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
