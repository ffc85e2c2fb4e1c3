"""What a framework module is. Each member is specified by the comment above it.

A module satisfies the protocol by having these names; what it does not need it takes from here by
assignment. It knows no other framework, no command line and no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from advisor.frameworks.sources import Reading
from advisor.frameworks.table import Job, Rendered, Table
from advisor.plan import Plan

SERVER_FILE = "launch/rollout.sh"
"""Starts the engine of a plan whose rollouts come from a server."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """One file of the starter repo that the framework's own templates or tables yield."""

    path: str
    role: str
    """config, script, accelerate, deepspeed, fsdp, dataset_info, reward, data, launch, smoke, requirements ..."""
    text: str
    executable: bool = False
    keys: tuple[str, Mapping[str, Any]] | None = None
    """(name in rules/schemas, content) of a configuration that stands beside those of the framework's table."""


@dataclass(frozen=True, slots=True)
class DataNeed:
    """Which row formats the framework reads itself for one kind of method, best first.

    A user's file in one of `reads` is copied as it is; any other is converted to `reads[0]`.
    """

    reads: tuple[str, ...]
    spell: Callable[[dict[str, Any], str], dict[str, Any]] | None = None
    """(row, format) -> the row as the framework itself spells that format. Applied to every copied row."""
    spelled: tuple[str, ...] = ()
    """Formats that `spell` always changes: never left in place, as files that hold tools are not either."""
    hub: tuple[str, ...] | None = None
    """Formats that are read straight from a hub, where nothing can be rewritten; None: `reads`; empty: refused."""


@dataclass(frozen=True, slots=True)
class Smoke:
    """What `smoke.sh` does for one plan."""

    files: Mapping[str, str] = field(default_factory=dict)
    """`smoke/<name>` -> path under templates/ of a plain file copied there."""
    reward_head: bool = True
    """Whether a reward model starts from a checkpoint with one score as its output."""
    trained: Plan | None = None
    """The plan that the CPU run trains, where it is not the plan itself; None: the plan, answers by the model
    itself instead of an engine."""
    layers: tuple[int, ...] = ()
    """Layers of the tiny model that train under `tuning: freeze`, where they are named; else the last ones."""
    partial: str = ""
    """Non-empty: what the CPU run leaves out (prints PARTIAL, exits 6)."""
    spread_left_out: str = ""
    """Non-empty: how several CPU processes spread the run instead of as planned: data parallel."""
    rl: bool = False
    judge_arguments: tuple[str, ...] = ()
    """Options of the judge, beyond --world-size and --model-dir."""
    judged_roles: tuple[str, ...] = ("config", "accelerate")
    """Roles of the files that the judge is given."""


def data_parallel_on_cpu(plan: Plan) -> str:
    """What is left out where accelerate does the sharding: without GPUs it looks at no FSDP setting
    (accelerate==1.15.0:accelerate/state.py:985)."""
    return "FSDP2 (accelerate shards on GPUs alone: the processes trained data parallel)" if plan.fsdp else ""


class Framework(Protocol):
    # Name in the contract, on the command line and in rules/frameworks/<NAME>.yaml.
    NAME: str
    # Plan field <-> configuration key.
    TABLE: Table
    # How its files are recognised and read back.
    READING: Reading
    # The framework's standalone judge in advisor/judges.
    JUDGE: str

    # Formats that the framework reads itself for a plan, best first.
    data_need: Callable[[Plan], DataNeed]
    # Configuration files, scripts and data declarations: everything that differs from the other five.
    files: Callable[[Plan, Job, Rendered], Sequence[Emitted]]
    # The framework's own argv of the main run, never the wrapper.
    command: Callable[[Plan, Job], Sequence[str]]
    # What smoke.sh needs.
    smoke: Callable[[Plan, Job], Smoke]
    # Context for templates/<NAME>/run.sh.jinja and smoke.sh.jinja beyond plan, job and documents.
    context: Callable[[Plan, Job, Rendered], Mapping[str, Any]]


KINDS = {
    "cpt": "text",
    "sft": "conversation",
    "gkd": "conversation",
    "dpo": "preference",
    "ipo": "preference",
    "orpo": "preference",
    "simpo": "preference",
    "cpo": "preference",
    "rm": "preference",
    "kto": "label",
}
"""Method -> kind of data; every online RL method reads prompts."""


def data_kind(method: str) -> str:
    """text, conversation, preference, label or prompts."""
    return KINDS.get(method, "prompts")


def unquantized(plan: Plan) -> Plan | None:
    """The plan over a base in 16 bit, for a smoke run that leaves the quantization out; None: it has none."""
    return None if plan.quantization == "none" else replace(plan, quantization="none").normalised()


def scored_alike(plan: Plan, job: Job) -> bool:
    """Whether only the user's function scores answers: those of a random model all the same, so that a smoke run
    needs a second reward for a gradient."""
    return plan.online and bool(job.reward) and not job.reward_model


def longer(plan: Plan, job: Job) -> dict[str, str]:
    """The smoke file with a second reward, where one is needed."""
    return {"longer.py": "starter/smoke/longer.py"} if scored_alike(plan, job) else {}


def no_context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    return {}
