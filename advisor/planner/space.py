"""What is tried: skeletons (what trains) and layouts (how it is spread), as a framework's rules allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from advisor.estimate.model_sums import model_sums
from advisor.estimate.rollout import LEAST_CACHE, engine_weights
from advisor.estimate.states import NF4_BYTES, moment_bytes
from advisor.estimate.traffic import gather_seconds
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import Plan, changed
from advisor.planner.legality import stage_layers
from advisor.planner.start import first_plan, pinned, tunings
from advisor.resolve import Resolved

SHARDINGS = (
    (0, False, "none"),
    (1, False, "none"),
    (2, False, "none"),
    (3, True, "none"),
    (3, False, "none"),
    (2, False, "optimizer"),
    (3, False, "optimizer"),
    (3, True, "all"),
    (3, False, "all"),
    (3, False, "nvme"),
)
"""(zero_stage, fsdp, offload) on the transformers backend, simplest and fastest first."""

ON_HOST = ((0, False, "experts"), (3, True, "experts"))
"""The same with the routed experts in host memory: tried where nothing else fits, for the processor sets the pace."""


def shardings(pins: Mapping[str, Any]) -> tuple[tuple[int, bool, str], ...]:
    """The spreads to try under these pins."""
    return ON_HOST if pins.get("offload") == "experts" else SHARDINGS


POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROLLOUT_SHARES = (0.75, 0.6, 0.4)
"""Of a card, tried for the rollout engine: verl documents 0.5 to 0.7, up to 0.9 where training rests on the host."""
POOL_SHARE = 0.9
"""Of a card that only generates: vLLM's own default (vllm/config/cache.py: gpu_memory_utilization)."""
LONG_SEQUENCE = 16384
"""From this length on, splitting the sequence over GPUs is tried."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What trains, with its hyperparameters; the layout is still open."""

    plan: Plan
    pins: Mapping[str, Any]
    """Plan fields the user fixed."""


def skeletons(resolved: Resolved) -> Iterator[Skeleton]:
    """One plan per (tuning, quantization), on one cluster, with defaults from the tables."""
    pins = pinned(resolved.request)
    for tuning, quantization in tunings(resolved.request):
        yield Skeleton(first_plan(resolved, tuning, quantization, pins).normalised(), pins)


def rollouts(
    plan: Plan, model: ModelFacts, memory_gib: float, engines: Iterable[str] | None, spreads: bool = False
) -> list[list[dict[str, Any]]]:
    """Rollout settings worth trying, one list for each engine there is, the fastest of a list first: vLLM in the
    smallest engine that holds the weights, and the trainer's own model. `spreads`: an engine may have data- and
    expert-parallel ranks.

    Rule: memory x fraction x TP > 2 bytes x parameters, with a quarter left for the KV cache
    (verl docs perf/best_practices: gpu_memory * utilization * TP > 2 * parameters).
    """
    if not plan.online:
        return [[{}]]
    if plan.rollout_gpus:
        return [
            [setting] for setting in pool_engines(plan, model, memory_gib, spreads and model.moe is not None)
        ]
    allowed = tuple(engines) if engines is not None else ("vllm", "hf")
    found: list[list[dict[str, Any]]] = []
    if "vllm" in allowed:
        found.append(_engines(plan, model, memory_gib, spreads and model.moe is not None))
    if "hf" in allowed:
        found.append([{"rollout_engine": "hf"}])
    return [settings for settings in found if settings]


def pool_engines(plan: Plan, model: ModelFacts, memory_gib: float, spreads: bool) -> list[dict[str, Any]]:
    """vLLM on GPUs of its own: the smallest engine that holds the weights, and one over all GPUs of a machine."""
    own = changed(plan, {"gpus_per_node": plan.rollout_gpus})
    widest = max(tp for tp in POWERS if plan.rollout_gpus % tp == 0 and model.heads % tp == 0)
    found = [
        _smallest(own, model, memory_gib * POOL_SHARE, kind) for kind in _engine_kinds(own, model, spreads)
    ]
    smallest = next((shape for shape in found if shape), {})
    whole = {**_shape(widest, 1, 1)}
    return [
        {**shape, "rollout_memory_fraction": POOL_SHARE}
        for shape in ([smallest, whole] if smallest and smallest != whole else [whole])
    ]


