"""Finished runs against the estimates for their own plans: what was predicted, what was measured, the ratio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from advisor.errors import InputError
from advisor.estimate.memory import estimate_memory
from advisor.estimate.time import seconds_per_step
from advisor.estimate.types import MemoryEstimate
from advisor.facts.corrections import Measurement
from advisor.plan import Plan
from advisor.request import parse_request
from advisor.resolve import resolve
from advisor.run_logs import COUNTERS, Measured, read_run

ADVICE, ANSWERS = "advice.json", "answers.yaml"
UNBELIEVABLE = 4.0
"""A measured figure that many times the predicted one, or that small a part, is another run's."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One run and the estimate for the plan of its starter repo."""

    run: str
    gpu: str
    framework: str
    memory: MemoryEstimate
    measured: Measured
    predicted_seconds: float | None

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        """(what, predicted, measured): the terms, then every counter, then the step time."""
        found: list[tuple[str, float | None, float | None]] = [
            (name, size, None) for name, size in self.memory.terms.items() if size >= 0.005
        ]
        for counter in reversed(COUNTERS):
            found.append((counter, self.memory.shown(counter), self.measured.peaks.get(counter)))
        found.append(("seconds a step", self.predicted_seconds, self.measured.seconds))
        return found

    def measurement(self) -> Measurement:
        counter = self.measured.counter
        return Measurement(
            run=self.run,
            counter=counter,
            predicted_gib=round(self.memory.shown(counter), 3),
            measured_gib=round(self.measured.peaks[counter], 3),
            predicted_seconds=self.predicted_seconds and round(self.predicted_seconds, 4),
            measured_seconds=self.measured.seconds and round(self.measured.seconds, 4),
        )


def _advice(path: Path) -> tuple[Path, Mapping[str, Any]]:
    """The advice.json of the starter repo that the run belongs to: in the folder or above it."""
    from advisor.starter.answers import read_answers

    start = path.resolve()
    for folder in (start, *start.parents):
        if (folder / ADVICE).is_file() and (folder / ANSWERS).is_file():
            return folder, read_answers(folder / ADVICE)
    raise InputError(
        "run",
        f"no starter repo ({ADVICE}, {ANSWERS}) at or above {path}; give a run inside the one that started it",
    )


def compare(path: Path) -> Compared:
    """Raises InputError: not a run, no starter repo around it, or figures that cannot be of this plan."""
    measured = read_run(path)
    folder, advice = _advice(path)
    plan, request, framework = advice.get("plan"), advice.get("request"), advice.get("framework")
    if not isinstance(plan, dict) or not isinstance(request, dict) or not framework:
        raise InputError(
            "run", f"{folder / ADVICE} names no plan, request and framework, as a starter repo's does"
        )
    asked = {name: value for name, value in request.items() if name != "data"}
    resolved = resolve(parse_request({**asked, "calibration": False}))
    known = {field.name for field in fields(Plan)}
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in plan.items() if name in known
    }
    spelled = Plan(**values)
    memory = estimate_memory(resolved.model, spelled, resolved.cluster, framework=framework)
    peak, expected = measured.peaks[measured.counter], memory.shown(measured.counter)
    if not 1 / UNBELIEVABLE <= peak / expected <= UNBELIEVABLE:
        raise InputError(
            "run",
            f"{path} shows {peak:.1f} GiB ({measured.counter}) where the plan of {folder / ADVICE} takes "
            f"{expected:.1f}; give the main run, not the smoke test",
        )
    seconds = seconds_per_step(resolved.model, spelled, resolved.cluster)
    name = path.resolve()
    shown = str(name.relative_to(folder.parent)) if name != folder else folder.name
    return Compared(shown, resolved.cluster.gpu.id, framework, memory, measured, seconds)
