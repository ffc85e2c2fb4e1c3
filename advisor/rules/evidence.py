"""What was proven, with which versions, and when: `rules/evidence/<framework>.jsonl`, one row a line.

A row belongs to a cell, the kind of plan that was run or parsed, and carries the digest of the configuration's
keys and values as they were then. Where today's digest is another one, the row is stale: still a fact about
those values, no longer about what is emitted now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from advisor.facts.types import ModelFacts
from advisor.paths import rules_root
from advisor.plan import LORA_TARGET_WORDS, Plan

PARSED, RAN_CPU, RAN_GPU, SCHEMA = "parsed", "ran_cpu", "ran_gpu", "schema"
KINDS = (PARSED, RAN_CPU, RAN_GPU, SCHEMA)
"""`schema`: compared with the keys, types and choices of a release that was not installed."""
NEAREST_MAY_DIFFER = 3
"""Fields in which a run may differ and still be worth naming beside a plan that was not run itself."""


@dataclass(frozen=True, order=True)
class Cell:
    """A kind of plan: what evidence is about."""

    method: str
    tuning: str
    quantization: str
    adapters: str
    """Where they sit: a word of `lora_targets`, `named` modules, or `none`."""
    family: str
    """`dense` or `moe`, with `+mla` and `+vision`."""
    backend: str
    sharding: str
    """`none` (one GPU), `ddp`, `zero-1` ... `zero-3`, `fsdp2`, `hsdp`, `megatron`; further dimensions behind a plus."""
    offload: str
    rollout: str

    def as_dict(self) -> dict[str, str]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def differs(self, other: Cell) -> dict[str, tuple[str, str]]:
        """Field -> (here, there)."""
        mine, theirs = self.as_dict(), other.as_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


@dataclass(frozen=True)
class Proof:
    """One row."""

    kind: str
    cell: Cell
    digests: tuple[str, ...]
    model: str
    plan: Mapping[str, Any]
    """Fields of a plan that the first digest is of, where they are not the default."""
    versions: Mapping[str, str]
    """Package -> version, the framework's own first."""
    date: str
    cases: int = 1
    """Different configurations of this cell that were parsed; of a run 1."""
    run: str = ""
    """Name in tests/conformance/runs.yaml."""
    processes: int = 1
    seconds: int = 0
    left_out: str = ""
    """What of the plan it was made from did not run."""
    found: str = ""
    """What the saved checkpoint showed."""

    @property
    def version(self) -> str:
        return next(iter(self.versions.values()))

    def as_plan(self) -> Plan:
        named: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in self.plan.items()}
        return Plan(**named)


def cell_of(plan: Plan, model: ModelFacts) -> Cell:
    return Cell(
        method=plan.method,
        tuning=plan.tuning,
        quantization=plan.quantization,
        adapters=_adapters(plan),
        family=_family(model),
        backend=plan.backend,
        sharding=_sharding(plan),
        offload=plan.offload,
        rollout=plan.rollout_engine + (f"+{plan.rollout_placement}" if plan.generates_apart else ""),
    )


def _adapters(plan: Plan) -> str:
    if not plan.uses_adapter:
        return "none"
    words = [word for word in plan.lora_targets if word in LORA_TARGET_WORDS]
    return words[0] if words and len(plan.lora_targets) == 1 else "named"


def _family(model: ModelFacts) -> str:
    kind = "moe" if model.moe else "dense"
    return kind + ("+mla" if model.mla else "") + ("+vision" if model.vision else "")


def _sharding(plan: Plan) -> str:
    degrees = {"tp": plan.tensor_parallel, "pp": plan.pipeline_parallel, "ep": plan.expert_parallel,
               "cp": plan.context_parallel}  # fmt: skip
    more = "".join(f"+{name}" for name, degree in degrees.items() if degree > 1)
    if plan.backend != "hf":
        return plan.backend + more
    if plan.fsdp:
        kind = "hsdp" if plan.fsdp_replicas > 1 else "fsdp2"
        return (kind if plan.world_size > 1 else "none") + more
    if plan.zero_stage:
        return f"zero-{plan.zero_stage}" + more
    return ("ddp" if plan.world_size > 1 else "none") + more


Habits = Callable[[Plan], Mapping[str, Any]]
"""Plan -> what the framework does by itself in such a plan."""


