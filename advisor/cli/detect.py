"""The GPUs of this machine, as the driver names them."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass

from advisor.errors import InputError
from advisor.facts.gpus import load_gpu

QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader")
TIME_OUT_S = 5.0
MEMORY_TOLERANCE = 0.1
"""A laptop card bears a desktop card's name and holds less memory: it is another card."""


@dataclass(frozen=True, slots=True)
class Detected:
    name: str
    """As nvidia-smi prints it."""
    count: int
    id: str
    """Catalog id, "" when the card is not there."""


def detect() -> Detected | None:
    """The most frequent card that nvidia-smi lists; None without a driver, or when it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, *QUERY], check=False, capture_output=True, text=True, timeout=TIME_OUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(answer.stdout) if answer.returncode == 0 else None


def parse(listing: str) -> Detected | None:
    """`NVIDIA H100 80GB HBM3, 81559 MiB`, one line a card."""
    cards = Counter(line.strip() for line in listing.splitlines() if "," in line)
    if not cards:
        return None
    line, count = cards.most_common(1)[0]
    name, _, memory = line.rpartition(",")
    return Detected(name.strip(), count, _catalog_id(name, memory))


def _catalog_id(name: str, memory: str) -> str:
    """The driver's name, shortened word by word until the catalog knows it."""
    words = name.split()
    amount = memory.split()[0] if memory.split() else ""
    mib = float(amount) if amount.isdigit() else 0.0
    while words:
        try:
            gpu = load_gpu(" ".join(words))
        except InputError:
            words.pop()
            continue
        there = mib / 1024
        near = not mib or abs(gpu.memory_gib - there) <= MEMORY_TOLERANCE * there
        return gpu.id if near else ""
    return ""
