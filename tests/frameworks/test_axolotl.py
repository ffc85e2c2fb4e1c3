"""Axolotl: one plan a line, what it writes or which fields it refuses; then rows, files and scripts."""

from __future__ import annotations

import json
import re
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.frameworks import axolotl
from advisor.frameworks.axolotl.data import spell_orpo, spell_preference, spell_reward
from advisor.frameworks.axolotl.table import CPU, WRAP
from advisor.frameworks.axolotl.values import LIGER_PLUGIN
from advisor.frameworks.table import Job
from tests.frameworks.helpers import (
    assert_refuses,
    assert_round_trip,
    assert_writes,
    job_for,
    plan_for,
    rendered,
    written,
)

NAME = "axolotl"
MOE = "Qwen/Qwen3-30B-A3B"
LIGER = [LIGER_PLUGIN]
FSDP = {"zero_stage": 3, "fsdp": True, "gpus_per_node": 8}
STAGE = "deepspeed:zero_optimization.stage"
OFFLOAD = "deepspeed:zero_optimization.offload"
SERVED = {
    "method": "grpo",
    "rollout_engine": "vllm",
    "rollout_memory_fraction": 0.9,
    "rollout_tensor_parallel": 2,
    "gpus_per_node": 6,
    "rollout_placement": "separate",
}

