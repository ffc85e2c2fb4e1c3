"""verl: one plan a line, what it writes or which fields it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import CannotExpress
from advisor.frameworks import verl
from advisor.frameworks.table import Line
from advisor.frameworks.verl.overrides import hydra_value, override
from advisor.frameworks.verl.rollout import REWARD_FILE
from advisor.frameworks.verl.training import PPO, SFT
from advisor.plan import Plan
from tests.frameworks.helpers import (
    assert_refuses,
    assert_round_trip,
    assert_writes,
    job_for,
    plan_for,
    rendered,
    written,
)

NAME = "verl"
ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"
ADAPTER = {"lora_targets": ("attention",)}
MEGATRON = {"backend": "megatron", "gpus_per_node": 8}
RL = {"method": "grpo", "gpus_per_node": 8}

WRITES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {},
        {
            "command:module": SFT,
            "model.lora_rank": 16,
            "data.max_length": 2048,
            "engine.strategy": "fsdp2",
        },
    ),
    ({}, {"engine.model_dtype": "bfloat16", "model.path": "Qwen/Qwen3-8B", "data.train_batch_size": 1}),
    ({"activation_offload": True}, {"model.enable_activation_offload": True}),
    ({"activation_offload": False}, {"model.enable_activation_offload": None}),
    (
        {**RL, "method": "ppo", "tuning": "full", "activation_offload": True},
        {
            "actor_rollout_ref.model.enable_activation_offload": True,
            "critic.model.enable_activation_offload": True,
        },
    ),
    (
        {"tuning": "full"},
        {"model.lora_rank": None, "engine.model_dtype": "fp32", "model.target_modules": None},
    ),
    (
        {"tuning": "full", "precision": "bf16-pure"},
        {"engine.model_dtype": "bfloat16", "engine.mixed_precision": {"reduce_dtype": "bf16"}},
    ),
    ({"tuning": "full", "offload": "all"}, {"engine.offload_policy": True, "engine.fsdp_size": None}),
    ({"tuning": "full", "gpus_per_node": 8, "nodes": 4, "fsdp_replicas": 4}, {"engine.fsdp_size": 8}),
    (
        {"gpus_per_node": 8, "nodes": 2, "fsdp_replicas": 2, "context_parallel": 2},
        {"engine.fsdp_size": 8, "engine.ulysses_sequence_parallel_size": 2},
    ),
    (
        {**RL, "method": "ppo", "tuning": "full", "beta": 0.001, "nodes": 2, "fsdp_replicas": 2},
        {
            f"{ACTOR}.fsdp_config.fsdp_size": 8,
            "actor_rollout_ref.ref.fsdp_config.fsdp_size": 8,
            "critic.fsdp.fsdp_size": 8,
        },
    ),
    (
        {"context_parallel": 4, "gpus_per_node": 8, "micro_batch_size": 2},
        {"engine.ulysses_sequence_parallel_size": 4, "data.max_token_len_per_gpu": 1024},
    ),
    (
        {"gpus_per_node": 8, "micro_batch_size": 2, "gradient_accumulation_steps": 4},
        {"data.train_batch_size": 64, "data.max_token_len_per_gpu": 4096, "data.micro_batch_size_per_gpu": 2},
    ),
    (
        {**MEGATRON, "tuning": "full"},
        {
            "engine": "megatron",
            "optim": "megatron",
            "optim.optimizer": "adam",
            "optim.lr_decay_style": "cosine",
        },
    ),
    (
        {**MEGATRON, **ADAPTER},
        {
            "model.lora.rank": 16,
            "model.lora_rank": None,
            "model.lora.target_modules": ["linear_qkv", "linear_proj"],
        },
    ),
    (
        {**MEGATRON, "tuning": "full", "recompute": "full"},
        {
            "engine.override_transformer_config.recompute_granularity": "full",
            "engine.override_transformer_config.recompute_method": "uniform",
            "engine.override_transformer_config.recompute_num_layers": 1,
        },
    ),
    (
        {**RL},
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "grpo",
            f"{ROLLOUT}.n": 8,
            "data.max_length": None,
        },
    ),
    (
        {**RL, "gradient_accumulation_steps": 2},
        {
            "data.train_batch_size": 16,
            f"{ACTOR}.ppo_mini_batch_size": 16,
            f"{ACTOR}.ppo_max_token_len_per_gpu": 8192,
        },
    ),
    ({**RL}, {f"{ROLLOUT}.load_format": "safetensors", f"{ROLLOUT}.free_cache_engine": True}),
    ({**RL, "tuning": "full"}, {f"{ROLLOUT}.load_format": None, f"{ACTOR}.fsdp_config.model_dtype": "fp32"}),
    (
        {**RL, "rollout_offload": True, "tuning": "full", "beta": 0.01},
        {
            f"{ACTOR}.fsdp_config.param_offload": True,
            f"{ACTOR}.fsdp_config.optimizer_offload": True,
            "actor_rollout_ref.ref.fsdp_config.param_offload": True,
        },
    ),
    ({**RL}, {f"{ACTOR}.fsdp_config.param_offload": False, f"{ROLLOUT}.expert_parallel_size": 1}),
    (
        {**RL, **MEGATRON, "rollout_offload": True},
        {f"{ACTOR}.megatron.param_offload": True, f"{ACTOR}.megatron.optimizer_offload": True},
    ),
    (
        {
            **RL,
            "tuning": "full",
            "rollout_placement": "separate-async",
            "rollout_gpus": 8,
            "rollout_nodes": 2,
        },
        {
            "trainer.v1.trainer_mode": "separate_async",
            "trainer.v1.separate_async.parameter_sync_step": 1,
            "actor_rollout_ref.hybrid_engine": False,
            f"{ROLLOUT}.checkpoint_engine.backend": "nccl",
            f"{ROLLOUT}.nnodes": 2,
            f"{ROLLOUT}.n_gpus_per_node": 8,
            f"{ROLLOUT}.free_cache_engine": False,
        },
    ),
    (
        {**RL, "rollout_placement": "separate-async", "rollout_gpus": 2},
        {
            "actor_rollout_ref.model.lora.merge": True,
            f"{ROLLOUT}.load_format": None,
            f"{ROLLOUT}.layered_summon": None,
        },
    ),
    (
        {
            **RL,
            "method": "ppo",
            "tuning": "full",
            "rollout_placement": "separate-async",
            "rollout_gpus": 2,
        },
        {"trainer.v1.trainer_mode": "separate_async", "critic.strategy": "fsdp2"},
    ),
    (
        {**RL, "rollout_tensor_parallel": 8, "rollout_data_parallel": 4, "rollout_expert_parallel": 32},
        {
            f"{ROLLOUT}.tensor_model_parallel_size": 8,
            f"{ROLLOUT}.data_parallel_size": 4,
            f"{ROLLOUT}.expert_parallel_size": 32,
        },
    ),
    (
        {**RL, "beta": 0.0},
        {f"{ACTOR}.use_kl_loss": False, "actor_rollout_ref.ref.fsdp_config.model_dtype": None},
    ),
    (
        {**RL, "beta": 0.01, "tuning": "full"},
        {f"{ACTOR}.kl_loss_coef": 0.01, "actor_rollout_ref.ref.fsdp_config.model_dtype": "bfloat16"},
    ),
    (
        {**RL, "method": "dapo", "beta": 0.0},
        {
            f"{ACTOR}.clip_ratio_high": 0.28,
            "algorithm.filter_groups.enable": True,
            "reward.reward_manager.name": "dapo",
            "reward.reward_kwargs.max_resp_len": 512,
        },
    ),
    ({**RL, "method": "gspo"}, {f"{ACTOR}.policy_loss.loss_mode": "gspo", f"{ACTOR}.clip_ratio_low": 3.0e-4}),
    ({**RL, "method": "dr-grpo"}, {"algorithm.norm_adv_by_std_in_grpo": False}),
    ({**RL, "method": "rloo"}, {"algorithm.adv_estimator": "rloo", "algorithm.use_kl_in_reward": True}),
    ({**RL, "method": "reinforce++"}, {"algorithm.adv_estimator": "reinforce_plus_plus"}),
    (
        {**RL, "method": "ppo", "tuning": "full", "beta": 0.001},
        {
            "algorithm.adv_estimator": "gae",
            "algorithm.kl_ctrl.kl_coef": 0.001,
            "critic.strategy": "fsdp2",
            "critic.model.path": "Qwen/Qwen3-8B",
            "critic.fsdp.model_dtype": "fp32",
        },
    ),
    ({**RL}, {"critic.strategy": None, "reward.custom_reward_function.path": REWARD_FILE}),
    ({**RL, "loss": "fused"}, {f"{MODEL}.use_fused_kernels": True}),
    ({**RL}, {"ray_kwargs.ray_init.num_cpus": 32}),
    (
        {**RL, "nodes": 2},
        {
            "trainer.nnodes": 2,
            "ray_kwargs.ray_init.num_cpus": None,
            "transfer_queue.backend.SimpleStorage.num_data_storage_units": 4,
        },
    ),
    (
        {
            **RL,
            **MEGATRON,
            "tuning": "full",
            "nodes": 16,
            "tensor_parallel": 4,
            "sequence_parallel": True,
            "pipeline_parallel": 8,
            "pipeline_first_layers": 11,
            "pipeline_last_layers": 11,
            "expert_parallel": 4,
            "offload": "optimizer",
        },
        {
            "model_engine": "megatron",
            f"{ACTOR}.strategy": None,
            f"{ACTOR}.megatron.tensor_model_parallel_size": 4,
            f"{ACTOR}.megatron.pipeline_model_parallel_size": 8,
            f"{ACTOR}.megatron.expert_model_parallel_size": 4,
            f"{ACTOR}.megatron.expert_tensor_parallel_size": 1,
            f"{ACTOR}.megatron.override_transformer_config.num_layers_in_first_pipeline_stage": 11,
            f"{ACTOR}.optim.override_optimizer_config.optimizer_cpu_offload": True,
        },
    ),
    (
        {
            **RL,
            **MEGATRON,
            "method": "ppo",
            "tuning": "full",
            "pipeline_parallel": 4,
            "virtual_pipeline_parallel": 2,
            "expert_tensor_parallel": 2,
        },
        {
            f"{ACTOR}.megatron.virtual_pipeline_model_parallel_size": 2,
            "critic.megatron.virtual_pipeline_model_parallel_size": 2,
            f"{ACTOR}.megatron.expert_tensor_parallel_size": 2,
        },
    ),
    (
        {**MEGATRON, "pipeline_parallel": 4, "virtual_pipeline_parallel": 3},
        {"engine.virtual_pipeline_model_parallel_size": 3},
    ),
    (
        {**RL, **MEGATRON, "method": "ppo", "tuning": "full", "tensor_parallel": 2},
        {"critic.strategy": None, "critic.megatron.tensor_model_parallel_size": 2},
    ),
]

REFUSES: list[tuple[dict[str, Any], set[str]]] = [
    ({"tensor_parallel": 2, "gpus_per_node": 2}, {"tensor_parallel"}),
    ({"method": "dpo"}, {"method"}),
    ({"tuning": "freeze"}, {"tuning"}),
    ({"tuning": "qlora", "quantization": "4bit"}, {"tuning", "quantization"}),
    ({"optimizer": "muon"}, {"optimizer"}),
    ({"optimizer": "galore_adamw", "tuning": "full"}, {"optimizer"}),
    ({"lr_scheduler": "linear"}, {"lr_scheduler"}),
    ({"packing": True, "logging_steps": 5}, {"packing", "logging_steps"}),
    ({"offload": "nvme"}, {"offload"}),
    ({"epochs": 0.5}, {"epochs"}),
    ({**MEGATRON, "lora_targets": ("q_proj",)}, {"lora_targets"}),
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
    method=st.sampled_from(["sft", "ppo", "grpo", "dapo", "gspo", "dr-grpo", "rloo", "reinforce++"]),
    tuning=st.sampled_from(["full", "lora"]),
    layout=st.sampled_from(
        [
            {"offload": "none"},
            {"offload": "all"},
            {"context_parallel": 2},
            {"backend": "megatron"},
            {"backend": "megatron", "tensor_parallel": 2, "sequence_parallel": True, "recompute": "none"},
            {
                "backend": "megatron",
                "pipeline_parallel": 4,
                "pipeline_first_layers": 8,
                "virtual_pipeline_parallel": 2,
                "offload": "optimizer",
            },
        ]
    ),
    size=st.tuples(st.integers(1, 16), st.integers(1, 64)),
    checkpointing=st.booleans(),
    nodes=st.sampled_from([1, 2, 16]),
    beta=st.sampled_from([0.0, 0.001, 0.1]),
)
def test_round_trip_of_any_plan(
    method: str,
    tuning: str,
    layout: dict[str, Any],
    size: tuple[int, int],
    checkpointing: bool,
    nodes: int,
    beta: float,
) -> None:
    plan = plan_for(
        NAME,
        method=method,
        tuning=tuning,
        micro_batch_size=size[0],
        gradient_accumulation_steps=size[1],
        gradient_checkpointing=checkpointing,
        nodes=nodes,
        gpus_per_node=8,
        beta=beta,
        **layout,
    )
    assert_round_trip(NAME, plan)


def test_experts_are_parameters_under_fsdp_and_modules_under_megatron() -> None:
    moe = {"lora_targets": ("experts",), "gpus_per_node": 8}
    job = job_for(Plan(), model="Qwen/Qwen3-30B-A3B")
    fsdp = written(NAME, plan_for(NAME, **moe), job)
    assert fsdp["model.target_parameters"] == ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    megatron = written(NAME, plan_for(NAME, **moe, backend="megatron", expert_parallel=8), job)
    assert "linear_fc1" in megatron["model.lora.target_modules"]
    assert megatron["engine.override_transformer_config.moe_router_dtype"] == "fp32"


def test_latent_attention_has_its_own_modules() -> None:
    plan = plan_for(NAME, **MEGATRON, lora_targets=("attention",))
    job = job_for(plan, model="deepseek-ai/DeepSeek-R1-0528")
    keys = written(NAME, plan, job)
    assert "linear_kv_up_proj" in keys["model.lora.target_modules"]
    assert keys["engine.override_transformer_config.apply_rope_fusion"] is False


def test_a_reward_model_replaces_the_function() -> None:
    plan = plan_for(NAME, **{**RL, "method": "dapo"})
    keys = written(NAME, plan, job_for(plan, reward=None, reward_model="org/reward"))
    assert keys["reward.reward_model.model_path"] == "org/reward"
    assert "reward.custom_reward_function.path" not in keys
    assert "algorithm.filter_groups.enable" not in keys  # scores come too late to draw again


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (None, "null"),
        (1e-6, "1e-06"),
        (["q_proj", "v_proj"], "[q_proj,v_proj]"),
        ({"reduce_dtype": "bf16"}, "{reduce_dtype:bf16}"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("/models/my model's", r"'/models/my model\'s'"),
        ("null", "'null'"),
        ("8b", "'8b'"),
        ("a${b}", r"'a\${b}'"),
    ],
)
def test_values_in_hydra_grammar(value: Any, text: str) -> None:
    assert hydra_value(value) == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("trainer.nnodes", "trainer.nnodes=1"),
        (
            "a.override_transformer_config.moe_router_dtype",
            "++a.override_transformer_config.moe_router_dtype=1",
        ),
        (
            "a.override_transformer_config.recompute_method",
            "a.override_transformer_config.recompute_method=1",
        ),
        ("model.target_parameters", "++model.target_parameters=1"),
    ],
)
def test_only_keys_that_verl_does_not_list_are_added(key: str, text: str) -> None:
    assert override(Line(key, 1, "", "")) == text


def test_the_command_is_verls_own() -> None:
    plan = plan_for(NAME, gpus_per_node=8, nodes=2)
    argv = verl.command(plan, job_for(plan))
    assert argv[:5] == ("torchrun", "--nnodes=2", "--nproc_per_node=8", "-m", SFT)
    assert "data.train_files=data/train.parquet" in argv
    plan = plan_for(NAME, **RL)
    assert verl.command(plan, job_for(plan))[:3] == ("python3", "-m", PPO)


def test_the_nearest_plan_can_be_rendered_and_says_what_it_leaves_out() -> None:
    plan = plan_for(NAME, **{**RL, **MEGATRON, "method": "ppo", "tuning": "full", "tensor_parallel": 2})
    near, left_out = verl.nearest(plan)
    assert (near.backend, near.method, near.tensor_parallel) == ("hf", "grpo", 1)
    assert "Megatron" in left_out
    assert "critic" in left_out
    assert verl.nearest(plan_for(NAME, **RL)) == (plan_for(NAME, **RL), "")


def test_what_a_cpu_leaves_out_is_said() -> None:
    sft = plan_for(NAME)
    assert verl.smoke(sft, job_for(sft)).partial == ""
    grpo = plan_for(NAME, **RL, **{"backend": "megatron"}, lora_targets=("attention",))
    partial = verl.smoke(grpo, job_for(grpo, reward=None, reward_model="org/reward")).partial
    assert [word in partial for word in ("Megatron", "vLLM rollout", "reward model")] == [True] * 3


def test_files_name_what_run_sh_needs() -> None:
    plan = plan_for(NAME, **RL, nodes=2)
    job = job_for(plan, reward="rewards.py:points", data_format="rl-prompts")
    files = {file.path: file for file in verl.files(plan, job, rendered(NAME, plan, job))}
    assert set(files) == {
        "train.sh",
        "prepare_data.py",
        REWARD_FILE,
        "launch/ray.sh",
        "launch/ray_env.sh",
    }
    assert "from rewards import points as reward" in files[REWARD_FILE].text
    compile(files["prepare_data.py"].text, "prepare_data.py", "exec")


def test_fractions_of_an_epoch_are_refused() -> None:
    with pytest.raises(CannotExpress):
        rendered(NAME, plan_for(NAME, epochs=1.5))


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("backend", [{}, MEGATRON])
def test_every_pass_is_as_long_as_the_estimate_takes_it(context: int, backend: dict[str, Any]) -> None:
    """Log-probabilities follow the actor's cap (config/rollout/rollout.yaml:117); the critic's are its own."""
    plan = plan_for(NAME, **{**RL, **backend, "method": "ppo", "tuning": "full", "context_parallel": context,
                             "micro_batch_size": 3})  # fmt: skip
    keys = written(NAME, plan)
    caps = {key: value for key, value in keys.items() if "max_token_len" in key}
    assert caps.keys() == {
        f"{ACTOR}.ppo_max_token_len_per_gpu",
        "critic.ppo_max_token_len_per_gpu",
        "critic.ppo_infer_max_token_len_per_gpu",
    }
    assert {value * context for value in caps.values()} == {plan.micro_batch_size * plan.seq_len}
