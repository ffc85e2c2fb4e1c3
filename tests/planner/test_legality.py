"""Legality: each row refuses what breaks it, with the two numbers, and the published layouts pass."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.facts.models import load_model
from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from advisor.planner.legality import TABLE, illegal, stage_layers
from advisor.planner.search import Searcher
from advisor.request import parse_request
from advisor.resolve import resolve
from advisor.rules import load_framework

QWEN = load_model("Qwen/Qwen3-235B-A22B")  # 94 layers, 64 heads, 4 key/value heads, 128 experts
DEEPSEEK = load_model("deepseek-ai/DeepSeek-R1-0528")  # 61 layers, 256 experts
GPT_OSS = load_model("openai/gpt-oss-120b")
DENSE = load_model("Qwen/Qwen3-8B")  # 36 layers, 32 heads, 8 key/value heads


def plan(**changes: Any) -> Plan:
    return Plan(**{"nodes": 8, "gpus_per_node": 8, "backend": "megatron", **changes})


SHARDED = {"backend": "hf", "fsdp": True, "zero_stage": 3}

GALORE: dict[str, Any] = {"backend": "hf", "tuning": "full", "optimizer": "galore_adamw"}
LAYERWISE: dict[str, Any] = {**GALORE, "optimizer": "galore_adamw_layerwise"}

BROKEN: list[tuple[ModelFacts, dict[str, Any], str, str]] = [
    (QWEN, {"tensor_parallel": 3}, "planner.world", "64 GPUs do not split into groups of TP x PP x CP = 3"),
    (QWEN, {"tensor_parallel": 8, "pipeline_parallel": 16}, "planner.world", "= 128"),
    (QWEN, {"expert_parallel": 3}, "planner.experts", "128 experts do not split over EP = 3"),
    (DENSE, {"expert_parallel": 2}, "planner.experts", "no experts"),
    (DENSE, {"lora_targets": ("experts",)}, "planner.expert-adapters", "the model has none"),
    (QWEN, {"expert_parallel": 64, "pipeline_parallel": 2}, "planner.expert-world", "ETP x EP x PP = 128"),
    (QWEN, {"expert_parallel": 128, "backend": "hf"}, "planner.expert-world", "EP = 128"),
    (
        QWEN,
        {"pipeline_parallel": 4},
        "planner.layers",
        "94 of 94 layers do not split over 4 of PP = 4 stages",
    ),
    (DEEPSEEK, {"pipeline_parallel": 8}, "planner.layers", "61 of 61 layers"),
    (DENSE, {"tensor_parallel": 64}, "planner.heads", "32 attention heads do not split over TP = 64"),
    (DENSE, {"seq_len": 100_000}, "planner.positions", "100000 tokens are more than"),
    (DENSE, {"context_parallel": 2, "seq_len": 1001}, "planner.context", "1001 tokens"),
    (
        DENSE,
        {"method": "grpo", "generations": 7, "micro_batch_size": 2},
        "planner.generations",
        "groups of 7",
    ),
    (DENSE, {**GALORE, "tuning": "lora"}, "planner.low-rank", "here tuning is lora"),
    (DENSE, {**GALORE, **SHARDED}, "planner.low-rank", "sharding leaves a GPU only pieces"),
    (DENSE, {**GALORE, "backend": "megatron"}, "planner.low-rank", "sharding leaves a GPU only pieces"),
    (DENSE, {**GALORE, "master_weights": True}, "planner.low-rank", "no fp32 copy"),
    (DENSE, LAYERWISE, "planner.layerwise", "before 64 GPUs have added their gradients"),
    (
        DENSE,
        {**LAYERWISE, "nodes": 1, "gpus_per_node": 1, "precision": "fp16"},
        "planner.layerwise",
        "scaled back",
    ),
    (DENSE, {**LAYERWISE, "gradient_accumulation_steps": 4}, "planner.layerwise-batch", "so 4 of them"),
    (DENSE, {"compile": True}, "planner.compile", "transformers' modules"),
    (DENSE, {"activation_offload": True}, "planner.activation-offload", "transformers' checkpointing"),
    (DENSE, {"rollout_tensor_parallel": 3}, "planner.rollout", "TP = 3"),
    (QWEN, {"rollout_tensor_parallel": 8, "rollout_data_parallel": 3}, "planner.rollout", "TP x DP = 24"),
    (
        DENSE,
        {"nodes": 2, "rollout_placement": "separate", "rollout_gpus": 2},
        "planner.rollout-pool",
        "2 GPUs to generate on the machine that trains, but 2 machines train",
    ),
    (
        QWEN,
        {"rollout_tensor_parallel": 8, "rollout_expert_parallel": 4},
        "planner.rollout-experts",
        "rollout EP = 4 is not TP x DP = 8",
    ),
    (
        DENSE,
        {"rollout_tensor_parallel": 2, "rollout_expert_parallel": 2},
        "planner.rollout-experts",
        "no experts",
    ),
    (
        DENSE,
        {"nodes": 1, "backend": "hf", "offload": "experts"},
        "planner.expert-offload",
        "no routed experts",
    ),
    (QWEN, {"backend": "hf", "offload": "experts"}, "planner.expert-offload", "here are 8 machines"),
    (
        QWEN,
        {"nodes": 1, "offload": "experts"},
        "planner.expert-offload",
        "nothing to spread by EP or Megatron",
    ),
    (
        QWEN,
        {"nodes": 1, "backend": "hf", "offload": "experts", "tuning": "full"},
        "planner.expert-offload",
        "full tuning trains them",
    ),
    (QWEN, {"nodes": 6, "tensor_parallel": 3}, "planner.kv-heads", "4 key/value heads neither"),
    (
        DENSE,
        {**SHARDED, "fsdp_replicas": 3},
        "planner.fsdp-replicas",
        "64 data-parallel ranks do not split into 3",
    ),
    (DENSE, {**SHARDED, "fsdp_replicas": 64}, "planner.fsdp-replicas", "into 64 groups of several"),
    (
        DENSE,
        {**SHARDED, "fsdp_replicas": 32, "context_parallel": 4},
        "planner.fsdp-replicas",
        "16 data-parallel ranks do not split into 32",
    ),
    (
        QWEN,
        {**SHARDED, "fsdp_replicas": 8, "expert_parallel": 16},
        "planner.fsdp-replicas",
        "groups of 8 GPUs do not split into EP = 16",
    ),
    (
        DENSE,
        {"virtual_pipeline_parallel": 2},
        "planner.virtual-stages",
        "2 model chunks a rank need more than PP = 1",
    ),
    (
        QWEN,
        {
            "pipeline_parallel": 8,
            "pipeline_first_layers": 11,
            "pipeline_last_layers": 11,
            "virtual_pipeline_parallel": 2,
        },
        "planner.virtual-stages",
        "a stage of 11 layers does not split into 2 model chunks",
    ),
    (
        DENSE,
        {"pipeline_parallel": 4, "virtual_pipeline_parallel": 3, "gradient_accumulation_steps": 6},
        "planner.virtual-batches",
        "6 micro batches are no multiple of PP = 4",
    ),
    (DENSE, {"expert_tensor_parallel": 2}, "planner.expert-slices", "ETP = 2, but the model has no experts"),
    (QWEN, {"expert_tensor_parallel": 5}, "planner.expert-slices", "width 1536 do not split over ETP = 5"),
    (GPT_OSS, {"expert_tensor_parallel": 2}, "planner.expert-slices", "experts with biases are whole"),
]


@pytest.mark.parametrize(("model", "changes", "row", "text"), BROKEN)
def test_refuses(model: Any, changes: dict[str, Any], row: str, text: str) -> None:
    found = {legality.id: message for legality, message in illegal(plan(**changes), model)}
    assert row in found
    assert text in found[row]


PUBLISHED = [
    # ms-swift and verl scripts: the degrees that were run
    (QWEN, {"tensor_parallel": 4, "expert_parallel": 8, "nodes": 1}),
    (QWEN, {"pipeline_parallel": 4, "pipeline_first_layers": 23, "pipeline_last_layers": 23, "expert_parallel": 8}),
    (QWEN, {"tensor_parallel": 4, "pipeline_parallel": 8, "pipeline_first_layers": 11, "pipeline_last_layers": 11,
            "expert_parallel": 4}),
    (DEEPSEEK, {"pipeline_parallel": 8, "pipeline_first_layers": 7, "pipeline_last_layers": 6, "expert_parallel": 8}),
    (DEEPSEEK, {"nodes": 12, "tensor_parallel": 8, "pipeline_parallel": 12, "pipeline_last_layers": 6,
                "expert_parallel": 8}),
    (DEEPSEEK, {"nodes": 16, "tensor_parallel": 8, "pipeline_parallel": 16, "pipeline_last_layers": 1,
                "expert_parallel": 8}),
    (QWEN, {"nodes": 16, "tensor_parallel": 4, "pipeline_parallel": 8, "pipeline_first_layers": 12,
            "pipeline_last_layers": 10, "virtual_pipeline_parallel": 2, "expert_parallel": 8,
            "gradient_accumulation_steps": 16}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "changes"), PUBLISHED)
def test_published_layouts_are_legal(model: Any, changes: dict[str, Any]) -> None:
    assert illegal(plan(**changes), model) == []


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (94, 2, (0, 0)),
        (94, 4, (23, 23)),
        (94, 8, (11, 11)),
        (61, 8, (7, 6)),
        (61, 16, (3, 2)),
        (61, 12, (5, 6)),  # as in verl's script for DeepSeek-V3 on 96 GPUs
        (3, 4, (0, 0)),
        (36, 4, (0, 0)),
    ],
)
def test_uneven_split(layers: int, stages: int, expected: tuple[int, int]) -> None:
    assert stage_layers(layers, stages) == expected


@pytest.mark.parametrize(
    ("layers", "stages", "chunks", "expected"),
    [
        (94, 8, 2, (12, 10)),
        (94, 4, 2, (24, 22)),
        (36, 2, 2, (0, 0)),
        (80, 8, 4, (4, 4)),
        (61, 8, 2, (7, 6)),  # a prime number of layers has no such split: as without chunks, and illegal
    ],
)
def test_uneven_split_into_chunks(layers: int, stages: int, chunks: int, expected: tuple[int, int]) -> None:
    assert stage_layers(layers, stages, chunks) == expected


def test_every_row_is_broken_on_purpose() -> None:
    assert {row.id for row in TABLE} == {row for _, _, row, _ in BROKEN}


PINNED = [
    # request, framework, what the refusal says: the rule broken by a pinned field, with its numbers
    ("Qwen/Qwen3-8B", {"tensor_parallel": 3}, "ms-swift", "8 GPUs do not split into groups of TP x PP x CP = 3"),
    ("Qwen/Qwen3-8B", {"nodes": 8, "tensor_parallel": 64}, "ms-swift", "32 attention heads do not split over TP = 64"),
    ("Qwen/Qwen2.5-7B-Instruct", {"nodes": 7, "gpus_per_node": 7, "tensor_parallel": 7}, "verl",
     "4 key/value heads neither divide nor are divided by TP = 7"),
    ("Qwen/Qwen3-30B-A3B", {"expert_parallel": 3, "gpus_per_node": 3}, "ms-swift",
     "128 experts do not split over EP = 3"),
    ("Qwen/Qwen3-30B-A3B", {"expert_parallel": 8, "pipeline_parallel": 2}, "verl",
     "8 GPUs do not split into groups of ETP x EP x PP = 16"),
    ("Qwen/Qwen3-8B", {"pipeline_parallel": 4, "pipeline_first_layers": 7}, "verl",
     "29 of 36 layers do not split over 3 of PP = 4 stages"),
    ("Qwen/Qwen3-8B", {"pipeline_parallel": 4, "virtual_pipeline_parallel": 8}, "ms-swift",
     "a stage of 9 layers does not split into 8 model chunks"),
    ("Qwen/Qwen3-8B", {"pipeline_parallel": 4, "virtual_pipeline_parallel": 3, "gradient_accumulation_steps": 6}, "verl",
     "6 micro batches are no multiple of PP = 4"),
    ("Qwen/Qwen3-8B", {"virtual_pipeline_parallel": 2}, "trl", "there are no pipeline stages to split further"),
    ("Qwen/Qwen3-8B", {"method": "grpo", "pipeline_parallel": 2, "virtual_pipeline_parallel": 2}, "ms-swift",
     "log-probabilities are computed with the first model chunk"),
    ("Qwen/Qwen3-8B", {"context_parallel": 2, "backend": "megatron", "seq_len": 1001}, "ms-swift", "1001 tokens"),
    ("Qwen/Qwen3-8B", {"method": "grpo", "generations": 8, "micro_batch_size": 1, "gradient_accumulation_steps": 4,
                       "gpus_per_node": 1}, "trl", "4 answers per step do not split into groups of 8"),
    ("Qwen/Qwen3-8B", {"method": "grpo", "generations": 8, "micro_batch_size": 2, "gradient_accumulation_steps": 2},
     "trl", "(generations 8, gradient_accumulation_steps 2, micro_batch_size 2)"),
    ("Qwen/Qwen3-8B", {"method": "grpo", "generations": 8, "backend": "megatron", "micro_batch_size": 2,
                       "gradient_accumulation_steps": 4}, "ms-swift", "(generations 8, gradient_accumulation_steps 4)"),
    ("Qwen/Qwen3-8B", {"method": "kto", "micro_batch_size": 1}, "trl", "(micro_batch_size 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "answers", "framework", "text"), PINNED)
def test_a_pin_that_breaks_a_rule_is_refused_with_its_numbers(
    model: str, answers: dict[str, Any], framework: str, text: str
) -> None:
    asked = {"model": model, "gpu": "h100", "method": "sft", "tuning": "full", "gpus_per_node": 8, **answers}
    megatron = {"pipeline_parallel", "expert_parallel", "tensor_parallel"} & set(answers)
    if megatron:
        asked["backend"] = "megatron"
    found = Searcher(resolve(parse_request(asked))).search(load_framework(framework))
    assert found.best is None
    assert any(text in reason.because for reason in found.refusals), [r.because for r in found.refusals]
