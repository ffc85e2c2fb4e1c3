"""Request -> facts: fills what was not answered, and marks from where each value came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from advisor.errors import InputError
from advisor.facts.corrections import Correction, read_corrections
from advisor.facts.dataset import inspect, methods_served, mismatch
from advisor.facts.gpus import load_gpu
from advisor.facts.models import load_model
from advisor.facts.types import ClusterFacts, Dataset, GpuFacts, ModelFacts
from advisor.paths import rules_root
from advisor.plan import ONLINE_RL
from advisor.request import Request, parse_request

REQUIRED = ("model", "gpu", "method")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request with every needed value, the facts it points at, and the origin of what was not given."""

    request: Request
    origins: Mapping[str, str]
    model: ModelFacts
    cluster: ClusterFacts
    datasets: tuple[Dataset, ...]

    @property
    def dataset(self) -> Dataset | None:
        return self.datasets[0] if self.datasets else None

    def as_dict(self) -> dict[str, Any]:
        """The contract's `request`: complete, usable as an answers file; `origins` says what was a default."""
        return {**self.request.given(), "origins": dict(self.origins)}


@lru_cache(maxsize=1)
def defaults_table() -> Mapping[str, list[dict[str, Any]]]:
    path = rules_root() / "catalog" / "defaults.json"
    return json.loads(path.read_bytes())


def default(name: str, context: Mapping[str, Any]) -> tuple[Any, str]:
    """The first row of `rules/catalog/defaults.json` that fits, and its source."""
    for row in defaults_table()[name]:
        if all(context.get(field) in allowed for field, allowed in row["match"].items()):
            return row["value"], row["source"]
    raise KeyError(name)


def missing(request: Request) -> list[str]:
    """Required fields that nobody answered; the method may come from the data."""
    gone = [name for name in REQUIRED if getattr(request, name) is None]
    found_later = {"method"} if request.data else set[str]()
    if request.what_fits == "model":
        found_later.add("model")
    return [name for name in gone if name not in found_later]


def resolve(request: Request) -> Resolved:
    """Raises InputError naming the field at fault."""
    gone = missing(request)
    if gone:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in gone)
        raise InputError(gone[0], f"not given; pass {flags}")
    _no_contradiction(request)
    filling = _Filling(request)
    model = load_model(str(request.model), offline=request.offline is not False)
    filling.put("model", model.id if model.local_path is None else str(request.model), "")
    datasets = tuple(inspect(path, request.data_format) for path in request.data or ())
    _method(filling, datasets)
    cluster = _cluster(filling)
    _placement(filling, cluster)
    _lengths(filling, model, datasets)
    _training(filling, cluster, datasets)
    _preferences(filling)
    return Resolved(parse_request(filling.values), filling.origins, model, cluster, datasets)


class _Filling:
    """Values so far; a default is written once, with its origin."""

    def __init__(self, request: Request) -> None:
        self.values: dict[str, Any] = request.given()
        self.origins: dict[str, str] = {}

    def put(self, name: str, value: Any, origin: str) -> None:
        """An origin of "" keeps the value the user's own (a catalog id in its proper spelling)."""
        if origin and name in self.values:
            return
        self.values[name] = value
        if origin:
            self.origins[name] = origin

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def _method(filling: _Filling, datasets: tuple[Dataset, ...]) -> None:
    if "method" not in filling.values:
        served = methods_served(datasets[0]) if datasets else ()
        if not served:
            raise InputError("method", "not given, and the data does not tell; pass --method")
        filling.put("method", usual_method(served), f"from the data: {datasets[0].format} rows")
    for dataset in datasets:
        problem = mismatch(dataset, filling["method"])
        if problem:
            raise InputError("data", problem)


USUAL_METHODS = ("sft", "dpo", "grpo")
"""What most people train on data that serves several methods."""


def usual_method(served: tuple[str, ...]) -> str:
    """The method to take when the data alone decides."""
    return next((method for method in USUAL_METHODS if method in served), served[0])


APART = ("separate", "separate-async")
"""Answers to `rollout_placement` that give the engine GPUs of its own."""


def _placement(filling: _Filling, cluster: ClusterFacts) -> None:
    """Where online RL generates. Raises InputError."""
    wanted, placement = filling.values.get("rollout_gpus"), filling.values.get("rollout_placement")
    method = filling["method"]
    if method not in ONLINE_RL:
        for name in ("rollout_gpus", "rollout_placement"):
            if filling.values.get(name, "auto") != "auto":
                raise InputError(name, f"{method} generates nothing; leave it out")
        return
    if placement == "colocated" and wanted:
        raise InputError(
            "rollout_placement", f"colocated has no GPUs that only generate; drop it or rollout_gpus {wanted}"
        )
    if placement in APART and cluster.world_size == 1:
        raise InputError("rollout_placement", f"{placement} needs a GPU that generates and one that trains")
    filling.put("rollout_placement", "auto", "default")
    _pool(wanted, cluster)


def _pool(wanted: int | None, cluster: ClusterFacts) -> None:
    """GPUs that only generate are part of one machine, or whole machines. Raises InputError."""
    if not wanted:
        return
    if wanted >= cluster.world_size:
        raise InputError(
            "rollout_gpus", f"{wanted} of {cluster.world_size} GPUs leave none to train; give fewer"
        )
    if cluster.nodes > 1 and wanted % cluster.gpus_per_node:
        raise InputError(
            "rollout_gpus",
            f"{wanted} is not whole machines of {cluster.gpus_per_node} GPUs; with several machines give a "
            f"multiple of {cluster.gpus_per_node}",
        )


