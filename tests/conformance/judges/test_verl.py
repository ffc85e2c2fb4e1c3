"""The verl judge takes sound files and refuses each broken one for the reason that the file states."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = Path(__file__).resolve().parent / "verl"
ACCEPTED = sorted((CASES / "accepted").iterdir())
BROKEN = sorted((CASES / "broken").iterdir())
OPTIONS: tuple[str, ...] = ()
TIMEOUT_S = 600

pytestmark = pytest.mark.conformance


@cache
def verdicts() -> dict[str, str]:
    """Each file's line; one process for all, because starting the framework costs more than judging."""
    environment = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "framework_env.py"), "verl"],
        capture_output=True,
        text=True,
        check=True,
        timeout=3600,
    )
    python = environment.stdout.strip().split("\t")[1]
    names = [str(path) for path in (*ACCEPTED, *BROKEN)]
    run = subprocess.run(
        [python, str(ROOT / "advisor" / "judges" / "verl.py"), *OPTIONS, *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert run.returncode == 1, run.stderr
    lines = run.stdout.splitlines()
    return {name: line for name in names for line in lines if line.partition(" ")[2].startswith(name)}


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_takes_sound_files(path: Path) -> None:
    assert verdicts()[str(path)] == f"OK {path}"


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_refuses_broken_files_for_their_own_fault(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# expect: ")
    line = verdicts()[str(path)]
    assert line.startswith(f"FAIL {path}: ")
    assert expected in line
