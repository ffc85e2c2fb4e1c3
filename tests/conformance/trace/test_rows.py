"""The committed traced rows come out of the real packages again."""

from __future__ import annotations

import csv
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROWS = ROOT / "tests" / "accuracy" / "traced_rows.csv"
LIMIT_S = 600
SMALL = (
    "qwen2.5-0.5b-12l full-1x2048",
    "deepseek-v2-lite-4l full-keep-eager-1x1024",
    "llama-3.2-1b-8l qlora-1x2048",
    "qwen3-30b-a3b-4l fsdp8-full-1x2048",
)
STEADY = "from dataclasses import replace; import sys; sys.path[:0] = ['tools', '.']\n" + (
    "from trace_cases import MODELS, Case, cut_model\n"
    "from advisor.trace.fake.step import trace\n"
    "for name, plan in (('llama-3.2-1b-8l', 'full-foreach-1x512'), ('llama-3.2-1b-8l', 'fsdp8-full-1x2048')):\n"
    "    case = Case(name, plan); model = cut_model(MODELS[name][0], 2)\n"
    "    print(trace(model, case.plan) == trace(model, case.plan, steps=3))\n"
)

pytestmark = pytest.mark.conformance


@cache
def environment() -> str:
    """Python of the environment that has torch, transformers and peft at the rows' versions."""
    told = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "framework_env.py"), "trl"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip().split("\t")[1]


def run(*arguments: str) -> str:
    ran = subprocess.run(
        [environment(), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def test_rows_are_what_a_trace_gives_today() -> None:
    committed = {row["id"]: row for row in csv.DictReader(ROWS.open(newline="", encoding="utf-8"))}
    again = csv.DictReader(run("tools/trace_cases.py", "--case", *SMALL).splitlines())
    found = {row["id"]: row for row in again}
    assert found == {case: committed[case] for case in SMALL}


def test_a_step_after_others_is_the_same_step() -> None:
    assert run("-c", STEADY).split() == ["True", "True"]
