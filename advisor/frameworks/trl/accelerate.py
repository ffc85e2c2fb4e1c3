"""Plan field <-> key of accelerate.yaml: how many processes, and what they shard."""

from __future__ import annotations

from advisor.frameworks.shared import mesh_rows
from advisor.frameworks.table import (
    ABSENT,
    REPO,
    Case,
    Choice,
    Const,
    Derived,
    Key,
    Row,
    mapped,
)
from advisor.plan import Plan


def _fsdp(plan: Plan) -> bool:
    return plan.fsdp


def _deepspeed(plan: Plan) -> bool:
    return plan.zero_stage > 0 and not plan.fsdp


def _several_nodes(plan: Plan) -> bool:
    return plan.nodes > 1


ACCELERATE_ROWS: tuple[Row, ...] = (
    Const("compute_environment", "LOCAL_MACHINE", "", document="accelerate"),
    Derived("distributed_type", lambda p, j: _distributed_type(p), "", document="accelerate"),
    Derived(
        "mixed_precision",
        lambda p, j: {"bf16": "bf16", "fp16": "fp16"}.get(p.precision, "no"),
        "as in train.yaml",
        document="accelerate",
    ),
    Key("nodes", "num_machines", "machines", document="accelerate"),
    Derived(
        "num_processes",
        lambda p, j: p.world_size,
        "one process per GPU, all machines together",
        document="accelerate",
    ),
    Key("gpus_per_node", "gpus_per_node", "", document=REPO),
    Const("machine_rank", 0, "run.sh sets it on every machine", document="accelerate"),
    Const(
        "main_process_ip",
        "127.0.0.1",
        "run.sh sets it: the first node",
        "accelerate",
        when=_several_nodes,
    ),
    Const("main_process_port", 29500, "run.sh sets it", document="accelerate", when=_several_nodes),
    Const("main_training_function", "main", "", document="accelerate"),
    Const("rdzv_backend", "static", "", document="accelerate"),
    Const("same_network", True, "", document="accelerate"),
    Const("use_cpu", False, "", document="accelerate"),
    Choice(
        ("zero_stage",),
        tuple(
            Case(
                (stage,),
                {"accelerate:deepspeed_config.zero_stage": stage if stage else ABSENT},
                "what the ranks shard",
            )
            for stage in (0, 1, 2, 3)
        ),
        when=lambda p: not p.fsdp,
    ),
    Choice(
        ("offload",),
        (
            Case(("none",), {}),
            Case(
                ("optimizer",),
                {
                    "accelerate:deepspeed_config.offload_optimizer_device": "cpu",
                    "accelerate:deepspeed_config.offload_param_device": "none",
                },
                "optimizer states and step in host memory",
            ),
            Case(
                ("all",),
                {
                    "accelerate:deepspeed_config.offload_optimizer_device": "cpu",
                    "accelerate:deepspeed_config.offload_param_device": "cpu",
                },
                "weights too in host memory",
            ),
        ),
        when=lambda p: not p.fsdp,
    ),
    Key(
        "offload",
        "fsdp_config.fsdp_offload_params",
        "weights, gradients and states in host memory",
        document="accelerate",
        codec=mapped({"none": False, "all": True}),
        when=_fsdp,
    ),
    Const(
        "fsdp_config.fsdp_auto_wrap_policy",
        "TRANSFORMER_BASED_WRAP",
        "one unit per decoder layer",
        document="accelerate",
        when=_fsdp,
    ),
    Const(
        "fsdp_config.fsdp_reshard_after_forward",
        True,
        "weights are gathered again in backward",
        document="accelerate",
        when=_fsdp,
    ),
    Const(
        "fsdp_config.fsdp_cpu_ram_efficient_loading",
        True,
        "one rank reads the checkpoint",
        document="accelerate",
        when=_fsdp,
    ),
    Const(
        "fsdp_config.fsdp_state_dict_type",
        "FULL_STATE_DICT",
        "checkpoints are ordinary model files",
        document="accelerate",
        when=_fsdp,
    ),
    Derived(
        "parallelism_config.parallelism_config_cp_size",
        lambda p, j: p.context_parallel if p.context_parallel > 1 else ABSENT,
        "ranks that split the sequence",
        document="accelerate",
    ),
    *mesh_rows(),
    Key("context_parallel", "context_parallel", "", document=REPO),
    Const(
        "deepspeed_config.zero3_init_flag",
        True,
        "weights are sharded while they load",
        document="accelerate",
        when=lambda p: _deepspeed(p) and p.zero_stage == 3,
    ),
    Const(
        "deepspeed_config.zero3_save_16bit_model",
        True,
        "gather the weights when saving",
        document="accelerate",
        when=lambda p: _deepspeed(p) and p.zero_stage == 3,
    ),
    Const(
        "deepspeed_config.deepspeed_multinode_launcher",
        "standard",
        "run.sh starts every machine",
        document="accelerate",
        when=lambda p: _deepspeed(p) and p.nodes > 1,
    ),
)


def _distributed_type(plan: Plan) -> str:
    if plan.fsdp:
        return "FSDP"
    if plan.zero_stage:
        return "DEEPSPEED"
    return "MULTI_GPU" if plan.world_size > 1 else "NO"
