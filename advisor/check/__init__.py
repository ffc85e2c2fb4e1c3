"""A configuration or a starter repo -> what is wrong with it: keys of its release, legality, memory, traps.

No framework is needed: keys are held against the snapshots of `rules/schemas`, the plan against the same rules,
limits and estimates as an advice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from advisor.advise import check_release
from advisor.check.findings import NOTE, PROBLEM, WARNING, Checked, Finding
from advisor.check.gather import Gathered, gather
from advisor.check.keys import key_findings
from advisor.check.method import method_keys, method_of
from advisor.check.plan import documents_of, read_plan, weigh
from advisor.frameworks import framework
from advisor.planner.order import describe
from advisor.request import Request
from advisor.rules import load_framework

__all__ = ["NOTE", "PROBLEM", "WARNING", "Checked", "Finding", "check_path"]


def check_path(path: Path, request: Request) -> Checked:
    """Raises InputError for what cannot be read."""
    gathered = _of_release(gather(path, request))
    rules = load_framework(gathered.framework, version=gathered.version)
    documents = documents_of(gathered)
    method = method_of(gathered, documents, request)
    documents.setdefault("command", method_keys(framework(gathered.framework).TABLE, method))
    read = read_plan(gathered, documents, request, rules, method)
    keys = key_findings(gathered, documents, read.leftovers, rules)
    meant = weigh(gathered, request, read, rules)
    return Checked(
        path=gathered.path,
        framework=gathered.framework,
        title=rules.title,
        version=rules.version,
        plan=read.plan.as_dict(),
        described=f"{read.plan.method}, {describe(read.plan)}",
        findings=(*_missing(gathered), *keys.findings, *read.findings, *meant.findings),
        evidence=rules.proof,
        memory=None if meant.memory is None else meant.memory.as_dict(),
        model=meant.model,
        gpu=meant.gpu,
        unread=keys.unread,
    )


def _of_release(gathered: Gathered) -> Gathered:
    """With the pinned release where none is given. Raises InputError for one without a snapshot."""
    version = gathered.version or load_framework(gathered.framework).version
    check_release(gathered.framework, version)
    return replace(gathered, version=version)


def _missing(gathered: Gathered) -> list[Finding]:
    return [
        Finding(PROBLEM, "file", "the advice lists it and it is not there", f"{gathered.path}/{name}")
        for name in gathered.missing
    ]
