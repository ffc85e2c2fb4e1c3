"""What another value would do: the same plan changed in one field, judged and estimated as the search does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from advisor.estimate.memory import estimate_memory
from advisor.plan import Plan
from advisor.planner.contrast import CHANGES, contrast, with_change
from advisor.planner.here import FACTS, Here
from advisor.request import parse_request
from advisor.resolve import resolve
from advisor.rules import load_framework

MEGATRON: dict[str, Any] = {
    "backend": "megatron", "tuning": "full", "nodes": 8, "gpus_per_node": 8, "tensor_parallel": 8,
    "sequence_parallel": True, "pipeline_parallel": 8, "pipeline_first_layers": 11, "pipeline_last_layers": 11,
    "expert_parallel": 8, "recompute": "full", "attention": "flash", "gradient_accumulation_steps": 64,
    "zero_stage": 1, "master_weights": True,
}  # fmt: skip


COPIES: dict[str, Any] = {"tuning": "full", "fsdp": True, "gpus_per_node": 8}


def here(model: str = "Qwen/Qwen3-8B", framework: str | None = None, **changes: Any) -> Here:
    plan = replace(Plan(), **changes).normalised()
    answers = {"nodes": plan.nodes, "gpus_per_node": plan.gpus_per_node}
    resolved = resolve(parse_request({"model": model, "gpu": "h100", "method": plan.method, **answers}))
    memory = estimate_memory(resolved.model, plan, resolved.cluster)
    return Here(resolved, plan, memory, load_framework(framework) if framework else None)


def test_every_field_has_a_text_and_every_change_is_of_a_field() -> None:
    assert set(Plan.__dataclass_fields__) <= set(FACTS)
    assert set(CHANGES) <= set(Plan.__dataclass_fields__)


def test_the_figures_are_those_of_the_changed_plan() -> None:
    now = here("Qwen/Qwen3-235B-A22B", **MEGATRON)
    changed = replace(now.plan, tensor_parallel=4, gradient_accumulation_steps=32)
    memory = estimate_memory(now.resolved.model, changed, now.resolved.cluster)
    assert f"with tensor_parallel = 4 a GPU holds {memory.total:.1f} of 79.2 GiB" in contrast(
        now, "tensor_parallel"
    )


@pytest.mark.parametrize(
    ("plan", "field", "text"),
    [
        ({"tuning": "full", "gpus_per_node": 2}, "zero_stage", "with zero_stage = 1 a GPU holds"),
        ({"tuning": "full"}, "tuning", "with tuning = lora a GPU holds"),
        ({**COPIES, "nodes": 4}, "fsdp_replicas", "with fsdp_replicas = 4 a GPU holds"),
        ({**COPIES, "nodes": 4, "fsdp_replicas": 4}, "fsdp_replicas", "with fsdp_replicas = 1 a GPU holds"),
        ({**COPIES, "nodes": 4, "fsdp_replicas": 4}, "nodes", "with nodes = 2 a GPU holds"),
        ({**COPIES, "nodes": 1}, "fsdp_replicas", ""),
        ({}, "quantization", "with tuning = qlora a GPU holds"),
        ({"gpus_per_node": 2}, "nodes", "with nodes = 2 a GPU holds"),
        ({"gpus_per_node": 2}, "pipeline_parallel", "with pipeline_parallel = 2 a GPU holds"),
        ({"gpus_per_node": 2}, "virtual_pipeline_parallel", ""),
        ({"gpus_per_node": 1}, "tensor_parallel", "1 GPUs are too few"),
        ({"seq_len": 32768}, "seq_len", "it breaks a rule: 65536 tokens are more than"),
        ({}, "seed", ""),
        ({}, "expert_parallel", ""),
        ({"tuning": "full"}, "lora_rank", ""),
    ],
)
def test_neighbours(plan: dict[str, Any], field: str, text: str) -> None:
    found = contrast(here(**plan), field)
    assert text in found
    assert bool(found) == bool(text)


def test_chunks_go_where_their_micro_batches_do() -> None:
    """TP = 8 to 4 doubles the replicas: 4 micro batches are too few for 8 stages in chunks, not for whole ones."""
    chunks = {"virtual_pipeline_parallel": 2, "pipeline_first_layers": 12, "pipeline_last_layers": 10}
    now = here("Qwen/Qwen3-235B-A22B", **{**MEGATRON, **chunks, "gradient_accumulation_steps": 8})
    found = contrast(now, "tensor_parallel")
    assert "with tensor_parallel = 4, virtual_pipeline_parallel = 1 a GPU holds" in found


def test_chunks_split_the_stages_anew() -> None:
    """94 layers on 8 stages are 11 + 12 x 6 + 11, in chunks of two 12 + 12 x 6 + 10."""
    now = here("Qwen/Qwen3-235B-A22B", **MEGATRON)
    found = contrast(now, "virtual_pipeline_parallel")
    assert "with virtual_pipeline_parallel = 2" in found
    assert "a GPU holds" in found
    fewer = FACTS["virtual_pipeline_parallel"](now.plan, now.memory, now.resolved)
    assert "7 / (1 x 64) = 11%" in fewer


def test_what_the_framework_refuses_is_said() -> None:
    assert "Hugging Face TRL refuses" in contrast(here(framework="trl", gpus_per_node=2), "tensor_parallel")


def test_more_than_the_host_has_is_said() -> None:
    found = with_change(here("Qwen/Qwen3-235B-A22B", **MEGATRON), {"offload": "optimizer"})
    assert "GiB" in found
    small = here("Qwen/Qwen3-32B", tuning="full", zero_stage=3, gpus_per_node=8)
    poor = replace(small.resolved, cluster=replace(small.resolved.cluster, cpu_memory_gib=64.0))
    assert "of 64 GiB of host memory" in with_change(replace(small, resolved=poor), {"offload": "optimizer"})