def _engines(plan: Plan, model: ModelFacts, memory_gib: float, spreads: bool) -> list[dict[str, Any]]:
    """vLLM settings, the largest share of the card first: it holds the most sequences at a time. Engines inside a
    node first; then, of a mixture of experts, engines over nodes that share the experts and keep TP inside; then
    tensor parallelism over nodes (every matrix waits for the network)."""
    for kind in _engine_kinds(plan, model, spreads):
        shapes = [(share, _smallest(plan, model, memory_gib * share, kind)) for share in ROLLOUT_SHARES]
        found = [{**shape, "rollout_memory_fraction": share} for share, shape in shapes if shape]
        if found:
            return found
    return []


def _engine_kinds(plan: Plan, model: ModelFacts, spreads: bool) -> list[list[tuple[int, int, int]]]:
    """(TP, DP, EP) of engines, kind by kind."""
    inside = [tp for tp in POWERS if tp <= plan.gpus_per_node and model.heads % tp == 0]
    kinds = [[(tp, 1, 1) for tp in inside]]
    if spreads and model.moe:
        most = max(inside)
        kinds.append([(most, dp, most * dp) for dp in POWERS[1:] if model.moe.experts % (most * dp) == 0])
    kinds.append([(tp, 1, 1) for tp in POWERS if model.heads % tp == 0])
    return kinds


def _shape(tensor: int, data: int, expert: int) -> dict[str, Any]:
    return {
        "rollout_engine": "vllm",
        "rollout_tensor_parallel": tensor,
        "rollout_data_parallel": data,
        "rollout_expert_parallel": expert,
    }


def _smallest(
    plan: Plan, model: ModelFacts, room_gib: float, shapes: Iterable[tuple[int, int, int]]
) -> dict[str, Any]:
    """The first of the shapes (TP, DP, EP), smallest first, that holds the weights; {} when none does."""
    for tensor, data, expert in shapes:
        shape = _shape(tensor, data, expert)
        weights = engine_weights(model_sums(model), changed(plan, shape)) / 2**30
        if plan.generating_gpus % (tensor * data) == 0 and room_gib > LEAST_CACHE * weights:
            return shape
    return {}


