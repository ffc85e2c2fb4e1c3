"""Peaks and step times out of a finished run's logs, whichever trainer wrote them.

Which key means what is data with its source (rules/catalog/log_keys.json). A key counts wherever it stands: as JSON,
as a printed dictionary, or as `key:value` on a console line. nvidia-smi's CSV is read by its header.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from advisor.errors import InputError
from advisor.paths import rules_root

COUNTERS = ("device", "reserved", "allocated")
"""From the one that includes most to the least."""
SUFFIXES = (".json", ".jsonl", ".log", ".txt", ".csv", ".out")
DEPTH = 4
MOST_FILES = 200
MOST_BYTES = 64 * 2**20
NUMBER = r"([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
NVIDIA_SMI = "memory.used"
UNITS = {"mib": 1 / 1024, "gib": 1.0, "kib": 1 / 1024**2}
SCALES = {"gib": 1.0, "bytes": 1 / 2**30, "seconds": 1.0}


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run's logs say."""

    peaks: dict[str, float]
    """COUNTERS -> GiB, the highest seen."""
    seconds: float | None
    """Of one optimizer step, the median."""
    files: tuple[str, ...]

    @property
    def counter(self) -> str:
        """The counter that includes most."""
        return next(name for name in COUNTERS if name in self.peaks)


@cache
def _keys() -> list[tuple[re.Pattern[str], str, str]]:
    """(pattern, counter, unit) of every known key."""
    rows = json.loads((rules_root() / "catalog" / "log_keys.json").read_text("utf-8"))["keys"]
    return [
        (
            re.compile(rf"(?<![\w/.(]){re.escape(row['key'])}[\"']?\s*[:=]\s*[\"']?{NUMBER}"),
            row["counter"],
            row["unit"],
        )
        for row in rows
    ]


def _values(text: str) -> Iterator[tuple[str, float]]:
    """(counter, GiB or seconds) of every known key in a text."""
    for pattern, counter, unit in _keys():
        for match in pattern.finditer(text):
            value = float(match.group(1))
            if value <= 0:
                continue
            yield counter, 1 / value if unit == "per_second" else value * SCALES[unit]


def _nvidia_smi(text: str) -> Iterator[tuple[str, float]]:
    """`nvidia-smi --query-gpu=...,memory.used,... --format=csv`, with or without units."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    header = next(rows, [])
    column = next((i for i, name in enumerate(header) if name.strip().startswith(NVIDIA_SMI)), None)
    if column is None:
        return
    for row in rows:
        found = re.match(rf"{NUMBER}\s*(\w*)", row[column].strip()) if len(row) > column else None
        if found:
            yield "device", float(found.group(1)) * UNITS.get(found.group(2).lower() or "mib", 1 / 1024)


def _elapsed(text: str) -> float | None:
    """Seconds a step from lines that give steps done and time elapsed (`current_steps`, `elapsed_time`)."""
    steps = re.findall(rf"\"current_steps\":\s*{NUMBER}", text)
    times = re.findall(r"\"elapsed_time\":\s*\"(?:(\d+) days?, )?(\d+):(\d+):(\d+)\"", text)
    if not steps or not times or float(steps[-1]) <= 0:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in times[-1])
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return total / float(steps[-1]) if total else None


def _logs(path: Path) -> list[Path]:
    """The files that may be logs: the file itself, or those of a folder, a few levels deep."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError("run", f"{path} does not exist; give a run's folder or one of its logs")
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in SUFFIXES and file.is_file() and len(file.relative_to(path).parts) <= DEPTH
    ]
    return [file for file in found if file.name != "advice.json"][:MOST_FILES]


def read_run(path: Path) -> Measured:
    """Everything a run's logs say about memory and time. Raises InputError when that is nothing."""
    peaks: dict[str, float] = {}
    seconds: list[float] = []
    files: list[str] = []
    for file in _logs(path):
        if file.stat().st_size > MOST_BYTES:
            continue
        text = file.read_text("utf-8", errors="replace")
        found = list(_values(text)) + (list(_nvidia_smi(text)) if NVIDIA_SMI in text[:2000] else [])
        for counter, value in found:
            if counter == "seconds":
                seconds.append(value)
            else:
                peaks[counter] = max(peaks.get(counter, 0.0), value)
        step = _elapsed(text)
        seconds += [step] if step else []
        files += [str(file)] if found or step else []
    if not peaks:
        known = "a trainer's log with its memory, torch.cuda.memory_stats as JSON, or nvidia-smi's CSV with memory.used"
        raise InputError("run", f"{path} holds no memory figure; what is read: {known}")
    return Measured(peaks, median(seconds) if seconds else None, tuple(files))