WRITES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"adapter": "lora", "lora_r": 16, "sequence_len": 2048, "rl": None, "train_on_inputs": False}),
    ({}, {"excess_length_strategy": "truncate", "chat_template": "tokenizer_default", "plugins": None}),
    ({"tuning": "full"}, {"adapter": None, "lora_r": None, "lora_target_modules": None}),
    (
        {"tuning": "full", "optimizer": "galore_adamw", "optimizer_rank": 64},
        {
            "optimizer": "galore_adamw",
            "optim_args.rank": 64,
            "optim_args.update_proj_gap": 200,
            "optim_args.scale": 2.0,
            "optim_target_modules": [r"model\.layers\..*"],
        },
    ),
    ({"tuning": "full"}, {"optim_args.rank": None, "optim_target_modules": None}),
    ({"tuning": "full", "optimizer": "apollo_adamw"}, {"optim_args.rank": 128, "optim_args.scale": 32.0}),
    ({"tuning": "qlora", "quantization": "4bit"}, {"adapter": "qlora", "load_in_4bit": True}),
    ({"tuning": "qlora", "quantization": "8bit"}, {"adapter": "lora", "load_in_8bit": True}),
    ({"tuning": "dora"}, {"adapter": "lora", "peft_use_dora": True}),
    ({"tuning": "freeze"}, {"unfrozen_parameters": ["^model.layers.(34|35)."], "adapter": None}),
    ({"tuning": "freeze", "method": "rm"}, {"unfrozen_parameters": ["^model.layers.(34|35).", "^score."]}),
    ({"tuning": "freeze"}, {"gradient_checkpointing_kwargs": {"use_reentrant": False}}),
    ({"method": "cpt", "packing": True}, {"sample_packing": True, "train_on_inputs": None, "rl": None}),
    ({"method": "dpo"}, {"rl": "dpo", "dpo_loss_type": ["sigmoid"], "rl_beta": 0.1}),
    ({"method": "ipo"}, {"rl": "dpo", "dpo_loss_type": ["ipo"]}),
    ({"method": "kto", "micro_batch_size": 2}, {"rl": "kto", "remove_unused_columns": False}),
    ({"method": "orpo"}, {"rl": "orpo", "rl_beta": 0.1}),
    ({"method": "simpo"}, {"rl": "simpo", "simpo_gamma": 0.5, "warmup_ratio": None, "warmup_steps": 3}),
    ({"method": "rm"}, {"reward_model": True, "rl": None, "rl_beta": None, "excess_length_strategy": None}),
    ({"method": "grpo"}, {"rl": "grpo", "trl.loss_type": "grpo", "trl.max_completion_length": 512}),
    ({"method": "grpo"}, {"trl.reward_funcs": ["reward_adapter.reward"], "sequence_len": 1024}),
    ({"method": "dapo"}, {"trl.epsilon_high": 0.28, "trl.mask_truncated_completions": True}),
    ({"method": "gspo"}, {"trl.importance_sampling_level": "sequence", "trl.loss_type": "grpo"}),
    ({"method": "dr-grpo"}, {"trl.loss_type": "dr_grpo", "trl.scale_rewards": "none"}),
    ({"method": "grpo", "rollout_engine": "hf"}, {"trl.use_vllm": False, "trl.vllm_mode": None}),
    (
        {**SERVED, "rollout_gpus": 2},
        {
            "trl.vllm_mode": "server",
            "trl.vllm_server_host": "127.0.0.1",
            "trl.vllm_server_port": 8000,
            "trl.vllm_server_timeout": 3600,
            "trl.vllm_enable_sleep_mode": None,
            "vllm.tensor_parallel_size": None,
            "vllm.gpu_memory_utilization": None,
            "vllm:base_model": "Qwen/Qwen3-8B",
            "vllm:vllm.tensor_parallel_size": 2,
            "vllm:vllm.data_parallel_size": 1,
            "vllm:vllm.gpu_memory_utilization": 0.9,
            "vllm:vllm.max_model_len": 1024,
            "vllm:vllm.host": "127.0.0.1",
            "vllm:vllm.port": 8000,
        },
    ),
    (
        {**SERVED, "rollout_gpus": 8, "rollout_nodes": 1, "rollout_data_parallel": 4},
        {
            "vllm:vllm.data_parallel_size": 4,
            "vllm:vllm.host": "0.0.0.0",
            "trl.vllm_server_host": "127.0.0.1",
        },
    ),
    (
        {"method": "grpo", "rollout_engine": "vllm", "rollout_memory_fraction": 0.4},
        {"trl.use_vllm": True, "trl.vllm_mode": "colocate", "vllm.gpu_memory_utilization": 0.4},
    ),
    (
        {"activation_offload": True},
        {"activation_offloading": "hidden_states", "gradient_checkpointing": True},
    ),
    ({"activation_offload": False}, {"activation_offloading": None}),
    ({"liger": True}, {"plugins": LIGER, "liger_rms_norm": True, "liger_fused_linear_cross_entropy": None}),
    ({"loss": "fused"}, {"plugins": LIGER, "liger_fused_linear_cross_entropy": True, "liger_rope": None}),
    ({"loss": "chunked"}, {"chunked_cross_entropy": True, "plugins": None}),
    ({"attention": "flash"}, {"attn_implementation": "flash_attention_2"}),
    ({"precision": "fp16"}, {"bf16": False, "fp16": True}),
    ({"precision": "fp32"}, {"bf16": False, "fp16": False}),
    ({"precision": "fp8", "tuning": "full"}, {"bf16": True, "fp8": True}),
    ({"gpus_per_node": 8}, {"deepspeed": None, "fsdp_version": None, STAGE: None}),
    ({"gpus_per_node": 8, "zero_stage": 2}, {"deepspeed": "deepspeed.json", STAGE: 2}),
    (
        {"gpus_per_node": 8, "zero_stage": 3, "offload": "optimizer"},
        {STAGE: 3, f"{OFFLOAD}_optimizer": CPU, f"{OFFLOAD}_param": None},
    ),
    ({"gpus_per_node": 8, "zero_stage": 3}, {"gradient_checkpointing_kwargs": {"use_reentrant": True}}),
    (FSDP, {"fsdp_version": 2, WRAP: "Qwen3DecoderLayer", "dp_shard_size": 8, "deepspeed": None}),
    ({**FSDP, "offload": "all"}, {"fsdp_config.offload_params": True}),
    ({**FSDP, "tensor_parallel": 2}, {"tensor_parallel_size": 2, "dp_shard_size": 4}),
    ({**FSDP, "context_parallel": 4}, {"context_parallel_size": 4, "dp_shard_size": 2}),
    (FSDP, {"dp_replicate_size": None}),
    ({**FSDP, "nodes": 4, "fsdp_replicas": 4}, {"dp_shard_size": 8, "dp_replicate_size": 4}),
    (
        {**FSDP, "nodes": 2, "fsdp_replicas": 2, "tensor_parallel": 2},
        {"dp_shard_size": 4, "dp_replicate_size": 2, "tensor_parallel_size": 2},
    ),
    ({**FSDP, "tensor_parallel": 2}, {"fsdp_config.cpu_ram_efficient_loading": False}),
]

