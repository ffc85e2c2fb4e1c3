"""Megatron-Core's own model, traced, beside the estimates of the same plans (rows: tools/trace_megatron.py)."""

from __future__ import annotations

import csv
import json
import sys
from functools import cache
from pathlib import Path

from advisor.estimate.memory import estimate_memory
from tests.accuracy.traced_rows import Compared, cut_model, median_error, plan_of, table, worst
from tests.estimate.samples import cluster

ROWS = Path(__file__).with_name("traced_megatron.csv")


@cache
def compared() -> tuple[Compared, ...]:
    """Every committed row with the estimator's figure for the same plan, in GiB of allocated memory."""
    found: list[Compared] = []
    with ROWS.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            plan = plan_of(json.loads(row["plan"]))
            model = cut_model(row["model"], int(row["layers"]))
            memory = estimate_memory(model, plan, cluster(plan.gpus_per_node, plan.nodes))
            sizes = memory.allocated, float(row["peak_gib"]), memory.moment, row["moment"]
            found.append(
                Compared(row["id"], row["split"], row["kind"], plan.tuning, plan.world_size > 1, *sizes)
            )
    return tuple(found)


def of_split(split: str) -> list[Compared]:
    return [row for row in compared() if row.split == split]


__all__ = ["compared", "median_error", "of_split", "table", "worst"]


if __name__ == "__main__":
    shown = of_split(sys.argv[1]) if len(sys.argv) > 1 else list(compared())
    print(table(shown))
    print(f"{len(shown)} rows, median |error| {100 * median_error(shown):.2f} %")
