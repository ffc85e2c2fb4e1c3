"""The documents of a configuration as a plan, and what that plan means: legal, expressible, fitting, what will bite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from advisor import schemas
from advisor.check.findings import NOTE, PROBLEM, WARNING, Finding
from advisor.check.gather import Gathered
from advisor.errors import InputError
from advisor.estimate.memory import estimate_memory
from advisor.estimate.types import MemoryEstimate
from advisor.facts.lora import linear_module_names
from advisor.facts.models import load_model
from advisor.facts.types import ModelFacts
from advisor.frameworks import framework
from advisor.frameworks.keys import flatten, table_keys
from advisor.frameworks.sources import Unresolved
from advisor.frameworks.table import ABSENT, REPO, Key, Table, split_name
from advisor.plan import Plan
from advisor.planner.legality import illegal
from advisor.planner.start import lora_targets
from advisor.request import Request, parse_request
from advisor.resolve import Resolved, resolve
from advisor.rules import (
    FrameworkRules,
    describe_cluster,
    describe_model,
    refusals,
    traps,
    unchecked_limits,
)
from advisor.rules.implied import implied_values

Documents = dict[str, dict[str, Any]]
GENERATION = ("prompt_len", "response_len", "generations")
OUTSIDE = ("nodes", "gpus_per_node", "prompt_len")
"""Plan fields that some frameworks' files leave to the repo, by the name of their flag."""
COUNTS = (
    "seq_len", "micro_batch_size", "gradient_accumulation_steps", "nodes", "gpus_per_node", "tensor_parallel",
    "pipeline_parallel", "virtual_pipeline_parallel", "expert_parallel", "expert_tensor_parallel", "context_parallel",
    "rollout_tensor_parallel", "fsdp_replicas",
)  # fmt: skip
"""Plan fields that count something."""
CLUSTER = ("gpu", "gpu_memory_gib", "cpu_memory_gib", "nvme_gib", "interconnect")


@dataclass(frozen=True, slots=True)
class Read:
    """A configuration as a plan."""

    plan: Plan
    leftovers: Mapping[str, Mapping[str, Any]]
    model: str
    """What the configuration names as its model."""
    findings: tuple[Finding, ...] = ()
    """Sizes that are none; the plan has 1 in their place."""


def documents_of(gathered: Gathered) -> Documents:
    """Document -> flat keys of the framework's table; values that only a run would tell are left out."""
    table = framework(gathered.framework).TABLE
    known = table_keys(table)
    found: Documents = {}
    for source in gathered.sources:
        flat = flatten(source.content, known.get(source.document, frozenset()))
        kept = {key: value for key, value in flat.items() if not isinstance(value, Unresolved)}
        found.setdefault(source.document, {}).update(kept)
    return found


def read_plan(
    gathered: Gathered, documents: Documents, request: Request, rules: FrameworkRules, method: str
) -> Read:
    """The plan that the documents express, with what only the repo or the flags know put in."""
    module = framework(gathered.framework)
    model = _named(documents, module.READING.model)
    known = {**_known_outside(gathered, request), **module.READING.outside(documents)}
    repo = _repo_document(module.TABLE, known)
    modules = _named(documents, module.READING.targets)
    if modules:
        repo |= _targets(repo, modules, _facts(gathered, request, model))
    defaults = _defaults(gathered, documents)
    whole = {name: {**defaults.get(name, {}), **documents.get(name, {})} for name in {*defaults, *documents}}
    habits = partial(implied_values, rules)
    plan, leftovers = module.TABLE.parse({**whole, REPO: repo}, habits, rules.version)
    if leftovers.get("command"):  # a mixture of keys that is no method of ours: the command at least is known
        plan, leftovers = module.TABLE.parse({**whole, REPO: repo}, habits, rules.version, {"method": method})
    if plan.online and plan.rollout_engine == "none":  # no engine named: the model itself generates
        plan = replace(plan, rollout_engine="hf")
    left = {
        name: {key: value for key, value in content.items() if key in documents.get(name, {})}
        for name, content in leftovers.items()
    }
    low = {name: getattr(plan, name) for name in COUNTS if getattr(plan, name) < 1}
    findings = [
        Finding(PROBLEM, "legality", f"{name} is {value}; it is at least 1") for name, value in low.items()
    ]
    return Read(replace(plan, **dict.fromkeys(low, 1)), left, str(model or ""), tuple(findings))


