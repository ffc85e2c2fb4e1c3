"""The command in this process: exit code, stdout, stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from advisor.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "examples" / "data"
BASE = ("--model", "Qwen/Qwen3-8B", "--gpu", "h100", "--method", "sft")
TRL = (*BASE, "--framework", "trl")


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


Advisor = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Advisor:
    """run("recommend", "--model", ...) -> Ran. There is no terminal here."""

    def invoke(*argv: str) -> Ran:
        capsys.readouterr()
        code = main(argv)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke
