"""`advisor check`: exit codes, text and JSON."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import ROOT, Advisor

CLEAN = ROOT / "examples" / "trl-sft-lora-qwen3-8b"
BAD = ROOT / "tests" / "check" / "bad" / "trl-old-key.yaml"


def test_a_clean_starter_exits_0(run: Advisor) -> None:
    ran = run("check", str(CLEAN))
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"{CLEAN}: Hugging Face TRL 1.16.0: sft, lora")
    assert lines[-1] == "  clean"


def test_problems_exit_4_and_come_first(run: Advisor) -> None:
    ran = run("check", str(BAD), str(CLEAN))
    assert ran.code == 4
    assert ran.out.splitlines()[1].startswith(f"{BAD}:6: max_seq_length: gone since trl 0.20.0")
    assert ran.err == "advisor: 1 problem found\n"


def test_quiet_prints_the_problems_alone(run: Advisor) -> None:
    ran = run("check", "--quiet", str(BAD), str(CLEAN))
    assert (ran.code, ran.err, len(ran.out.splitlines())) == (4, "", 1)


def test_json_has_every_finding(run: Advisor) -> None:
    ran = run("check", str(BAD), "--output", "json", "--gpu", "h100")
    found = ran.json()
    assert (ran.code, found["problems"]) == (4, 1)
    checked = found["checked"][0]
    assert (checked["framework"], checked["version"], checked["clean"]) == ("trl", "1.16.0", False)
    problem = checked["findings"][0]
    assert (problem["severity"], problem["kind"], problem["line"], problem["key"]) == (
        "problem",
        "unknown-key",
        6,
        "max_seq_length",
    )
    assert checked["memory"]["fits"] == "fits"


def test_what_cannot_be_read_exits_2(run: Advisor, tmp_path: Path) -> None:
    ran = run("check", str(tmp_path / "nowhere"))
    assert (ran.code, ran.out) == (2, "")
    assert "there is no such file or folder" in ran.err


def test_a_release_without_a_snapshot_is_refused_with_those_there_are(run: Advisor) -> None:
    ran = run("check", str(CLEAN), "--framework-version", "0.1")
    assert ran.code == 2
    assert "framework_version: there is no snapshot of trl 0.1; there are 1.16.0" in ran.err
