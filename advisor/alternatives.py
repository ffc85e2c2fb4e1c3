"""When nothing fits: the nearest changes of a request, ordered by how little they change what was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from advisor.facts.gpus import gpu_summaries
from advisor.facts.models import model_summaries
from advisor.resolve import Resolved

PLAN_PINS = ("zero", "fsdp", "offload", "tensor_parallel", "pipeline_parallel", "expert_parallel",
             "expert_tensor_parallel", "context_parallel", "micro_batch_size", "gradient_accumulation_steps",
             "gradient_checkpointing", "recompute", "backend", "liger", "attention", "packing")  # fmt: skip
TUNING_LADDER = {"full": ("lora", "qlora"), "freeze": ("lora", "qlora"), "auto": ("qlora",), "dora": ("lora", "qlora"),
                 "lora": ("qlora",)}  # fmt: skip
MORE_NODES = (2, 4, 8, 16, 32, 64)
BIGGER_GPUS = ("h200-sxm", "b200-sxm")


@dataclass(frozen=True, slots=True)
class Change:
    text: str
    request: Mapping[str, Any]
    """A complete request."""
    pin: bool = False
    kind: str = ""
    """What is changed: few of one kind are shown, so that every lever is seen."""


def changes(resolved: Resolved) -> Iterator[Change]:
    """Changed requests, nearest first: free the pins, shorter, other tuning, more or bigger GPUs, smaller model."""
    asked = {k: v for k, v in resolved.request.given().items() if resolved.origins.get(k) is None}
    levers = {
        "pins": _without_pins(asked),
        "length": _shorter(asked, resolved),
        "tuning": _other_tuning(asked),
        "nodes": _more_nodes(asked, resolved),
        "host": _more_host_memory(asked, resolved),
        "gpu": _other_gpu(asked, resolved),
        "model": _smaller_model(asked, resolved),
    }
    for kind, found in levers.items():
        for change in found:
            yield replace(change, kind=kind)


def _without_pins(asked: Mapping[str, Any]) -> Iterator[Change]:
    pins = [name for name in PLAN_PINS if name in asked]
    if pins:
        yield Change(f"without {', '.join(pins)}", {k: v for k, v in asked.items() if k not in pins})
    if "framework" in asked:
        free = {k: v for k, v in asked.items() if k not in ("framework", "framework_version")}
        yield Change(f"another framework than {asked['framework']}", free)


def _shorter(asked: Mapping[str, Any], resolved: Resolved) -> Iterator[Change]:
    length = resolved.request.seq_len or 0
    if "seq_len" in asked:
        for shorter in (length // 2, length // 4):
            if shorter >= 1024:
                yield Change(f"sequences of {shorter} tokens", {**asked, "seq_len": shorter})


def _other_tuning(asked: Mapping[str, Any]) -> Iterator[Change]:
    for tuning in TUNING_LADDER.get(str(asked.get("tuning", "auto")), ()):
        yield Change(f"{tuning} instead of {asked.get('tuning', 'auto')}", {**asked, "tuning": tuning})


def _more_nodes(asked: Mapping[str, Any], resolved: Resolved) -> Iterator[Change]:
    here = resolved.cluster.nodes
    per_node = {"gpus_per_node": resolved.cluster.gpus_per_node}
    for factor in MORE_NODES:
        yield Change(
            f"{here * factor} nodes instead of {here}", {**asked, **per_node, "nodes": here * factor}
        )


def _more_host_memory(asked: Mapping[str, Any], resolved: Resolved) -> Iterator[Change]:
    per_gpu = resolved.cluster.cpu_memory_gib / resolved.cluster.gpus_per_node
    if per_gpu < 256:
        memory = 256.0 * resolved.cluster.gpus_per_node
        yield Change(f"{memory:.0f} GiB of host memory a node", {**asked, "cpu_memory_gib": memory})


def _other_gpu(asked: Mapping[str, Any], resolved: Resolved) -> Iterator[Change]:
    known = {row["id"] for row in gpu_summaries()}
    for gpu in BIGGER_GPUS:
        if gpu in known and gpu != resolved.cluster.gpu.id:
            others = {k: v for k, v in asked.items() if k != "gpu_memory_gib"}
            yield Change(f"{gpu} instead of {resolved.cluster.gpu.id}", {**others, "gpu": gpu})


def _smaller_model(asked: Mapping[str, Any], resolved: Resolved) -> Iterator[Change]:
    """Siblings: catalog models of the same publisher, largest first, that are smaller."""
    publisher = resolved.model.id.split("/")[0].lower()
    total = resolved.model.total_parameters
    siblings = [
        (row["total"] or 0, row["id"])
        for row in model_summaries()
        if row["id"].split("/")[0].lower() == publisher and 0 < (row["total"] or 0) < total
    ]
    for _, name in sorted(siblings, key=lambda sibling: (-sibling[0], sibling[1]))[:6]:
        yield Change(f"the smaller {name}", {**asked, "model": name})
