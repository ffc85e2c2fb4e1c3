"""Today's price of a GPU, asked only when the user says so: `gpuhunt`, of the extra `prices`."""

from __future__ import annotations

import datetime
import json
import logging
import os
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from advisor.errors import InputError
from advisor.facts.types import GpuFacts
from advisor.paths import rules_root

FIELD = "live_prices"
TIMEOUT_SECONDS = 20.0
"""For one download; gpuhunt sets none of its own."""


class Offer(Protocol):
    """What is read of an offer."""

    provider: str
    instance_name: str
    location: str
    price: float
    gpu_count: int


class Offers(Protocol):
    """What is asked of a source of offers: the `query` of gpuhunt's Catalog."""

    def query(
        self, *, gpu_name: str, min_gpu_memory: float, max_gpu_memory: float, spot: bool
    ) -> Sequence[Offer]: ...


@dataclass(frozen=True, slots=True)
class LivePrice:
    usd_per_gpu_hour: float
    source: str


def live_price(gpu: GpuFacts, gpus_per_node: int, offers: Offers | None = None) -> LivePrice:
    """The lowest on-demand price of one GPU: of machines with that many, or of any where there are none.

    Raises InputError when the extra is not installed, the network does not answer or nobody offers the card.
    """
    name, memory = _name(gpu)
    with _quiet():
        found = _ask(offers or _published(), name, memory)
    usable = [offer for offer in found if offer.gpu_count]
    same = [offer for offer in usable if offer.gpu_count == gpus_per_node]
    if not usable:
        raise InputError(FIELD, f"nobody offers a {gpu.name} on demand today; pass --price-per-gpu-hour X")
    best = min(same or usable, key=lambda offer: offer.price / offer.gpu_count)
    today = datetime.date.today().isoformat()
    where = f"{best.provider} {best.instance_name} {best.location}"
    return LivePrice(round(best.price / best.gpu_count, 4), f"{where}, on demand, live {today} (gpuhunt)")


def _name(gpu: GpuFacts) -> tuple[str, float]:
    table = json.loads((rules_root() / "catalog" / "price_names.json").read_text(encoding="utf-8"))
    row = next((row for row in table["names"] if row["gpu"] == gpu.id), None)
    if row is None:
        raise InputError(FIELD, f"has no prices of a {gpu.name}; pass --price-per-gpu-hour X")
    return row["name"], float(row["memory_gb"])


def _published() -> Any:
    """The price lists that gpuhunt publishes daily; providers that want credentials are not asked."""
    try:
        import gpuhunt  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(FIELD, "needs the extra: pip install 'posttrain-advisor[prices]'") from None
    catalog = gpuhunt.Catalog(auto_reload=False)
    if os.environ.get("GPUHUNT_CATALOG_DIR"):  # the user's own copy of the lists: nothing to fetch
        return catalog
    try:
        catalog.load()
    except (OSError, gpuhunt.GPUHuntError) as error:
        raise _no_answer(error) from None
    return catalog


def _ask(offers: Offers, name: str, memory: float) -> Sequence[Offer]:
    try:
        return offers.query(gpu_name=name, min_gpu_memory=memory, max_gpu_memory=memory, spot=False)
    except OSError as error:
        raise _no_answer(error) from None


def _no_answer(error: Exception) -> InputError:
    return InputError(FIELD, f"the price lists cannot be reached ({error}); pass --price-per-gpu-hour X")


@contextmanager
def _quiet() -> Generator[None]:
    """gpuhunt logs a traceback for each list it cannot load: our one line says it. Downloads end in time."""
    logger, timeout = logging.getLogger("gpuhunt"), socket.getdefaulttimeout()
    before = logger.disabled, logger.level
    logger.setLevel(logging.CRITICAL + 1)
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        logger.disabled, logger.level = before
        socket.setdefaulttimeout(timeout)
