"""TRL: one plan a line, what it writes or which fields it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frameworks.helpers import assert_refuses, assert_round_trip, assert_writes, plan_for

NAME = "trl"
MESH = "accelerate:parallelism_config.parallelism_config"
SHARD, COPIES = f"{MESH}_dp_shard_size", f"{MESH}_dp_replicate_size"
RING = {"zero_stage": 3, "fsdp": True, "context_parallel": 2}

WRITES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"use_peft": True, "lora_r": 16, "max_length": 2048, "command:subcommand": "sft"}),
    ({"tuning": "full"}, {"use_peft": None, "lora_r": None, "command:subcommand": "sft"}),
    ({"method": "cpt", "tuning": "full", "packing": True}, {"dataset_text_field": "text", "packing": True}),
    ({"tuning": "qlora", "quantization": "4bit"}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    ({"tuning": "qlora", "quantization": "8bit"}, {"load_in_8bit": True, "load_in_4bit": None}),
    ({"tuning": "dora"}, {"use_peft": True, "use_dora": True}),
    ({"method": "dpo"}, {"command:subcommand": "dpo", "loss_type": ["sigmoid"], "beta": 0.1}),
    ({"method": "ipo"}, {"command:subcommand": "dpo", "loss_type": ["ipo"]}),
    ({"method": "kto", "micro_batch_size": 2}, {"command:subcommand": "kto"}),
    ({"method": "rm"}, {"command:subcommand": "reward", "lora_task_type": "SEQ_CLS", "beta": None}),
    ({"method": "orpo"}, {"command:subcommand": "train.py", "command:trainer": "orpo"}),
    ({"method": "simpo"}, {"command:trainer": "cpo", "loss_type": "simpo", "cpo_alpha": 0.0}),
    (
        {
            "method": "grpo",
            "rollout_engine": "vllm",
            "rollout_memory_fraction": 0.9,
            "rollout_tensor_parallel": 2,
            "gpus_per_node": 6,
            "rollout_placement": "separate",
            "rollout_gpus": 2,
        },
        {
            "vllm_mode": "server",
            "vllm_server_host": "127.0.0.1",
            "vllm_server_port": 8000,
            "vllm_server_timeout": 3600.0,
            "vllm_tensor_parallel_size": None,
            "vllm_gpu_memory_utilization": None,
            "vllm_enable_sleep_mode": None,
        },
    ),
    ({"activation_offload": True}, {"activation_offloading": True, "gradient_checkpointing": True}),
    ({"activation_offload": False}, {"activation_offloading": None}),
    ({"method": "grpo"}, {"command:subcommand": "grpo", "loss_type": "grpo", "max_length": None}),
    ({"method": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": True}),
    ({"method": "gspo"}, {"importance_sampling_level": "sequence"}),
    ({"method": "dr-grpo"}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    ({"method": "rloo"}, {"command:subcommand": "rloo", "num_generations": 8}),
    (
        {"method": "gkd"},
        {"command:subcommand": "distillation", "teacher_model_name_or_path": "Qwen/Qwen3-14B"},
    ),
    ({"gpus_per_node": 8}, {"accelerate:distributed_type": "MULTI_GPU", "accelerate:num_processes": 8}),
    (
        {"gpus_per_node": 8, "zero_stage": 3, "offload": "optimizer"},
        {
            "accelerate:distributed_type": "DEEPSPEED",
            "accelerate:deepspeed_config.zero_stage": 3,
            "accelerate:deepspeed_config.offload_optimizer_device": "cpu",
        },
    ),
    (
        {"gpus_per_node": 8, "zero_stage": 3, "fsdp": True},
        {"accelerate:distributed_type": "FSDP", "gradient_checkpointing": False, SHARD: None, COPIES: None},
    ),
    (
        {"gpus_per_node": 8, "nodes": 4, "zero_stage": 3, "fsdp": True, "fsdp_replicas": 4},
        {SHARD: 8, COPIES: 4},
    ),
    (
        {**RING, "gpus_per_node": 8, "nodes": 2},
        {SHARD: 8, COPIES: None, f"{MESH}_cp_size": 2},
    ),
    (
        {**RING, "gpus_per_node": 8, "nodes": 2, "fsdp_replicas": 2},
        {SHARD: 4, COPIES: 2, f"{MESH}_cp_size": 2},
    ),
    ({"precision": "fp16"}, {"fp16": True, "bf16": False, "accelerate:mixed_precision": "fp16"}),
    (
        {"tuning": "full", "optimizer": "galore_adamw", "optimizer_rank": 64},
        {
            "optim": "galore_adamw",
            "optim_args": "rank=64,update_proj_gap=200,scale=2.0",
            "optim_target_modules": r"model\.layers\..*",
        },
    ),
    (
        {"tuning": "full", "optimizer": "apollo_adamw_layerwise"},
        {"optim": "apollo_adamw_layerwise", "optim_args": "rank=128,update_proj_gap=200,scale=32.0"},
    ),
    ({"tuning": "full"}, {"optim_args": None, "optim_target_modules": None}),
]

REFUSES: list[tuple[dict[str, Any], set[str]]] = [
    ({"tensor_parallel": 2, "gpus_per_node": 2}, {"tensor_parallel"}),
    (
        {"pipeline_parallel": 2, "expert_parallel": 2, "gpus_per_node": 2},
        {"pipeline_parallel", "expert_parallel"},
    ),
    ({"method": "ppo"}, {"method"}),
    ({"optimizer": "muon"}, {"optimizer"}),
    ({"tuning": "freeze"}, {"tuning"}),
]


@pytest.mark.parametrize(("changes", "expected"), WRITES)
def test_writes(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert_writes(NAME, changes, expected)


@pytest.mark.parametrize(("changes", "fields"), REFUSES)
def test_refuses(changes: dict[str, Any], fields: set[str]) -> None:
    assert_refuses(NAME, changes, fields)


@pytest.mark.parametrize("changes", [changes for changes, _ in WRITES])
def test_round_trip(changes: dict[str, Any]) -> None:
    assert_round_trip(NAME, plan_for(NAME, **changes))


@given(
    method=st.sampled_from(
        ["cpt", "sft", "dpo", "ipo", "kto", "rm", "orpo", "simpo", "cpo", "grpo", "dapo", "gspo", "rloo"]
    ),
    tuning=st.sampled_from(
        [("full", "none"), ("lora", "none"), ("dora", "none"), ("qlora", "4bit"), ("qlora", "8bit")]
    ),
    sharding=st.sampled_from(
        [
            (0, False, "none"),
            (1, False, "none"),
            (2, False, "optimizer"),
            (3, False, "all"),
            (3, True, "none"),
        ]
    ),
    size=st.tuples(st.integers(1, 16), st.integers(1, 64)),
    checkpointing=st.booleans(),
    nodes=st.sampled_from([1, 2, 16]),
)
def test_round_trip_of_any_plan(
    method: str,
    tuning: tuple[str, str],
    sharding: tuple[int, bool, str],
    size: tuple[int, int],
    checkpointing: bool,
    nodes: int,
) -> None:
    plan = plan_for(
        NAME,
        method=method,
        tuning=tuning[0],
        quantization=tuning[1],
        zero_stage=sharding[0],
        fsdp=sharding[1],
        offload=sharding[2],
        micro_batch_size=size[0],
        gradient_accumulation_steps=size[1],
        gradient_checkpointing=checkpointing,
        nodes=nodes,
        gpus_per_node=8,
    )
    assert_round_trip(NAME, plan)
