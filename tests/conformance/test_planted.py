"""A false claim in a rules file is found: what it lets through has no key, or the framework's judge refuses it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.starters import ROOT, answers_for, judge_all

pytestmark = pytest.mark.conformance

HAS = {"value": True}
NEVER = "never"
"""Stands for a limit that is taken out."""

FOUND = ("no key", "cannot express", "no such key")
"""What the table says of a value it cannot write, and the snapshot of a release of a key it lacks."""

PLANTED: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("trl", "trl.no-ppo", HAS, {"method": "ppo", "tuning": "lora"}),
    ("trl", "trl.no-freeze", HAS, {"method": "sft", "tuning": "freeze"}),
    ("axolotl", "axolotl.no-gkd", HAS, {"method": "gkd", "tuning": "lora"}),
    ("axolotl", "axolotl.packing-methods", {"when": NEVER}, {"method": "dpo", "tuning": "lora", "packing": True}),
    ("llamafactory", "llamafactory.no-cpo", HAS, {"method": "cpo", "tuning": "lora"}),
    ("ms-swift", "ms-swift.packing-methods", {"when": NEVER}, {"method": "orpo", "tuning": "lora", "packing": True}),
    ("ms-swift", "ms-swift.hf-no-pipeline", {"values": [1, 2]},
     {"method": "sft", "tuning": "lora", "backend": "hf", "gpus_per_node": 8, "pipeline_parallel": 2}),
    ("trl", "trl.packing", {"values": [False, True]}, {"method": "dpo", "tuning": "lora", "packing": True}),
    ("unsloth", "unsloth.liger", {"values": [False, True]}, {"method": "sft", "tuning": "lora", "liger": True}),
    ("unsloth", "unsloth.no-freeze", HAS, {"method": "sft", "tuning": "freeze"}),
    ("verl", "verl.no-dora", HAS, {"method": "grpo", "tuning": "dora", "gpus_per_node": 8}),
]  # fmt: skip


def advisor_with(folder: Path, name: str, row: str, changes: dict[str, Any]) -> Path:
    """A copy of the advisor in which one row of a framework's rules says something else."""
    for part in ("advisor", "rules", "templates"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "rules" / "frameworks" / f"{name}.yaml"
    content = yaml.safe_load(file.read_text("utf-8"))
    rows = [r for section in ("capabilities", "only", "limits") for r in content[section] if r["id"] == row]
    assert len(rows) == 1, row
    rows[0].update(changes)
    content["limits"] = [r for r in content["limits"] if r["when"] != NEVER]
    file.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    return folder


def new(root: Path, out: Path, answers: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    request = out.with_suffix(".yaml")
    request.write_text(yaml.safe_dump(answers), "utf-8")
    return subprocess.run(
        [sys.executable, "-m", "advisor", "new", str(out), "--answers", str(request), "--yes"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(("name", "row", "changes", "asked"), PLANTED, ids=[row for _, row, _, _ in PLANTED])
def test_a_planted_claim_is_found(
    name: str, row: str, changes: dict[str, Any], asked: dict[str, Any], tmp_path: Path
) -> None:
    answers = answers_for(name, **asked)
    honest = new(ROOT, tmp_path / "honest", answers)
    assert honest.returncode == 3, honest.stderr[-2000:]
    assert not (tmp_path / "honest").exists()
    planted = new(advisor_with(tmp_path / "copy", name, row, changes), tmp_path / "planted", answers)
    if planted.returncode == 0:
        problems = [p for found in judge_all(name, [tmp_path / "planted"]).values() for p in found]
        found = f"judge: {problems[:1]}"
        assert problems, "the planted claim was emitted and accepted"
    else:
        said = planted.stdout + planted.stderr
        found = next(line for line in said.splitlines() if any(word in line for word in FOUND))
    print(f"\n{row} planted: {found.strip()[:160]}")
