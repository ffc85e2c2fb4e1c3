"""How a checkpoint is written: what it takes on the host and on a GPU, and what lies on disk afterwards.

The mechanisms, and which one each framework uses for which plan, are data (rules/catalog/saving.json).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from operator import attrgetter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from advisor.paths import rules_root
from advisor.plan import Plan


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Saving(_Row):
    """One way to write a checkpoint. Unknown keys are refused."""

    id: str
    text: str
    """What happens, for people."""
    weights: Literal["file", "first", "ranks", "shards", "stream"]
    """What stands in host memory at once: of one process the tensors of a `file`, or all (`first`); of every process
    all (`ranks`), its share (`shards`) or one tensor (`stream`)."""
    gathers_frozen: bool
    """Whether that takes frozen weights in too where an adapter trains."""
    optimizer: Literal["first", "shards", "stream"]
    """Likewise for optimizer states, after the weights."""
    together: bool = False
    """Weights stand there together with the optimizer states."""
    gathers: Literal["nothing", "parameter", "module"]
    """What is put together on a GPU at a time."""
    model_files: bool
    """Each checkpoint holds model files, or the adapter's."""
    final: Literal["files", "held", "16bit"]
    """The trained model in the end: as the model `files` are, or put together from shards in the type it is `held` in
    or in 16 bit."""
    resume_weights: Literal["none", "trained", "all"]
    """Weights once more, for resuming: none, without or with the frozen ones beside an adapter."""
    masters: bool = False
    """The optimizer's files hold fp32 weights whatever the weights train in."""
    adapters_fp32: bool = False
    """Model files hold adapters in fp32 whatever they are held in."""
    joins: bool = False
    """When training ends, the first process reads all weights in 16 bit and writes the model."""
    unties: Literal["nothing", "copies", "all"] = "nothing"
    """Where a head that is the embedding is a tensor of its own: nowhere, in the gathered copy and the model files made
    of it, or in the weights to resume from too."""
    splits_experts: bool = False
    """Fused experts are cut up, the gate and up halves of all of them at once (`splits_experts`)."""
    critic: bool = False
    """A critic is saved as the policy is."""
    file_gb: float = 50.0
    """GB of tensors in one model file at the most (`max_shard_size`)."""
    source: str


class Habit(_Row):
    """Which way a framework uses, or an estimate without one. Unknown keys are refused."""

    framework: str = ""
    match: Mapping[str, tuple[Any, ...]]
    """Plan field -> values."""
    more_parameters_than: float = 0.0
    way: str
    file_gb: float | None = None
    because: str
    source: str
    checked: str

    def holds(self, plan: Plan, parameters: int) -> bool:
        return parameters > self.more_parameters_than and all(
            getattr(plan, field) in values for field, values in self.match.items()
        )


class _SplitExperts(_Row):
    what: str
    model_types: frozenset[str]
    source: str


class Catalog(_Row):
    """rules/catalog/saving.json."""

    what: str
    split_experts: _SplitExperts
    ways: tuple[Saving, ...]
    habits: tuple[Habit, ...]


@cache
def saving_catalog() -> Catalog:
    """The shipped rows, in order."""
    text = (rules_root() / "catalog" / "saving.json").read_text(encoding="utf-8")
    return Catalog.model_validate(json.loads(text))


class SavingHabits:
    """What one framework does, or an estimate without one, with a model of so many parameters."""

    def __init__(self, framework: str, parameters: int) -> None:
        catalog = saving_catalog()
        rows = [row for row in catalog.habits if row.framework in ("", framework)]
        rows.sort(key=lambda row: not row.framework)
        self._ways = {way.id: way for way in catalog.ways}
        self._rows, self._parameters = rows, parameters
        self._read = attrgetter(*sorted({field for row in rows for field in row.match}))
        self._known: dict[Any, Saving] = {}

    def of(self, plan: Plan) -> Saving:
        """The first row that matches; the last one of all matches any plan."""
        key = self._read(plan)
        found = self._known.get(key)
        if found is None:
            row = next(row for row in self._rows if row.holds(plan, self._parameters))
            way = self._ways[row.way]
            found = way if row.file_gb is None else way.model_copy(update={"file_gb": row.file_gb})
            self._known[key] = found
        return found


@cache
def _habits_of(framework: str, parameters: int) -> SavingHabits:
    return SavingHabits(framework, parameters)


def saving_of(plan: Plan, parameters: int, framework: str | None = None) -> Saving:
    """How this framework saves such a plan."""
    return _habits_of(framework or "", parameters).of(plan)


def splits_experts(model_type: str) -> bool:
    """Whether model files hold this type's fused experts one by one."""
    return model_type in saving_catalog().split_experts.model_types
