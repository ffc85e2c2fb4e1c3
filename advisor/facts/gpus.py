"""Finds a GPU by the names people type and reads its facts from rules/catalog/gpus.json."""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from typing import Any, TypedDict

from advisor.errors import InputError
from advisor.facts.types import GpuFacts
from advisor.paths import rules_root

NOMINAL_SHARE = 0.99
"""Share of the nominal memory that a driver leaves, where no source reports the usable figure."""

Row = dict[str, Any]


class GpuSummary(TypedDict):
    """One line of `advisor gpus`."""

    id: str
    name: str
    vendor: str
    aliases: list[str]
    memory_gib: float
    bandwidth_gb_s: float | None
    tflops_bf16: float | None
    supports_bf16: bool
    supports_fp8: bool
    gpus_per_node: int
    usd_per_gpu_hour: float | None


@cache
def _catalog() -> dict[str, Any]:
    return json.loads((rules_root() / "catalog" / "gpus.json").read_text(encoding="utf-8"))


def _rows() -> dict[str, Row]:
    return {row["id"]: row for row in _catalog()["accelerators"]}


def _spelled(name: str) -> str:
    """One spelling for `A100 80GB`, `a100_80gb`, `NVIDIA GeForce RTX 4090`."""
    words = re.sub(r"\b(nvidia|geforce|tesla|amd|instinct)\b", " ", name.lower().replace("_", " "))
    return re.sub(r"[\s\-]+", "-", words.strip()).strip("-")


@cache
def _names() -> dict[str, str]:
    """Every accepted spelling -> id."""
    found: dict[str, str] = {}
    for row in _rows().values():
        for name in (row["id"], row["name"], *row["aliases"]):
            found[_spelled(name)] = row["id"]
    return found


def load_gpu(name: str) -> GpuFacts:
    """Facts of an accelerator by id, product name or alias."""
    wanted = _spelled(name)
    names = _names()
    if wanted in names:
        return _facts(_rows()[names[wanted]])
    several = {_spelled(key): value for key, value in _catalog()["ambiguous"].items()}
    if wanted in several:
        raise InputError("gpu", f"'{name}' is not one card: choose {' or '.join(several[wanted])}")
    raise _not_found(name, wanted)


def _not_found(name: str, wanted: str) -> InputError:
    starts = [gpu for key, gpu in _names().items() if wanted and key.startswith(wanted)]
    close = [_names()[key] for key in difflib.get_close_matches(wanted, _names(), n=5, cutoff=0.6)]
    hint = ", ".join(list(dict.fromkeys([*starts, *close]))[:5])
    return InputError(
        "gpu",
        f"'{name}' is not known; " + (f"close: {hint}" if hint else f"known: {', '.join(_rows())}"),
    )


def _facts(row: Row) -> GpuFacts:
    memory, memory_source = _memory(row)
    price, price_source = _price(row["id"])
    parts = row.get("devices", 1)
    rate = row["tflops_dense"]["bf16"] or row["tflops_dense"]["fp16"]
    bandwidth = row["memory_bandwidth_gb_s"]
    return GpuFacts(
        id=row["id"],
        name=row["name"],
        vendor=row["vendor"],
        compute_capability=row["compute_capability"],
        memory_gib=memory,
        memory_source=memory_source,
        bandwidth_gb_s=None if bandwidth is None else bandwidth / parts,
        tflops_bf16=None if rate is None else rate / parts,
        supports_bf16=bool(row["supports"]["bf16"]),
        supports_fp8=bool(row["supports"]["fp8_compute"]),
        supports_flash2=bool(row["supports"]["flash_attn_2"]),
        link_gb_s=row["link_gb_s"] or row["pcie_gb_s"],
        nvlink=row["nvlink"],
        gpus_per_node=(row["gpus_per_node"] or 1) * parts,
        usd_per_gpu_hour=price,
        price_source=price_source,
    )


def _memory(row: Row) -> tuple[float, str]:
    """Usable GiB of one device and where the figure is from."""
    parts = row.get("devices", 1)
    each = f" (one of {parts} devices of the card)" if parts > 1 else ""
    if row["memory_usable_gib"] is not None:
        return row["memory_usable_gib"] / parts, f"reported usable memory{each}"
    nominal = row["memory_nominal_gb"]
    if nominal is None:
        raise InputError("gpu", f"the memory of {row['name']} is not in the catalog; choose another card")
    usable = round(nominal / parts * NOMINAL_SHARE, 2)
    return usable, f"nominal {nominal / parts:g} GB read as GiB minus 1 %{each}"


def _price(gpu: str) -> tuple[float | None, str | None]:
    """Lowest indicative on-demand price of this GPU in the catalog's cloud rows."""
    rows = [row for row in _catalog()["cloud"] if row["gpu"] == gpu and row["on_demand_gpu_price"]]
    if not rows:
        return None, None
    row = min(rows, key=lambda cloud: cloud["usd_per_gpu_hour"])
    where = " ".join(row[key] for key in ("provider", "instance", "region") if key in row)
    when = f", {row.get('date', _catalog()['checked'])}"
    return row["usd_per_gpu_hour"], f"{where}, on demand, indicative{when}; {row['source']}"


def gpu_summaries() -> list[GpuSummary]:
    """Every catalog card whose memory is known, in catalog order."""
    return [_summary(row) for row in _rows().values() if row["memory_nominal_gb"] is not None]


def _summary(row: Row) -> GpuSummary:
    facts = _facts(row)
    return GpuSummary(
        id=facts.id,
        name=facts.name,
        vendor=facts.vendor,
        aliases=row["aliases"],
        memory_gib=facts.memory_gib,
        bandwidth_gb_s=facts.bandwidth_gb_s,
        tflops_bf16=facts.tflops_bf16,
        supports_bf16=facts.supports_bf16,
        supports_fp8=facts.supports_fp8,
        gpus_per_node=facts.gpus_per_node,
        usd_per_gpu_hour=facts.usd_per_gpu_hour,
    )
