"""What speed and memory depend on and no plan says: how the libraries beneath a run do their work.

The default is what today's releases do. What another release does is data (rules/catalog/software_habits.json).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from advisor.errors import InputError
from advisor.paths import rules_root
from advisor.releases import in_release


@dataclass(frozen=True, slots=True)
class Software:
    """The default is what today's releases run."""

    flash3: bool = False
    """FlashAttention-3 where the plan says flash."""
    expert_loop: bool = False
    """Routed experts run one after the other (transformers before 5), not as one grouped product."""
    dispatch_once: bool = False
    """Expert parallelism sends a token once to each node that holds some of its experts (DeepEP, HybridEP), not
    once to each expert (Megatron-LM's default `alltoall`)."""
    even_routing: bool = False
    """Tokens are forced evenly onto experts, as speed benchmarks do."""
    engine_rows: int = 0
    """Most sequences a rollout engine decodes at once; 0: its default."""
    quantized_keeps_input: bool = False
    """4-bit linears keep their input for backward."""
    loss_as_written: bool = False
    """A compiled plan compiles the layers alone and leaves a stock loss as it is written."""
    chunked_head: bool = False
    """A chunked loss cuts the head's product with it: no rank ever joins the chunks."""


TODAY = Software()


class Habit(BaseModel):
    """What releases of a distribution do otherwise. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    habit: Literal["quantized_keeps_input", "loss_as_written", "chunked_head"]
    distribution: str
    since: str = ""
    until: str = ""
    what: str
    source: str


@cache
def habits() -> tuple[Habit, ...]:
    """The shipped rows, in order."""
    read = json.loads((rules_root() / "catalog" / "software_habits.json").read_text(encoding="utf-8"))
    return tuple(Habit.model_validate(row) for row in read["habits"])


def habits_of(versions: Mapping[str, str]) -> tuple[Habit, ...]:
    """The habits of these releases. Raises InputError for a distribution that no row knows."""
    known = {row.distribution for row in habits()}
    unknown = sorted(versions.keys() - known)
    if unknown:
        raise InputError(
            "software", f"no habit of {unknown[0]} is known; known are {', '.join(sorted(known))}"
        )
    return tuple(
        row
        for row in habits()
        if row.distribution in versions and in_release(row.since, row.until, versions[row.distribution])
    )


def software_of(versions: Mapping[str, str]) -> Software:
    """Today's software but for the habits of these releases."""
    return replace(TODAY, **{row.habit: True for row in habits_of(versions)})
