"""What an estimate returns. All sizes are GiB (2^30 bytes) per GPU unless the name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

TERMS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "reference",
    "rollout",
    "buffers",
)
"""The terms alive at the worst moment; their sum is `allocated`."""
HOST_PARTS = ("processes", "resting", "offloading", "loading", "saving", "computing")
CHECKPOINT_PARTS = ("model", "resume", "optimizer")


CORRECTED = "Corrected by your runs"
"""How the note begins that every corrected figure carries."""
OUTSIDE_PYTORCH = ("cuda-context", "communicators", "peer-connections")
"""Causes that no counter of PyTorch's includes."""


@dataclass(frozen=True, slots=True)
class CauseShare:
    """What one cause does to the figure, in GiB."""

    name: str
    what: str
    likely_gib: float
    """What it adds to the figure."""
    low_gib: float
    """How far it could take the figure down (0 or negative)."""
    high_gib: float
    """How far it could take the figure up."""
    tag: str
    source: str

    def as_dict(self) -> dict[str, float | str]:
        return {
            "name": self.name,
            "what": self.what,
            "likely_gib": round(self.likely_gib, 2),
            "low_gib": round(self.low_gib, 2),
            "high_gib": round(self.high_gib, 2),
            "tag": self.tag,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    moment: str
    """The moment of the step at which memory peaks: forward, loss, backward, optimizer, rollout, ..."""
    terms: dict[str, float]
    """TERMS -> GiB at that moment."""
    overhead: float
    """CUDA context, NCCL, fragmentation: GiB outside PyTorch's max_memory_allocated."""
    low: float
    high: float
    capacity_gib: float
    host_gib: float
    """Host memory per node: offloaded states, the loading of weights and the saving of checkpoints."""
    host_capacity_gib: float
    nvme_gib: float
    nvme_capacity_gib: float = 0.0
    checkpoint_gib: float = 0.0
    """One saved checkpoint on disk that training can be resumed from."""
    checkpoint_parts: dict[str, float] = field(default_factory=dict)
    """Its `model` files, weights once more to `resume` from, and `optimizer` states with fp32 masters."""
    model_gib: float = 0.0
    """The trained model, or adapter, on disk when training is over."""
    host_parts: dict[str, float] = field(default_factory=dict)
    """What host memory is needed for: processes, resting, and of offloading + saving, loading, computing the most."""
    pool_gib: float = 0.0
    """On each GPU that only generates: the engine's weights and the least cache; 0: there is none."""
    pool_capacity_gib: float = 0.0
    """What the engine may take of such a GPU."""
    stages: tuple[dict[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    causes: tuple[CauseShare, ...] = ()
    """Why low and high differ, the largest cause first."""

    def shown(self, counter: str) -> float:
        """The part of the figure that a counter shows: `allocated` and `reserved` are PyTorch's, `device` is what
        nvidia-smi shows. Needs the causes."""
        if counter == "allocated":
            return self.allocated
        outside = sum(cause.likely_gib for cause in self.causes if cause.name in OUTSIDE_PYTORCH)
        return self.total - (outside if counter == "reserved" else 0.0)

    def corrected(self, factor: float, note: str) -> MemoryEstimate:
        """Everything that is not exact arithmetic times a measured factor, with the note that says so."""
        stages = tuple(
            {name: size if name == "state" else size * factor for name, size in stage.items()}
            for stage in self.stages
        )
        return replace(
            self,
            terms={name: size * factor for name, size in self.terms.items()},
            overhead=self.overhead * factor,
            low=self.low * factor,
            high=self.high * factor,
            stages=stages,
            notes=(*self.notes, note),
        )

    @property
    def allocated(self) -> float:
        return sum(self.terms.values())

    @property
    def total(self) -> float:
        return self.allocated + self.overhead

    @property
    def fits(self) -> str:
        """`fits`: the high end is within capacity; `tight`: only the likely figure is; `no`: neither."""
        if self.excess > 1:
            return "no"
        return "fits" if self.high <= self.capacity_gib else "tight"

    @property
    def excess(self) -> float:
        """The scarcest of memory on the GPUs that train or generate, on the host and on disk: needed over there; above 1
        it does not fit."""
        host = self.host_gib / self.host_capacity_gib if self.host_gib else 0.0
        disk = self.nvme_gib / max(self.nvme_capacity_gib, 1e-9) if self.nvme_gib else 0.0
        pool = self.pool_gib / max(self.pool_capacity_gib, 1e-9) if self.pool_gib else 0.0
        return max(self.total / self.capacity_gib, host, disk, pool)

    def as_dict(self) -> dict[str, Any]:
        """The contract's `memory` object; GiB rounded to 0.01 so that output is stable to read."""
        per_gpu = {name: round(self.terms.get(name, 0.0), 2) for name in TERMS}
        per_gpu |= {
            "overhead": round(self.overhead, 2),
            "allocated": round(self.allocated, 2),
            "total": round(self.total, 2),
            "low": round(self.low, 2),
            "high": round(self.high, 2),
        }
        result: dict[str, Any] = {
            "per_gpu_gib": per_gpu,
            "moment": self.moment,
            "host_gib": round(self.host_gib, 1),
            "host_parts_gib": {name: round(size, 1) for name, size in self.host_parts.items()},
            "nvme_gib": round(self.nvme_gib, 1),
            "checkpoint_gib": round(self.checkpoint_gib, 2),
            "checkpoint_parts_gib": {name: round(size, 2) for name, size in self.checkpoint_parts.items()},
            "model_gib": round(self.model_gib, 2),
            "capacity_gib": round(self.capacity_gib, 2),
            "fits": self.fits,
        }
        if self.pool_gib:
            result["generating_gpu_gib"] = {
                "needed": round(self.pool_gib, 2),
                "capacity": round(self.pool_capacity_gib, 2),
            }
        if self.stages:
            result["stages"] = [{k: round(v, 2) for k, v in stage.items()} for stage in self.stages]
        if self.causes:
            result["causes"] = [cause.as_dict() for cause in self.causes]
        if self.notes:
            result["notes"] = list(self.notes)
        return result


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    total: int
    active: int
    trainable: int


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    tokens_per_second: float | None
    """Over the whole cluster."""
    hours: float | None
    gpu_hours: float | None
    cost: float | None
    low: float | None
    high: float | None
    reason: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def corrected(self, factor: float | None) -> TimeEstimate:
        """As the user's own runs have shown it: `factor` times as long."""
        if factor is None:
            return self

        def times(value: float | None) -> float | None:
            return None if value is None else value * factor

        return replace(
            self,
            tokens_per_second=None if self.tokens_per_second is None else self.tokens_per_second / factor,
            hours=times(self.hours),
            gpu_hours=times(self.gpu_hours),
            cost=times(self.cost),
            low=times(self.low),
            high=times(self.high),
        )
