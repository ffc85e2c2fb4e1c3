"""Cost against time: what dominates what, and that every point is the ordinary advice for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.advise import Advice, advise
from advisor.errors import InputError
from advisor.pareto import Point, judged
from advisor.request import parse_request

BASE = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", "gpus_per_node": 4, "samples": 20_000,
        "pareto": True}  # fmt: skip


def ask(**answers: Any) -> Advice:
    return advise(parse_request({k: v for k, v in {**BASE, **answers}.items() if v is not None}))


def _at(hours: float, cost: float) -> Point:
    return Point("h100-sxm", 1, 1, "any", "full", 1.0, hours, cost, "test")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8))
def test_dominance(pairs: list[tuple[int, int]]) -> None:
    """A point is free of a dominator exactly when no other is at least as good in both and better in one."""
    points = judged([_at(hours, cost) for hours, cost in pairs])
    assert [p.hours for p in points] == sorted(p.hours for p in points)
    for point in points:
        better = [
            (other.hours, other.cost)
            for other in points
            if other.hours <= point.hours
            and other.cost <= point.cost
            and (other.hours, other.cost) != (point.hours, point.cost)
        ]
        assert (point.dominated_by is None) == (not better)
        if point.dominated_by:
            assert (point.dominated_by.hours, point.dominated_by.cost) in better
    assert any(point.dominated_by is None for point in points)


def test_every_size_and_other_cards_are_planned() -> None:
    points = ask().pareto
    assert points
    own = {point.gpus_per_node for point in points if point.gpu == "h100-sxm"}
    assert own == {1, 2, 3, 4}
    assert {point.gpu for point in points} > {"h100-sxm"}
    assert any(point.dominated_by for point in points)


def test_a_point_is_the_advice_for_it() -> None:
    advice = ask(price_per_gpu_hour=2.0)
    assert advice.pareto
    point = next(p for p in advice.pareto if p.gpu == "h100-sxm" and p.gpus_per_node == 2)
    alone = ask(pareto=None, gpus_per_node=2, price_per_gpu_hour=2.0).best
    assert alone is not None
    assert (point.framework, point.hours, point.cost) == (alone.framework, alone.time.hours, alone.time.cost)
    assert point.price_source == "as given"
    assert all(p.price_source != "as given" for p in advice.pareto if p.gpu != "h100-sxm")


def test_json_lists_it_and_the_request_runs_without() -> None:
    shown = ask().as_dict()
    assert shown["pareto"][0].keys() >= {"gpu", "hours", "cost", "dominated_by", "framework", "plan"}
    assert "pareto" not in shown["request"]
    assert "pareto" not in ask(pareto=None).as_dict()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": None}, "--samples"),
        ({"gpu": "rtx-3070"}, "--price-per-gpu-hour"),
        ({"minimize": "gpus"}, "one question"),
    ],
)
def test_what_cannot_be_told_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match="pareto") as caught:
        ask(**wrong)
    assert said in str(caught.value)
