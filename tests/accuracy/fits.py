"""Published runs that are known to have fitted, or to have run out of memory, judged on their own hardware."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from advisor.estimate.memory import estimate_memory
from advisor.estimate.types import MemoryEstimate
from advisor.explicit import explicit_plan
from advisor.plan import Plan
from advisor.request import parse_request
from advisor.rules import FrameworkRules, load_framework
from tests.accuracy.published_request import HERE

ROWS = Path(__file__).with_name("fits.csv")


class Run(NamedTuple):
    ran: bool
    """It ran; else it ran out of memory."""
    statement: str
    source: str
    request: dict[str, Any]
    plan: Plan
    memory: MemoryEstimate

    @property
    def feasible(self) -> bool:
        """On the GPU; what the host holds is judged apart, because few documents state its size."""
        return self.memory.total <= self.memory.capacity_gib

    @property
    def verdict(self) -> str:
        if not self.feasible:
            return "no"
        return "fits" if self.memory.high <= self.memory.capacity_gib else "tight"

    @property
    def right(self) -> bool:
        return self.feasible if self.ran else self.verdict != "fits"


@cache
def _rules(framework: str | None) -> FrameworkRules | None:
    return load_framework(framework) if framework else None


def _run(row: dict[str, str]) -> Run:
    request = json.loads(row["request"])
    config = HERE / "models" / str(request["model"])
    asked = {**request, "model": str(config)} if config.is_file() else request
    explicit = explicit_plan(parse_request(asked), _rules(request.get("framework")))
    resolved = explicit.resolved
    memory = estimate_memory(resolved.model, explicit.plan, resolved.cluster)
    return Run(row["known"] == "ran", row["statement"], row["source"], request, explicit.plan, memory)


@cache
def runs() -> tuple[Run, ...]:
    with ROWS.open(newline="") as lines:
        return tuple(_run(row) for row in csv.DictReader(lines))
