"""Measured checkpoints (checkpoints.csv) and traced gathering (gathered.csv): the rows, and each one's plan.

Tiny random models saved by the real libraries: sizes per parameter do not depend on the model's size.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.estimate.model_sums import model_sums
from advisor.estimate.stage import Setting, make_setting
from advisor.facts.models import facts_of_config
from advisor.facts.saving import Saving, saving_catalog
from advisor.facts.types import ModelFacts
from advisor.plan import Plan

HERE = Path(__file__).parent
Row = Mapping[str, str]

WAYS = {
    "one-process": ("one-process", {"param_dtype": "bf16"}),
    "zero1": ("deepspeed-copies", {"zero_stage": 1, "param_dtype": "bf16", "master_weights": True}),
    "zero2": ("deepspeed-copies", {"zero_stage": 2, "param_dtype": "bf16", "master_weights": True}),
    "zero3": ("deepspeed-gather", {"zero_stage": 3, "param_dtype": "bf16", "master_weights": True}),
    "fsdp-whole": ("fsdp-whole", {"zero_stage": 3, "fsdp": True, "param_dtype": "fp32"}),
    "fsdp-sharded": ("fsdp-sharded", {"zero_stage": 3, "fsdp": True, "param_dtype": "fp32"}),
}
"""What was measured -> the way it is called in the catalog, and the plan."""
COMMON: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1536,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 256, "num_experts": 8, "num_experts_per_tok": 2}


def rows(name: str) -> list[Row]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _model(kind: str) -> ModelFacts:
    config = {**COMMON, "tie_word_embeddings": kind == "tied", "model_type": "qwen3"}
    if kind == "moe":
        config |= {**EXPERTS, "model_type": "qwen3_moe"}
    return facts_of_config(config, name=kind, source="measured", native_dtype="bfloat16")


def way_of(name: str) -> Saving:
    return next(way for way in saving_catalog().ways if way.id == name)


def setting(row: Row) -> tuple[Saving, Setting]:
    """How it was saved, and the plan on the model."""
    way, fields = WAYS[row["way"]]
    if row["tuning"] == "lora":
        fields = {**fields, "lora_rank": 64}
        if not row["way"].startswith("zero"):
            fields["param_dtype"] = "fp32"
    plan = Plan(
        tuning=row["tuning"], gpus_per_node=int(row["processes"]), optimizer="adamw_foreach", **fields
    )
    return way_of(way), make_setting(model_sums(_model(row["model"])), plan.normalised())


def measured_host(row: Row) -> int:
    """Bytes of the larger state dict of weights and optimizer, over the processes of the node."""
    return int(row["host_first_bytes"]) + int(row["host_last_bytes"]) * (int(row["processes"]) - 1)
