"""What checkpoints were measured to be beside what the estimate says of the same plans."""

from __future__ import annotations

import pytest

from advisor.estimate.model_sums import model_sums
from advisor.estimate.saving import checkpoint, gathered_bytes, host_bytes
from advisor.estimate.stage import make_setting
from advisor.facts.models import load_model
from advisor.plan import Plan
from tests.accuracy.checkpoints import Row, measured_host, rows, setting, way_of


def _name(row: Row) -> str:
    return f"{row['way']}-{row['tuning']}-{row['model']}"


@pytest.mark.parametrize("row", rows("checkpoints.csv"), ids=_name)
def test_files_are_as_large_as_measured(row: Row) -> None:
    way, s = setting(row)
    assert s.sums.total + (int(row["trained"]) if row["tuning"] == "lora" else 0) == int(row["parameters"])
    found = checkpoint(s, way)
    least = 3e5  # names, shapes and configurations
    # A distributed checkpoint adds about 1.5 kB a tensor and rank, which is much for adapters this small.
    rel = 0.03 if _name(row) == "fsdp-sharded-lora-dense" else 0.01
    for part in ("model", "resume", "optimizer"):
        assert getattr(found, part) == pytest.approx(int(row[f"{part}_bytes"]), rel=rel, abs=least), part
    measured = sum(int(row[f"{part}_bytes"]) for part in ("model", "resume", "optimizer"))
    assert found.total == pytest.approx(measured, rel=rel)


@pytest.mark.parametrize("row", rows("checkpoints.csv"), ids=_name)
def test_the_host_holds_what_was_measured(row: Row) -> None:
    way, s = setting(row)
    if way.weights == "file":
        assert measured_host(row) == 0  # nothing is gathered; what a file takes was not measured
        return
    without_copies = way.model_copy(update={"splits_experts": False})
    assert host_bytes(s, without_copies) == pytest.approx(measured_host(row), rel=0.005)


@pytest.mark.parametrize("row", rows("gathered.csv"), ids=lambda row: row["model"])
def test_a_gpu_gathers_what_was_traced(row: Row) -> None:
    """PyTorch's full state dict gathers one parameter at a time, to the byte; rank 0's host gets all of them, a head
    that is the embedding twice."""
    plan = Plan(
        tuning="full", fsdp=True, zero_stage=3, gpus_per_node=int(row["gpus"]), param_dtype=row["dtype"]
    )
    s = make_setting(model_sums(load_model(row["model"])), plan)
    way = way_of("fsdp-whole")
    assert gathered_bytes(s, way) == int(row["gpu_bytes"])
    weights = way.model_copy(update={"optimizer": "stream", "splits_experts": False})
    assert host_bytes(s, weights) == int(row["host_bytes"])
