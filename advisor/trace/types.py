"""What a trace returns; no PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 1024.0**3
TERMS = ("weights", "gradients", "optimizer", "working", "logits")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Bytes alive on one GPU at the peak of a moment."""

    weights: float
    gradients: float
    optimizer: float
    working: float
    """Activations, unsharded parameters, communication and other working memory."""
    logits: float
    """What the head and the loss hold, at the loss."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.working + self.logits


@dataclass(frozen=True, slots=True)
class Trace:
    moments: Mapping[str, Snapshot]
    """forward, loss, backward, optimizer: each at its own peak."""
    versions: Mapping[str, str]
    seconds: float

    @property
    def moment(self) -> str:
        return max(self.moments, key=lambda name: self.moments[name].total)

    @property
    def peak(self) -> Snapshot:
        return self.moments[self.moment]

    def as_dict(self) -> dict[str, Any]:
        """The contract's `trace` object, in GiB; `memory` has the same terms under the same names, where
        `working` is the sum of its activations and buffers."""
        per_gpu = {name: round(getattr(self.peak, name) / GIB, 3) for name in TERMS}
        return {
            "per_gpu_gib": {**per_gpu, "allocated": round(self.peak.total / GIB, 3)},
            "moment": self.moment,
            "moments": {name: round(taken.total / GIB, 3) for name, taken in self.moments.items()},
            "versions": dict(self.versions),
            "seconds": round(self.seconds, 1),
        }
