"""ms-swift: one plan a line, what it writes or which fields it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import InputError
from advisor.facts.models import load_model
from advisor.frameworks.ms_swift import command, nearest
from advisor.frameworks.ms_swift.data import columns, spell
from advisor.rules import describe_model, limit_refusals, load_framework
from tests.frameworks.helpers import (
    assert_refuses,
    assert_round_trip,
    assert_writes,
    job_for,
    plan_for,
    rendered,
    written,
)

NAME = "ms-swift"
ZERO = "deepspeed.zero_optimization"
MEGATRON = {"backend": "megatron", "attention": "flash", "gpus_per_node": 8}

WRITES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {},
        {
            "model_type": "qwen3",
            "template": "qwen3",
            "use_hf": True,
            "tuner_type": "lora",
            "lora_rank": 16,
            "max_length": 2048,
            "torch_dtype": "bfloat16",
            "command:program": "swift",
            "command:subcommand": "sft",
            "deepspeed": None,
        },
    ),
    ({"tuning": "full"}, {"tuner_type": "full", "lora_rank": None, "target_modules": None}),
    (
        {"tuning": "freeze", "freeze_trainable_layers": 2},
        {
            "freeze_parameters_ratio": 1.0,
            "trainable_parameters": ["model.layers.34.", "model.layers.35."],
        },
    ),
    ({"tuning": "dora"}, {"tuner_type": "lora", "use_dora": True}),
    ({"tuning": "qlora", "quantization": "4bit"}, {"quant_method": "bnb", "quant_bits": 4}),
    ({"tuning": "qlora", "quantization": "8bit"}, {"quant_method": "bnb", "quant_bits": 8}),
    ({"method": "cpt", "tuning": "full"}, {"command:subcommand": "pt", "truncation_strategy": "right"}),
    (
        {"method": "dpo"},
        {"command:subcommand": "rlhf", "rlhf_type": "dpo", "loss_type": "sigmoid", "beta": 0.1},
    ),
    ({"method": "ipo"}, {"rlhf_type": "dpo", "loss_type": "ipo"}),
    ({"method": "kto", "micro_batch_size": 2}, {"rlhf_type": "kto", "loss_type": None}),
    ({"method": "orpo"}, {"rlhf_type": "orpo"}),
    ({"method": "simpo"}, {"rlhf_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 1.0}),
    ({"method": "cpo"}, {"rlhf_type": "cpo", "loss_type": "sigmoid"}),
    ({"method": "rm"}, {"rlhf_type": "rm", "beta": None}),
    ({"method": "ppo"}, {"rlhf_type": "ppo", "kl_coef": 0.1, "beta": None, "num_generations": None}),
    (
        {"method": "grpo"},
        {
            "rlhf_type": "grpo",
            "loss_type": "grpo",
            "max_length": 512,
            "max_completion_length": 512,
            "num_generations": 8,
            "use_vllm": False,
            "external_plugins": ["reward_plugin.py"],
            "reward_funcs": ["user_reward"],
        },
    ),
    ({"method": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28, "dynamic_sample": True}),
    ({"method": "gspo"}, {"importance_sampling_level": "sequence", "epsilon": 3.0e-4}),
    ({"method": "dr-grpo"}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    ({"method": "rloo"}, {"advantage_estimator": "rloo"}),
    ({"method": "reinforce++"}, {"advantage_estimator": "reinforce_plus_plus"}),
    (
        {"method": "gkd"},
        {
            "rlhf_type": "gkd",
            "teacher_model": "Qwen/Qwen3-14B",
            "teacher_model_type": "qwen3",
            "max_length": 1024,
        },
    ),
    (
        {"method": "grpo", "rollout_engine": "vllm", "rollout_memory_fraction": 0.4},
        {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": 0.4,
            "vllm_max_model_len": 1024,
            "sleep_level": 1,
        },
    ),
    (
        {
            "method": "grpo",
            "rollout_engine": "vllm",
            "rollout_memory_fraction": 0.9,
            "gpus_per_node": 8,
            "nodes": 2,
            "rollout_placement": "separate",
            "rollout_gpus": 8,
            "rollout_nodes": 2,
        },
        {
            "vllm_mode": "server",
            "vllm_server_host": ["127.0.0.1", "127.0.0.1"],
            "vllm_server_port": [8000, 8000],
            "vllm_server_timeout": 3600.0,
            "vllm_gpu_memory_utilization": None,
            "sleep_level": None,
        },
    ),
    (
        {"method": "grpo", "rollout_engine": "vllm", "rollout_memory_fraction": 0.4, "rollout_offload": True},
        {"offload_model": True, "offload_optimizer": True},
    ),
    (
        {"method": "grpo", "rollout_engine": "vllm", "rollout_memory_fraction": 0.4},
        {"offload_model": None, "offload_optimizer": None},
    ),
    ({"gpus_per_node": 8, "zero_stage": 2}, {"deepspeed": "zero2"}),
    ({"gpus_per_node": 8, "zero_stage": 2, "offload": "optimizer"}, {"deepspeed": "zero2_offload"}),
    ({"gpus_per_node": 8, "zero_stage": 3, "offload": "all"}, {"deepspeed": "zero3_offload"}),
    (
        {"gpus_per_node": 8, "zero_stage": 3, "offload": "optimizer"},
        {"deepspeed": None, f"{ZERO}.stage": 3, f"{ZERO}.offload_optimizer.device": "cpu"},
    ),
    (
        {"gpus_per_node": 8, "zero_stage": 3, "fsdp": True},
        {
            "fsdp.fsdp": "full_shard auto_wrap",
            "fsdp.fsdp_config.state_dict_type": "FULL_STATE_DICT",
            "fsdp.fsdp_config.activation_checkpointing": True,
            "gradient_checkpointing": False,
        },
    ),
    (
        {"gpus_per_node": 8, "zero_stage": 3, "fsdp": True, "offload": "all"},
        {"fsdp.fsdp": "full_shard auto_wrap offload"},
    ),
    ({"context_parallel": 4, "gpus_per_node": 8}, {"sequence_parallel_size": 4}),
    ({"precision": "fp32"}, {"torch_dtype": "float32", "fp16": False, "bf16": False}),
    ({"precision": "fp16"}, {"torch_dtype": "float16", "fp16": True}),
    ({"attention": "flash", "packing": True}, {"attn_impl": "flash_attention_2", "packing": True}),
    ({"lr_scheduler": "constant"}, {"lr_scheduler_type": "constant_with_warmup"}),
    (
        {**MEGATRON, "tuning": "full", "tensor_parallel": 4, "sequence_parallel": True, "epochs": 3.0},
        {
            "command:program": "megatron",
            "tensor_model_parallel_size": 4,
            "sequence_parallel": True,
            "num_train_epochs": 3,
            "global_batch_size": 2,
            "micro_batch_size": 1,
            "recompute_granularity": "full",
            "recompute_num_layers": 1,
            "save_safetensors": True,
            "merge_lora": None,
            "report_to": ["tensorboard"],
            "learning_rate": None,
        },
    ),
    ({**MEGATRON}, {"merge_lora": False, "target_modules": ["all-linear"], "lr": 1e-4}),
    (
        {**MEGATRON, "lora_targets": ("attention",)},
        {"target_modules": ["self_attention.linear_qkv", "self_attention.linear_proj"]},
    ),
    (
        {**MEGATRON, "tuning": "full", "offload": "optimizer", "recompute": "selective"},
        {
            "optimizer_cpu_offload": True,
            "use_precision_aware_optimizer": True,
            "optimizer_offload_fraction": 1.0,
            "recompute_granularity": "selective",
            "recompute_method": None,
        },
    ),
    (
        {**MEGATRON, "pipeline_parallel": 4, "pipeline_first_layers": 8, "pipeline_last_layers": 8},
        {"decoder_first_pipeline_num_layers": 8, "decoder_last_pipeline_num_layers": 8},
    ),
    (
        {**MEGATRON, "pipeline_parallel": 4, "virtual_pipeline_parallel": 2},
        {"virtual_pipeline_model_parallel_size": 2, "pipeline_model_parallel_size": 4},
    ),
    ({**MEGATRON, "pipeline_parallel": 4}, {"virtual_pipeline_model_parallel_size": None}),
    ({**MEGATRON, "precision": "fp8", "tuning": "full"}, {"fp8_format": "e4m3", "fp8_recipe": "blockwise"}),
    (
        {**MEGATRON, "method": "grpo", "rollout_engine": "vllm", "gradient_accumulation_steps": 8},
        {"global_batch_size": 512, "use_vllm": True, "num_generations": 8},
    ),
    ({**MEGATRON, "method": "gkd"}, {"lmbda": 0.0, "use_vllm": False}),
    (
        {"tuning": "full", "optimizer": "galore_adamw", "optimizer_rank": 64},
        {"use_galore": True, "optim": "adamw_torch", "galore_rank": 64, "galore_update_proj_gap": 200},
    ),
    (
        {"tuning": "full", "optimizer": "apollo_adamw"},
        {
            "optim": "apollo_adamw",
            "optim_args": "rank=128,update_proj_gap=200,scale=32.0",
            "use_galore": None,
            "galore_rank": None,
        },
    ),
]

REFUSES: list[tuple[dict[str, Any], set[str]]] = [
    ({"activation_offload": True}, {"activation_offload"}),
    ({"optimizer": "muon"}, {"optimizer"}),
    ({"tuning": "full", "optimizer": "galore_adamw_layerwise"}, {"optimizer"}),
    ({**MEGATRON, "optimizer": "adamw_8bit"}, {"optimizer"}),
    ({**MEGATRON, "epochs": 1.5}, {"epochs"}),
    ({**MEGATRON, "precision": "fp16", "offload": "all"}, {"precision", "offload"}),
    ({"zero_stage": 1, "offload": "optimizer", "gpus_per_node": 8}, {"zero_stage", "offload"}),
    ({"precision": "bf16-pure"}, {"precision"}),
    ({"liger": True, "loss": "stock"}, {"loss"}),
    ({"gpus_per_node": 8, "zero_stage": 3, "fsdp": True, "fsdp_replicas": 2}, {"fsdp_replicas"}),
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


@pytest.mark.parametrize("changes", [changes for changes, _ in WRITES])
def test_no_value_is_null(changes: dict[str, Any]) -> None:
    assert None not in written(NAME, plan_for(NAME, **changes)).values()


METHODS = [
    "cpt",
    "sft",
    "dpo",
    "ipo",
    "kto",
    "rm",
    "grpo",
    "dapo",
    "gspo",
    "dr-grpo",
    "rloo",
    "reinforce++",
    "gkd",
]


@given(
    method=st.sampled_from([*METHODS, "orpo", "simpo", "cpo", "ppo"]),
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
    sharding=st.sampled_from(
        [
            (0, False, "none"),
            (1, False, "none"),
            (2, False, "optimizer"),
            (3, False, "optimizer"),
            (3, False, "all"),
            (3, True, "none"),
            (3, True, "all"),
        ]
    ),
    size=st.tuples(st.integers(1, 16), st.integers(1, 64)),
    checkpointing=st.booleans(),
    liger=st.booleans(),
    nodes=st.sampled_from([1, 2, 16]),
)
def test_round_trip_of_any_transformers_plan(
    method: str,
    tuning: tuple[str, str],
    sharding: tuple[int, bool, str],
    size: tuple[int, int],
    checkpointing: bool,
    liger: bool,
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
        liger=liger,
        nodes=nodes,
        gpus_per_node=8,
    )
    assert_round_trip(NAME, plan)


@given(
    method=st.sampled_from(METHODS),
    tuning=st.sampled_from(["full", "lora"]),
    targets=st.sampled_from(["attention", "experts"]),
    grid=st.sampled_from([(1, 1, 1, 1), (2, 1, 8, 1), (4, 2, 8, 1), (8, 8, 4, 1), (1, 4, 2, 4)]),
    offload=st.sampled_from(["none", "optimizer"]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    size=st.tuples(st.integers(1, 4), st.integers(1, 64)),
)
def test_round_trip_of_any_megatron_plan(
    method: str,
    tuning: str,
    targets: str,
    grid: tuple[int, int, int, int],
    offload: str,
    recompute: str,
    size: tuple[int, int],
) -> None:
    tensor, pipeline, expert, context = grid
    plan = plan_for(
        NAME,
        method=method,
        tuning=tuning,
        lora_targets=(targets,),
        backend="megatron",
        attention="flash",
        tensor_parallel=tensor,
        sequence_parallel=tensor > 1,
        pipeline_parallel=pipeline,
        expert_parallel=expert,
        context_parallel=context,
        offload=offload,
        recompute=recompute,
        micro_batch_size=size[0],
        gradient_accumulation_steps=size[1],
        nodes=8,
        gpus_per_node=8,
    )
    job = job_for(plan, "Qwen/Qwen3-30B-A3B")
    assert_round_trip(NAME, plan, job)
    assert nearest(plan).backend == "hf"
    assert command(plan, job)[0] == "megatron"
    assert command(nearest(plan), job)[0] == "swift"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen3-235B-A22B-Thinking-2507", ("qwen3_moe", "qwen3_thinking")),
        ("deepseek-ai/DeepSeek-R1-0528", ("deepseek_v3", "deepseek_r1")),
        ("meta-llama/Llama-3.1-8B-Instruct", ("llama", "llama3_2")),
    ],
)
def test_model_type_and_template_are_always_written(model: str, expected: tuple[str, str]) -> None:
    plan = plan_for(NAME)
    found = written(NAME, plan, job_for(plan, model, model_path="model_bf16"))
    assert (found["model_type"], found["template"], found["model"]) == (*expected, "model_bf16")


def test_an_architecture_that_is_not_registered_is_refused_twice() -> None:
    plan = plan_for(NAME)
    with pytest.raises(InputError):
        rendered(NAME, plan, job_for(plan, "allenai/Olmo-3-7B-Instruct"))
    facts = {"model": describe_model(load_model("allenai/Olmo-3-7B-Instruct")), "cluster": {}}
    refused = limit_refusals(load_framework(NAME), plan, facts)
    assert "ms-swift.unregistered-models" in [reason.rule for reason in refused]


def test_adapters_of_deepseek_under_megatron_sit_on_its_latent_attention() -> None:
    plan = plan_for(NAME, **MEGATRON, lora_targets=("attention",))
    found = written(NAME, plan, job_for(plan, "deepseek-ai/DeepSeek-R1-0528"))
    assert "self_attention.linear_kv_down_proj" in found["target_modules"]
    assert "self_attention.linear_qkv" not in found["target_modules"]


def test_adapters_on_experts_name_the_fused_parameters() -> None:
    plan = plan_for(NAME, lora_targets=("experts",))
    found = written(NAME, plan, job_for(plan, "Qwen/Qwen3-30B-A3B"))
    assert found["target_parameters"] == ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    assert found["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]


def test_a_tracker_that_megatron_lacks_is_refused() -> None:
    plan = plan_for(NAME, **MEGATRON)
    assert written(NAME, plan, job_for(plan, tracker="wandb"))["wandb_exp_name"] == "run"
    with pytest.raises(InputError):
        rendered(NAME, plan, job_for(plan, tracker="mlflow"))


def test_an_adapter_to_go_on_with_is_the_reference_too() -> None:
    plan = plan_for(NAME, method="dpo")
    found = written(NAME, plan, job_for(plan, adapter="sft/adapter"))
    assert found["adapters"] == found["ref_adapters"] == ["sft/adapter"]


@pytest.mark.parametrize(
    ("format", "extra", "expected"),
    [
        ("text", {}, {"text": "response"}),
        ("text", {"columns": ("document",), "mapping": {"text": "document"}}, {"document": "response"}),
        ("preference", {}, {"prompt": "query", "chosen": "response", "rejected": "rejected_response"}),
        ("preference-messages", {"local": False}, {"chosen": "messages", "rejected": "rejected_messages"}),
        ("messages", {}, {}),
        (
            "messages",
            {"columns": ("dialogue",), "mapping": {"messages": "dialogue"}},
            {"dialogue": "messages"},
        ),
        (
            "alpaca",
            {"columns": ("instruction", "context"), "mapping": {"input": "context"}},
            {"context": "input"},
        ),
    ],
)
def test_columns_are_mapped(format: str, extra: dict[str, Any], expected: dict[str, str]) -> None:
    plan = plan_for(NAME)
    local = extra.get("local", True)
    found = columns(plan, job_for(plan, data_format=format, data_local=local, data_extra=extra))
    assert (found if isinstance(found, dict) else {}) == expected


USER, GOOD, BAD = (
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A"},
    {"role": "assistant", "content": "B"},
)


@pytest.mark.parametrize(
    ("format", "row", "expected"),
    [
        ("prompt-completion", {"prompt": "Q", "completion": "A"}, {"messages": [USER, GOOD]}),
        ("kto", {"prompt": "Q", "completion": "A", "label": True}, {"messages": [USER, GOOD], "label": True}),
        (
            "preference-messages",
            {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
            {"messages": [USER, GOOD], "rejected_messages": [USER, BAD]},
        ),
        (
            "rl-prompts",
            {"prompt": [USER], "solution": "A", "level": 3},
            {"messages": [USER], "solution": "A", "level": 3},
        ),
        ("alpaca", {"instruction": "Q", "output": "A"}, {"instruction": "Q", "output": "A"}),
    ],
)
def test_rows_are_spelled_as_ms_swift_reads_them(
    format: str, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert spell(row, format) == expected
