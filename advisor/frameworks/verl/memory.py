"""Precision, memory, parallelism and checkpoints <-> hydra key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from advisor.facts.types import ModelFacts
from advisor.frameworks.table import (
    ABSENT,
    REPO,
    Case,
    Choice,
    Const,
    Derived,
    Job,
    Key,
    Row,
    When,
    always,
)
from advisor.frameworks.verl.places import (
    ACTOR,
    MEMORY,
    MODEL,
    PARALLEL,
    REF,
    SAVE,
    choice,
    critic,
    derived,
    every,
    has_critic,
    is_rl,
    is_sft,
    on_hf,
    on_megatron,
    pair,
)
from advisor.plan import Plan

INPUTS_AWAY = "enable_activation_offload"


def _inputs_away(plan: Plan) -> bool:
    """The key is written only when it is on."""
    return on_hf(plan) and plan.activation_offload


def _ulysses(plan: Plan) -> bool:
    return on_hf(plan) and plan.context_parallel > 1


def _reference(plan: Plan) -> bool:
    """Whether a model of its own is kept as reference; adapters are switched off instead."""
    return plan.online and plan.beta > 0 and not plan.uses_adapter


def _megatron_setting(holds: Callable[[ModelFacts], Any], key: str, value: Any, why: str) -> tuple[Row, ...]:
    """A setting that Megatron needs for models of one kind."""
    name = f"override_transformer_config.{key}"
    return derived(
        f"{ACTOR}.megatron.{name}",
        f"engine.{name}",
        lambda p, j: value if holds(j.model) else ABSENT,
        why,
        PARALLEL,
        on_megatron,
    )


def _logger(plan: Plan, job: Job) -> list[str]:
    return ["console"] if job.tracker == "none" else ["console", job.tracker]


RECOMPUTE = "override_transformer_config.recompute"
PIPELINE = "override_transformer_config.num_layers_in"
HOST_STEP = "override_optimizer_config"

HOST_STEP_KEYS: Mapping[str, Any] = {
    f"{HOST_STEP}.optimizer_cpu_offload": True,
    f"{HOST_STEP}.optimizer_offload_fraction": 1.0,
    f"{HOST_STEP}.overlap_cpu_optimizer_d2h_h2d": True,
    f"{HOST_STEP}.use_precision_aware_optimizer": True,
}

FULL_RECOMPUTE: Mapping[str, Any] = {
    f"{RECOMPUTE}_granularity": "full",
    f"{RECOMPUTE}_method": "uniform",
    f"{RECOMPUTE}_num_layers": 1,
}


def _constant(value: Any) -> Callable[[Plan, Job], Any]:
    return lambda p, j: value


PARKED = ("param_offload", "optimizer_offload")


def _parked(engine: str, when: When) -> tuple[Row, ...]:
    """Whether the training state waits in host memory while the engine generates."""
    keys = [f"{engine}.{key}" for key in PARKED]
    return (
        Choice(
            ("rollout_offload",),
            (
                Case(
                    (True,),
                    dict.fromkeys(keys, True),
                    "weights and states wait in host memory during rollouts",
                ),
                Case(
                    (False,), dict.fromkeys(keys, False), "weights and states stay on the GPU during rollouts"
                ),
            ),
            when=when,
            group=MEMORY,
        ),
    )


MEMORY_ROWS: tuple[Row, ...] = (
    Choice(
        ("backend", "fsdp", "zero_stage"),
        (
            Case(("hf", True, 3), {f"{ACTOR}.strategy": "fsdp2"}, "PyTorch FSDP2"),
            Case(("megatron", False, 1), {"model_engine": "megatron"}, "Megatron-core"),
        ),
        group=MEMORY,
        when=is_rl,
    ),
    Choice(
        ("backend", "fsdp", "zero_stage"),
        (
            Case(("hf", True, 3), {"engine.strategy": "fsdp2"}, "PyTorch FSDP2"),
            Case(("megatron", False, 1), {"engine": "megatron", "optim": "megatron"}, "Megatron-core"),
        ),
        group=MEMORY,
        when=is_sft,
    ),
    critic("strategy", _constant("fsdp2"), MEMORY, on_hf),
    *choice(
        ("precision", "param_dtype", "master_weights"),
        f"{ACTOR}.fsdp_config",
        "engine",
        (
            (("bf16", "fp32", False), {"model_dtype": "fp32"}, "sharded fp32 weights, computed with in bf16"),
            (("bf16", "bf16", False), {"model_dtype": "bfloat16"}, "weights in bf16; verl's default is fp32"),
            (
                ("bf16-pure", "bf16", False),
                {"model_dtype": "bfloat16", "mixed_precision": {"reduce_dtype": "bf16"}},
                "bf16 weights, gradients too are summed in bf16",
            ),
        ),
        MEMORY,
        on_hf,
    ),
    *choice(
        ("precision", "param_dtype", "master_weights"),
        f"{ACTOR}.megatron",
        "engine",
        (
            (
                ("bf16", "bf16", True),
                {"use_distributed_optimizer": True},
                "bf16 weights; fp32 copies and Adam's states are spread over the data-parallel ranks",
            ),
        ),
        MEMORY,
        on_megatron,
    ),
    Const(
        f"{REF}.fsdp_config.model_dtype",
        "bfloat16",
        "the reference only reads",
        when=every(_reference, on_hf),
        group=MEMORY,
    ),
    critic(
        "fsdp.model_dtype",
        lambda p, j: "bfloat16" if p.param_dtype == "bf16" else "fp32",
        MEMORY,
        on_hf,
    ),
    *choice(
        ("offload",),
        f"{ACTOR}.fsdp_config",
        "engine",
        (
            (("none",), {"offload_policy": False}, "everything stays on the GPU"),
            (("all",), {"offload_policy": True}, "weights, gradients and optimizer in host memory"),
        ),
        MEMORY,
        on_hf,
    ),
    critic("fsdp.offload_policy", lambda p, j: p.offload == "all", MEMORY, on_hf),
    *_parked(f"{ACTOR}.fsdp_config", every(is_rl, on_hf)),
    *_parked(f"{ACTOR}.megatron", every(is_rl, on_megatron)),
    *(
        critic(f"{engine}.{key}", lambda p, j: p.rollout_offload, MEMORY, on_it)
        for engine, on_it in (("fsdp", on_hf), ("megatron", on_megatron))
        for key in PARKED
    ),
    Derived(
        f"{REF}.fsdp_config.param_offload",
        lambda p, j: True if p.rollout_offload and _reference(p) and on_hf(p) else ABSENT,
        "the reference too; under Megatron it follows the actor",
        group=MEMORY,
    ),
    *choice(
        ("offload",),
        f"{ACTOR}.optim",
        "optim",
        (
            (("none",), {f"{HOST_STEP}.optimizer_cpu_offload": False}, "everything stays on the GPU"),
            (("optimizer",), HOST_STEP_KEYS, "optimizer states and step in host memory"),
        ),
        MEMORY,
        on_megatron,
    ),
    *(
        critic(
            f"optim.{key}", _constant(value), MEMORY, lambda p: on_megatron(p) and p.offload == "optimizer"
        )
        for key, value in HOST_STEP_KEYS.items()
    ),
    *pair(
        "gradient_checkpointing",
        f"{MODEL}.enable_gradient_checkpointing",
        "model.enable_gradient_checkpointing",
        "recompute activations in backward, or keep them (faster)",
        MEMORY,
        on_hf,
    ),
    critic("model.enable_gradient_checkpointing", lambda p, j: p.gradient_checkpointing, MEMORY, on_hf),
    *(
        Key(
            "activation_offload",
            f"{model}.{INPUTS_AWAY}",
            "the inputs of checkpointed layers wait in host memory",
            when=every(kind, _inputs_away),
            group=MEMORY,
        )
        for model, kind in ((MODEL, is_rl), ("model", is_sft))
    ),
    critic(f"model.{INPUTS_AWAY}", lambda p, j: True if p.activation_offload else ABSENT, MEMORY),
    *choice(
        ("recompute",),
        f"{ACTOR}.megatron",
        "engine",
        (
            (("none",), {f"{RECOMPUTE}_granularity": None}, "keep activations: faster"),
            (("selective",), {f"{RECOMPUTE}_granularity": "selective"}, "recompute the attention core"),
            (("full",), FULL_RECOMPUTE, "recompute every layer in backward"),
        ),
        MEMORY,
        on_megatron,
    ),
    *(
        critic(
            f"megatron.{key}", _constant(value), MEMORY, lambda p: on_megatron(p) and p.recompute == "full"
        )
        for key, value in FULL_RECOMPUTE.items()
    ),
    *choice(
        ("liger",),
        MODEL,
        "model",
        (
            ((True,), {"use_liger": True}, "Liger's fused kernels"),
            ((False,), {"use_liger": False}, "stock modules"),
        ),
        MEMORY,
        on_hf,
    ),
    Choice(
        ("loss",),
        (
            Case(
                ("fused",),
                {f"{MODEL}.use_fused_kernels": True},
                "log-probabilities are computed with the output head",
            ),
            Case(("stock",), {f"{MODEL}.use_fused_kernels": ABSENT}),
        ),
        group=MEMORY,
        when=is_rl,
    ),
)


SHARD_WHY = "GPUs that shard one copy of the weights; the copies all-reduce gradients"


def _ranks_of_a_copy(plan: Plan, job: Job) -> Any:
    """Sharding over all ranks is verl's default."""
    return plan.shard_group if plan.fsdp_replicas > 1 else ABSENT


