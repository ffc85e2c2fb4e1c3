"""How a row is written when its key lies elsewhere in RL and SFT, on FSDP2 and Megatron."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advisor.frameworks.table import (
    ABSENT,
    SAME,
    Case,
    Choice,
    Codec,
    Derived,
    Job,
    Key,
    Row,
    When,
    always,
)
from advisor.plan import Plan

NAME = "verl"
ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
ROLLOUT, REF = "actor_rollout_ref.rollout", "actor_rollout_ref.ref"


def is_rl(plan: Plan) -> bool:
    return plan.online


def is_sft(plan: Plan) -> bool:
    return not plan.online


def has_adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def apart(plan: Plan) -> bool:
    """Whether servers on GPUs of their own generate."""
    return plan.rollout_placement == "separate-async"


def sends_adapters(plan: Plan) -> bool:
    """Whether vLLM gets adapters beside the base: weights that go to servers on other GPUs go whole, and adapters that
    are not folded in stay behind (verl==0.9.1:verl/workers/engine_workers.py:764)."""
    return plan.uses_adapter and not apart(plan)


def on_megatron(plan: Plan) -> bool:
    return plan.backend == "megatron"


def on_hf(plan: Plan) -> bool:
    return not on_megatron(plan)


def has_critic(plan: Plan) -> bool:
    return plan.method == "ppo"


def every(*conditions: When) -> When:
    return lambda plan: all(condition(plan) for condition in conditions)


TASK, MODELS, DATA, BATCH, OPTIM, ROLLOUTS, REWARDS, MEMORY, PARALLEL, SAVE = (
    "Method",
    "Model",
    "Data",
    "Batch",
    "Optimization",
    "Rollouts (vLLM)",
    "Rewards",
    "Precision and memory",
    "Parallelism",
    "Logging and checkpoints",
)


def pair(
    field: str, rl: str, sft: str, why: str, group: str, when: When = always, codec: Codec = SAME
) -> tuple[Row, ...]:
    """One plan field whose key lies elsewhere in RL and in SFT."""
    return tuple(
        Key(field, key, why, codec=codec, when=every(kind, when), group=group)
        for key, kind in ((rl, is_rl), (sft, is_sft))
    )


def choice(
    fields: tuple[str, ...],
    rl: str,
    sft: str,
    cases: Sequence[tuple[tuple[Any, ...], Mapping[str, Any], str]],
    group: str,
    when: When = always,
) -> tuple[Row, ...]:
    """A Choice whose keys lie below `rl` in RL and below `sft` in SFT."""
    return tuple(
        Choice(
            fields,
            tuple(
                Case(values, {f"{prefix}.{key}" if prefix else key: v for key, v in keys.items()}, why)
                for values, keys, why in cases
            ),
            group=group,
            when=every(kind, when),
        )
        for prefix, kind in ((rl, is_rl), (sft, is_sft))
    )


def derived(
    rl: str,
    sft: str,
    compute: Callable[[Plan, Job], Any],
    why: str,
    group: str,
    when: When = always,
    *,
    since: str = "",
) -> tuple[Row, ...]:
    """A computed key that lies elsewhere in RL and in SFT; an empty name: it is not there."""

    def only(kind: When) -> Callable[[Plan, Job], Any]:
        return lambda p, j: compute(p, j) if kind(p) and when(p) else ABSENT

    rows = ((rl, is_rl), (sft, is_sft))
    return tuple(Derived(key, only(kind), why, group=group, since=since) for key, kind in rows if key)


def critic(
    key: str,
    compute: Callable[[Plan, Job], Any],
    group: str,
    when: When = always,
    why: str = "the critic does as the actor",
    since: str = "",
) -> Row:
    """A key of PPO's critic."""
    return Derived(
        f"critic.{key}",
        lambda p, j: compute(p, j) if has_critic(p) and when(p) else ABSENT,
        why,
        group=group,
        since=since,
    )
