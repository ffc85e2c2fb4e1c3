"""Live prices: only when asked, one clear line when they cannot be had, a fake source in place of the network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from advisor.errors import InputError
from advisor.facts.gpus import load_gpu
from advisor.prices import live_price
from advisor.request import parse_request
from advisor.resolve import resolve


@dataclass
class Item:
    provider: str
    instance_name: str
    price: float
    gpu_count: int
    location: str = "somewhere"


@dataclass
class Fake:
    items: Sequence[Item]
    error: Exception | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    def query(self, **asked: Any) -> Sequence[Item]:
        self.asked.append(asked)
        if self.error:
            raise self.error
        return self.items


def test_the_cheapest_machine_of_that_size_counts() -> None:
    fake = Fake([Item("a", "one", 2.0, 1), Item("b", "eight", 24.0, 8), Item("c", "eight", 32.0, 8)])
    found = live_price(load_gpu("h100"), 8, fake)
    assert found.usd_per_gpu_hour == pytest.approx(3.0)
    assert found.source.startswith("b eight somewhere, on demand, live 20")
    assert fake.asked == [{"gpu_name": "H100", "min_gpu_memory": 80, "max_gpu_memory": 80, "spot": False}]


def test_any_machine_counts_where_none_has_that_size() -> None:
    fake = Fake([Item("a", "one", 2.0, 1), Item("b", "four", 10.0, 4)])
    assert live_price(load_gpu("a100-80gb"), 8, fake).usd_per_gpu_hour == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("gpu", "fake", "said"),
    [
        ("h100", Fake([]), "nobody offers"),
        ("h100", Fake([], OSError("no route")), "cannot be reached (no route)"),
        ("ascend-910b", Fake([]), "has no prices"),
    ],
)
def test_one_line_when_there_is_none(gpu: str, fake: Fake, said: str) -> None:
    with pytest.raises(InputError) as caught:
        live_price(load_gpu(gpu), 8, fake)
    assert said in str(caught.value)
    assert str(caught.value).startswith("live_prices: ")
    assert "--price-per-gpu-hour" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    with pytest.raises(InputError, match=r"pip install 'posttrain-advisor\[prices\]'"):
        live_price(load_gpu("h100"), 8)


def test_nothing_is_asked_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolving, planning and pricing by the catalog never imports the source of live prices."""
    from advisor.advise import advise

    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    advice = advise(
        parse_request({"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", "samples": 1000})
    )
    assert advice.best is not None
    assert advice.best.time.cost


def test_the_users_price_replaces_the_catalogs() -> None:
    base = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft"}
    shown = resolve(parse_request(base)).cluster.gpu
    assert "indicative" in str(shown.price_source)
    assert "2026" in str(shown.price_source)
    own = resolve(parse_request({**base, "price_per_gpu_hour": 1.25})).cluster.gpu
    assert (own.usd_per_gpu_hour, own.price_source) == (1.25, "as given")
    named = resolve(parse_request({**base, "price_per_gpu_hour": 1.25, "price_source": "our contract"}))
    assert named.cluster.gpu.price_source == "our contract"


@pytest.mark.parametrize(
    "wrong", [{"price_per_gpu_hour": 0}, {"price_per_gpu_hour": -1}, {"price_source": "our contract"}]
)
def test_bad_prices_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="price_"):
        resolve(parse_request({"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", **wrong}))
