"""The TRL judge accepts good files and names what is wrong with broken ones, in TRL's own environment."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = Path(__file__).resolve().parent / "trl"
ACCEPTED = sorted(path for path in (CASES / "accepted").iterdir() if path.suffix in (".py", ".yaml"))
BROKEN = sorted(path for path in (CASES / "broken").iterdir() if path.suffix in (".py", ".yaml"))
TIMEOUT_S = 600

pytestmark = pytest.mark.conformance


@cache
def python() -> str:
    """Python of TRL's environment, built when it is not there yet."""
    environment = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "framework_env.py"), "trl"],
        capture_output=True,
        text=True,
        check=True,
        timeout=3600,
    )
    return environment.stdout.split("\t")[1].strip()


@cache
def verdicts() -> dict[str, str]:
    """One run of the judge over all files: starting the framework costs more than judging."""
    names = [str(path) for path in (*ACCEPTED, *BROKEN)]
    run = subprocess.run(
        [python(), str(ROOT / "advisor" / "judges" / "trl.py"), "--world-size", "2", *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert run.returncode == 1, run.stderr
    found = {}
    for line in run.stdout.splitlines():
        for name in names:
            if line == f"OK {name}" or line.startswith(f"FAIL {name}: "):
                found[name] = line
    return found


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.name)
def test_accepted(path: Path) -> None:
    assert verdicts()[str(path)] == f"OK {path}"


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name)
def test_broken(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# expect: ")
    verdict = verdicts()[str(path)]
    assert verdict.startswith(f"FAIL {path}: ")
    assert expected in verdict


def test_usage_error_exits_with_two() -> None:
    run = subprocess.run(
        [python(), str(ROOT / "advisor" / "judges" / "trl.py")],
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert run.returncode == 2
