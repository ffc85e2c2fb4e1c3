"""Why a memory figure is not one number: the named uncertainties, each with its evidence.

The rows are data (rules/catalog/memory_causes.json). `low`, `likely` and `high` multiply the row's basis; what
`likely` adds is part of the figure, the distance to `low` and `high` is its uncertainty.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from advisor.paths import rules_root

Tag = Literal["measured", "derived", "assumed"]


class Cause(BaseModel):
    """One uncertainty. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    what: str
    basis: Literal[
        "gib", "gib_per_communicator", "gib_per_peer", "dynamic", "gathered", "allocated", "static", "total"
    ]
    """What the three numbers multiply: GiB, GiB per communicator or directly connected GPU, or GiB of a part of the
    figure.
    `dynamic`: activations, logits and buffers; `gathered`: buffers of other moments; `static`: the rest."""
    when: Literal[
        "always", "sharded", "megatron", "compiled", "as-written", "not-megatron", "unpacked", "experts",
        "experts_on_host", "svd",
    ]  # fmt: skip
    low: float
    likely: float
    high: float
    tag: Tag
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Cause:
        if not self.low <= self.likely <= self.high:
            raise ValueError(
                f"{self.name}: low {self.low}, likely {self.likely}, high {self.high} are not in order"
            )
        return self


@cache
def memory_causes() -> tuple[Cause, ...]:
    """The shipped rows, in order."""
    read = json.loads((rules_root() / "catalog" / "memory_causes.json").read_text(encoding="utf-8"))
    return tuple(Cause.model_validate(row) for row in read["causes"])
