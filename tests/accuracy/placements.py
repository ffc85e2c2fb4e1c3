"""Published steps of one training, colocated and with GPUs of its own for the engine, beside what the time model says.

The source: verl-project/verl@a74fc52 docs/advance/one_step_off.md, DAPO of Qwen2.5-Math-7B on 16 H20, 4 of which generate
in the runs that work one step ahead; plans from recipes beside it (verl/experimental/one_step_off_policy/shell). What a
step would take if the same parts ran one after the other is their sum. The mean length of an answer is not published:
it is the one at which the update of the twelve GPUs takes what was published; all else is the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from advisor.estimate.model_sums import model_sums
from advisor.estimate.time import StepTime, step_time
from advisor.facts.gpus import load_gpu
from advisor.facts.models import load_model
from advisor.facts.types import ClusterFacts
from advisor.plan import Plan

PLACEMENTS = ("colocated", "separate", "separate-async")
ANSWERS = 512 * 12


@dataclass(frozen=True)
class Row:
    """Seconds of a step by placement."""

    engine: str
    published: Mapping[str, float]
    ours: Mapping[str, float]

    def order(self, seconds: Mapping[str, float]) -> tuple[str, ...]:
        """Fastest first."""
        return tuple(sorted(seconds, key=lambda placement: seconds[placement]))


SAME: dict[str, Any] = {
    "method": "dapo", "tuning": "full", "lora_rank": 0, "prompt_len": 2048, "generations": 12, "beta": 0.0,
    "rollout_engine": "vllm", "rollout_tensor_parallel": 2, "rollout_memory_fraction": 0.8, "attention": "flash",
    "nodes": 2, "micro_batch_size": 12,
}  # fmt: skip
FSDP: dict[str, Any] = {
    "param_dtype": "fp32", "packing": True, "fsdp": True, "zero_stage": 3, "context_parallel": 4, "response_len": 20480,
}  # fmt: skip
MEGATRON: dict[str, Any] = {
    "backend": "megatron", "zero_stage": 1, "param_dtype": "bf16", "master_weights": True, "tensor_parallel": 2,
    "pipeline_parallel": 2, "sequence_parallel": True, "response_len": 8192, "micro_batch_size": 2,
    "gradient_checkpointing": False,
}  # fmt: skip

PUBLISHED: tuple[tuple[str, dict[str, Any], float, dict[str, float]], ...] = (
    # engine, plan, seconds of the update on 12 GPUs, seconds of a step (separate: 458 + 108 + 337, 501 + 120 + 347)
    ("FSDP2", FSDP, 337.0, {"colocated": 749.0, "separate": 903.0, "separate-async": 520.0}),
    ("Megatron", MEGATRON, 347.0, {"colocated": 699.0, "separate": 968.0, "separate-async": 566.0}),
)


def rows() -> Iterator[Row]:
    for engine, plan, update, published in PUBLISHED:
        apart = _plan(plan, 6, rollout_placement="separate", rollout_gpus=4, rollout_nodes=1)
        tokens = _length(apart, update)
        plans = {
            "colocated": _plan(plan, 8, rollout_sleep=True, rollout_offload=True),
            "separate": apart,
            "separate-async": replace(apart, rollout_placement="separate-async"),
        }
        ours = {
            name: _step(made, tokens).total * ANSWERS / made.global_batch_size for name, made in plans.items()
        }
        yield Row(engine, published, ours)


def _plan(fields: Mapping[str, Any], gpus_per_node: int, **more: Any) -> Plan:
    plan = Plan(**{**SAME, **fields, "gpus_per_node": gpus_per_node, **more})
    if plan.fsdp:
        plan = replace(plan, fsdp_replicas=plan.world_size // 2)  # the recipes shard over pairs (fsdp_size=2)
    per_pass = plan.micro_batch_size * plan.data_parallel
    seq_len = plan.prompt_len + plan.response_len
    return replace(plan, seq_len=seq_len, gradient_accumulation_steps=round(ANSWERS / per_pass))


def _step(plan: Plan, tokens: float) -> StepTime:
    card, model = load_gpu("h20"), load_model("Qwen/Qwen2.5-Math-7B", offline=True)
    cluster = ClusterFacts(
        gpu=card, gpus_per_node=plan.gpus_per_node, nodes=plan.nodes, gpu_memory_gib=card.memory_gib,
        cpu_memory_gib=2048.0, cpu_memory_source="row", interconnect="infiniband",
    )  # fmt: skip
    assert card.tflops_bf16
    return step_time(model_sums(model), plan, cluster, tokens, card.tflops_bf16)


def _length(plan: Plan, update: float) -> float:
    """Tokens of a sample at which the update takes so long, by halving."""
    low, high = 200.0, float(plan.seq_len)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _step(plan, middle).update < update else (low, middle)
    return low
