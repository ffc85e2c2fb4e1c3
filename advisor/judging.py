"""One request, six frameworks: search each, put its plan to the policy, rank what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from advisor.estimate.memory import estimate_memory
from advisor.estimate.parameters import count_parameters
from advisor.estimate.time import estimate_time
from advisor.estimate.types import MemoryEstimate, ParameterCounts, TimeEstimate
from advisor.facts.types import ModelFacts
from advisor.frameworks import framework
from advisor.frameworks.digest import config_digest
from advisor.plan import Plan
from advisor.planner.explain import plan_reasons
from advisor.planner.order import Candidate
from advisor.planner.search import Found, Searcher
from advisor.release_keys import refused_keys
from advisor.request import Request
from advisor.resolve import Resolved
from advisor.rules import (
    FrameworkRules,
    Judgement,
    Limit,
    Policy,
    Reason,
    Scope,
    Verdict,
    cell_evidence,
    describe_cluster,
    describe_model,
    describe_plan,
    evaluate,
    framework_names,
    limit_verdicts,
    load_framework,
    reasons,
    rejections,
    score,
    traps,
    warnings,
)
from advisor.rules.evidence import proven
from advisor.rules.implied import implied_values


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
    judged: tuple[Judgement, ...] = ()
    """What every rule said: the score is the sum of their points."""
    scope: Scope | None = None
    """What the rules were asked about."""
    unseated_by: tuple[str, ...] = ()
    """The first row's: what would put another framework before it."""

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
        } | ({"unseated_by": list(self.unseated_by)} if self.unseated_by else {})


@dataclass(frozen=True, slots=True)
class Rejected:
    framework: str
    title: str
    version: str
    reasons: tuple[Reason, ...]
    flips: tuple[str, ...] = ()
    """The smallest single changes of the request that admit it, each found by planning again."""
    closest: Candidate | None = None
    """The plan nearest to fitting, or the one that a gate refused."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "framework": self.framework,
            "version": self.version,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "flips": list(self.flips),
        }


def search_all(
    resolved: Resolved, policy: Policy, searcher: Searcher, only: str | None = None
) -> tuple[list[Ranked], list[Rejected]]:
    """The frameworks (or one of them) that can do it, best first, and those that cannot, with the reasons."""
    candidates: list[tuple[FrameworkRules, Candidate, Reason | None]] = []
    rejected: list[Rejected] = []
    for name in (only,) if only else framework_names():
        rules = load_framework(name, version=_release(resolved.request, name))
        gates = _gates(resolved, policy, rules)
        found = Found(None, tuple(gates), 0) if gates else searcher.search(rules)
        if found.best is None:
            rejected.append(_refused(rules, found.refusals[:8], found.closest))
        else:
            candidates.append((rules, found.best, found.placement))
    fastest = min((c.seconds for _, c, _ in candidates), default=1.0)
    ranking: list[Ranked] = []
    for rules, candidate, placement in candidates:
        row, refused = _rank(resolved, policy, rules, candidate, fastest)
        if row:
            more = (placement,) if placement else ()
            ranking.append(replace(row, reasons=(*row.reasons, *more)))
        else:
            rejected.append(_refused(rules, tuple(refused), candidate))
    ranking.sort(key=lambda row: (-row.score, row.framework))
    rejected.sort(key=lambda row: row.framework)
    return ranking, rejected


def _release(request: Request, name: str) -> str | None:
    """The release that was asked for; None: the pinned one."""
    return request.framework_version if name == request.framework else None


def _refused(rules: FrameworkRules, refusals: tuple[Reason, ...], closest: Candidate | None) -> Rejected:
    return Rejected(rules.framework, rules.title, rules.version, refusals, closest=closest)


def _gates(resolved: Resolved, policy: Policy, rules: FrameworkRules) -> list[Reason]:
    """Gates that look at the framework's name alone are asked before any plan is searched."""
    judged = evaluate(policy, scope_of(resolved, rules, None, 1.0))
    return rejections(judgement for judgement in judged if not judgement.why)


def _rank(
    resolved: Resolved, policy: Policy, rules: FrameworkRules, candidate: Candidate, fastest: float
) -> tuple[Ranked | None, list[Reason]]:
    scope = scope_of(resolved, rules, candidate, fastest)
    judged = evaluate(policy, scope)
    time = time_of(resolved, candidate.plan, rules.framework)
    refused = [*rejections(judged), *refused_keys(rules, candidate.plan, resolved)]
    if refused:
        return None, [_with_numbers(reason, resolved.request, time) for reason in refused]
    plan = candidate.plan
    row = Ranked(
        framework=rules.framework,
        title=rules.title,
        version=rules.version,
        score=score(judged),
        plan=plan,
        memory=estimate_memory(
            resolved.model, plan, resolved.cluster.under(rules.framework), framework=rules.framework
        ),
        time=time,
        parameters=count_parameters(resolved.model, plan),
        reasons=(*reasons(judged), *plan_reasons(plan, candidate.memory, resolved), *_can(rules, plan)),
        evidence=evidence_of(rules, plan, resolved.model),
        warnings=(
            *(w.because for w in warnings(judged) if "not decided" not in w.because),
            *(t.text for t in traps(rules, plan)),
            *(() if rules.releases[0].proven else (f"{rules.title} {rules.version}: {rules.proof}",)),
        ),
        judged=tuple(judged),
        scope=scope,
    )
    return row, []


