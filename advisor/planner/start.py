"""Request -> the first Plan: what trains, with its hyperparameters and the pins; how it is spread is still open.

The search lays it out in every way that is allowed, an explicit estimate in the one way that was spelled out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from advisor.facts.types import ClusterFacts
from advisor.plan import ADAPTER_TUNINGS, LOW_RANK_OPTIMIZERS, Plan
from advisor.request import PINS, Request
from advisor.resolve import APART, Resolved, default

AUTO_TUNINGS = {"cpt": ("full", "lora", "qlora"), "rm": ("lora", "full", "qlora")}
"""What `--tuning auto` tries, in order; the first that fits is taken."""
ADAPTERS_FIRST = ("lora", "qlora")


def pinned(request: Request) -> dict[str, Any]:
    """Plan field -> value for every explicit plan flag."""
    values = request.model_dump(mode="json")
    return {field: values[name] for name, field in PINS.items() if values[name] is not None}


def lora_targets(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ("all-linear",)


def tunings(request: Request) -> tuple[tuple[str, str], ...]:
    """(tuning, quantization) to try, in order. A quantized base was asked for or is qlora's own 4 bit."""
    quantization = request.quantization or "none"
    wanted = request.tuning or "auto"
    if wanted != "auto":
        names: tuple[str, ...] = (wanted,)
    elif quantization != "none":
        names = ("qlora",)
    elif request.optimizer in LOW_RANK_OPTIMIZERS:
        names = ("full",)
    else:
        names = AUTO_TUNINGS.get(str(request.method), ADAPTERS_FIRST)
    found: list[tuple[str, str]] = []
    for name in names:
        name = "qlora" if name == "lora" and quantization != "none" else name
        base = quantization if name in ADAPTER_TUNINGS else "none"
        found.append((name, "4bit" if name == "qlora" and base == "none" else base))
    return tuple(dict.fromkeys(found))


def _machines(resolved: Resolved) -> dict[str, Any]:
    """The machines that train, and the GPUs that only generate where a number of them was asked for."""
    cluster, request = resolved.cluster, resolved.request
    if not request.rollout_gpus:
        return {"nodes": cluster.nodes, "gpus_per_node": cluster.gpus_per_node}
    asked = request.rollout_placement
    return divided(cluster, request.rollout_gpus, asked if asked in APART else "separate")


def divided(cluster: ClusterFacts, generating: int, placement: str) -> dict[str, Any]:
    """Plan fields of a cluster of which so many GPUs only generate: some of one machine, or whole machines."""
    pool = {"rollout_engine": "vllm", "rollout_placement": placement}
    if cluster.nodes == 1:
        left = cluster.gpus_per_node - generating
        return {**pool, "nodes": 1, "gpus_per_node": left, "rollout_gpus": generating, "rollout_nodes": 0}
    machines = generating // cluster.gpus_per_node
    return {
        **pool, "nodes": cluster.nodes - machines, "gpus_per_node": cluster.gpus_per_node,
        "rollout_gpus": cluster.gpus_per_node, "rollout_nodes": machines,
    }  # fmt: skip


def first_plan(resolved: Resolved, tuning: str, quantization: str, pins: Mapping[str, Any]) -> Plan:
    """Every value that the request or the table of defaults gives, on one cluster."""
    request = resolved.request
    context = {"method": request.method, "tuning": tuning}
    rank = request.lora_rank or default("lora_rank", context)[0]
    plan = Plan(
        method=str(request.method),
        tuning=tuning,
        quantization=quantization,
        precision=request.precision or "bf16",
        lora_rank=rank,
        lora_alpha=2 * rank,
        lora_targets=lora_targets(request.lora_targets),
        seq_len=request.seq_len or 2048,
        epochs=request.epochs or 1.0,
        learning_rate=request.learning_rate or default("learning_rate", context)[0],
        beta=default("beta", context)[0],
        prompt_len=request.prompt_len or 0,
        response_len=request.response_len or 0,
        generations=request.generations or 0,
        **_machines(resolved),
    )
    return on_host(replace(plan, **pins))


def on_host(plan: Plan) -> Plan:
    """Routed experts that the processor computes get adapters with the rest: of such a plan they are "all linear"."""
    if plan.offload == "experts" and plan.lora_targets == ("all-linear",):
        return replace(plan, lora_targets=("experts",))
    return plan
