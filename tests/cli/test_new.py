"""`new`: whole or not at all, never over what is there, and again from its own answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import DATA, TRL, Advisor

SFT = (*TRL, "--data", str(DATA / "sft.jsonl"))


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_writes_a_repo(run: Advisor, tmp_path: Path) -> None:
    target = tmp_path / "starter"
    ran = run("new", str(target), *SFT)
    assert ran.code == 0, ran.err
    assert ran.out.rstrip().endswith(str(target))
    advice = json.loads((target / "advice.json").read_text())
    assert advice["framework"] == "trl"
    assert advice["command"][:2] == ["trl", "sft"]
    listed = {path for paths in advice["files"].values() for path in paths}
    assert listed == set(tree(target))
    assert (target / "run.sh").stat().st_mode & 0o111
    assert [path.name for path in tmp_path.iterdir()] == ["starter"]


def test_the_same_request_writes_the_same_files(run: Advisor, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run("new", str(tmp_path / name), *SFT, "--quiet").code == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_its_answers_write_the_same_files(run: Advisor, tmp_path: Path) -> None:
    assert run("new", str(tmp_path / "one"), *SFT).code == 0
    answers = tmp_path / "one" / "answers.yaml"
    assert yaml.safe_load(answers.read_text())["framework"] == "trl"
    assert run("new", str(tmp_path / "two"), "--answers", str(answers)).code == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_refuses_a_folder_that_is_not_empty(run: Advisor, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ran = run("new", str(tmp_path), *SFT)
    assert ran.code == 5
    assert "--force" in ran.err
    assert tree(tmp_path) == {"mine.txt": b"mine"}


def test_refuses_a_file(run: Advisor, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert run("new", str(file), *SFT, "--force").code == 5
    assert file.read_text() == "mine"


def test_force_keeps_what_is_not_ours(run: Advisor, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "train.yaml").write_text("old")
    assert run("new", str(tmp_path), *SFT, "--force").code == 0
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "train.yaml").read_text() != "old"


def test_dry_run_writes_nothing(run: Advisor, tmp_path: Path) -> None:
    target = tmp_path / "starter"
    ran = run("new", str(target), *SFT, "--dry-run")
    assert ran.code == 0
    assert "new       train.yaml" in ran.out
    assert not target.exists()


def test_dry_run_shows_the_difference(run: Advisor, tmp_path: Path) -> None:
    assert run("new", str(tmp_path), *SFT).code == 0
    before = tree(tmp_path)
    ran = run("new", str(tmp_path), *SFT, "--learning-rate", "0.00005", "--dry-run")
    assert "changed   train.yaml" in ran.out
    assert "+learning_rate: " in ran.out
    assert "same      run.sh" in ran.out
    assert tree(tmp_path) == before


def test_without_a_terminal_missing_flags_are_listed(
    run: Advisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("new")
    assert ran.code == 2
    for flag in ("--model", "--gpu", "--method"):
        assert flag in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (("--method", "ppo"), 3),
        (("--seq-len", "100000"), 2),
        (("--model", "no/such-model"), 2),
        (("--data", "no-such-file.jsonl"), 2),
    ],
)
def test_a_failure_leaves_nothing(run: Advisor, tmp_path: Path, extra: tuple[str, ...], code: int) -> None:
    target = tmp_path / "starter"
    ran = run("new", str(target), *TRL, *extra)
    assert ran.code == code
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing(
    run: Advisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advisor.starter import write

    real, written = write._write, []  # pyright: ignore[reportPrivateUsage]

    def fails_at_the_third(root: Path, file: object) -> Path:
        written.append(file)
        if len(written) == 3:
            raise OSError("disk full")
        return real(root, file)  # type: ignore[arg-type]

    monkeypatch.setattr(write, "_write", fails_at_the_third)
    assert run("new", str(tmp_path / "starter"), *SFT).code == 1
    assert list(tmp_path.iterdir()) == []


def test_json_of_the_advice(run: Advisor, tmp_path: Path) -> None:
    ran = run("new", str(tmp_path / "starter"), *SFT, "--output", "json", "--dry-run")
    advice, _ = json.JSONDecoder().raw_decode(ran.out)
    assert advice["ranking"][0]["framework"] == "trl"
