"""When nothing fits: the ladder of nearest changes of a request, ordered by how little they change what was asked.

Each lever is a single change with a weight (how far it is from what was asked); two that are each too little are
tried together, at the sum of their weights. Stage, offload and parallelism are no levers: where they are not
pinned the search has already tried them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.facts.gpus import load_gpu
from advisor.facts.models import model_summaries
from advisor.facts.types import ClusterFacts
from advisor.planner.order import Candidate
from advisor.resolve import Resolved

PLAN_PINS = ("zero", "fsdp", "fsdp_replicas", "offload", "tensor_parallel", "pipeline_parallel", "pipeline_first_layers",
             "pipeline_last_layers", "virtual_pipeline_parallel", "expert_parallel", "expert_tensor_parallel",
             "context_parallel", "micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "recompute",
             "activation_offload", "backend", "liger", "compile", "attention", "packing", "loss", "param_dtype",
             "master_weights", "rollout_gpus", "rollout_placement")  # fmt: skip
TUNING_LADDER = {"full": ("lora", "qlora"), "freeze": ("lora", "qlora"), "auto": ("qlora",), "dora": ("lora", "qlora"),
                 "lora": ("qlora",)}  # fmt: skip
MORE_GPUS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LARGER_GPUS = ("l40s", "a100-sxm-80", "h100-sxm", "h200-sxm", "b200-sxm")
"""Cards that are rented by the hour, by memory."""
HOST_GIB_PER_GPU = (256.0, 512.0)
"""Host memory that machines of eight such cards are sold with: 2 and 4 TB."""
HOST_GIB_OF_EXPERTS = 2048.0
"""Host memory of a two-socket server, however few cards are in it: where the experts of an MoE can rest."""
NVME_GIB = 8192.0
"""Local disk of one machine worth asking for: AWS p5 has 8 x 3.84 TB."""
SIBLINGS = 6

WEIGHTS = {
    "pins": 1.0, "framework": 1.0, "optimizer": 2.0, "low-rank": 2.4, "length": 3.0, "host": 4.0, "placement": 4.0,
    "disk": 4.5, "tuning": 5.0, "gpus": 5.0, "card": 7.0, "model": 12.0,
}  # fmt: skip
"""How far a change is from what was asked: what the user fixed by hand costs least to free, another model most."""
PAIRS = (("tuning", "length"), ("optimizer", "gpus"), ("tuning", "host"), ("tuning", "gpus"), ("tuning", "card"),
         ("length", "gpus"), ("length", "card"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    text: str
    values: Mapping[str, Any]
    """Request field -> new value; None takes an answer back."""
    kind: str
    """The lever: few changes of one kind are shown, so that every lever is seen."""
    weight: float
    parts: tuple[Change, ...] = ()
    """The single changes that a pair is made of."""

    def request(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The complete changed request."""
        changed = {**asked, **self.values}
        return {name: value for name, value in changed.items() if value is not None}


def asked_for(resolved: Resolved) -> dict[str, Any]:
    """The request as given: what was filled in from defaults is left out, to be filled in again."""
    return {k: v for k, v in resolved.request.given().items() if resolved.origins.get(k) is None}


def changes(resolved: Resolved, least: float = 1.0) -> list[Change]:
    """Changed requests, nearest first. `least`: how many times too large the nearest plan is, so that fewer
    GPUs than that many times as many need not be tried alone."""
    singles = [change for lever in LEVERS for change in lever(resolved)]
    pairs = [
        _both(first, second)
        for one, other in PAIRS
        for first in singles
        if first.kind == one
        for second in singles
        if second.kind == other
    ]
    # Of equals the order of the levers, and within a lever its own, decides: sorting is stable.
    hopeless = WEIGHTS["gpus"] + _gpus_further(least)
    alone = [change for change in singles if change.kind != "gpus" or change.weight >= hopeless]
    return sorted([*alone, *pairs], key=lambda change: change.weight)


