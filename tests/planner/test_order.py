"""A plan in one phrase."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.plan import Plan
from advisor.planner.order import describe


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"gradient_checkpointing": False}, "lora, 1 x 2048"),
        ({"tuning": "qlora", "quantization": "4bit"}, "qlora 4bit, recompute, 1 x 2048"),
        ({"gpus_per_node": 8, "gradient_checkpointing": False}, "lora, DDP, 1 x 2048"),
        (
            {"gpus_per_node": 8, "zero_stage": 3, "offload": "optimizer"},
            "lora, ZeRO-3, optimizer offload, recompute, 1 x 2048",
        ),
        (
            {"nodes": 2, "gpus_per_node": 8, "zero_stage": 3, "fsdp": True, "fsdp_replicas": 2, "tensor_parallel": 2},
            "lora, FSDP2, 2 copies, TP2, recompute, 1 x 2048",
        ),
        ({"activation_offload": True}, "lora, recompute, inputs on the host, 1 x 2048"),
        ({"compile": True, "gradient_checkpointing": False}, "lora, compiled, 1 x 2048"),
        (
            {"gpus_per_node": 8, "backend": "megatron", "tensor_parallel": 2, "pipeline_parallel": 2,
             "virtual_pipeline_parallel": 2, "expert_parallel": 2, "recompute": "full"},
            "lora, Megatron TP2 PP2 VPP2 EP2, full recompute, 1 x 2048",
        ),
    ],
)  # fmt: skip
def test_describe(changes: dict[str, Any], phrase: str) -> None:
    assert describe(Plan(**changes)) == phrase
