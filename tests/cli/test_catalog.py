"""`models`, `gpus`, `frameworks`, `rules`: lists, single rows with their source, and what is not there."""

from __future__ import annotations

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