def _defaults(gathered: Gathered, documents: Documents) -> Documents:
    """What the release itself takes where a key is left out, for the keys that stand for one plan field."""
    module = framework(gathered.framework)
    names = module.READING.schemas(documents)
    known = schemas.load(gathered.framework, gathered.version).documents
    rows = [row for row in module.TABLE.rows if isinstance(row, Key) and row.document in documents]
    given = {row.field for row in rows if row.key in documents[row.document]}
    found: Documents = {}
    for row in rows:
        if row.field not in given and row.absent is ABSENT:
            accepted = known.get(names.get(row.document, ""), {}).get(row.key)
            if accepted and accepted.default is not None:
                found.setdefault(row.document, {})[row.key] = accepted.default
    return found


def _known_outside(gathered: Gathered, request: Request) -> dict[str, Any]:
    """Plan fields that the framework's own files do not hold: the advice's, then the flags."""
    answered = {name: gathered.answers[name] for name in OUTSIDE if gathered.answers.get(name)}
    given = {name: value for name, value in request.given().items() if name in OUTSIDE}
    if request.lora_targets:
        given["lora_targets"] = lora_targets(request.lora_targets)
    return {**answered, **gathered.advice.get("plan", {}), **given}


def _repo_document(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in table.rows:
        if isinstance(row, Key) and row.document == REPO and row.field in values:
            found[row.key] = row.codec.to(values[row.field])
    return found


def _named(documents: Documents, names: Sequence[str]) -> Any:
    for name in names:
        document, key = split_name(name, "train")
        value = documents.get(document, {}).get(key)
        if value:
            return value
    return None


def _targets(repo: Mapping[str, Any], modules: Any, facts: ModelFacts | None) -> dict[str, Any]:
    """The modules that the configuration names, as the word that means them where there is one."""
    named = modules.split(",") if isinstance(modules, str) else modules
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return {}
    words = [tuple(repo.get("lora_targets", ())), ("all-linear",), ("attention",)]
    for word in words:
        if word and facts and set(named) == set(linear_module_names(facts, word)):
            return {"lora_targets": list(word)}
    if repo.get("lora_targets") and not facts:
        return {}
    return {"lora_targets": ["all-linear"] if named in (["all-linear"], ["all"]) else named}


def _facts(gathered: Gathered, request: Request, model: Any) -> ModelFacts | None:
    """Of the model that the flags name, else of the configuration's, else of the repo's request."""
    for reference in (request.model, model, gathered.answers.get("model")):
        if reference:
            try:
                return load_model(str(reference), offline=request.offline is not False)
            except InputError:
                continue
    return None


# --- what the plan means --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meant:
    findings: tuple[Finding, ...]
    memory: MemoryEstimate | None = None
    model: str = ""
    gpu: str = ""


def weigh(gathered: Gathered, request: Request, read: Read, rules: FrameworkRules) -> Meant:
    """Legality, the framework's own limits, memory and traps of the plan."""
    bites = tuple(Finding(WARNING, "trap", t.text, source=t.evidence[0].ref) for t in traps(rules, read.plan))
    try:
        resolved = _resolved(gathered, request, read)
    except InputError as error:
        refused = tuple(_refusals(rules, read.plan, None))
        return Meant((*refused, Finding(NOTE, "unchecked", f"memory was not checked: {error}"), *bites))
    plan = replace(read.plan, nodes=resolved.cluster.nodes, gpus_per_node=resolved.cluster.gpus_per_node)
    found = [
        Finding(PROBLEM, "legality", text, source=row.source) for row, text in illegal(plan, resolved.model)
    ]
    found += _refusals(rules, plan, resolved)
    memory = None
    if not any(finding.kind == "legality" for finding in found):
        cluster = resolved.cluster.under(rules.framework)
        memory = estimate_memory(
            resolved.model, plan, cluster, _teacher(gathered, request), framework=rules.framework
        )
        found += _fit(memory)
    return Meant((*found, *bites), memory, resolved.model.id, resolved.cluster.gpu.id)


def _refusals(rules: FrameworkRules, plan: Plan, resolved: Resolved | None) -> Iterator[Finding]:
    facts = (
        {"model": describe_model(resolved.model), "cluster": describe_cluster(resolved.cluster)}
        if resolved
        else {}
    )
    for reason in refusals(rules, plan, facts):
        yield Finding(PROBLEM, "rule", f"{reason.because} [{reason.rule}]", source=reason.source)
    for reason in unchecked_limits(rules, plan, facts) if resolved else ():
        yield Finding(NOTE, "unchecked", f"{reason.because} [{reason.rule}]", source=reason.source)


def _fit(memory: MemoryEstimate) -> Iterator[Finding]:
    text = (
        f"{memory.total:.1f} GiB a GPU at the {memory.moment} (range {memory.low:.1f} to {memory.high:.1f})"
    )
    if memory.fits == "no":
        yield Finding(PROBLEM, "memory", f"does not fit: {text}{_scarce(memory)}")
    elif memory.fits == "tight":
        yield Finding(WARNING, "memory", f"tight: {text}, {memory.capacity_gib:.1f} GiB are there")


def _scarce(memory: MemoryEstimate) -> str:
    if memory.total > memory.capacity_gib:
        return f", {memory.capacity_gib:.1f} GiB are there"
    if memory.host_gib > memory.host_capacity_gib:
        return (
            f"; and {memory.host_gib:.0f} GiB of host memory a node, {memory.host_capacity_gib:.0f} are there"
        )
    if memory.pool_gib > memory.pool_capacity_gib:
        return (
            f"; and {memory.pool_gib:.1f} GiB on each GPU that generates, of which the engine may take "
            f"{memory.pool_capacity_gib:.1f}"
        )
    return f"; and {memory.nvme_gib:.0f} GiB of disk a node, {memory.nvme_capacity_gib:.0f} are there"


def _resolved(gathered: Gathered, request: Request, read: Read) -> Resolved:
    """Model and cluster: flags first, then what the configuration says, then the repo's request."""
    plan, facts = read.plan, _facts(gathered, request, read.model)
    if facts is None:
        raise InputError("model", f"{read.model or 'none'} is not in the catalog; pass --model")
    values: dict[str, Any] = {name: gathered.answers[name] for name in CLUSTER if gathered.answers.get(name)}
    values |= {name: value for name, value in request.given().items() if name in CLUSTER}
    values |= {
        "model": facts.local_path or facts.id,
        "offline": request.offline is not False,
        "nodes": plan.nodes,
        "gpus_per_node": plan.gpus_per_node,
        "method": plan.method,
        "tuning": plan.tuning,
        "quantization": plan.quantization,
        "seq_len": plan.seq_len,
    }
    values |= {name: getattr(plan, name) for name in GENERATION if getattr(plan, name)}
    if plan.method == "gkd":
        values["teacher"] = request.teacher or gathered.answers.get("teacher") or "the configuration's"
    return resolve(parse_request(values))


def _teacher(gathered: Gathered, request: Request) -> ModelFacts | None:
    named = request.teacher or gathered.answers.get("teacher")
    try:
        return load_model(str(named), offline=True) if named else None
    except InputError:
        return None
