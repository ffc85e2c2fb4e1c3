"""What the user's own finished runs say about the estimates: one correction per GPU and framework.

`advisor calibrate` writes them, into the user's configuration folder or a file of their choice; every later
estimate for that GPU and framework is multiplied by them and says so. Without the file nothing changes.
"""

from __future__ import annotations

import os
from datetime import date
from functools import cache
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from advisor.errors import InputError

FILE = "corrections.json"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measurement(_Model):
    """One run: what was predicted for it and what its logs say."""

    run: str
    """The folder or file that was read."""
    counter: str
    """allocated, reserved or device: what the measured figure includes."""
    predicted_gib: float = Field(gt=0)
    measured_gib: float = Field(gt=0)
    predicted_seconds: float | None = None
    measured_seconds: float | None = None
    """Of one optimizer step."""


class Correction(_Model):
    """The medians of measured over predicted of all runs on one GPU with one framework."""

    gpu: str
    framework: str
    date: date
    runs: tuple[Measurement, ...] = Field(min_length=1)

    @property
    def memory(self) -> float:
        return median(run.measured_gib / run.predicted_gib for run in self.runs)

    @property
    def seconds(self) -> float | None:
        ratios = [
            run.measured_seconds / run.predicted_seconds
            for run in self.runs
            if run.measured_seconds and run.predicted_seconds
        ]
        return median(ratios) if ratios else None

    @property
    def text(self) -> str:
        """Said beside every corrected figure."""
        names = ", ".join(run.run for run in self.runs[:3]) + (", ..." if len(self.runs) > 3 else "")
        time = f", time x{self.seconds:.2f}" if self.seconds else ""
        return f"Corrected by your runs: memory x{self.memory:.2f}{time}, from {names} ({self.date})."


class Corrections(_Model):
    """The whole file."""

    version: Literal[1] = 1
    corrections: tuple[Correction, ...] = ()

    def find(self, gpu: str, framework: str) -> Correction | None:
        return next((c for c in self.corrections if (c.gpu, c.framework) == (gpu, framework)), None)

    def with_runs(self, gpu: str, framework: str, runs: tuple[Measurement, ...], today: date) -> Corrections:
        """A run that was read before is replaced."""
        known = self.find(gpu, framework)
        names = {run.run for run in runs}
        kept = tuple(run for run in known.runs if run.run not in names) if known else ()
        new = Correction(gpu=gpu, framework=framework, date=today, runs=(*kept, *runs))
        others = tuple(c for c in self.corrections if c is not known)
        return Corrections(corrections=(*others, new))


def default_path() -> Path:
    """In the user's configuration folder."""
    from platformdirs import user_config_path

    return user_config_path("posttrain-advisor") / FILE


def read_corrections(path: Path | None = None) -> Corrections:
    """No file, no corrections. Raises InputError for one that cannot be read."""
    path = path or default_path()
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return Corrections()
    return _read(path, stamp)


@cache
def _read(path: Path, stamp: int) -> Corrections:
    """`stamp`: when the file changed, so that a changed one is read again."""
    try:
        return Corrections.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            "calibration", f"{path} cannot be read ({first}); remove it, or advisor calibrate --forget"
        ) from error


def write_corrections(corrections: Corrections, path: Path | None = None) -> Path:
    """Whole or not at all."""
    path = path or default_path()
    text = corrections.model_dump_json(indent=1) + "\n"
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError("into", f"{path} cannot be written: {error.strerror}") from error
    return path


def forget(path: Path | None = None) -> bool:
    """Removes the file; False when there was none."""
    path = path or default_path()
    if not path.is_file():
        return False
    path.unlink()
    return True
