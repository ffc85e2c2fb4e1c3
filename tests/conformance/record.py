"""Writes rules/evidence: what the conformance runs have proven. Only where asked to, never in an ordinary run.

`proof_of_run` and `proof_of_parsing` make rows, `keep` merges them into a framework's file. A matrix hands its
accepted starter repos to `keep_parsed`: one row a cell, with the digests of all configurations accepted.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from advisor.facts.models import load_model
from advisor.facts.types import ModelFacts
from advisor.judging import digest_of
from advisor.paths import rules_root
from advisor.plan import Plan
from advisor.rules import load_framework
from advisor.rules.evidence import PARSED, RAN_CPU, Cell, Proof, as_run, cell_of, load_proofs
from advisor.rules.implied import implied_values
from tests.conformance.starters import environment

__all__ = ["keep", "keep_parsed", "proof_of_parsing", "proof_of_run", "recording"]

BESIDE = ("transformers", "torch", "peft", "trl", "accelerate", "deepspeed", "datasets")
"""Packages whose version a run depends on as much as on the framework's."""


def recording() -> bool:
    """Whether the caller has asked for evidence to be written (`ADVISOR_RECORD=1`)."""
    return os.environ.get("ADVISOR_RECORD") == "1"


def versions(framework: str, beside: Sequence[str] = BESIDE) -> dict[str, str]:
    """The framework's own version, then those of what it stands on, from its environment."""
    rules = load_framework(framework)
    folder = next((environment(framework).parent.parent / "lib").glob("python*/site-packages"))
    found: dict[str, str] = {}
    for info in folder.glob("*.dist-info"):
        package, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        found[re.sub(r"[-_.]+", "-", package).lower()] = version
    return {framework: rules.version} | {p: found[p] for p in beside if p in found and p != framework}


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def changed_fields(plan: Plan) -> dict[str, Any]:
    """What makes the plan differ from a default one."""
    default = Plan()
    values = {f.name: getattr(plan, f.name) for f in fields(Plan)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != getattr(default, name)
    }


def proof_of_parsing(framework: str, plan: Plan, model: ModelFacts) -> Proof:
    """The framework's parser and the strict layer have accepted what this plan gives."""
    rules = load_framework(framework)
    return Proof(
        kind=PARSED,
        cell=cell_of(plan, model),
        digests=(digest_of(rules, plan, model),),
        model=model.id,
        plan=changed_fields(plan),
        versions={framework: rules.version},
        date=today(),
    )


def proof_of_run(
    framework: str,
    plan: Plan,
    model: ModelFacts,
    *,
    run: str,
    processes: int,
    seconds: float,
    left_out: str = "",
    found: str = "",
) -> Proof:
    """A starter's smoke run has trained. `plan`: what it trained, `smoke.trained` where that is another plan.

    Raises ValueError where the framework's table cannot express that plan: such a row could never be found again.
    """
    rules = load_framework(framework)
    ran = as_run(plan, processes, partial(implied_values, rules))
    digest = digest_of(rules, ran, model)
    if not digest:
        raise ValueError(
            f"{framework}:{run}: the table cannot express what was trained, {changed_fields(ran)}"
        )
    return Proof(
        kind=RAN_CPU,
        cell=cell_of(ran, model),
        digests=(digest,),
        model=model.id,
        plan=changed_fields(ran),
        versions=versions(framework),
        date=today(),
        run=run,
        processes=processes,
        seconds=round(seconds),
        left_out=left_out,
        found=found,
    )


def keep_parsed(framework: str, accepted: Iterable[Path]) -> int:
    """Records the accepted starter repos, one row a cell, in place of the parsed rows of these cells.

    Returns how many cells they are.
    """
    rows: dict[Cell, Proof] = {}
    for repo in accepted:
        proof = proof_of_parsing(framework, *planned_in(repo))
        rows[proof.cell] = _joined(rows[proof.cell], proof) if proof.cell in rows else proof
    others = [p for p in load_proofs(framework) if p.kind != PARSED or p.cell not in rows]
    write(framework, [*others, *rows.values()])
    return len(rows)


def planned_in(repo: Path) -> tuple[Plan, ModelFacts]:
    """The plan and the model of a starter repo, from its advice.json."""
    advice = json.loads((repo / "advice.json").read_text("utf-8"))
    known = {f.name for f in fields(Plan)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in advice["plan"].items()
        if name in known
    }
    return Plan(**values), load_model(advice["model"]["id"])


def keep(framework: str, proofs: Iterable[Proof]) -> None:
    """Merges rows into the framework's file: a run replaces its last one, parsing adds its digests."""
    known = {_key(proof): proof for proof in load_proofs(framework)}
    for proof in proofs:
        key = _key(proof)
        same = proof.kind == PARSED and key in known and known[key].versions == proof.versions
        known[key] = _joined(known[key], proof) if same else proof
    write(framework, known.values())


def _key(proof: Proof) -> tuple[Any, ...]:
    return (proof.kind, proof.run) if proof.run else (proof.kind, proof.cell)


def _joined(one: Proof, other: Proof) -> Proof:
    digests = tuple(dict.fromkeys((*one.digests, *other.digests)))
    return replace(one, digests=digests, cases=len(digests), date=max(one.date, other.date))


def write(framework: str, proofs: Iterable[Proof], root: Path | None = None) -> None:
    path = (root or rules_root()) / "evidence" / f"{framework}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(proofs, key=lambda proof: (proof.kind, proof.cell, proof.run))
    path.write_text("".join(json.dumps(row_of(proof)) + "\n" for proof in ordered), "utf-8")
    load_proofs.cache_clear()


def row_of(proof: Proof) -> dict[str, Any]:
    """The row as it is written: what has its default is left out."""
    default = {f.name: f.default for f in fields(Proof)}
    row = {name: value for name, value in asdict(proof).items() if value != default[name]}
    return row | {"digests": list(proof.digests)}