def _split(field: str, key: str, why: str, when: When = always) -> tuple[Row, ...]:
    """A degree of Megatron's grid; the reference follows the actor by itself, the critic does not."""
    here = every(on_megatron, when)
    return (
        *pair(field, f"{ACTOR}.megatron.{key}", f"engine.{key}", why, PARALLEL, here),
        critic(f"megatron.{key}", lambda p, j: getattr(p, field), PARALLEL, here),
    )


PARALLEL_ROWS: tuple[Row, ...] = (
    # Writes nothing: refuses what FSDP2 cannot slice. Megatron's rows below have their say when read back.
    Choice(
        (
            "tensor_parallel",
            "sequence_parallel",
            "pipeline_parallel",
            "expert_parallel",
            "expert_tensor_parallel",
        ),
        (Case((1, False, 1, 1, 1), {}),),
        when=on_hf,
    ),
    *derived(f"{ACTOR}.fsdp_config.fsdp_size", "engine.fsdp_size", _ranks_of_a_copy, SHARD_WHY, PARALLEL),
    Derived(
        f"{REF}.fsdp_config.fsdp_size",
        lambda p, j: _ranks_of_a_copy(p, j) if _reference(p) else ABSENT,
        "the reference is spread as the actor",
        group=PARALLEL,
    ),
    critic("fsdp.fsdp_size", _ranks_of_a_copy, PARALLEL),
    Key("fsdp_replicas", "fsdp_replicas", "", document=REPO),
    Key("nodes", "trainer.nnodes", "machines", group=PARALLEL),
    Key("gpus_per_node", "trainer.n_gpus_per_node", "GPUs of each", group=PARALLEL),
    *pair(
        "context_parallel",
        f"{ACTOR}.ulysses_sequence_parallel_size",
        "engine.ulysses_sequence_parallel_size",
        "ranks that split the sequence (Ulysses)",
        PARALLEL,
        _ulysses,
    ),
    critic(
        "ulysses_sequence_parallel_size",
        lambda p, j: p.context_parallel,
        PARALLEL,
        _ulysses,
    ),
    *_split("tensor_parallel", "tensor_model_parallel_size", "ranks that slice every matrix"),
    *_split(
        "sequence_parallel", "sequence_parallel", "they split norms and dropout along the sequence as well"
    ),
    *_split("pipeline_parallel", "pipeline_model_parallel_size", "stages the layers are split into"),
    *_split(
        "pipeline_first_layers",
        f"{PIPELINE}_first_pipeline_stage",
        "layers of the first stage",
        lambda p: p.pipeline_first_layers > 0,
    ),
    *_split(
        "pipeline_last_layers",
        f"{PIPELINE}_last_pipeline_stage",
        "layers of the last stage",
        lambda p: p.pipeline_last_layers > 0,
    ),
    *_split(
        "virtual_pipeline_parallel",
        "virtual_pipeline_model_parallel_size",
        "model chunks each rank holds: a shorter bubble",
        lambda p: p.virtual_pipeline_parallel > 1,
    ),
    *_split("expert_parallel", "expert_model_parallel_size", "ranks the experts are spread over"),
    *_split(
        "expert_tensor_parallel",
        "expert_tensor_parallel_size",
        "ranks that slice each expert; left out it would be the tensor-parallel degree",
    ),
    *_split("context_parallel", "context_parallel_size", "ranks that split the sequence"),
    *_megatron_setting(
        lambda m: m.moe,
        "moe_router_dtype",
        "fp32",
        "the router decides in fp32: stable choices",
    ),
    *_megatron_setting(
        lambda m: m.mla,
        "apply_rope_fusion",
        False,
        "the fused kernel does not fit latent attention",
    ),
)

SAVE_ROWS: tuple[Row, ...] = (
    Derived("trainer.default_local_dir", lambda p, j: j.output_dir, "checkpoints", group=SAVE),
    Key("save_steps", "trainer.save_freq", "steps between checkpoints; -1 would save none in RL", group=SAVE),
    *derived(
        "trainer.max_actor_ckpt_to_keep",
        "trainer.max_ckpt_to_keep",
        _constant(2),
        "older checkpoints are deleted",
        SAVE,
    ),
    *derived(
        "trainer.max_critic_ckpt_to_keep", "", _constant(2), "older checkpoints are deleted", SAVE, has_critic
    ),
    Const("trainer.test_freq", -1, "no validation while training", group=SAVE),
    Const("trainer.val_before_train", False, "nor before", group=SAVE, when=is_rl),
    Derived("trainer.logger", _logger, "where numbers go; the default wants a wandb login", group=SAVE),
    Derived("trainer.project_name", lambda p, j: "posttraining", "project in the tracker", group=SAVE),
    Derived("trainer.experiment_name", lambda p, j: j.run_name, "name of the run", group=SAVE),
)
