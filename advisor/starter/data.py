"""The user's rows, in a form the framework reads: copied as they are, or converted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from advisor.errors import InputError
from advisor.facts import rows
from advisor.facts.dataset import read_rows
from advisor.facts.types import Dataset
from advisor.frameworks.base import DataNeed
from advisor.plan import Plan

SMOKE_ROWS = 64
TRAIN_PATH = "data/train.jsonl"


@dataclass(frozen=True, slots=True)
class Wiring:
    """How the data gets into the repo."""

    path: str
    """What the configuration names: a path in the repo, or a hub id."""
    local: bool
    format: str
    rows: int
    sources: tuple[Dataset, ...]
    converted: bool
    spell: Callable[[dict[str, Any], str], dict[str, Any]] | None = None
    """The framework's own spelling of the stored format, where it has one."""


def wire(datasets: Sequence[Dataset], plan: Plan, need: DataNeed, in_place: bool) -> Wiring:
    """Chooses the stored format: the user's own where the framework reads it, else the framework's first.

    Raises InputError when hub data is in a format that the framework does not read: it cannot be converted here.
    """
    reads = need.reads
    if not datasets:
        return Wiring(TRAIN_PATH, True, reads[0], 0, (), False, need.spell)
    first = datasets[0]
    if not first.local:
        if len(datasets) > 1:
            raise InputError("data", "several hub ids are not supported; give files, or one id")
        hub = reads if need.hub is None else need.hub
        if not hub:
            raise InputError(
                "data", f"{first.path}: this framework cannot read rows for {plan.method} straight from a hub; "
                "download it and pass the file, which is then converted"
            )  # fmt: skip
        known = first.format if first.format in hub else hub[0]
        if first.format not in ("unknown", *hub):
            raise InputError(
                "data", f"{first.path} holds {first.format} rows on a hub; this framework reads {', '.join(hub)}; "
                "download it and pass the file, which is then converted"
            )  # fmt: skip
        return Wiring(first.path, False, known, 0, tuple(datasets), False)
    formats = {dataset.format for dataset in datasets}
    native = len(formats) == 1 and first.format in reads
    stored = first.format if native else reads[0]
    rewritten = stored in need.spelled or (need.spell and first.extra.get("tool_rows"))
    if native and in_place and len(datasets) == 1 and not rewritten:
        return Wiring(str(Path(first.path).resolve()), True, stored, first.rows, tuple(datasets), False)
    total = sum(d.rows for d in datasets)
    return Wiring(TRAIN_PATH, True, stored, total, tuple(datasets), not native, need.spell)


def stored_rows(wiring: Wiring, plan: Plan) -> Iterator[dict[str, Any]]:
    """Every usable row in the stored format. Raises InputError at the first row that cannot be converted."""
    for dataset in wiring.sources:
        bad = {number for number, _ in dataset.bad_rows}
        for line in read_rows(Path(dataset.path)):
            if line.row is None or line.number in bad or rows.problem(line.row, dataset.format):
                continue
            try:
                for row in _convert(line.row, dataset.format, wiring.format, plan):
                    yield _spelled(row, wiring)
            except ValueError as error:
                raise InputError("data", f"{dataset.path}:{line.number}: {error}") from None


def _spelled(row: dict[str, Any], wiring: Wiring) -> dict[str, Any]:
    return wiring.spell(row, wiring.format) if wiring.spell else row


def _convert(row: dict[str, Any], source: str, target: str, plan: Plan) -> Iterator[dict[str, Any]]:
    if target == "kto" and source.startswith("preference"):
        yield from rows.unpair(row, source)
    elif source == target and source != "prompt-completion":
        yield row  # untouched: columns that only the user knows stay
    else:
        yield rows.convert(row, source, target)


def smoke_rows(wiring: Wiring, plan: Plan) -> list[dict[str, Any]]:
    """The first rows, for the smoke run; small made-up ones where the data is not at hand."""
    found = list(islice(stored_rows(wiring, plan), SMOKE_ROWS)) if wiring.sources and wiring.local else []
    return found or [_spelled(row, wiring) for row in sample_rows(wiring.format)]


QUESTIONS = (
    ("What is 7 times 8?", "56", "54"),
    ("Name the capital of Japan.", "Tokyo", "Osaka"),
    ("Which gas do plants take in?", "Carbon dioxide", "Nitrogen"),
    ("How many minutes are in two hours?", "120", "100"),
    ("What is the square root of 144?", "12", "14"),
    ("Which planet is closest to the sun?", "Mercury", "Venus"),
    ("What is 15 percent of 200?", "30", "20"),
    ("How many sides has a hexagon?", "6", "8"),
)
"""Stand-ins for data that lives on a hub: (question, right answer, wrong answer)."""


def sample_rows(format: str) -> list[dict[str, Any]]:
    """16 rows of a format, for a smoke run without the user's data."""
    made: list[dict[str, Any]] = []
    for question, right, wrong in QUESTIONS * 2:
        pair = {"prompt": question, "chosen": right, "rejected": wrong}
        if format == "text":
            made.append({"text": f"{question} {right}."})
        elif format == "kto":
            made += rows.unpair(pair, "preference")
        elif format.startswith("preference"):
            made.append(rows.convert(pair, "preference", format))
        elif format == "prompt-completion":
            made.append({"prompt": question, "completion": right})
        elif format == "rl-prompts":
            prompt = [{"role": "user", "content": question}]
            made.append({"prompt": prompt, "solution": right})
        else:
            made.append(rows.convert(rows.take_chosen(pair, "preference"), "messages", format))
    return made


def as_lines(found: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
