"""No false refusals: what a rules row marks as absent is looked up in the installed framework, or refused by it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from advisor.frameworks import NAMES
from advisor.rules import load_framework
from advisor.rules.types import Proof
from tests.conformance.starters import judge_files
from tests.conformance.test_evidence import site_packages

pytestmark = pytest.mark.conformance

JUDGED = Path(__file__).with_name("judges")
READ = (".py", ".yaml", ".yml", ".json")


@pytest.mark.parametrize("name", NAMES)
def test_absences_are_real(name: str) -> None:
    rules = load_framework(name)
    rows = [row for row in rules.capabilities if not row.value] + list(rules.only)
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    for row in rows:
        for proof in row.proof:
            kinds[proof.kind] += 1
            problem = why_not(name, proof)
            if problem:
                wrong.append(f"{row.id}: {proof.kind} {proof.pattern!r} in {proof.place}: {problem}")
    print(f"\n{name}: {len(rows)} rows mark something absent, proofs by kind: {dict(kinds)}")
    assert not wrong, "\n".join(wrong)


def why_not(name: str, proof: Proof) -> str:
    """What is wrong with a proof, or ""."""
    if proof.kind == "refused":
        said = refusals(name)[str(JUDGED / proof.place)]
        return "" if any(proof.pattern in problem for problem in said) else f"the judge says {said}"
    place = site_packages(name) / proof.place
    if not place.exists():
        return "no such file or folder"
    if proof.kind == "absent":
        return next(found(place, re.compile(proof.pattern, re.MULTILINE)), "")
    return "" if proof.pattern in _one_space(place.read_text("utf-8")) else "not there"


@cache
def refusals(name: str) -> dict[str, list[str]]:
    """What the judge says of every configuration that a proof of this framework names."""
    rules = load_framework(name)
    rows = (*rules.capabilities, *rules.only)
    places = {JUDGED / proof.place for row in rows for proof in row.proof if proof.kind == "refused"}
    return judge_files(name, sorted(places))


def found(place: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    """Each place where the pattern occurs after all."""
    files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.suffix in READ)
    for file in files:
        text = file.read_text("utf-8", errors="replace")
        for match in pattern.finditer(text):
            yield f"{file}:{text.count(chr(10), 0, match.start()) + 1} has it"


def _one_space(text: str) -> str:
    """Rules files hold text with single spaces."""
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("kind", "place", "pattern"),
    [
        ("absent", "trl/trainer", r"class GRPOTrainer"),
        ("contains", "trl/trainer/sft_config.py", "no such sentence"),
        ("withheld", "trl/no_such_file.py", "anything"),
        ("refused", "trl/broken/muon.yaml", "another reason"),
    ],
)
def test_a_wrong_proof_is_found(kind: str, place: str, pattern: str) -> None:
    assert why_not("trl", Proof(kind, place, pattern))