def _both(first: Change, second: Change) -> Change:
    return Change(
        f"{first.text}, and {second.text}",
        {**first.values, **second.values},
        f"{first.kind} + {second.kind}",
        first.weight + second.weight,
        (first, second),
    )


def _change(kind: str, text: str, further: float = 0.0, **values: Any) -> Change:
    return Change(text, values, kind, WEIGHTS[kind] + further)


def _pins(resolved: Resolved) -> Iterator[Change]:
    asked = asked_for(resolved)
    pins = [name for name in PLAN_PINS if asked.get(name, "auto") != "auto"]
    for name in pins:
        text = f"without --{name.replace('_', '-')} {_plain(asked[name])}"
        yield Change(text, {name: None}, "pins", WEIGHTS["pins"])
    if len(pins) > 1:
        free = dict[str, Any].fromkeys(pins)
        yield Change("without any pinned part of the plan", free, "pins", WEIGHTS["pins"] + 0.5)


def _framework(resolved: Resolved) -> Iterator[Change]:
    asked = asked_for(resolved)
    if "framework" in asked:
        text = f"another framework than {asked['framework']}"
        yield _change("framework", text, framework=None, framework_version=None)
    if "avoid" in asked:
        yield _change("framework", f"without --avoid {', '.join(asked['avoid'])}", avoid=None)


def _optimizer(resolved: Resolved) -> Iterator[Change]:
    asked = asked_for(resolved)
    if asked.get("tuning") in ("full", "freeze") and "optimizer" not in asked:
        yield _change("optimizer", "8-bit AdamW states", optimizer="adamw_8bit")
    if asked.get("tuning") == "full" and "optimizer" not in asked:
        yield _change("low-rank", "GaLore: moments of projected gradients", optimizer="galore_adamw")
        if resolved.cluster.world_size == 1:
            text = "GaLore layer by layer: no gradient is kept either"
            yield _change("low-rank", text, 0.5, optimizer="galore_adamw_layerwise")