REFUSES: list[tuple[dict[str, Any], set[str]]] = [
    ({"pipeline_parallel": 2, "gpus_per_node": 2}, {"pipeline_parallel"}),
    ({"method": "ppo"}, {"method"}),
    ({"method": "rloo"}, {"method"}),
    ({"method": "cpo"}, {"method"}),
    ({"precision": "bf16-pure"}, {"precision"}),
    ({"zero_stage": 3, "offload": "nvme"}, {"offload"}),
    ({**FSDP, "offload": "optimizer"}, {"offload"}),
    ({"tuning": "full", "quantization": "4bit"}, {"tuning", "quantization"}),
]


@pytest.mark.parametrize(("changes", "expected"), WRITES)
def test_writes(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert_writes(NAME, changes, expected)


@pytest.mark.parametrize(("changes", "fields"), REFUSES)
def test_refuses(changes: dict[str, Any], fields: set[str]) -> None:
    assert_refuses(NAME, changes, fields)


@pytest.mark.parametrize("changes", [changes for changes, _ in WRITES])
def test_round_trip(changes: dict[str, Any]) -> None:
    plan = plan_for(NAME, **changes)
    assert_round_trip(NAME, plan, with_data(plan))


SHARDINGS = [
    (0, False, "none"),
    (1, False, "none"),
    (2, False, "optimizer"),
    (3, False, "all"),
    (3, True, "all"),
]


@settings(deadline=None, max_examples=60)
@given(
    method=st.sampled_from(
        ["cpt", "sft", "dpo", "ipo", "kto", "rm", "orpo", "simpo", "grpo", "dapo", "gspo", "dr-grpo"]
    ),
    tuning=st.sampled_from(
        [
            ("full", "none"),
            ("freeze", "none"),
            ("lora", "none"),
            ("dora", "none"),
            ("qlora", "4bit"),
            ("qlora", "8bit"),
        ]
    ),
    sharding=st.sampled_from(SHARDINGS),
    size=st.tuples(st.integers(1, 16), st.integers(1, 64)),
    kernels=st.tuples(st.booleans(), st.booleans(), st.sampled_from(["flash", "sdpa", "eager"])),
    parallel=st.tuples(*(st.sampled_from([1, 2]) for _ in range(3))),
    nodes=st.sampled_from([1, 2, 16]),
    optimizer=st.sampled_from(["adamw", "adamw_foreach", "paged_adamw_8bit", "muon"]),
)
def test_round_trip_of_any_plan(
    method: str,
    tuning: tuple[str, str],
    sharding: tuple[int, bool, str],
    size: tuple[int, int],
    kernels: tuple[bool, bool, str],
    parallel: tuple[int, int, int],
    nodes: int,
    optimizer: str,
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
        gradient_checkpointing=kernels[0],
        liger=kernels[1],
        attention=kernels[2],
        tensor_parallel=parallel[0],
        context_parallel=parallel[1],
        expert_parallel=parallel[2],
        nodes=nodes,
        gpus_per_node=8,
        optimizer=optimizer,
    )
    assert_round_trip(NAME, plan, with_data(plan))


def with_data(plan: Any, **changes: Any) -> Job:
    return job_for(plan, **{"data_format": axolotl.data_need(plan).reads[0], **changes})


# --- what depends on the model ------------------------------------------------------------------


def of_moe(**changes: Any) -> dict[str, Any]:
    plan = plan_for(NAME, **changes)
    return written(NAME, plan, job_for(plan, MOE))


def test_quantized_experts_are_packed_and_named_modules_only() -> None:
    found = of_moe(tuning="qlora", quantization="4bit")
    assert found["quantize_moe_experts"] is True
    assert found["lora_target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    dense = written(NAME, plan_for(NAME, tuning="qlora", quantization="4bit"))
    assert "quantize_moe_experts" not in dense


def test_adapters_on_experts_name_the_fused_parameters() -> None:
    found = of_moe(lora_targets=("experts",))
    assert found["lora_target_parameters"] == ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    assert found["lora_dropout"] == 0
    assert found["lora_mlp_kernel"] is False


def test_spread_experts_are_gathered_when_saved() -> None:
    found = of_moe(tuning="full", expert_parallel=8, nodes=2, **FSDP)
    assert found["fsdp_config.state_dict_type"] == "FULL_STATE_DICT"
    assert found["expert_parallel_size"] == 8
    assert "plugins" not in found
    assert found["dp_shard_size"] == 2
    assert found[WRAP] == "Qwen3MoeDecoderLayer"


def test_adapters_of_a_model_that_sees_stay_in_its_language_model() -> None:
    plan = plan_for(NAME)
    pattern = written(NAME, plan, job_for(plan, "google/gemma-3-4b-it"))["lora_target_modules"]
    assert re.fullmatch(pattern, "model.language_model.layers.3.self_attn.q_proj")
    assert re.fullmatch(pattern, "model.vision_tower.encoder.layers.3.self_attn.q_proj") is None


def test_a_large_model_is_saved_in_pieces() -> None:
    plan = plan_for(NAME, tuning="full", nodes=8, **FSDP)
    found = written(NAME, plan, job_for(plan, "Qwen/Qwen3-235B-A22B"))
    assert found["fsdp_config.state_dict_type"] == "SHARDED_STATE_DICT"


# --- data ---------------------------------------------------------------------------------------

MESSAGES = {"type": "chat_template", "field_messages": "messages"}
ENTRIES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {"data_format": "messages"}, {"ds_type": "json", "split": "train", **MESSAGES}),
    ({}, {"data_extra": {"mapping": {"messages": "dialogue"}}}, {"field_messages": "dialogue"}),
    (
        {},
        {"data_format": "sharegpt", "data_local": False},
        {"ds_type": None, "field_messages": "conversations"},
    ),
    ({}, {"data_format": "alpaca", "data_local": False}, {"type": "alpaca", "roles_to_train": None}),
    ({"method": "cpt"}, {"data_format": "text"}, {"type": "completion", "field": "text"}),
    ({"method": "dpo"}, {}, {"type": "chat_template.default", "field_messages": "prompt", "ds_type": None}),
    ({"method": "orpo"}, {}, {"type": "chat_template.argilla", "ds_type": "json"}),
    ({"method": "kto", "micro_batch_size": 2}, {}, {"type": "chat_rows.kto", "ds_type": None}),
    ({"method": "rm"}, {}, {"type": "bradley_terry.chat_template"}),
    ({"method": "grpo"}, {}, {"type": "passthrough", "path": "data/train.jsonl"}),
]


