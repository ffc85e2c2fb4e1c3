"""The speed rows: every constant is read, tagged and has a source."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from advisor.facts import speed
from advisor.facts.gpus import gpu_summaries
from advisor.facts.speed import SpeedConstants, speed_facts
from advisor.paths import rules_root

TAGS = {"published", "derived", "assumed", "fitted"}


def _data() -> dict[str, Any]:
    return json.loads((rules_root() / "catalog" / "speed.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("table", ["constants", "matmul", "networks"])
def test_every_row_has_a_tag_and_a_source(table: str) -> None:
    for row in _data()[table]:
        assert row["tag"] in TAGS, row
        assert row["source"].strip(), row


def test_fitted_rows_name_the_half_they_were_fitted_on() -> None:
    rows = [row for table in ("constants", "matmul") for row in _data()[table] if row["tag"] == "fitted"]
    assert rows
    assert all("throughput_rows.csv, fit half" in row["source"] for row in rows)


def test_constants_and_code_name_the_same() -> None:
    names = [row["name"] for row in _data()["constants"]]
    assert sorted(names) == sorted(field.name for field in fields(SpeedConstants))


def test_a_constant_too_many_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    data["constants"].append({"name": "warp", "value": 9})
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "speed.json").write_text(json.dumps(data))
    monkeypatch.setattr(speed, "rules_root", lambda: tmp_path)
    with pytest.raises(ValueError, match="warp"):
        speed_facts.__wrapped__()


def test_matmul_rows_are_cards_of_the_catalog() -> None:
    """One is not: the cards of a published series that were held to 500 W."""
    known = {row["id"] for row in gpu_summaries()}
    assert set(speed_facts().matmul) - known == {"h100-sxm-500w"}
