"""The Axolotl judge takes what Axolotl can run and names what is wrong with the rest."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = Path(__file__).resolve().parent / "axolotl"
JUDGE = ROOT / "advisor" / "judges" / "axolotl.py"
BROKEN = sorted((CASES / "broken").glob("*.yaml"))
ACCEPTED = sorted((CASES / "accepted").glob("*.yaml"))
WORLD_SIZE = 8
TIMEOUT_S = 300


@cache
def python_of_framework() -> str:
    tool = ROOT / "tools" / "framework_env.py"
    done = subprocess.run(
        [sys.executable, str(tool), "axolotl"], capture_output=True, text=True, check=True, timeout=1800
    )
    return done.stdout.strip().split("\t")[1]


@cache
def verdicts() -> dict[str, str]:
    """Every file, judged in one process: importing the framework is most of the time."""
    files = [str(file) for file in (*BROKEN, *ACCEPTED)]
    done = subprocess.run(
        [python_of_framework(), str(JUDGE), "--world-size", str(WORLD_SIZE), *files],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        word, _, rest = line.partition(" ")
        name, _, message = rest.partition(": ")
        found[name] = f"{word} {message}"
    return found


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_broken_file_is_refused_for_its_own_fault(file: Path) -> None:
    expected = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# expect: ")
    verdict = verdicts()[str(file)]
    assert verdict.startswith("FAIL ")
    assert expected in verdict


@pytest.mark.parametrize("file", ACCEPTED, ids=lambda file: file.stem)
def test_sound_file_is_accepted(file: Path) -> None:
    assert verdicts()[str(file)].startswith("OK")
