"""Estimates against memory that others measured and published. `python -m tests.accuracy.report_published` prints it."""

from __future__ import annotations

from statistics import median

import pytest

from advisor.facts.memory_causes import memory_causes
from tests.accuracy.published import (
    compared,
    known_length,
    mean_error,
    read_rows,
    share_inside,
    strict,
)
from tests.accuracy.published_filter import published_gib, shows, why_loose
from tests.accuracy.published_request import Unsayable, request_of
from tests.accuracy.report_published import lines

ROW = {
    "framework": "torchtune", "stage": "sft", "model": "Llama-3.1-8B", "method": "lora", "lora_rank": "8",
    "lora_targets": "q,v", "quant": "", "precision": "bf16-true", "optimizer": "AdamW", "micro_batch": "2",
    "accumulation": "1", "seq_len": "2048", "seq_note": "packed", "grad_ckpt": "true", "attn": "sdpa", "fused_ce": "no",
    "n_gpus": "1", "gpu": "A100", "sharding": "none", "tp": "", "pp": "", "ep": "", "cp": "", "sp": "", "offload": "",
    "peak_per_gpu": "20", "unit": "GiB", "what_measured": "max reserved (log)", "source_repo": "r", "source_path": "p",
    "commit": "c", "notes": "",
}  # fmt: skip


def test_the_strict_rows_within_what_is_claimed() -> None:
    rows = strict()
    report = "\n".join(lines())
    assert len(rows) >= 17, report
    assert mean_error(rows) <= 0.12, report
    assert share_inside(rows) >= 0.9, report
    assert max(row.half_width for row in rows) <= 0.20, report


def test_rows_with_a_known_length_of_any_source() -> None:
    """Nothing is tuned to them: a wide bound that a broken formula would break."""
    rows = [
        r
        for r in compared()[0]
        if r.row["seq_note"].startswith(("packed", "exact", "inputs")) and r.published < 79
    ]
    assert len(rows) >= 55
    assert sorted(abs(r.error) for r in rows)[len(rows) // 2] <= 0.15


def test_what_is_unexplained_is_what_these_rows_leave() -> None:
    """The cause `unexplained` is their median error: it has to move when the formulas do."""
    cause = next(c for c in memory_causes() if c.name == "unexplained")
    found = median(abs(row.error) for row in known_length())
    assert cause.high == -cause.low == pytest.approx(found, abs=0.02)


def test_the_range_is_wide_only_by_what_low_leaves_out() -> None:
    assert max(row.uncertain for row in known_length()) <= 0.20


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"what_measured": "script header (device usage, rounded)"}, "allocator"),
        ({"unit": ""}, "unit"),
        ({"seq_note": "max_length; real data may be shorter"}, "length"),
        ({"attn": ""}, "attn"),
        ({"lora_rank": ""}, "lora_rank"),
        ({"notes": "same figure as the 1-GPU row"}, "doubted"),
        ({}, ""),
    ],
)
def test_the_filter(change: dict[str, str], reason: str) -> None:
    found = why_loose({**ROW, **change})
    assert reason in found if reason else found == ""


def test_units_and_counters() -> None:
    assert published_gib({**ROW, "unit": "GB (1e9)", "peak_per_gpu": "21.474836480"}) == pytest.approx(20.0)
    assert shows(ROW) == "reserved"
    assert shows({**ROW, "what_measured": "torch max_memory_allocated"}) == "allocated"
    assert shows({**ROW, "what_measured": "script header (device usage, rounded)"}) == "device"


@pytest.mark.parametrize(
    "change",
    [{"method": "ia3"}, {"sharding": "FSDP"}, {"optimizer": "GaLore AdamW"}, {"grad_ckpt": "selective (op)"},
     {"offload": "activations"}, {"quant": "nvfp4"}, {"gpu": "Ascend 910B3 64GB"}, {"model": "nobody/none"}],
)  # fmt: skip
def test_what_no_plan_can_say_is_left_out_with_the_reason(change: dict[str, str]) -> None:
    with pytest.raises(Unsayable):
        request_of({**ROW, **change})


def test_every_row_has_its_place() -> None:
    for row in read_rows():
        assert row["source_repo"], row["id"]
        assert row["source_path"], row["id"]