def as_run(plan: Plan, processes: int, habits: Habits) -> Plan:
    """The plan as these processes run it on a CPU: no more of them, nothing spread in one, no rollout engine."""
    copies = min(plan.fsdp_replicas, 2) if processes >= 4 else 1  # as smoke.sh of a plan with copies
    ran = replace(plan, nodes=1, gpus_per_node=processes, fsdp_replicas=copies)
    if processes == 1:
        alone = dict.fromkeys(
            ("tensor_parallel", "pipeline_parallel", "expert_parallel", "context_parallel"), 1
        )
        ran = replace(ran, **alone)
        # Of FSDP one process has the wrapper and its types; DeepSpeed is left out.
        ran = ran if plan.fsdp else unsharded(ran, habits)
    if ran.rollout_engine == "vllm":
        ran = replace(ran, rollout_engine="hf")
    return ran.normalised()


def unsharded(plan: Plan, habits: Habits) -> Plan:
    """The plan without what shards it, in the types that the framework then trains in."""
    alike = replace(plan, fsdp=False, fsdp_replicas=1, zero_stage=0, offload="none")
    if plan.backend == "megatron" or not (plan.fsdp or plan.zero_stage):
        return alike
    plain = {name: getattr(Plan(), name) for name in TYPES}
    found = habits(replace(alike, **plain))
    return replace(alike, **{**plain, **{name: found[name] for name in TYPES if name in found}})


TYPES = ("param_dtype", "master_weights")


@lru_cache(maxsize=32)
def load_proofs(
    framework: str, root: Path | None = None, about: tuple[str, str] | None = None
) -> tuple[Proof, ...]:
    """The rows of one framework; none where nothing was recorded. `about`: only those of this method and tuning, which
    an advice is quicker with than with all."""
    path = (root or rules_root()) / "evidence" / f"{framework}.jsonl"
    if not path.exists():
        return ()
    lines = path.read_text("utf-8").splitlines()
    if about:
        words = f'"method": "{about[0]}", "tuning": "{about[1]}"'
        lines = [line for line in lines if words in line]
    return tuple(proof_of(json.loads(line)) for line in lines)


def proof_of(row: Mapping[str, Any]) -> Proof:
    built: dict[str, Any] = {**row, "cell": Cell(**row["cell"]), "digests": tuple(row["digests"])}
    return Proof(**built)


def proven(
    framework: str, version: str, plan: Plan, model: ModelFacts, digest: Callable[[], str]
) -> dict[str, Any]:
    """What was proven of exactly this kind of plan with this release: `parsed`, `ran_cpu`, `ran_gpu`, each as
    data or None, and `schema` where there is such a row.

    `digest` gives today's; it is asked for only where there is a row. Where nothing was trained, `nearest` is
    the run that comes closest, with what it left out.
    """
    cell = cell_of(plan, model)
    known = load_proofs(framework, about=(cell.method, cell.tuning))
    proofs = [proof for proof in known if proof.version == version]
    found: dict[str, Any] = {}
    for kind in KINDS:
        here = [proof for proof in proofs if proof.kind == kind and proof.cell == cell]
        if here or kind != SCHEMA:
            found[kind] = _shown(here, digest()) if here else None
    if found[RAN_CPU] is None and found[RAN_GPU] is None:
        nearest = _nearest(proofs, cell)
        if nearest:
            found["nearest"] = nearest
    return found


def _shown(proofs: list[Proof], digest: str) -> dict[str, Any]:
    fresh = [proof for proof in proofs if digest in proof.digests]
    best = max(fresh or proofs, key=lambda proof: (proof.processes, proof.date))
    return {"version": best.version, "date": best.date, "stale": not fresh, **_more(best)}


def _more(proof: Proof) -> dict[str, Any]:
    if proof.kind in (PARSED, SCHEMA):
        return {"cases": proof.cases}
    left_out = {"left_out": proof.left_out} if proof.left_out else {}
    return {"run": proof.run, "processes": proof.processes, "seconds": proof.seconds, **left_out}


def _nearest(proofs: Sequence[Proof], cell: Cell) -> dict[str, Any] | None:
    ran = [(cell.differs(proof.cell), proof) for proof in proofs if proof.kind in (RAN_CPU, RAN_GPU)]
    close = [(d, p) for d, p in ran if len(d) <= NEAREST_MAY_DIFFER and not d.keys() & {"method", "tuning"}]
    if not close:
        return None
    differs, proof = min(close, key=lambda item: (len(item[0]), -item[1].processes))
    return {
        "kind": proof.kind,
        "version": proof.version,
        "date": proof.date,
        **_more(proof),
        "differs": {name: {"plan": here, "run": there} for name, (here, there) in differs.items()},
    }
