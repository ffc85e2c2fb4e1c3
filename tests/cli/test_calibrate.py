"""`advisor calibrate`: predicted against measured, and the correction that later answers use and show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import BASE, DATA, TRL, Advisor

ESTIMATE = (*TRL, "--tuning", "lora", "--seq-len", "2048")


@pytest.fixture
def starter(run: Advisor, tmp_path: Path) -> Path:
    folder = tmp_path / "my-run"
    ran = run(
        "new", str(folder), *TRL, "--tuning", "lora", "--data", str(DATA / "sft.jsonl"), "--yes", "--quiet"
    )
    assert ran.code == 0, ran.err
    return folder


def _predicted(starter: Path) -> dict[str, Any]:
    return json.loads((starter / "advice.json").read_text())["ranking"][0]["memory"]["per_gpu_gib"]


def _log(starter: Path, allocated: float, name: str = "out/trainer_log.jsonl") -> Path:
    log = starter / name
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(
        json.dumps({"current_steps": 4, "elapsed_time": "0:00:08", "vram_allocated": allocated}) + "\n"
    )
    return log


def test_a_run_is_compared_kept_used_shown_and_forgotten(
    run: Advisor, starter: Path, no_corrections_of_this_user: Path
) -> None:
    plain = run("estimate", *ESTIMATE, "--output", "json").json()["memory"]
    _log(starter, 1.1 * _predicted(starter)["allocated"])
    compared = run("calibrate", str(starter), "--output", "json")
    assert compared.code == 0, compared.err
    correction = compared.json()["corrections"][0]
    assert (correction["gpu"], correction["framework"]) == ("h100-sxm", "trl")
    assert correction["memory"] == pytest.approx(1.1, abs=0.01)
    assert correction["seconds"] > 0
    assert list(no_corrections_of_this_user.rglob("corrections.json"))

    later = run("estimate", *ESTIMATE, "--output", "json").json()["memory"]
    assert later["per_gpu_gib"]["total"] == pytest.approx(plain["per_gpu_gib"]["total"] * 1.1, rel=0.01)
    assert later["per_gpu_gib"]["high"] == pytest.approx(plain["per_gpu_gib"]["high"] * 1.1, rel=0.01)
    assert any(note.startswith("Corrected by your runs: memory x1.10") for note in later["notes"])
    assert "Corrected by your runs: memory x1.10" in run("estimate", *ESTIMATE).out
    assert "Corrected by your runs: memory x1.10" in run("recommend", *TRL, "--tuning", "lora").out

    assert run("estimate", *ESTIMATE, "--no-calibration", "--output", "json").json()["memory"] == plain
    other = ("estimate", *BASE, "--tuning", "lora", "--seq-len", "2048", "--framework", "axolotl")
    assert "Corrected" not in run(*other).out

    assert run("calibrate", "--forget").code == 0
    assert run("estimate", *ESTIMATE, "--output", "json").json()["memory"] == plain


def test_the_terms_stand_beside_what_was_measured(run: Advisor, starter: Path) -> None:
    _log(starter, _predicted(starter)["allocated"])
    shown = run("calibrate", str(starter), "--dry-run")
    assert shown.code == 0
    for word in ("weights", "activations", "allocated", "reserved", "device", "seconds a step", "x1.00"):
        assert word in shown.out
    assert "--dry-run" in shown.err
    assert "Corrected" not in run("estimate", *ESTIMATE).out


def test_runs_of_one_pair_are_taken_together_and_a_run_read_again_replaces_itself(
    run: Advisor, starter: Path, tmp_path: Path
) -> None:
    size = _predicted(starter)["allocated"]
    logs = [_log(starter, size * factor, f"out/{factor}.log") for factor in (1.0, 1.2, 1.4)]
    kept = tmp_path / "kept.json"
    run("calibrate", *map(str, logs), "--into", str(kept))
    again = run("calibrate", str(logs[0]), "--into", str(kept), "--output", "json").json()["corrections"][0]
    assert again["runs"] == 3
    assert again["memory"] == pytest.approx(1.2, abs=0.01)
    assert "Corrected" not in run("estimate", *ESTIMATE).out, "--into keeps it elsewhere"


def test_bad_input_is_one_line_and_writes_nothing(
    run: Advisor, starter: Path, tmp_path: Path, no_corrections_of_this_user: Path
) -> None:
    log = _log(starter, 1000.0)
    alone = tmp_path / "alone.log"
    alone.write_text("{'vram_allocated': 20.0}\n")
    for arguments, words in (
        ((), "give one or more finished runs"),
        (("nowhere",), "does not exist"),
        ((str(starter / "train.yaml"),), "holds no memory figure"),
        ((str(alone),), "no starter repo"),
        ((str(log),), "give the main run, not the smoke test"),
        (("--forget", str(log)), "takes no runs"),
    ):
        ran = run("calibrate", *arguments)
        assert ran.code == 2, arguments
        assert words in ran.err, ran.err
        assert len(ran.err.strip().splitlines()) == 1
    assert not list(no_corrections_of_this_user.rglob("*.json"))


def test_a_broken_file_is_named(run: Advisor, no_corrections_of_this_user: Path) -> None:
    path = no_corrections_of_this_user / "posttrain-advisor" / "corrections.json"
    path.parent.mkdir()
    path.write_text('{"version": 2}')
    ran = run("estimate", *ESTIMATE)
    assert ran.code == 2
    assert str(path) in ran.err
    assert run("estimate", *ESTIMATE, "--no-calibration").code == 0
