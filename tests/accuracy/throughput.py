"""The time model beside speeds that others measured and published: throughput_rows.csv, with its sources.

The rows were split before any constant was chosen: a series is one source, model and card, and the last bit of
its SHA-256 says whether constants may be chosen on it (`fit`) or only held against it (`held-out`). Of one
source's large tables (llm-foundry) at most three rows of each series are taken, by hash. A row names the plan,
the software (what a plan does not say), the tokens of a sample and the figure as published.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from advisor.estimate.model_sums import model_sums
from advisor.estimate.time import StepTime, step_time
from advisor.facts.gpus import load_gpu
from advisor.facts.models import load_model
from advisor.facts.software import Software
from advisor.facts.types import ClusterFacts, ModelFacts, Weight
from advisor.plan import Plan
from tests.estimate import samples

ROWS = Path(__file__).with_name("throughput_rows.csv")
FASTER_IS_MORE = ("tokens_per_second", "tokens_per_second_per_gpu")
TIE = 0.05
"""Two published speeds that differ by less are a tie and no pair."""


@dataclass(frozen=True)
class Row:
    id: str
    source: str
    model: str
    gpu: str
    plan: Plan
    cluster: ClusterFacts
    tokens: float
    times: float
    measure: str
    published: float
    estimate: float
    split: str
    software: Software
    step: StepTime

    @property
    def error(self) -> float:
        """Estimated over published duration, minus one: positive is too slow."""
        ratio = self.estimate / self.published
        return (1 / ratio if self.measure in FASTER_IS_MORE else ratio) - 1


USED = ("xtuner|Qwen/Qwen3-235B-A22B|h800-sxm",)
"""Series that a constant was derived from by hand: no longer held out, whatever their hash."""


def series_split(source: str, model: str, gpu: str) -> str:
    series = f"{source}|{model}|{gpu}"
    if series in USED:
        return "fit"
    digest = hashlib.sha256(series.encode()).hexdigest()
    return "held-out" if int(digest, 16) % 2 else "fit"


def _plain(name: str, hidden: int, layers: int, heads: int, vocab: int) -> ModelFacts:
    """MPT: an MLP of two matrices, four times as wide; tied embeddings, heads of 128."""
    base = samples.build(name, hidden, layers, heads, heads, 128, 4 * hidden, vocab, tied=True)
    inner = tuple(w for w in base.weights if w.role != "mlp")
    pair = (
        Weight("model.layers.*.mlp.up_proj.weight", (4 * hidden, hidden), layers, "mlp", True),
        Weight("model.layers.*.mlp.down_proj.weight", (hidden, 4 * hidden), layers, "mlp", True),
    )
    fields = {f: getattr(base, f) for f in ModelFacts.__dataclass_fields__}
    return ModelFacts(**{**fields, "weights": (*inner, *pair)})


OTHERS = {
    "MPT-3B": lambda: _plain("MPT-3B", 2560, 32, 20, 50368),
    "MPT-7B": lambda: _plain("MPT-7B", 4096, 32, 32, 50368),
    "MPT-13B": lambda: _plain("MPT-13B", 5120, 40, 40, 50368),
    "MPT-30B": lambda: _plain("MPT-30B", 7168, 48, 56, 50368),
    "MPT-70B": lambda: _plain("MPT-70B", 8192, 80, 64, 50368),
    "Qwen-1.8B": lambda: samples.build("Qwen-1.8B", 2048, 24, 16, 16, 128, 5504, 151936, bias=True),
    "Qwen-7B": lambda: samples.QWEN_7B,
    "Qwen-14B": lambda: samples.build("Qwen-14B", 5120, 40, 40, 40, 128, 13696, 152064, bias=True),
    "Qwen-72B": lambda: samples.build("Qwen-72B", 8192, 80, 64, 64, 128, 24576, 152064, bias=True),
    "CodeLlama-34B": lambda: samples.build("CodeLlama-34B", 8192, 48, 64, 8, 128, 22016, 32000),
    "Llama-2-70B": lambda: samples.LLAMA2_70B,
}
"""Models that are not in the catalog, from their public configurations."""


@cache
def _model(name: str) -> ModelFacts:
    return OTHERS[name]() if name in OTHERS else load_model(name, offline=True)


def _cluster(gpu: str, card_changes: str, plan: Plan, network: str) -> ClusterFacts:
    """`card_changes`: where the source says that its card is not quite the catalog's."""
    card = replace(load_gpu(gpu), **json.loads(card_changes))
    return ClusterFacts(
        gpu=card, gpus_per_node=plan.gpus_per_node, nodes=plan.nodes, gpu_memory_gib=card.memory_gib,
        cpu_memory_gib=2048.0, cpu_memory_source="row", interconnect=network,
    )  # fmt: skip


