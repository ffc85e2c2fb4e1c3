"""The rows of rules/catalog/saving.json: complete, closed and reachable."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from advisor.facts.saving import Saving, saving_catalog, saving_of, splits_experts
from advisor.frameworks import MODULES
from advisor.plan import Plan


def test_every_habit_names_a_way_and_every_way_has_a_habit() -> None:
    catalog = saving_catalog()
    ways = {way.id for way in catalog.ways}
    assert {row.way for row in catalog.habits} == ways
    assert {row.framework for row in catalog.habits} - {""} <= set(MODULES)
    assert all(hasattr(Plan(), field) for row in catalog.habits for field in row.match)


def test_the_last_row_matches_any_plan() -> None:
    last = saving_catalog().habits[-1]
    assert not last.framework
    assert not last.match


def test_a_framework_has_its_own_way_before_that_of_the_libraries() -> None:
    plan = Plan(tuning="full", fsdp=True, zero_stage=3, gpus_per_node=8)
    assert saving_of(plan, 8_000_000_000).id == "fsdp-sharded"
    assert saving_of(plan, 8_000_000_000, "trl").id == "fsdp-whole"
    assert saving_of(plan, 8_000_000_000, "verl").id == "rank-files"
    assert saving_of(plan, 70_000_000_000, "axolotl").id == "fsdp-sharded-joined"
    assert saving_of(Plan(zero_stage=2), 8_000_000_000, "axolotl").id == "deepspeed-copies"


def test_a_framework_may_write_smaller_files() -> None:
    assert saving_of(Plan(), 1, "ms-swift").file_gb == 5
    assert saving_of(Plan(), 1, "trl").file_gb == 50


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError):
        Saving.model_validate({**saving_catalog().ways[0].model_dump(), "wieghts": "first"})


def test_types_whose_files_hold_experts_fused_are_not_cut_up() -> None:
    assert splits_experts("qwen3_moe")
    assert not splits_experts("gpt_oss")
