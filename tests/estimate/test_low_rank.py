"""GaLore and APOLLO: states matrix by matrix, the step's worst parameter, and a backward that steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.estimate.low_rank import projected
from advisor.estimate.memory import estimate_memory
from advisor.estimate.model_sums import model_sums
from advisor.facts.models import load_model
from advisor.plan import Plan
from tests.estimate.samples import cluster

MODEL = load_model("meta-llama/Llama-3.1-8B", offline=True)
GALORE = Plan(tuning="full", precision="bf16-pure", optimizer="galore_adamw", seq_len=512)
APOLLO = replace(GALORE, optimizer="apollo_adamw")
VOCABULARY = 128_256 * 4096
SHAPES = ((4096, 4096, 2), (1024, 4096, 2), (14_336, 4096, 3))
"""Rows, columns and number of the matrices of each of the 32 layers, sides in any order."""


def _states(rank: int, bytes_each: float, *, whole_factor: bool = False) -> float:
    matrices = sum(
        count * (2 * rank * max(m, n) + (min(m, n) if whole_factor else rank) * min(m, n))
        for m, n, count in SHAPES
    )
    others = 2 * VOCABULARY + (2 * 32 + 1) * 4096
    return bytes_each * (32 * matrices + 2 * others)


@pytest.mark.parametrize(
    ("plan", "size", "expected"),
    [
        (GALORE, 2.0, _states(128, 2.0)),
        (replace(GALORE, optimizer_rank=512), 2.0, _states(512, 2.0)),
        (APOLLO, 2.0, _states(128, 2.0)),
        (APOLLO, 4.0, _states(128, 4.0)),
        # A slice of the SVD's factor keeps the whole of it where nothing casts it.
        (GALORE, 4.0, _states(128, 4.0, whole_factor=True)),
    ],
)
def test_states(plan: Plan, size: float, expected: float) -> None:
    assert projected(model_sums(MODEL), plan, size).states == pytest.approx(expected)


def test_a_projection_wider_than_the_matrix() -> None:
    """An SVD has no more vectors than the matrix is wide, random directions can be any number."""
    wide = [
        projected(model_sums(MODEL), replace(plan, optimizer_rank=2048), 2.0).states
        for plan in (GALORE, APOLLO)
    ]
    assert wide[1] - wide[0] == pytest.approx(2.0 * 32 * 2 * (2048 - 1024) * (2 * 4096 + 1024))


def test_the_step_is_that_of_head_and_first_matrix() -> None:
    """Two temporaries of the head are still there when the first matrix is decomposed: its gradient in fp32, U, S V, and
    the dropped product."""
    square = 4096 * 4096
    expected = 2 * 2 * VOCABULARY + 4 * square + 4 * (2 * square + 128 * 4096)
    assert projected(model_sums(MODEL), GALORE, 2.0).step == pytest.approx(expected)


def test_rank_and_layers_order_the_totals() -> None:
    def total(**changes: object) -> float:
        return estimate_memory(MODEL, replace(GALORE, **changes), cluster(1)).allocated

    plain = total(optimizer="adamw")
    assert total(optimizer="galore_adamw_layerwise") < total() < total(optimizer_rank=1024) < plain
    assert total(optimizer="apollo_adamw_layerwise") <= total(optimizer="galore_adamw_layerwise")


def test_layerwise_holds_one_gradient() -> None:
    memory = estimate_memory(MODEL, replace(GALORE, optimizer="galore_adamw_layerwise"), cluster(1))
    assert memory.terms["gradients"] * 2**30 == pytest.approx(2 * VOCABULARY)


def test_what_the_gpu_library_allocates_is_a_named_cause() -> None:
    named = [
        {cause.name for cause in estimate_memory(MODEL, plan, cluster(1)).causes} for plan in (GALORE, APOLLO)
    ]
    assert "svd-workspace" in named[0]
    assert "svd-workspace" not in named[1]
