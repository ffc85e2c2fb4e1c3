"""`models`, `gpus`, `frameworks`, `rules`: lists, single rows with their source, and what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Advisor

LISTS = {"models": "id", "gpus": "id", "frameworks": "framework", "rules": "id"}
ROWS = [
    ("models", "qwen/qwen3-8b", "total_parameters"),
    ("gpus", "H100", "memory_gib"),
    ("frameworks", "trl", "releases"),
    ("rules", "gate.pinned", "because"),
    ("rules", "trl.sft", "source"),
]


@pytest.mark.parametrize("name", sorted(LISTS))
def test_lists(run: Advisor, name: str) -> None:
    as_json = run(name, "--output", "json").json()[name]
    assert len(as_json) >= 6
    text = run(name)
    assert text.code == 0
    assert all(row[LISTS[name]] in text.out for row in as_json)
    assert yaml.safe_load(run(name, "--output", "yaml").out)[name] == as_json


@pytest.mark.parametrize(("name", "row", "key"), ROWS)
def test_one_row(run: Advisor, name: str, row: str, key: str) -> None:
    assert run(name, row).code == 0
    assert run(name, row, "--output", "json").json()[key]


@pytest.mark.parametrize(
    ("name", "row"), [("models", "Qwen/Qwen3-8B"), ("gpus", "4090"), ("rules", "fit.tight")]
)
def test_a_row_has_its_source(run: Advisor, name: str, row: str) -> None:
    assert run(name, row, "--output", "json").json()["source"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("models", "Qwen/Qwen3-9B"), "close: "),
        (("gpus", "a100"), "choose a100-sxm-80"),
        (("frameworks", "nemo"), "there are axolotl"),
        (("rules", "gate.pined"), "close: gate.pinned"),
    ],
)
def test_what_is_not_there(run: Advisor, argv: tuple[str, ...], message: str) -> None:
    ran = run(*argv)
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""


ANSWERS = "model: Qwen/Qwen3-8B\ngpu: h100\nmethod: grpo\ngpus_per_node: 8\nmax_hours: 10\n"


def test_rules_for_a_request(run: Advisor, tmp_path: Path) -> None:
    answers = tmp_path / "answers.yaml"
    answers.write_text(ANSWERS)
    shown = run("rules", "--for", str(answers), "--output", "json").json()
    rows = {row["framework"]: row for row in shown["frameworks"]}
    assert len(rows) == 6
    assert rows["verl"]["feasible"]
    assert rows["llamafactory"]["plan"] is None
    assert rows["llamafactory"]["refusals"]
    heart = {rule["rule"]: rule for rule in rows["verl"]["rules"]}["seed.rl-heart"]
    assert (heart["outcome"], heart["points"]) == ("applies", 30)
    hours = {rule["rule"]: rule for rule in rows["trl"]["rules"]}["fit.max-hours"]
    assert (hours["outcome"], hours["why"]) == ("undecided", "time.hours not known")
    assert {limit["outcome"] for limit in rows["trl"]["limits"]} <= {"passes", "undecided"}


def test_rules_for_a_request_as_text(run: Advisor, tmp_path: Path) -> None:
    answers = tmp_path / "answers.yaml"
    answers.write_text(ANSWERS)
    whole = run("rules", "--for", str(answers))
    assert whole.code == 0
    assert "not decidable" in whole.out
    assert "trl." in whole.out
    one = run("rules", "gate.pinned", "--for", str(answers))
    assert one.out.count("gate.pinned") == 6
    assert "gate.avoided" not in one.out
    assert run("rules", "gate.pined", "--for", str(answers)).code == 2


def test_keys_of_a_framework_with_their_releases(run: Advisor) -> None:
    found = run("frameworks", "llamafactory", "--keys", "--output", "json").json()
    rows = {row["key"]: row for row in found["keys"]}
    assert found["releases"][0] == "0.9.5"
    assert rows["use_muon"]["releases"] == ["0.9.5", "0.9.4", "0.9.3"]
    text = run("frameworks", "llamafactory", "--keys").out
    assert any(line.split()[:4] == ["use_muon", "train", "since", "0.9.3"] for line in text.splitlines())
    assert run("frameworks", "--keys").code == 2
