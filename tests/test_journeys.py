"""The journeys land where people published that they got to: feasible, legal, and offloaded where theirs was."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from advisor.advise import Advice, advise
from advisor.facts.models import load_model
from advisor.plan import Plan
from advisor.planner.legality import illegal
from advisor.request import parse_request
from advisor.starter.build import needs_preparing
from tests.journeys import JOURNEYS, R1, Journey
from tools.journeys_report import PAGE, page

EACH = pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.name)


@cache
def planned(name: str) -> Advice:
    return advise(parse_request(next(journey.request for journey in JOURNEYS if journey.name == name)))


def sizes(request: Mapping[str, Any]) -> dict[str, int]:
    return {"nodes": request.get("nodes", 1), "gpus_per_node": request["gpus_per_node"]}


@EACH
def test_it_is_feasible_and_legal_on_the_published_number_of_gpus(journey: Journey) -> None:
    best = planned(journey.name).best
    assert best is not None
    assert best.memory.fits in ("fits", "tight")
    assert illegal(best.plan, load_model(str(journey.request["model"]))) == []
    assert (best.plan.nodes, best.plan.gpus_per_node) == tuple(sizes(journey.request).values())


@pytest.mark.parametrize(
    "journey", [j for j in JOURNEYS if j.published.degrees], ids=lambda journey: journey.name
)
def test_the_published_degrees_are_legal(journey: Journey) -> None:
    degrees = dict(journey.published.degrees)
    plan = Plan(backend="megatron", **sizes(journey.request), **degrees)
    assert illegal(plan, load_model(str(journey.request["model"]))) == []


@pytest.mark.parametrize(
    "journey", [j for j in JOURNEYS if j.published.offload], ids=lambda journey: journey.name
)
def test_it_offloads_where_the_published_run_had_to(journey: Journey) -> None:
    best = planned(journey.name).best
    assert best is not None
    assert best.plan.offload != "none" or best.plan.rollout_offload
    assert best.memory.host_gib > 100


@pytest.mark.parametrize("journey", [j for j in JOURNEYS if j.too_few], ids=lambda journey: journey.name)
def test_far_fewer_gpus_are_not_called_enough(journey: Journey) -> None:
    assert advise(parse_request({**journey.request, "nodes": journey.too_few})).best is None


@EACH
def test_the_fp8_checkpoint_is_prepared_and_the_other_is_not(journey: Journey) -> None:
    advice = planned(journey.name)
    assert needs_preparing(advice.resolved) == (journey.request["model"] == R1)
    assert any("prepare_model.sh" in warning for warning in advice.warnings) == needs_preparing(
        advice.resolved
    )


def test_page_is_fresh() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python tools/journeys_report.py`"
