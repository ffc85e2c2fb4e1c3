"""The Unsloth judge accepts good files and names what is wrong with broken ones, in Unsloth's environment."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = Path(__file__).resolve().parent / "unsloth"
ACCEPTED = sorted(path for path in (CASES / "accepted").iterdir() if path.suffix in (".py", ".yaml"))
SINGLE = sorted(path for path in (CASES / "single").iterdir() if path.suffix in (".py", ".yaml"))
BROKEN = sorted(path for path in (CASES / "broken").iterdir() if path.suffix in (".py", ".yaml"))
TIMEOUT_S = 600

pytestmark = pytest.mark.conformance


@cache
def python() -> str:
    """Python of Unsloth's environment, built when it is not there yet."""
    environment = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "framework_env.py"), "unsloth"],
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
        [python(), str(ROOT / "advisor" / "judges" / "unsloth.py"), "--world-size", "2", *names],
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
        [python(), str(ROOT / "advisor" / "judges" / "unsloth.py")],
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert run.returncode == 2


def test_files_for_one_process() -> None:
    """`unsloth train` and a placement of one's own are for one process only."""
    run = subprocess.run(
        [python(), str(ROOT / "advisor" / "judges" / "unsloth.py"), *map(str, SINGLE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert run.stdout.splitlines() == [f"OK {path}" for path in SINGLE]
    assert run.returncode == 0


def test_syntax_error(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import unsloth\nmodel = (\n", encoding="utf-8")
    run = subprocess.run(
        [python(), str(ROOT / "advisor" / "judges" / "unsloth.py"), str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert run.stdout.startswith(f"FAIL {script}: line 2: ")