@pytest.mark.parametrize(("changes", "job", "expected"), ENTRIES)
def test_dataset_entry(changes: dict[str, Any], job: dict[str, Any], expected: dict[str, Any]) -> None:
    plan = plan_for(NAME, **changes)
    entry = written(NAME, plan, job_for(plan, **job))["datasets"][0]
    assert {key: entry.get(key) for key in expected} == expected


PAIR = {"prompt": "Q?", "chosen": "yes", "rejected": "no"}
SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Q?"}
TURNS = {
    "prompt": [SYSTEM, USER],
    "chosen": [{"role": "assistant", "content": "yes"}],
    "rejected": [{"role": "assistant", "content": "no"}],
}


def test_rows_are_spelled_for_each_preference_method() -> None:
    assert spell_preference(PAIR, "preference") == {**PAIR, "prompt": [USER]}
    assert spell_preference(TURNS, "preference-messages") == {**PAIR, "prompt": [SYSTEM, USER]}
    assert spell_orpo(TURNS, "preference-messages") == {
        "system": "Be kind.",
        "chosen": [USER, *TURNS["chosen"]],
        "rejected": [USER, *TURNS["rejected"]],
    }
    reward = spell_reward(TURNS, "preference-messages")
    assert reward == {"system": "Be kind.", "input": "Q?", "chosen": "yes", "rejected": "no"}