def _length(resolved: Resolved) -> Iterator[Change]:
    asked = asked_for(resolved)
    for field, name in (("seq_len", "sequences"), ("response_len", "answers")):
        length = asked.get(field, 0)
        for further, shorter in enumerate((length // 2, length // 4)):
            if shorter >= 1024:
                yield Change(
                    f"{name} of {shorter} tokens", {field: shorter}, "length", WEIGHTS["length"] + further
                )


def _tuning(resolved: Resolved) -> Iterator[Change]:
    asked = asked_for(resolved)
    now = str(asked.get("tuning", "auto"))
    for further, tuning in enumerate(TUNING_LADDER.get(now, ())):
        base = asked.get("quantization") if tuning == "qlora" else None
        yield _change("tuning", f"{tuning} instead of {now}", further, tuning=tuning, quantization=base)


def grown(cluster: ClusterFacts, factor: int) -> tuple[int, int] | None:
    """(nodes, GPUs per node) of `factor` times the GPUs: a machine is filled before another is added; None where
    that makes no whole machines."""
    # The catalog calls a workstation card's node one card; boards take four.
    most = cluster.gpu.gpus_per_node if cluster.gpu.gpus_per_node > 1 else 4
    most = max(most, cluster.gpus_per_node)
    if cluster.nodes > 1:
        return cluster.nodes * factor, cluster.gpus_per_node
    wanted = cluster.gpus_per_node * factor
    if wanted <= most:
        return 1, wanted
    return None if wanted % most else (wanted // most, most)


def gpus_text(nodes: int, gpus_per_node: int) -> str:
    """A cluster's size for people."""
    count = nodes * gpus_per_node
    return f"{count} GPUs ({nodes} x {gpus_per_node})" if count > 1 else "1 GPU"


def least_times(closest: Candidate) -> float:
    """How many times the GPUs it takes at the least, where this plan comes closest: n times as many hold at most n times
    as much. Of online RL nothing is known: more GPUs hold an engine that fewer cannot, and then other plans come closest.
    """
    return 1.0 if closest.plan.online else max(closest.memory.excess, 1.0)


def _gpus_further(factor: float) -> float:
    """Twice as many are the nearest; each doubling is one step further."""
    return math.log2(max(factor, 1.0)) - 1


def _gpus(resolved: Resolved) -> Iterator[Change]:
    for factor in MORE_GPUS:
        shape = grown(resolved.cluster, factor)
        if shape is None:
            continue
        nodes, gpus = shape
        text = f"{gpus_text(nodes, gpus)} instead of {resolved.cluster.world_size}"
        yield _change("gpus", text, _gpus_further(factor), nodes=nodes, gpus_per_node=gpus)


def _host(resolved: Resolved) -> Iterator[Change]:
    cluster = resolved.cluster
    for further, per_gpu in enumerate(HOST_GIB_PER_GPU):
        memory = per_gpu * cluster.gpus_per_node
        if memory > cluster.cpu_memory_gib:
            yield _more_host(memory, further)
    largest = max(cluster.cpu_memory_gib, HOST_GIB_PER_GPU[-1] * cluster.gpus_per_node)
    if resolved.model.moe and cluster.nodes == 1 and largest < HOST_GIB_OF_EXPERTS:
        yield _more_host(HOST_GIB_OF_EXPERTS, len(HOST_GIB_PER_GPU))


def _more_host(memory: float, further: float) -> Change:
    return _change("host", f"{memory:.0f} GiB of host memory a node", further, cpu_memory_gib=memory)


def _placement(resolved: Resolved) -> Iterator[Change]:
    """A server that training waits for has been tried where the placement is open; one that works ahead has not."""
    request = resolved.request
    if request.rollout_placement == "auto" and not request.rollout_gpus and resolved.cluster.world_size > 1:
        yield _change(
            "placement",
            "answers generated on GPUs of their own, one step ahead of training",
            rollout_placement="separate-async",
        )


def _disk(resolved: Resolved) -> Iterator[Change]:
    if resolved.cluster.nvme_gib < NVME_GIB:
        yield _change("disk", f"{NVME_GIB:.0f} GiB of NVMe a node", nvme_gib=NVME_GIB)


def _card(resolved: Resolved) -> Iterator[Change]:
    now = resolved.cluster
    cards = [gpu for gpu in map(load_gpu, LARGER_GPUS) if gpu.memory_gib > now.gpu_memory_gib]
    for further, card in enumerate(cards):
        yield _change(
            "card",
            f"{card.id} instead of {now.gpu.id}",
            further / 2,
            gpu=card.id,
            gpu_memory_gib=None,
            price_per_gpu_hour=None,
            price_source=None,
        )


def _model(resolved: Resolved) -> Iterator[Change]:
    """Siblings: catalog models of the same publisher, largest first, that are smaller."""
    publisher = resolved.model.id.split("/")[0].lower()
    total = resolved.model.total_parameters
    siblings = [
        (row["total"] or 0, row["id"])
        for row in model_summaries()
        if row["id"].split("/")[0].lower() == publisher and 0 < (row["total"] or 0) < total
    ]
    sizes: list[int] = []
    for size, name in sorted(siblings, key=lambda sibling: (-sibling[0], sibling[1])):
        # Variants of one architecture would all say the same.
        if size not in sizes and len(sizes) < SIBLINGS:
            yield _change("model", f"the smaller {name}", len(sizes) / 10, model=name)
            sizes.append(size)


LEVERS = (_pins, _framework, _optimizer, _length, _host, _placement, _disk, _tuning, _gpus, _card, _model)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def no_nearer(change: Change, found: Sequence[Change]) -> bool:
    """Whether one lever of this pair alone was enough already, moved no further than here."""
    return any(
        part.kind == other.kind and other.weight <= part.weight for part in change.parts for other in found
    )
