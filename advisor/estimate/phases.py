"""Moments outside a training step: the rollout of online RL, its log-probabilities and weight sync, and the save.

While the engine generates, the training state of a plan with `rollout_offload` waits on the host (verl's
`param_offload` and `optimizer_offload`, ms-swift's `offload_model` and `offload_optimizer`), and so does that of a
trainer whose plan offloads everything and that gathers nothing by itself (Megatron). Weights are back for
log-probabilities and weight sync, gradient buffers and optimizer states for the training step.
"""

from __future__ import annotations

from advisor.estimate.moments import Alive, held_bytes
from advisor.estimate.rollout import Extras, engine_weights
from advisor.estimate.saving import gathered_bytes
from advisor.estimate.stage import Setting, StageParts
from advisor.facts.saving import Saving

LOGPROB_BYTES = 7.0
"""Bytes per token and vocabulary entry of a forward pass for log-probabilities and entropy: verl's docs count
4 + 2 + 1 (docs/perf/best_practices.rst)."""


def _log_probs(s: Setting, p: StageParts, extra: Extras, held: tuple[float, float, float]) -> Alive:
    """A forward pass without a graph: one layer's working set, whole logits unless the loss is fused."""
    weights, gradients, optimizer = held
    logits = 0.0
    if p.last and s.plan.loss == "stock":
        logits = LOGPROB_BYTES * s.loss_tokens * s.sums.vocab / s.plan.tensor_parallel
    gathered = 2.0 * (p.layer_elements + p.root_elements) if s.stage3 else 0.0
    hidden = 2.0 * s.tokens * s.sums.hidden / s.whole_div
    return Alive(
        "log-probs", weights, gradients, optimizer, hidden + p.layer.in_mlp - p.layer.kept, logits, extra.reference,
        extra.rollout_always, gathered,
    )  # fmt: skip


def _weight_sync(s: Setting, extra: Extras, held: tuple[float, float, float]) -> Alive:
    """The engine's weights are there, its cache is not; the trainer hands over one layer (or matrix) at a time."""
    engine = min(extra.rollout_moment, engine_weights(s.sums, s.plan))
    piece = 2.0 * (s.sums.largest_layer if s.stage3 else s.sums.largest_linear)
    weights, gradients, optimizer = held
    return Alive(
        "weight sync", weights, gradients, optimizer, 0.0, 0.0, extra.reference,
        max(engine, extra.rollout_always), piece,
    )  # fmt: skip


def between_steps(s: Setting, p: StageParts) -> tuple[float, float, float]:
    """(weights, gradients, optimizer) on the GPU when no step runs: Megatron keeps its gradient buffers, the others
    set gradients to none after a step."""
    weights, gradients, optimizer = held_bytes(s, p)
    return weights, gradients if s.plan.backend == "megatron" else 0.0, optimizer


def other_moments(s: Setting, p: StageParts, extra: Extras, way: Saving) -> list[Alive]:
    """The moments outside a training step, in the order in which they come."""
    held = between_steps(s, p)
    found = _rollout(s, p, extra, held) if extra.rollout_moment or s.plan.generates_apart else []
    return [*found, _save(s, extra, held, way)]


def _rollout(s: Setting, p: StageParts, extra: Extras, held: tuple[float, float, float]) -> list[Alive]:
    """What is alive while an online method generates, scores and hands over weights."""
    away = s.plan.rollout_offload or (s.plan.backend == "megatron" and s.plan.offload == "all")
    kept = held
    if away:
        kept = (held[0], 0.0, 0.0 if s.plan.rollout_offload else held[2])
    found = [] if s.plan.generates_apart else [_generation(extra, None if away else held)]
    found.append(_log_probs(s, p, extra, kept))
    if s.plan.rollout_engine == "vllm":
        found.append(_weight_sync(s, extra, kept))
    return found


def _generation(extra: Extras, held: tuple[float, float, float] | None) -> Alive:
    """The engine at work, beside a training state that stays (`held`) or, with its reference, is away."""
    weights, gradients, optimizer = held or (0.0, 0.0, 0.0)
    return Alive(
        "rollout", weights, gradients, optimizer, 0.0, 0.0, extra.reference if held else 0.0,
        extra.rollout_moment, extra.rollout_buffers,
    )  # fmt: skip


def _save(s: Setting, extra: Extras, held: tuple[float, float, float], way: Saving) -> Alive:
    """States, and what is put together on its way to the host."""
    weights, _, optimizer = held
    gathered = gathered_bytes(s, way)
    return Alive("save", weights, 0.0, optimizer, 0.0, 0.0, extra.reference, extra.rollout_always, gathered)