def hf_layouts(plan: Plan, pins: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """How the transformers backend may spread the plan."""
    contexts = POWERS[:4] if plan.seq_len >= LONG_SEQUENCE else (1,)
    for context in _pin(pins, "context_parallel", contexts):
        for tensor in _pin(pins, "tensor_parallel", (1,)):
            for expert in _pin(pins, "expert_parallel", (1,)):
                for stage, fsdp, offload in shardings(pins):
                    if plan.world_size == 1 and stage and offload == "none" and not fsdp:
                        continue
                    if offload == "experts" and fsdp != (plan.world_size > 1):
                        continue  # one process, or FSDP2: replicas of the rest would gain nothing
                    yield {
                        "zero_stage": stage,
                        "fsdp": fsdp,
                        "fsdp_replicas": pins.get("fsdp_replicas", 1) if fsdp else 1,
                        "offload": offload,
                        "context_parallel": context,
                        "tensor_parallel": tensor,
                        "expert_parallel": expert,
                        "virtual_pipeline_parallel": 1,
                    }


def with_copies(
    shapes: Iterable[dict[str, Any]],
    plan: Plan,
    model: ModelFacts,
    cluster: ClusterFacts,
    pins: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """After each layout of FSDP2 the same with a copy of the state on every node, where a micro batch then waits less
    for its weights and gradients."""
    for shape in shapes:
        yield shape
        if shape["fsdp"] and "fsdp_replicas" not in pins:
            copied = {**shape, "fsdp_replicas": plan.nodes}
            flat, hybrid = changed(plan, shape), changed(plan, copied)
            if _could_hold(hybrid, model, cluster) and _waits_less(hybrid, flat, model, cluster):
                yield copied


def _could_hold(plan: Plan, model: ModelFacts, cluster: ClusterFacts) -> bool:
    """Whether the smallest weights and moments of one copy leave something of its group's GPUs; False is certain."""
    if plan.offload != "none":
        return True
    each = 2.0 if plan.quantization == "none" else NF4_BYTES
    each += moment_bytes(plan.optimizer, 2.0) if plan.tuning == "full" else 0.0
    return each * model.total_parameters < cluster.gpu_memory_gib * 2**30 * plan.shard_group


def _waits_less(plan: Plan, other: Plan, model: ModelFacts, cluster: ClusterFacts) -> bool:
    seconds, others = (gather_seconds(model_sums(model), p, cluster) for p in (plan, other))
    return 0 < seconds < others


def megatron_layouts(plan: Plan, model: ModelFacts, pins: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """TP x PP x EP x CP grids of Megatron-LM. TP stays inside a node: it talks at every matrix."""
    tensors = [tp for tp in POWERS if tp <= min(8, plan.gpus_per_node)]
    stages = [pp for pp in (1, 2, 4, 8, 12, 16) if pp <= min(model.layers, plan.world_size)]
    experts = [ep for ep in POWERS if model.moe and ep <= plan.world_size] or [1]
    contexts = POWERS[:4] if plan.seq_len >= LONG_SEQUENCE else (1,)
    chunks = pins.get("virtual_pipeline_parallel", 1)
    for tensor in _pin(pins, "tensor_parallel", tensors):
        for pipeline in _pin(pins, "pipeline_parallel", stages):
            if chunks > 1 and pipeline == 1:
                continue
            first, last = stage_layers(model.layers, pipeline, chunks)
            for context in _pin(pins, "context_parallel", contexts):
                if plan.world_size % (tensor * pipeline * context):
                    continue
                shape = {
                    "tensor_parallel": tensor,
                    "sequence_parallel": tensor > 1,
                    "pipeline_parallel": pipeline,
                    "pipeline_first_layers": pins.get("pipeline_first_layers", first),
                    "pipeline_last_layers": pins.get("pipeline_last_layers", last),
                    "virtual_pipeline_parallel": chunks,
                    "context_parallel": context,
                    "zero_stage": 1,
                    "fsdp": False,
                    "fsdp_replicas": 1,
                }
                for expert in _pin(pins, "expert_parallel", experts):
                    for slices in _slices(model, pins, tensor, expert):
                        yield {**shape, "expert_parallel": expert, "expert_tensor_parallel": slices}


def _slices(model: ModelFacts, pins: Mapping[str, Any], tensor: int, expert: int) -> Iterable[int]:
    """Expert tensor parallel degrees: 1, and that of the other matrices where too few experts are left to spread them
    over those ranks instead, which holds as much of them and gathers no tokens (Megatron-LM, core/transformer/moe/
    README.md: prefer EP over TP for the expert layer when possible)."""
    if "expert_tensor_parallel" in pins:
        return (pins["expert_tensor_parallel"],)
    if model.moe is None or tensor == 1:
        return (1,)
    spreads = "expert_parallel" not in pins and model.moe.experts % (expert * tensor) == 0
    return (1,) if spreads else (1, tensor)


def _pin(pins: Mapping[str, Any], field: str, otherwise: Iterable[Any]) -> Iterable[Any]:
    return (pins[field],) if field in pins else otherwise


def squeezes(plan: Plan, pins: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Ways to hold fewer activations, fastest first: lists that differ only in how much is recomputed, the
    last of a list holding the least, that of the last list the least of all. Layer inputs that wait on the host come
    last: of plans that fit without, none is better with it."""
    if plan.backend == "megatron":
        for offload in _pin(pins, "offload", ("none", "optimizer")):
            yield [
                {"offload": offload, "recompute": recompute, "gradient_checkpointing": recompute != "none"}
                for recompute in _pin(pins, "recompute", ("none", "selective", "full"))
            ]
        return
    moved = pins.get("activation_offload")
    recomputed = tuple(_pin(pins, "gradient_checkpointing", (True,) if moved else (False, True)))
    kernels = tuple(_pin(pins, "liger", (False, True)))
    for liger in kernels:
        yield [{"gradient_checkpointing": checkpointing, "liger": liger} for checkpointing in recomputed]
    if moved is None and recomputed[-1]:
        yield [{"gradient_checkpointing": True, "liger": kernels[-1], "activation_offload": True}]
