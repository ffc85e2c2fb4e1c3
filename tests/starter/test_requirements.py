"""requirements.txt and requirements-cpu.txt: what a plan needs beyond the pinned set stands in both, and only then."""

from __future__ import annotations

import pytest

from advisor.plan import Plan
from advisor.rules import load_framework
from advisor.starter.requirements import requirements


def lines(name: str, plan: Plan) -> dict[str, list[str]]:
    return {file.path: file.text.splitlines() for file in requirements(load_framework(name), plan, None)}


@pytest.mark.parametrize(
    ("name", "optimizer", "needed"),
    [
        ("trl", "galore_adamw", ["galore-torch==1.0", "bitsandbytes==0.50.2"]),
        ("llamafactory", "apollo_adamw_layerwise", ["apollo-torch==1.0.3", "bitsandbytes==0.50.2"]),
        ("axolotl", "galore_adamw_layerwise", ["galore-torch==1.0"]),
        ("ms-swift", "apollo_adamw", ["apollo-torch==1.0.3"]),
        ("ms-swift", "galore_adamw", []),  # it brings its own copy
    ],
)
def test_optimizers_of_packages_of_their_own(name: str, optimizer: str, needed: list[str]) -> None:
    plain, own = (lines(name, Plan(tuning="full", optimizer=o)) for o in ("adamw", optimizer))
    for file in ("requirements.txt", "requirements-cpu.txt"):
        added = [line for line in own[file] if line not in plain[file] and not line.startswith("#")]
        assert {*needed} <= {*own[file]}
        assert all("torch" not in line for line in plain[file] if line.startswith(("galore", "apollo")))
        assert {*added} <= {"galore-torch==1.0", "apollo-torch==1.0.3", "bitsandbytes==0.50.2"}
        assert bool(added) == bool(needed)


def test_a_license_that_excludes_uses_is_named() -> None:
    told = lines("trl", Plan(tuning="full", optimizer="apollo_adamw"))["requirements.txt"]
    assert any("CC BY-NC 4.0" in line for line in told)