def time_of(resolved: Resolved, plan: Plan, framework: str) -> TimeEstimate:
    mean = (resolved.dataset.mean_chars * 0.3 if resolved.dataset else 0) or None
    cluster = resolved.cluster.under(framework)
    time = estimate_time(resolved.model, plan, cluster, resolved.request.samples, mean)
    return time.corrected(cluster.correction.seconds) if cluster.correction else time


def _with_numbers(reason: Reason, request: Request, time: TimeEstimate) -> Reason:
    """The limits on time and money say what is needed beside what is allowed."""
    if reason.rule == "fit.max-hours" and time.hours is not None:
        text = f"about {time.hours:.3g} hours, --max-hours allows {request.max_hours:.3g}: {reason.because}"
    elif reason.rule == "fit.max-cost" and time.cost is not None:
        text = f"about {time.cost:,.0f} USD, --max-cost allows {request.max_cost:,.0f}: {reason.because}"
    else:
        return reason
    return replace(reason, because=text)


def _can(rules: FrameworkRules, plan: Plan) -> list[Reason]:
    return [Reason(row.id, "can", row.because, row.evidence[0].ref) for row in cell_evidence(rules, plan)]


def evidence_of(rules: FrameworkRules, plan: Plan, model: ModelFacts) -> dict[str, Any]:
    """What was proven for this combination: parsed, ran_cpu, ran_gpu, each with version and date, or None."""
    found = proven(rules.framework, rules.version, plan, model, lambda: digest_of(rules, plan, model))
    if not rules.releases[0].proven:
        # A run with another release says nothing of this one.
        found = {kind: found.get(kind) for kind in ("parsed", "ran_cpu", "ran_gpu")}
        found["schema"] = {"version": rules.version, "note": rules.proof}
    return found


def digest_of(rules: FrameworkRules, plan: Plan, model: ModelFacts) -> str:
    """Of the keys and values that this plan is written with today."""
    module = framework(rules.framework)
    return config_digest(module, plan, model, rules.version, lambda p: implied_values(rules, p))


def scope_of(resolved: Resolved, rules: FrameworkRules, candidate: Candidate | None, fastest: float) -> Scope:
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
        "minimize": request.minimize or "none",
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
        time = time_of(resolved, candidate.plan, rules.framework)
        roots["time"] = {"hours": time.hours, "cost": time.cost, "slowdown": candidate.seconds / fastest}
    return Scope(**roots)


def parameters_dict(counts: ParameterCounts) -> dict[str, int]:
    return {"total": counts.total, "active": counts.active, "trainable": counts.trainable}


def time_dict(time: TimeEstimate) -> dict[str, Any] | None:
    if time.hours is None and time.tokens_per_second is None:
        return {"reason": time.reason}
    shown = {"tokens_per_second": time.tokens_per_second, "hours": time.hours, "gpu_hours": time.gpu_hours,
             "cost": time.cost, "low": time.low, "high": time.high}  # fmt: skip
    rounded: dict[str, Any] = {k: None if v is None else float(f"{v:.3g}") for k, v in shown.items()}
    if time.extra:
        rounded["seconds_per_step"] = float(f"{time.extra['seconds_per_step']:.3g}")
        rounded["parts"] = {name: float(f"{value:.3g}") for name, value in time.extra["parts"].items()}
        rounded["causes"] = time.extra["causes"]
    return rounded | ({"reason": time.reason} if time.reason else {})


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that was asked about one framework for one request."""

    framework: str
    plan: Plan | None
    """The plan it would run; where none is feasible the one that comes closest, else None."""
    feasible: bool
    judged: tuple[Judgement, ...]
    limits: tuple[tuple[Limit, Verdict], ...]
    refusals: tuple[Reason, ...]


def trace(resolved: Resolved, policy: Policy) -> tuple[Trace, ...]:
    """What every rule and every limit says, gates included: nothing is left out because a gate rejects."""
    searcher = Searcher(resolved)
    searched = [(rules, searcher.search(rules)) for rules in map(load_framework, framework_names())]
    fastest = min((found.best.seconds for _, found in searched if found.best), default=1.0)
    traces: list[Trace] = []
    for rules, found in searched:
        candidate = found.best or found.closest
        judged = evaluate(policy, scope_of(resolved, rules, candidate, fastest))
        limits = limit_verdicts(rules, candidate.plan, searcher.facts) if candidate else []
        plan = candidate.plan if candidate else None
        feasible = found.best is not None and not rejections(judged)
        traces.append(
            Trace(rules.framework, plan, feasible, tuple(judged), tuple(limits), found.refusals[:8])
        )
    return tuple(traces)
