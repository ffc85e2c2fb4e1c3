"""Legality: each row refuses what breaks it, with the two numbers, and the published layouts pass."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.facts.models import load_model
from advisor.plan import Plan
from advisor.planner.legality import illegal, stage_layers

QWEN = load_model("Qwen/Qwen3-235B-A22B")  # 94 layers, 64 heads, 4 key/value heads, 128 experts
DEEPSEEK = load_model("deepseek-ai/DeepSeek-R1-0528")  # 61 layers, 256 experts
DENSE = load_model("Qwen/Qwen3-8B")  # 36 layers, 32 heads, 8 key/value heads


def plan(**changes: Any) -> Plan:
    return Plan(**{"nodes": 8, "gpus_per_node": 8, "backend": "megatron", **changes})


BROKEN = [
    (QWEN, {"tensor_parallel": 3}, "planner.world", "64 GPUs do not split into groups of TP x PP x CP = 3"),
    (QWEN, {"tensor_parallel": 8, "pipeline_parallel": 16}, "planner.world", "= 128"),
    (QWEN, {"expert_parallel": 3}, "planner.experts", "128 experts do not split over EP = 3"),
    (DENSE, {"expert_parallel": 2}, "planner.experts", "no experts"),
    (QWEN, {"expert_parallel": 64, "pipeline_parallel": 2}, "planner.expert-world", "ETP x EP x PP = 128"),
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
    (DENSE, {"rollout_tensor_parallel": 3}, "planner.rollout", "TP = 3"),
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
        (36, 4, (0, 0)),
    ],
)
def test_uneven_split(layers: int, stages: int, expected: tuple[int, int]) -> None:
    assert stage_layers(layers, stages) == expected