def _cluster(filling: _Filling) -> ClusterFacts:
    gpu = _priced(load_gpu(str(filling["gpu"])), filling.values)
    filling.put("gpu", gpu.id, "")
    filling.put("nodes", 1, "default: one machine")
    several = filling["nodes"] > 1
    filling.put(
        "gpus_per_node",
        gpu.gpus_per_node if several else 1,
        "usual size of a node of this GPU" if several else "default: one GPU",
    )
    filling.put("gpu_memory_gib", round(gpu.memory_gib, 2), f"catalog: {gpu.memory_source}")
    per_gpu, source = default("cpu_memory_gib_per_gpu", {})
    filling.put("cpu_memory_gib", per_gpu * filling["gpus_per_node"], source)
    filling.put("nvme_gib", 0.0, "default: none")
    filling.put("interconnect", "infiniband" if several else "none", "assumed")
    return ClusterFacts(
        gpu=gpu,
        gpus_per_node=filling["gpus_per_node"],
        nodes=filling["nodes"],
        gpu_memory_gib=filling["gpu_memory_gib"],
        cpu_memory_gib=filling["cpu_memory_gib"],
        cpu_memory_source=filling.origins.get("cpu_memory_gib", "given"),
        nvme_gib=filling["nvme_gib"],
        interconnect=filling["interconnect"],
        corrections=_corrections(filling, gpu.id),
    )


def _corrections(filling: _Filling, gpu: str) -> tuple[Correction, ...]:
    """What `advisor calibrate` kept of the user's runs on this card, unless they are not wanted."""
    if filling.values.get("calibration") is False:
        return ()
    return tuple(c for c in read_corrections().corrections if c.gpu == gpu)


def _priced(gpu: GpuFacts, values: Mapping[str, Any]) -> GpuFacts:
    """The card at the user's price, where they named one."""
    price = values.get("price_per_gpu_hour")
    if price is None:
        if "price_source" in values:
            raise InputError(
                "price_source", "says where a price is from; pass --price-per-gpu-hour X with it"
            )
        return gpu
    return replace(gpu, usd_per_gpu_hour=price, price_source=values.get("price_source") or "as given")


def _lengths(filling: _Filling, model: ModelFacts, datasets: tuple[Dataset, ...]) -> None:
    if filling["method"] in (*ONLINE_RL, "gkd"):
        filling.put("prompt_len", 1024, "default")
        filling.put("response_len", 1024, "default")
        filling.values["seq_len"] = filling["prompt_len"] + filling["response_len"]
        filling.origins["seq_len"] = "prompt_len + response_len"
    elif datasets and datasets[0].max_chars:
        rate, _ = default("tokens_per_character", {})
        longest = int(max(d.max_chars for d in datasets) * rate) + 64
        length = next(size for size in (512, 1024, 2048, 4096, 8192) if size >= min(longest, 8192))
        filling.put("seq_len", length, f"longest row: {max(d.max_chars for d in datasets)} characters")
    else:
        filling.put("seq_len", 2048, "default")
    if filling["method"] in ONLINE_RL:
        filling.put("generations", 8, "default")
        if "reward_model" not in filling.values and "reward" not in filling.values:
            filling.put("reward", "rewards.py:score", "default: compares the answer with the row's solution")
    if filling["seq_len"] > model.max_positions > 0:
        raise InputError(
            "seq_len", f"{filling['seq_len']} is more than the {model.max_positions} positions of {model.id}"
        )


def _no_contradiction(request: Request) -> None:
    """Raises InputError where tuning and quantization exclude each other."""
    tuning, quantization = request.tuning or "auto", request.quantization
    if tuning in ("full", "freeze") and quantization not in (None, "none"):
        raise InputError(
            "quantization",
            f"{quantization} stores a frozen base, and {tuning} tuning trains it; use --tuning qlora",
        )
    if tuning == "qlora" and quantization == "none":
        raise InputError(
            "quantization", "qlora is LoRA over a quantized base; give 4bit or 8bit, or use lora"
        )


def _training(filling: _Filling, cluster: ClusterFacts, datasets: tuple[Dataset, ...]) -> None:
    rows = sum(dataset.rows for dataset in datasets)
    if rows:
        filling.put("samples", rows, "counted in the data")
    small = filling["method"] in ("sft", *("dpo", "ipo", "kto", "orpo", "simpo", "cpo")) and 0 < rows < 5000
    filling.put(
        "epochs", 3.0 if small else 1.0, "default: 3 for fewer than 5000 rows" if small else "default"
    )
    filling.put(
        "global_batch_size", _batch(filling, cluster, rows), "default for this method, data and cluster"
    )
    filling.put("tuning", "auto", "default")
    filling.put(
        "precision", "bf16" if cluster.gpu.supports_bf16 else "fp16", f"what {cluster.gpu.name} computes in"
    )


def _batch(filling: _Filling, cluster: ClusterFacts, rows: int) -> int:
    if filling["method"] in ONLINE_RL:
        return filling["generations"] * max(16, cluster.world_size)
    most = max(8, 1 << max(0, (rows // 20).bit_length() - 1)) if rows else 64
    return max(min(64, most), cluster.world_size)


def _preferences(filling: _Filling) -> None:
    for name, value in (("launcher", "auto"), ("tracker", "none"), ("hub", "hf")):
        filling.put(name, value, "default")
    if filling["method"] == "gkd" and "teacher" not in filling.values:
        raise InputError("teacher", "gkd learns from a teacher; pass --teacher with a hub id or folder")
