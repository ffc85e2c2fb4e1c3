"""Every source that a rules row names is there, and no claim outlives its evidence."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from advisor.frameworks import NAMES
from advisor.rules import load_framework
from advisor.rules.evidence import load_proofs
from tests.conformance.starters import environment
from tools.evidence_report import outlived

pytestmark = pytest.mark.conformance

REF = re.compile(r"^(?P<package>[\w.-]+)==(?P<version>[\w.+]+):(?P<path>[^:\s]+)(?::(?P<line>\d+))?")


@cache
def site_packages(name: str) -> Path:
    return next((environment(name).parent.parent / "lib").glob("python*/site-packages"))


@cache
def installed(folder: Path) -> dict[str, str]:
    """Package (in one spelling) -> version, from the dist-info folders."""
    found: dict[str, str] = {}
    for info in folder.glob("*.dist-info"):
        package, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        found[spelled(package)] = version
    return found


def spelled(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def places(package: str, version: str) -> list[Path]:
    """Environments, of any of the six, that hold this package at this version."""
    wanted = (spelled(package), version)
    return [
        folder
        for folder in map(site_packages, NAMES)
        if (wanted[0], installed(folder).get(wanted[0], "").partition("+")[0]) == wanted
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_claim_outlives_its_evidence(name: str) -> None:
    """A row that says `parsed` or `ran_cpu` needs a current row in rules/evidence/: docs/evidence.md says when."""
    outliving = outlived(load_framework(name), load_proofs(name))
    assert not outliving, "\n".join(outliving)


@pytest.mark.parametrize("name", NAMES)
def test_sources_exist(name: str) -> None:
    wrong: list[str] = []
    kinds: Counter[str] = Counter()
    for row in load_framework(name).rows:
        for evidence in row.evidence:
            kinds[evidence.kind] += 1
            problem = why_wrong(evidence.ref) if evidence.kind == "source" else ""
            if problem:
                wrong.append(f"{row.id}: {evidence.ref}: {problem}")
    print(f"\n{name}: evidence by kind: {dict(kinds)}")
    assert not wrong, "\n".join(wrong)


def why_wrong(ref: str) -> str:
    found = REF.match(ref)
    if not found:
        return "not package==version:path"
    folders = places(found["package"], found["version"])
    if not folders:
        return "no environment has this package at this version"
    return missing(folders[0], found["path"], found["line"])


def missing(folder: Path, path: str, line: str | None) -> str:
    if path == "METADATA":
        return ""
    place = folder / path
    if not place.exists():
        return "no such file"
    if line and place.is_file() and len(place.read_text("utf-8", errors="replace").splitlines()) < int(line):
        return "the file is shorter"
    return ""
