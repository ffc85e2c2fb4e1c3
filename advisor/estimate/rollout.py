"""Models and memory beside the one that trains: reference, reward, critic, teacher, rollout engine."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.estimate.model_sums import ModelSums, model_sums
from advisor.estimate.stage import Setting, StageParts
from advisor.facts.types import ModelFacts
from advisor.plan import Plan

GIB = 1024.0**3

REFERENCE_METHODS = ("dpo", "ipo", "kto", "ppo")
"""Always compare with a frozen reference; online RL without a critic only when beta > 0."""
TEACHER_LOGITS = 2.0
"""Distillation holds the teacher's distribution beside the student's."""


@dataclass(slots=True)
class Extras:
    """Bytes on one GPU beside the trained model."""

    reference: float = 0.0
    rollout_always: float = 0.0
    rollout_moment: float = 0.0
    rollout_buffers: float = 0.0
    logits_factor: float = 1.0


def needs_reference(plan: Plan) -> bool:
    """A second copy of the model: full tuning under a method with a reference. Adapters switch themselves off
    instead."""
    if plan.uses_adapter:
        return False
    return plan.method in REFERENCE_METHODS or (plan.online and plan.beta > 0)


def frozen_copies(plan: Plan) -> float:
    """Frozen 16-bit models of the policy's size: reference, reward model, an adapter's critic base."""
    copies = 1.0 if needs_reference(plan) else 0.0
    if plan.method == "ppo":
        copies += 2.0 if plan.uses_adapter else 1.0
    return copies


def engine_weights(sums: ModelSums, plan: Plan) -> float:
    """Bytes of 16-bit weights on each GPU of a rollout engine: sliced over TP, the routed experts over TP or,
    under expert parallelism, over all ranks of the engine."""
    experts = sums.expert_per_layer * sums.moe_layers
    tensor = max(plan.rollout_tensor_parallel, 1)
    spread = plan.rollout_expert_parallel if plan.rollout_expert_parallel > 1 else tensor
    return 2.0 * ((sums.total - experts) / tensor + experts / spread)


def cache_bytes_per_token(sums: ModelSums) -> float:
    """KV cache of one token in 16 bit: 2 (k, v) x 2 bytes x layers x kv width; transformers expands MLA."""
    width = sums.mla_qk + sums.mla_value if sums.mla else 2 * sums.key_value
    return 2.0 * width * sums.layers


LEAST_CACHE = 1.25
"""What an engine needs over its weights: a quarter for the cache (verl docs perf/best_practices)."""


def pool_gib(sums: ModelSums, plan: Plan) -> float:
    """What a GPU that only generates must hold: the engine's weights and the least cache."""
    return LEAST_CACHE * engine_weights(sums, plan) / GIB if plan.rollout_gpus else 0.0


def extras(
    s: Setting, p: StageParts, teacher: ModelFacts | None, capacity_gib: float, sleeps: bool
) -> Extras:
    """Reference = frozen copies sliced like the weights (a full critic is counted with the states);
    rollout = the engine's share of the card (always, unless it sleeps while training) or, with the trainer's
    own model, the KV cache of one step's responses and, under stage 3, the whole gathered model."""
    plan, out = s.plan, Extras()
    if plan.method in ("sft", "cpt"):
        return out
    copies = frozen_copies(plan)
    if copies and not s.weights_away:
        out.reference = copies * p.base_weights
    if plan.method == "gkd":
        out.logits_factor = TEACHER_LOGITS
        if teacher is not None:
            cut = s.shards.weight * plan.tensor_parallel * plan.pipeline_parallel
            out.reference += 0.0 if s.weights_away else 2.0 * model_sums(teacher).total / cut
    if plan.rollout_engine == "vllm":
        if plan.generates_apart:
            return out  # the engine has GPUs of its own
        share = plan.rollout_memory_fraction * capacity_gib * GIB
        out.rollout_moment = share
        out.rollout_always = 0.0 if sleeps else share
    elif plan.rollout_engine == "hf":
        rows = plan.micro_batch_size * plan.gradient_accumulation_steps
        cut = plan.tensor_parallel * plan.context_parallel
        out.rollout_moment = rows * plan.seq_len * cache_bytes_per_token(s.sums) / cut
        out.rollout_buffers = 2.0 * s.sums.total if s.stage3 else 0.0
    return out
