"""The range of a figure: its causes are data, and every bound is over all moments of a step."""

from __future__ import annotations

from math import sqrt

import pytest
from pydantic import ValidationError

from advisor.estimate.memory import estimate_memory
from advisor.estimate.model_sums import model_sums
from advisor.estimate.moments import Alive
from advisor.estimate.spread import Margins, margins, spread
from advisor.estimate.stage import make_setting
from advisor.facts.memory_causes import Cause, memory_causes
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import GIB, cluster, full, lora

ROW = {
    "name": "x", "what": "w", "basis": "gib", "when": "always", "low": 0.0, "likely": 1.0, "high": 2.0,
    "tag": "assumed", "source": "s",
}  # fmt: skip


def _moment(**gib: float) -> Alive:
    parts = dict.fromkeys(
        ("weights", "gradients", "optimizer", "activations", "logits", "reference", "rollout", "buffers"), 0.0
    )
    return Alive("m", **{**parts, **{name: size * GIB for name, size in gib.items()}})


def _margins(plan: Plan) -> Margins:
    return margins(make_setting(model_sums(m.LLAMA_8B), plan))


def test_every_shipped_cause_says_how_it_is_known() -> None:
    names = [cause.name for cause in memory_causes()]
    assert len(names) == len(set(names)) >= 8
    assert {cause.tag for cause in memory_causes()} == {"measured", "derived", "assumed"}
    assert all(cause.source and cause.what for cause in memory_causes())


@pytest.mark.parametrize("wrong", [{"low": 1.5}, {"tag": "guess"}, {"basis": "mood"}, {"more": 1}])
def test_a_cause_that_is_not_in_order_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Cause.model_validate({**ROW, **wrong})


def test_one_moment_by_hand() -> None:
    """One card, packed: 10 GiB of states and 5 of activations."""
    found, _ = spread(_margins(lora(packing=True)), [_moment(weights=10, activations=5)], 0.0)
    by_name = {cause.name: cause for cause in memory_causes()}
    context, kernels = by_name["cuda-context"], by_name["kernels"]
    pieces, states, rest = by_name["fragmentation"], by_name["states"], by_name["unexplained"]
    likely = 15 + context.likely + 5 * pieces.likely
    assert found.likely == pytest.approx(likely)
    up = (
        (context.high - context.likely) ** 2 + (5 * (pieces.high - pieces.likely)) ** 2
        + (5 * kernels.high) ** 2 + (10 * states.high) ** 2 + (likely * rest.high) ** 2
    )  # fmt: skip
    down = (
        (5 * pieces.likely) ** 2 + (5 * kernels.low) ** 2 + (10 * states.low) ** 2 + (likely * rest.low) ** 2
    )
    assert found.high == pytest.approx(likely + sqrt(up))
    assert found.low == pytest.approx(likely - context.likely - sqrt(down))


def test_each_bound_is_the_largest_of_all_moments() -> None:
    """States are nearly certain, activations are not: the higher figure need not have the highest bound."""
    margin = _margins(lora(packing=True))
    sure, unsure = _moment(weights=50), _moment(activations=49)
    apart = [spread(margin, [moment], 0.0)[0] for moment in (sure, unsure)]
    both, peak = spread(margin, [unsure, sure], 0.0)
    assert peak is sure
    assert apart[1].high > apart[0].high
    assert apart[0].low > apart[1].low
    assert (both.likely, both.low, both.high) == (
        max(r.likely for r in apart), apart[0].low, apart[1].high,
    )  # fmt: skip


def test_buffers_of_other_streams_stay_reserved() -> None:
    margin = _margins(full(gpus_per_node=8, fsdp=True, zero_stage=3))
    moment = _moment(weights=10, buffers=1)
    alone, beside = (spread(margin, [moment], size * GIB)[0] for size in (1, 4))
    assert beside.likely - alone.likely == pytest.approx(3)


def test_causes_are_those_of_the_plan() -> None:
    def names(plan: Plan) -> set[str]:
        return {cause.name for cause in estimate_memory(m.QWEN3_30B, plan, cluster()).causes}

    assert "sample-lengths" in names(lora())
    assert "sample-lengths" not in names(lora(packing=True))
    assert {"kernels", "compiled-kernels"} & names(lora()) == {"kernels"}
    assert {"kernels", "compiled-kernels"} & names(lora(compile=True)) == {"compiled-kernels"}
    megatron = full(backend="megatron", gpus_per_node=8, expert_parallel=8, recompute="full")
    assert {"expert-imbalance", "megatron-allocator", "communicators"} <= names(megatron)
    assert "communicators" not in names(lora())


def test_overhead_is_what_the_causes_add_and_a_search_skips_them() -> None:
    estimate = estimate_memory(m.LLAMA_8B, lora(), cluster(1))
    assert estimate.overhead == pytest.approx(sum(cause.likely_gib for cause in estimate.causes))
    assert estimate.as_dict()["causes"][0].keys() == {
        "name", "what", "likely_gib", "low_gib", "high_gib", "tag", "source",
    }  # fmt: skip
    quick = estimate_memory(m.LLAMA_8B, lora(), cluster(1), all_stages=False)
    assert quick.causes == ()
    assert (quick.total, quick.low, quick.high) == (estimate.total, estimate.low, estimate.high)
