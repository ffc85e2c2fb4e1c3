"""Unsloth: one plan a line, what it writes or which fields it refuses, and the script that comes out."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.frameworks import framework
from advisor.frameworks.unsloth import spell
from tests.frameworks.helpers import (
    assert_refuses,
    assert_round_trip,
    assert_writes,
    job_for,
    plan_for,
    rendered,
    written,
)

NAME = "unsloth"
MOE = "Qwen/Qwen3-30B-A3B"
FSDP = {"gpus_per_node": 8, "zero_stage": 3, "fsdp": True}

WRITES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"load:load_in_4bit": False, "load:load_in_16bit": True, "adapter:r": 16, "script:trainer": "SFT"}),
    ({}, {"load:max_seq_length": 2048, "max_length": 2048, "assistant_only_loss": True, "loss_type": "nll"}),
    ({"tuning": "full"}, {"load:full_finetuning": True, "load:load_in_4bit": False, "adapter:r": None}),
    (
        {"method": "cpt", "packing": True},
        {"dataset_text_field": "text", "packing": True, "assistant_only_loss": None},
    ),
    ({"tuning": "qlora", "quantization": "4bit"}, {"load:load_in_4bit": True, "load:load_in_16bit": None}),
    ({"tuning": "qlora", "quantization": "8bit"}, {"load:load_in_8bit": True, "load:load_in_4bit": False}),
    ({"tuning": "dora"}, {"adapter:use_dora": True, "load:load_in_16bit": True}),
    ({"method": "dpo"}, {"script:trainer": "DPO", "loss_type": ["sigmoid"], "beta": 0.1}),
    ({"method": "ipo"}, {"script:trainer": "DPO", "loss_type": ["ipo"]}),
    ({"method": "kto", "micro_batch_size": 2}, {"script:trainer": "KTO"}),
    (
        {"method": "rm"},
        {"script:trainer": "Reward", "load:num_labels": 1, "adapter:task_type": None, "beta": None},
    ),
    ({"method": "orpo"}, {"script:trainer": "ORPO"}),
    ({"method": "simpo"}, {"script:trainer": "CPO", "loss_type": "simpo", "cpo_alpha": 0.0}),
    ({"method": "cpo"}, {"script:trainer": "CPO", "loss_type": "sigmoid"}),
    (
        {"method": "grpo"},
        {"script:trainer": "GRPO", "loss_type": "grpo", "max_length": None, "prompt:tokens": 512},
    ),
    ({"method": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": True}),
    ({"method": "gspo"}, {"importance_sampling_level": "sequence"}),
    ({"method": "dr-grpo"}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    ({"method": "rloo"}, {"script:trainer": "RLOO", "num_generations": 8, "use_vllm": False}),
    ({"method": "gkd"}, {"script:trainer": "Distillation", "max_completion_length": 512}),
    (
        {"method": "grpo", "rollout_engine": "vllm", "rollout_memory_fraction": 0.4},
        {
            "load:fast_inference": True,
            "load:gpu_memory_utilization": 0.4,
            "load:max_lora_rank": 16,
            "use_vllm": True,
            "environment:UNSLOTH_VLLM_STANDBY": "1",
        },
    ),
    ({"gpus_per_node": 8}, {"environment:UNSLOTH_FSDP2": None, "repo:gpus_per_node": 8}),
    (FSDP, {"environment:UNSLOTH_FSDP2": "1", "environment:UNSLOTH_FSDP2_CPU_OFFLOAD": None}),
    ({**FSDP, "offload": "all"}, {"environment:UNSLOTH_FSDP2_CPU_OFFLOAD": "1"}),
    (
        {"gradient_checkpointing": True},
        {"load:use_gradient_checkpointing": "unsloth", "gradient_checkpointing": True},
    ),
    (
        {"gradient_checkpointing": False},
        {"adapter:use_gradient_checkpointing": False, "gradient_checkpointing": False},
    ),
    ({"precision": "fp16"}, {"load:dtype": "float16", "fp16": True, "bf16": False}),
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
    (
        {"tensor_parallel": 2, "context_parallel": 2, "gpus_per_node": 4},
        {"tensor_parallel", "context_parallel"},
    ),
    ({"method": "ppo"}, {"method"}),
    ({"method": "reinforce++"}, {"method"}),
    ({"optimizer": "muon"}, {"optimizer"}),
    ({"tuning": "freeze"}, {"tuning"}),
    ({"gpus_per_node": 8, "zero_stage": 2}, {"zero_stage"}),
    ({**FSDP, "offload": "optimizer"}, {"offload"}),
    ({**FSDP, "fsdp_replicas": 2}, {"fsdp_replicas"}),
    ({"attention": "flash", "liger": True}, {"attention", "liger"}),
    ({"precision": "fp32"}, {"precision"}),
]

OFFLINE = ["cpt", "sft", "dpo", "ipo", "kto", "rm", "orpo", "simpo", "cpo"]
METHODS = [*OFFLINE, "grpo", "dapo", "gspo", "dr-grpo", "rloo", "gkd"]


@pytest.mark.parametrize(("changes", "expected"), WRITES)
def test_writes(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert_writes(NAME, changes, expected)


@pytest.mark.parametrize(("changes", "fields"), REFUSES)
def test_refuses(changes: dict[str, Any], fields: set[str]) -> None:
    assert_refuses(NAME, changes, fields)


@pytest.mark.parametrize("changes", [changes for changes, _ in WRITES])
def test_round_trip(changes: dict[str, Any]) -> None:
    assert_round_trip(NAME, plan_for(NAME, **changes))


@pytest.mark.parametrize(
    ("targets", "modules", "parameters"),
    [
        ("all-linear", ["q_proj", "k_proj", "v_proj", "o_proj"], None),
        ("attention", ["q_proj", "k_proj", "v_proj", "o_proj"], None),
        (
            "experts",
            ["q_proj", "k_proj", "v_proj", "o_proj"],
            ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        ),
    ],
)
def test_no_name_reaches_the_routed_experts_unasked(
    targets: str, modules: list[str], parameters: list[str] | None
) -> None:
    plan = plan_for(NAME, lora_targets=(targets,))
    found = written(NAME, plan, job_for(plan, MOE))
    assert found["adapter:target_modules"] == modules
    assert found.get("adapter:target_parameters") == parameters


@pytest.mark.parametrize(("model", "loader"), [("Qwen/Qwen3-8B", "FastLanguageModel"), (MOE, "FastModel")])
def test_hand_optimised_families_have_their_own_loader(model: str, loader: str) -> None:
    plan = plan_for(NAME)
    assert written(NAME, plan, job_for(plan, model))["script:loader"] == loader


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_script_is_python_and_imports_unsloth_first(method: str, tuning: str) -> None:
    plan = plan_for(NAME, method=method, tuning=tuning)
    job = job_for(plan, version="2026.10.9", model_path='quote"s and \\ in a path')
    files = framework(NAME).files(plan, job, rendered(NAME, plan, job))
    tree = ast.parse(files[0].text)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    assert isinstance(imports[0], ast.ImportFrom)
    assert imports[0].module == "unsloth"
    beside = ["reward_adapter.py"] if plan.online else ["unsloth.yaml"] if method in ("cpt", "sft") else []
    assert [file.path for file in files[1:]] == beside
    assert repr(job.model_path) in files[0].text


def test_a_reward_model_stands_beside_the_function() -> None:
    plan = plan_for(NAME, method="grpo")
    job = job_for(plan, version="2026.10.9", reward_model="someone/reward")
    text = framework(NAME).files(plan, job, rendered(NAME, plan, job))[0].text
    assert 'reward_funcs=[reward, JUDGE["model"]]' in text
    assert "model='someone/reward'," in text


def test_labelled_strings_become_messages() -> None:
    row = {"prompt": "Two and two?", "completion": "Four.", "label": True}
    assert spell(row, "kto") == {
        "prompt": [{"role": "user", "content": "Two and two?"}],
        "completion": [{"role": "assistant", "content": "Four."}],
        "label": True,
    }


@given(
    method=st.sampled_from(METHODS),
    tuning=st.sampled_from(
        [("full", "none"), ("lora", "none"), ("dora", "none"), ("qlora", "4bit"), ("qlora", "8bit")]
    ),
    sharding=st.sampled_from([(0, False, "none"), (3, True, "none"), (3, True, "all")]),
    size=st.tuples(st.integers(1, 16), st.integers(1, 64)),
    checkpointing=st.booleans(),
    vllm=st.booleans(),
    precision=st.sampled_from(["bf16", "fp16"]),
    nodes=st.sampled_from([1, 2, 16]),
)
def test_round_trip_of_any_plan(
    method: str,
    tuning: tuple[str, str],
    sharding: tuple[int, bool, str],
    size: tuple[int, int],
    checkpointing: bool,
    vllm: bool,
    precision: str,
    nodes: int,
) -> None:
    rollout: dict[str, Any] = {}
    if vllm and method in ("grpo", "dapo", "gspo", "dr-grpo"):
        rollout = {"rollout_engine": "vllm", "rollout_memory_fraction": 0.6}
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
        precision=precision,
        nodes=nodes,
        gpus_per_node=8,
        **rollout,
    )
    assert_round_trip(NAME, plan)
