"""Every example is what its own answers give today, byte for byte; `make examples` renders them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.frameworks import NAMES
from advisor.starter.answers import read_answers
from tools.render_examples import EXAMPLES, ROOT, files_of, names


@pytest.mark.parametrize("name", names())
def test_example_is_fresh(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    folder = EXAMPLES / name
    emitted = {file.path: file for file in files_of(name)}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == set(emitted)
    stale = [path for path, file in emitted.items() if (folder / path).read_text("utf-8") != file.text]
    assert not stale, f"run `make examples`: {stale}"
    not_executable = [
        p for p, file in emitted.items() if file.executable and not (folder / p).stat().st_mode & 0o100
    ]
    assert not not_executable


def test_there_is_one_for_every_framework() -> None:
    shown = {read_answers(EXAMPLES / name / "answers.yaml")["framework"] for name in names()}
    assert shown == set(NAMES)


def test_no_example_holds_a_path_of_this_machine() -> None:
    for name in names():
        for path in (EXAMPLES / name).rglob("*"):
            if path.is_file() and path.suffix != ".jsonl":
                assert str(Path.home()) + "/" not in path.read_text("utf-8"), path
