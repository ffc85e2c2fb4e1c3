"""The traced cases beside their estimates."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from advisor.estimate.memory import estimate_memory
from tests.estimate.samples import cluster

ROOT = Path(__file__).resolve().parents[2]
ROWS = Path(__file__).with_name("traced_rows.csv")
sys.path.insert(0, str(ROOT / "tools"))

from trace_cases import cases, cut_model, plan_of  # noqa: E402


@dataclass(frozen=True, slots=True)
class Compared:
    id: str
    split: str
    kind: str
    tuning: str
    sharded: bool
    estimate: float
    traced: float
    moment: str
    traced_moment: str

    @property
    def error(self) -> float:
        return self.estimate / self.traced - 1


@cache
def compared() -> tuple[Compared, ...]:
    """Every committed row with the estimator's figure for the same plan, in GiB of allocated memory."""
    found: list[Compared] = []
    with ROWS.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            plan = plan_of(json.loads(row["plan"]))
            model = cut_model(row["model"], int(row["layers"]))
            memory = estimate_memory(model, plan, cluster(plan.gpus_per_node))
            sizes = memory.allocated, float(row["peak_gib"]), memory.moment, row["moment"]
            found.append(Compared(row["id"], row["split"], row["kind"], plan.tuning, plan.fsdp, *sizes))
    return tuple(found)


def of_split(split: str) -> list[Compared]:
    return [row for row in compared() if row.split == split]


def median_error(rows: list[Compared]) -> float:
    return median(abs(row.error) for row in rows)


def worst(rows: list[Compared]) -> Compared:
    return max(rows, key=lambda row: abs(row.error))


def table(rows: list[Compared]) -> str:
    return "\n".join(
        f"{r.id:48} {r.estimate:8.3f} {r.traced:8.3f} {r.moment:9} {r.traced_moment:9} {100 * r.error:+6.1f} %"
        for r in sorted(rows, key=lambda row: -abs(row.error))
    )


__all__ = ["Compared", "cases", "compared", "median_error", "of_split", "table", "worst"]


if __name__ == "__main__":
    shown = of_split(sys.argv[1]) if len(sys.argv) > 1 else list(compared())
    print(table(shown))
    print(f"{len(shown)} rows, median |error| {100 * median_error(shown):.2f} %")