def test_a_reward_model_reads_one_question() -> None:
    longer = {**TURNS, "prompt": [USER, *TURNS["chosen"], USER]}
    with pytest.raises(ValueError, match="one message"):
        spell_reward(longer, "preference-messages")


# --- files --------------------------------------------------------------------------------------


def emitted(changes: dict[str, Any], **job: Any) -> dict[str, str]:
    plan = plan_for(NAME, **changes)
    wiring = with_data(plan, **job)
    return {file.path: file.text for file in axolotl.files(plan, wiring, rendered(NAME, plan, wiring))}


def test_files() -> None:
    assert set(emitted({})) == {"train.yaml"}
    assert set(emitted({"method": "kto", "micro_batch_size": 2})) == {"train.yaml", "chat_rows.py"}
    assert set(emitted({"method": "grpo"})) == {"train.yaml", "reward_adapter.py"}
    sharded = emitted({"zero_stage": 2, "gpus_per_node": 2})
    assert json.loads(sharded["deepspeed.json"])["zero_optimization"]["stage"] == 2


@pytest.mark.parametrize("name", ["org/reward", "./reward.v1"])
def test_a_reward_model_that_reads_as_a_module_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="dot in the middle"):
        emitted({"method": "grpo"}, reward_model=name)


def test_the_reward_adapter_scores_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(completion: str, solution: str, **columns: Any) -> float:
        return float(completion == solution) + columns["bonus"]

    rewards = ModuleType("rewards")
    rewards.__dict__["score"] = score
    monkeypatch.setitem(__import__("sys").modules, "rewards", rewards)
    names: dict[str, Any] = {}
    exec(emitted({"method": "grpo"})["reward_adapter.py"], names)
    answers = [[{"role": "assistant", "content": "4"}], "5"]
    scores = names["reward"](
        ["p", "p"], answers, ["4", "4"], bonus=[0.5, 0.25], completion_ids=[[1], [2]], trainer_state=object()
    )
    assert scores == [1.5, 0.25]


def test_kto_rows_are_split_where_the_answer_begins() -> None:
    names: dict[str, Any] = {}
    exec(emitted({"method": "kto", "micro_batch_size": 2})["chat_rows.py"], names)
    transform, options = names["kto"]({})

    class Tokenizer:
        def apply_chat_template(self, messages: list[Any], *, add_generation_prompt: bool = False, **_: Any):
            text = "".join(f"<{m['role']}>{m['content']}</s>\n" for m in messages)
            return text + ("<assistant>" if add_generation_prompt else "")

    row = {"prompt": "Q?", "completion": "yes", "label": 1}
    sample = transform(row, tokenizer=Tokenizer())
    assert sample == {"prompt": "<user>Q?</s>\n<assistant>", "completion": "yes</s>", "label": True}
    assert options == {"remove_columns": ["prompt", "completion"]}
