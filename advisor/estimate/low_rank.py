"""Memory of AdamW in projected gradients (GaLore, APOLLO): states, and what a step holds beside them.

Of a matrix m x n, with k = min(m, n), w = max(m, n) and rank r, the optimizer keeps two moments of r x w and the
projection itself of r x k; everything else that trains has two full moments. Types are those of the weights. Sources:
galore-torch 1.0 (galore_torch/adamw.py, galore_projector.py), apollo-torch 1.0.3 (apollo_torch/apollo.py,
random_projector.py). Both step one parameter at a time, and the step's temporaries are those of the worst parameter.
Left out: the work arrays of the GPU's own SVD (rules/catalog/memory_causes.json).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from advisor.estimate.model_sums import ModelSums
from advisor.estimate.states import StateBytes
from advisor.plan import Plan

FP32 = 4.0


@dataclass(frozen=True, slots=True)
class Projected:
    """Bytes on a GPU that holds all weights, whose matrices a low-rank optimizer projects."""

    states: float
    step: float
    """Temporaries at the worst point of a step that also renews its projections, as every 200th does."""
    gradient: float
    """Of the layers' parameter that is the worst to step by itself."""
    alone: float
    """Its temporaries."""
    head: float
    """Gradient and temporaries of a head of its own; 0 when it is tied to the embedding."""
    embedding: float
    waiting: float
    """Gradient of a tied head, which waits for that of the embedding."""


@dataclass(frozen=True, slots=True)
class _Matrix:
    narrow: int
    wide: int
    galore: bool
    rank: int
    size: float
    """Bytes of one element."""

    @property
    def whole(self) -> float:
        return self.size * self.narrow * self.wide

    @property
    def states(self) -> float:
        # GaLore's projection is a slice of the factor that the SVD returns: cast to 16 bit it is a tensor of its own,
        # in 32 bit it keeps the whole factor.
        basis = self.narrow if self.galore and self.size == FP32 else self.rank
        return self.size * (2.0 * self.rank * self.wide + basis * self.narrow)

    def step(self, left: float, scaled: float) -> float:
        """Temporaries. `left`: those of the parameter before this one, held until moments of this one take their
        place; `scaled`: of them, what is held until this one's own update does."""
        cast = self.whole * FP32 / self.size if self.size < FP32 else 0.0
        small = self.size * self.rank * self.wide
        if not self.galore:
            drawn = (FP32 + self.size) * self.rank * self.narrow
            # The scaled gradient, and that divided by how much its norm has grown.
            return max(left + cast + drawn, self.whole + max(self.whole, scaled) + small)
        # The gradient in fp32, the factors U, S and V, and the product of one with S that is dropped.
        factors = FP32 * self.narrow * (self.wide + self.narrow) + FP32 * self.rank * self.wide
        # Projected back, and that times the scale, beside the moments' quotient and root.
        return max(left + cast + factors, 2 * self.whole + 2 * small)


def projected(sums: ModelSums, plan: Plan, size: float) -> Projected:
    """`size`: bytes of a weight, which gradients and moments share."""
    return _projected(sums, plan.optimizer.startswith("galore"), plan.optimizer_rank, size)


@lru_cache(maxsize=256)
def _projected(sums: ModelSums, galore: bool, rank: int, size: float) -> Projected:
    kinds = [(min(m, n), max(m, n), count) for m, n, count in sums.projected]
    # A random projection may be wider than the matrix, an SVD has no more vectors than that.
    matrices = [_Matrix(k, w, galore, min(rank, k) if galore else rank, size) for k, w, _ in kinds]
    whole = sum(k * w * count for k, w, count in kinds)
    states = 2.0 * size * (sums.total - whole)
    states += sum(matrix.states * count for matrix, (_, _, count) in zip(matrices, kinds, strict=True))
    alone = [(matrix.whole, matrix.step(0.0, 0.0)) for matrix in matrices]
    alone += [(size * elements, 2.0 * size * elements) for elements, inside in sums.unprojected if inside]
    gradient, step = max(alone, key=sum)
    others = [elements for elements, _ in sums.unprojected]
    return Projected(
        states,
        max(_whole_steps(others, size), _matrix_steps(matrices, 2.0 * size * others[-1])),
        gradient,
        step,
        3.0 * size * sums.head,
        3.0 * size * sums.embedding,
        0.0 if sums.head else size * sums.head_matrix,
    )


def _whole_steps(elements: list[int], size: float) -> float:
    """Root of the second moment and the quotient, each made while that of the parameter before is still there."""
    return max(size * (one + other + max(one, other)) for one, other in pairwise((0, *elements)))


def _matrix_steps(matrices: list[_Matrix], left: float) -> float:
    """The first follows the last parameter that is not projected, the others one another in every order there is."""
    largest = max((matrix.whole for matrix in matrices), default=0.0)
    return max(
        (
            matrix.step(max(left if not place else 0.0, largest), largest)
            for place, matrix in enumerate(matrices)
        ),
        default=0.0,
    )


def with_low_rank(states: StateBytes, sums: ModelSums, plan: Plan) -> tuple[StateBytes, Projected | None]:
    """The states of a plan under such an optimizer as means over all parameters, for all train and none is sharded.
    One that steps within the backward holds no gradients and has no step of its own (layerwise_moments)."""
    if not plan.low_rank_optimizer:
        return states, None
    found = projected(sums, plan, states.gradient)
    mean = replace(states, optimizer=found.states / sums.total, step=found.step / sums.total)
    return (replace(mean, gradient=0.0, step=0.0) if plan.steps_layerwise else mean), found
