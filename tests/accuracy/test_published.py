"""Estimates against memory that others measured and published (published_rows.csv, with its sources).

The rows are those of a larger collection whose settings are complete enough to write down as a plan
(column `plan`), whose samples have a known length (packed or exact) and whose figure is not just the size
of the card.
Figures are rounded by their authors, come from other module code, and some are device usage with cached
blocks, so the bound is loose: the mean absolute error must stay below 15 %, no more than a fifth of the rows
may be off by more than 25 %, and the range must hold most rows. `python -m tests.accuracy.test_published`
prints the table.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from advisor.estimate.memory import estimate_memory
from advisor.plan import Plan
from tests.estimate.samples import GIB, MODELS, cluster

ROWS = Path(__file__).with_name("published_rows.csv")


class Row(NamedTuple):
    name: str
    estimate: float
    low: float
    high: float
    published: float

    @property
    def error(self) -> float:
        return self.estimate / self.published - 1

    @property
    def inside(self) -> bool:
        """Within the stated range, or within its 3 % (the authors' rounding)."""
        return self.low * 0.97 <= self.published <= self.high * 1.03


def _plan(text: str) -> Plan:
    fields = json.loads(text)
    if "lora_targets" in fields:
        fields["lora_targets"] = tuple(fields["lora_targets"])
    return Plan(**fields)


def results() -> list[Row]:
    found: list[Row] = []
    with ROWS.open(newline="") as lines:
        for row in csv.DictReader(lines):
            plan = _plan(row["plan"])
            estimate = estimate_memory(
                MODELS[row["estimator_model"]], plan, cluster(plan.gpus_per_node, plan.nodes)
            )
            published = float(row["peak_per_gpu"]) * (1 if row["unit"] == "GiB" else 1e9 / GIB)
            value = estimate.allocated if row["compare"] == "allocated" else estimate.total
            name = f"{row['id']} {row['framework'][:14]} {row['model'][:28]} {row['method']} {row['seq_len']}"
            found.append(Row(name, value, estimate.low, estimate.high, published))
    return found


def report() -> str:
    rows = results()
    lines = [
        f"{r.name:64} {r.estimate:7.1f} [{r.low:6.1f} {r.high:6.1f}] {r.published:7.1f} "
        f"{100 * r.error:+6.1f} % {'' if r.inside else 'outside'}"
        for r in rows
    ]
    lines.append(
        f"{len(rows)} rows, mean |error| {100 * mean(abs(r.error) for r in rows):.1f} %, bias "
        f"{100 * mean(r.error for r in rows):+.1f} %, inside the range {sum(r.inside for r in rows)}"
    )
    return "\n".join(lines)


def test_published_rows() -> None:
    rows = results()
    assert len(rows) >= 30
    assert mean(abs(r.error) for r in rows) <= 0.15, report()
    assert sum(abs(r.error) > 0.25 for r in rows) <= len(rows) / 5, report()


if __name__ == "__main__":
    print(report())
