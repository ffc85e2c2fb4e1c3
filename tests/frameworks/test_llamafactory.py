"""LLaMA-Factory: one plan a line, what it writes or which fields it refuses; rows and their declaration."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.frameworks import llamafactory
from advisor.frameworks.llamafactory.data import dataset_entry, spell
from advisor.frameworks.llamafactory.table import template
from advisor.frameworks.table import ABSENT, Rendered
from tests.frameworks.helpers import assert_refuses, assert_round_trip, assert_writes, job_for, plan_for

NAME = "llamafactory"
ZERO = {"gpus_per_node": 8}
MESH = "accelerate:parallelism_config.parallelism_config"

WRITES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {},
        {"stage": "sft", "finetuning_type": "lora", "lora_rank": 16, "cutoff_len": 2048, "template": "qwen3"},
    ),
    ({}, {"lora_target": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj", "deepspeed": None}),
    ({"lora_targets": ("attention",)}, {"lora_target": "q_proj,k_proj,v_proj,o_proj"}),
    ({"tuning": "full"}, {"finetuning_type": "full", "lora_rank": None, "lora_target": None}),
    (
        {"tuning": "freeze", "freeze_trainable_layers": 4},
        {"finetuning_type": "freeze", "freeze_trainable_layers": 4},
    ),
    ({"tuning": "dora"}, {"finetuning_type": "lora", "use_dora": True}),
    ({"tuning": "qlora", "quantization": "4bit"}, {"quantization_bit": 4, "quantization_method": "bnb"}),
    ({"tuning": "qlora", "quantization": "8bit"}, {"quantization_bit": 8}),
    ({"method": "cpt", "tuning": "full"}, {"stage": "pt", "packing": True, "template": "empty"}),
    ({"method": "cpt", "packing": False}, {"stage": "pt", "packing": False}),
    ({"packing": True}, {"neat_packing": True, "packing": None}),
    ({"method": "dpo"}, {"stage": "dpo", "pref_loss": "sigmoid", "pref_beta": 0.1}),
    ({"method": "ipo"}, {"stage": "dpo", "pref_loss": "ipo"}),
    ({"method": "orpo"}, {"stage": "dpo", "pref_loss": "orpo"}),
    ({"method": "simpo", "beta": 2.0}, {"pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 0.5}),
    ({"method": "kto"}, {"stage": "kto", "pref_loss": None, "pref_beta": 0.1}),
    ({"method": "rm"}, {"stage": "rm", "pref_beta": None}),
    ({"precision": "bf16-pure", "tuning": "full"}, {"pure_bf16": True, "bf16": None}),
    ({"precision": "fp16"}, {"fp16": True, "bf16": None}),
    ({"precision": "fp32", "tuning": "full"}, {"bf16": False, "fp16": None}),
    ({"optimizer": "muon", "tuning": "full"}, {"use_muon": True, "optim": None}),
    (
        {"optimizer": "galore_adamw", "optimizer_rank": 64, "tuning": "full"},
        {
            "use_galore": True,
            "optim": "adamw_torch",
            "galore_rank": 64,
            "galore_scale": 2.0,
            "galore_layerwise": None,
        },
    ),
    (
        {"optimizer": "apollo_adamw_layerwise", "tuning": "full"},
        {
            "use_apollo": True,
            "optim": "adamw_torch",
            "apollo_rank": 128,
            "apollo_update_interval": 200,
            "apollo_layerwise": True,
            "galore_rank": None,
        },
    ),
    ({"optimizer": "adamw_8bit"}, {"optim": "adamw_8bit"}),
    ({"attention": "eager"}, {"flash_attn": "disabled"}),
    ({"gradient_checkpointing": False}, {"disable_gradient_checkpointing": True}),
    ({"activation_offload": True}, {"use_unsloth_gc": True, "disable_gradient_checkpointing": False}),
    ({"activation_offload": False}, {"use_unsloth_gc": None}),
    ({"liger": True}, {"enable_liger_kernel": True}),
    ({**ZERO}, {"deepspeed": None, "ddp_timeout": 36000}),
    (
        {"offload": "experts"},
        {"use_kt": True, "use_reentrant_gc": False, "deepspeed": None, "accelerate:distributed_type": None},
    ),
    (
        {**ZERO, "zero_stage": 3, "fsdp": True, "offload": "experts"},
        {
            "use_kt": True,
            "accelerate:distributed_type": "FSDP",
            "accelerate:fsdp_config.fsdp_offload_params": False,
            "accelerate:num_processes": 8,
        },
    ),
    ({}, {"use_kt": None, "use_reentrant_gc": None}),
    (
        {**ZERO, "zero_stage": 3, "offload": "optimizer"},
        {
            "deepspeed": "deepspeed.json",
            "deepspeed:zero_optimization.stage": 3,
            "deepspeed:zero_optimization.offload_optimizer.device": "cpu",
            "deepspeed:zero_optimization.offload_param.device": None,
            "deepspeed:zero_optimization.stage3_gather_16bit_weights_on_model_save": True,
        },
    ),
    ({**ZERO, "zero_stage": 2}, {"deepspeed:zero_optimization.reduce_bucket_size": None}),
    (
        {**ZERO, "nodes": 2, "zero_stage": 3, "fsdp": True, "tuning": "full", "offload": "all"},
        {
            "deepspeed": None,
            "accelerate:distributed_type": "FSDP",
            "accelerate:num_processes": 16,
            "accelerate:num_machines": 2,
            "accelerate:fsdp_config.fsdp_offload_params": True,
            "accelerate:fsdp_config.fsdp_activation_checkpointing": False,
            "accelerate:fsdp_config.fsdp_transformer_layer_cls_to_wrap": "Qwen3DecoderLayer",
            f"{MESH}_dp_shard_size": None,
        },
    ),
    (
        {**ZERO, "nodes": 4, "zero_stage": 3, "fsdp": True, "tuning": "full", "fsdp_replicas": 4},
        {f"{MESH}_dp_shard_size": ZERO["gpus_per_node"], f"{MESH}_dp_replicate_size": 4},
    ),
]

REFUSES: list[tuple[dict[str, Any], set[str]]] = [
    (
        {"tensor_parallel": 2, "context_parallel": 2, "gpus_per_node": 4},
        {"tensor_parallel", "context_parallel"},
    ),
    ({"method": "grpo"}, {"method"}),
    ({"method": "cpo"}, {"method"}),
    ({"method": "dpo", "packing": True}, {"method", "packing"}),
    ({"loss": "chunked"}, {"loss"}),
    ({"loss": "fused"}, {"loss"}),
    ({"liger": True, "loss": "stock"}, {"loss"}),
    ({"precision": "fp8"}, {"precision"}),
    ({"param_dtype": "bf16"}, {"param_dtype"}),
    ({"offload": "experts", "zero_stage": 3, **ZERO}, {"offload"}),
    ({"zero_stage": 3, "offload": "nvme", **ZERO}, {"offload"}),
    ({"zero_stage": 2, "offload": "all", **ZERO}, {"offload"}),
    ({"offload": "optimizer"}, {"offload"}),
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
    method=st.sampled_from(["cpt", "sft", "dpo", "ipo", "orpo", "simpo", "kto", "rm"]),
    tuning=st.sampled_from(
        [("full", "none"), ("freeze", "none"), ("lora", "none"), ("dora", "none"), ("qlora", "4bit"),
         ("qlora", "8bit")]
    ),
    precision=st.sampled_from(["bf16", "bf16-pure", "fp16", "fp32"]),
    optimizer=st.sampled_from(
        ["adamw", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit", "adafactor", "muon"]
    ),
    sharding=st.sampled_from(
        [(0, False, "none"), (1, False, "none"), (2, False, "optimizer"), (3, False, "all"),
         (3, True, "none"), (3, True, "all"), (0, False, "experts"), (3, True, "experts")]
    ),
    size=st.tuples(st.integers(1, 16), st.integers(1, 64)),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    nodes=st.sampled_from([1, 2, 16]),
)  # fmt: skip
def test_round_trip_of_any_plan(
    method: str,
    tuning: tuple[str, str],
    precision: str,
    optimizer: str,
    sharding: tuple[int, bool, str],
    size: tuple[int, int],
    flags: tuple[bool, bool, bool],
    nodes: int,
) -> None:
    checkpointing, liger, packing = flags
    plan = plan_for(
        NAME,
        method=method,
        tuning=tuning[0],
        quantization=tuning[1],
        precision=precision,
        optimizer=optimizer,
        zero_stage=sharding[0],
        fsdp=sharding[1],
        offload=sharding[2],
        micro_batch_size=size[0],
        gradient_accumulation_steps=size[1],
        gradient_checkpointing=checkpointing,
        liger=liger,
        packing=packing and method in ("cpt", "sft"),
        nodes=nodes,
        gpus_per_node=8,
    )
    assert_round_trip(NAME, plan)


TEMPLATES = [
    ("Qwen/Qwen3-8B", "sft", "qwen3"),
    ("Qwen/Qwen3-8B-Base", "sft", "qwen3_nothink"),
    ("Qwen/Qwen3-30B-A3B", "dpo", "qwen3"),
    ("deepseek-ai/DeepSeek-V3", "sft", "deepseek3"),
    ("meta-llama/Llama-3.1-8B-Instruct", "sft", "llama3"),
    ("meta-llama/Llama-3.1-8B-Instruct", "cpt", "llama3"),
    ("Qwen/Qwen3-8B", "cpt", "empty"),
]


@pytest.mark.parametrize(("model", "method", "expected"), TEMPLATES)
def test_template(model: str, method: str, expected: str) -> None:
    plan = plan_for(NAME, method=method)
    assert template(plan, job_for(plan, model)) == expected


def test_unknown_family_leaves_the_template_to_the_tokenizer() -> None:
    plan = plan_for(NAME)
    job = job_for(plan)
    job = replace(job, model=replace(job.model, id="someone/new", model_type="new"))
    assert template(plan, job) is ABSENT


TURNS = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
CALLED = [
    TURNS[0],
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "4"},
    {"role": "tool", "content": "four"},
    TURNS[1],
]
FLAT = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}
SPELLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("messages", {"messages": TURNS, "topic": "sums"}, {"messages": TURNS, "topic": "sums"}),
    ("messages", {"conversation": TURNS}, {"messages": TURNS}),
    (
        "messages",
        {"messages": CALLED, "tools": [{"name": "add"}]},
        {
            "messages": [
                TURNS[0],
                {"role": "function_call", "content": json.dumps([CALL["function"]])},
                {"role": "tool", "content": "4\n</tool_response>\n<tool_response>\nfour"},
                TURNS[1],
            ],
            "tools": '[{"name": "add"}]',
        },
    ),
    ("prompt-completion", {"prompt": "2+2?", "completion": "4"}, {"messages": TURNS}),
    (
        "preference-messages",
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "5"}]},
        {"messages": TURNS[:1], "chosen": TURNS[1], "rejected": {"role": "assistant", "content": "5"}},
    ),
    ("preference", FLAT, FLAT),
    ("kto", {"prompt": "2+2?", "completion": "4", "label": True}, {"messages": TURNS, "label": True}),
    ("kto", {"messages": TURNS, "kto_tag": False}, {"messages": TURNS, "label": False}),
]  # fmt: skip


@pytest.mark.parametrize(("format", "row", "expected"), SPELLS)
def test_spell(format: str, row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert spell(row, format) == expected


def test_spell_refuses_what_would_be_lost() -> None:
    both = [TURNS[0], {"role": "assistant", "content": "I add", "tool_calls": [CALL]}, *CALLED[2:]]
    with pytest.raises(ValueError, match="text and tool calls"):
        spell({"messages": both}, "messages")
    answers = {"prompt": TURNS[:1], "chosen": [TURNS[1], TURNS[0], TURNS[1]], "rejected": TURNS[1:]}
    with pytest.raises(ValueError, match="one message as the answer"):
        spell(answers, "preference-messages")


ENTRIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sft", {"data_format": "messages"}, {"formatting": "sharegpt", "columns": {"messages": "messages"}}),
    (
        "sft",
        {"data_format": "alpaca", "data_extra": {"mapping": {"output": "response"}, "columns": ["system"]}},
        {"columns": {"prompt": "instruction", "response": "response", "system": "system"}},
    ),
    ("sft", {"data_format": "prompt-completion"}, {"columns": {"messages": "messages"}}),
    (
        "sft",
        {"data_format": "prompt-completion", "data_local": False, "data_path": "org/set"},
        {"hf_hub_url": "org/set", "columns": {"prompt": "prompt", "response": "completion"}, "tags": None},
    ),
    (
        "sft",
        {"data_format": "messages", "data_local": False, "data_path": "org/set", "hub": "modelscope"},
        {"ms_hub_url": "org/set", "hf_hub_url": None},
    ),
    (
        "sft",
        {"data_format": "messages", "data_path": "/home/me/rows.jsonl"},
        {"file_name": "/home/me/rows.jsonl"},
    ),
    (
        "cpt",
        {"data_format": "text", "data_extra": {"mapping": {"text": "content"}}},
        {"columns": {"prompt": "content"}},
    ),
    ("dpo", {"data_format": "preference"}, {"ranking": True, "formatting": None}),
    ("dpo", {"data_format": "preference-messages"}, {"ranking": True, "formatting": "sharegpt"}),
    ("kto", {"data_format": "kto"}, {"columns": {"messages": "messages", "kto_tag": "label"}}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "changes", "expected"), ENTRIES)
def test_dataset_entry(method: str, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    plan = plan_for(NAME, method=method)
    entry = dataset_entry(plan, job_for(plan, **changes))
    assert {key: entry.get(key) for key in expected} == expected


def test_command_of_fsdp_is_accelerate() -> None:
    plan = plan_for(NAME, tuning="full", zero_stage=3, fsdp=True, gpus_per_node=8)
    assert llamafactory.command(plan, job_for(plan))[:2] == ("accelerate", "launch")
    assert llamafactory.command(plan_for(NAME), job_for(plan)) == ("llamafactory-cli", "train", "train.yaml")


def test_experts_on_the_host_are_switched_on_by_the_environment_too() -> None:
    plan = plan_for(NAME, offload="experts", lora_targets=("experts",))
    job = job_for(plan, "Qwen/Qwen3-30B-A3B")
    rendered = Rendered({})
    assert llamafactory.context(plan, job, rendered)["environment"] == llamafactory.KTRANSFORMERS
    assert llamafactory.command(plan, job) == ("llamafactory-cli", "train", "train.yaml")
    smoke = llamafactory.smoke(plan, job)
    assert smoke.partial
    assert smoke.trained is not None
    assert (smoke.trained.offload, smoke.trained.lora_targets) == ("none", ("attention",))
    assert llamafactory.context(replace(plan, offload="none"), job, rendered)["environment"] == {}


def test_adapters_of_experts_on_the_host_cannot_be_gone_on_with() -> None:
    plan = plan_for(NAME, offload="experts", lora_targets=("experts",))
    job = replace(job_for(plan, "Qwen/Qwen3-30B-A3B"), adapter="adapter")
    with pytest.raises(InputError, match="starts the adapters of the routed experts anew"):
        llamafactory.files(plan, job, Rendered({}))