def _value(row: dict[str, str], plan: Plan, step: StepTime) -> float:
    tokens, times = float(row["tokens"]), float(row["times"])
    per_second = plan.global_batch_size * tokens / step.total
    return {
        "tokens_per_second": per_second,
        "tokens_per_second_per_gpu": per_second / plan.world_size,
        "seconds_per_step": step.total * times,
        "update_seconds": step.update * times,
        "log_prob_seconds": step.log_probs * times,
        "generation_seconds": step.rollout * times,
    }[row["measure"]]


def _plan(text: str) -> Plan:
    fields: dict[str, Any] = json.loads(text)
    if "lora_targets" in fields:
        fields["lora_targets"] = tuple(fields["lora_targets"])
    return Plan(**fields)


@cache
def read() -> tuple[dict[str, str], ...]:
    with ROWS.open(newline="", encoding="utf-8") as lines:
        return tuple(csv.DictReader(lines))


def rows() -> Iterator[Row]:
    for row in read():
        plan, software = _plan(row["plan"]), Software(**json.loads(row["stack"]))
        where = _cluster(row["gpu"], row["card"], plan, row["interconnect"])
        tokens = float(row["tokens"])
        tflops = where.gpu.tflops_bf16
        assert tflops is not None, row["id"]
        step = step_time(model_sums(_model(row["model"])), plan, where, tokens, tflops, software)
        yield Row(
            row["id"], row["source"], row["model"], row["gpu"], plan, where, tokens, float(row["times"]),
            row["measure"],
            float(row["value"]), _value(row, plan, step), row["split"], software, step,
        )  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two plans for the same model on the same cards and lengths; `first` was published as the faster."""

    first: Row
    second: Row
    right: bool


def speed(row: Row, seconds_or_rate: float) -> float:
    """Tokens per second (of the part measured), whatever the unit of the figure."""
    if row.measure == "tokens_per_second_per_gpu":
        return seconds_or_rate * row.plan.world_size
    if row.measure == "tokens_per_second":
        return seconds_or_rate
    return row.plan.global_batch_size * row.tokens * row.times / seconds_or_rate


def _choices(row: Row) -> object:
    """What of the plan the measured part depends on."""
    plan = row.plan
    if row.measure == "generation_seconds":
        return plan.rollout_engine, plan.rollout_tensor_parallel, plan.rollout_memory_fraction
    return plan


def pairs(found: list[Row]) -> list[Pair]:
    """Every pair of rows with the same model, card, number of cards, sequence length and part measured, whose
    plans differ in what that part depends on and whose published speeds differ by more than a tie."""
    result: list[Pair] = []
    for one, other in combinations(found, 2):
        same = all(getattr(one, f) == getattr(other, f) for f in ("model", "gpu", "measure")) and (
            one.plan.world_size,
            one.plan.seq_len,
        ) == (other.plan.world_size, other.plan.seq_len)
        if not same or _choices(one) == _choices(other):
            continue
        a, b = speed(one, one.published), speed(other, other.published)
        if max(a, b) / min(a, b) - 1 < TIE:
            continue
        first, second = (one, other) if a > b else (other, one)
        result.append(Pair(first, second, speed(first, first.estimate) > speed(second, second.estimate)))
    return result
