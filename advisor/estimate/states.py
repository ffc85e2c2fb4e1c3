"""Bytes per parameter of weights, gradients and optimizer, and how parallelism slices them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from advisor.plan import LOW_RANK_OPTIMIZERS, Plan

NF4_BYTES = 0.5 + 1 / 64
"""4-bit with double-quantised scales: half a byte and about 1/64 (QLoRA, block 64)."""
INT8_BYTES = 1.0 + 1 / 1024
"""LLM.int8: one byte and a row scale."""
ADAM_8BIT_BYTES = 2.03
"""Two 8-bit moments with fp32 block maxima (block 256)."""
ADAFACTOR_BYTES = 0.02
"""Factored second moment: a row and a column sum per matrix; assumed, below 0.05 for every known model."""
FP8_COPY_BYTES = 2.0
"""fp8 weight and its transpose beside the bf16 weight; published Qwen3-14B TP4: bf16 52, fp8 58 GiB."""
MEGATRON_WEIGHT, MEGATRON_GRADIENT, MEGATRON_SHARDED = 2.0, 4.0, 12.0
"""Megatron-LM's distributed optimizer: bf16 weight 2 + fp32 gradient 4 + (master 4 + Adam 8) / dp."""


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes per trainable parameter before sharding; `frozen` per frozen 16-bit parameter."""

    frozen: float
    weight: float
    gradient: float
    optimizer: float
    """Moments and fp32 master copy."""
    step: float
    """Temporaries of the optimizer step, per trainable parameter of the rank."""
    autocast: float
    """16-bit copies of fp32 weights alive in forward."""
    paged: float
    """Moments in paged memory: they rest in host memory and visit the GPU at the step."""


def moment_bytes(optimizer: str, state: float) -> float:
    """Moments per parameter; `state` is the size of one full moment (2 or 4 bytes). Of a low-rank optimizer none: what
    it keeps hangs on the shapes of the matrices (low_rank.py)."""
    if optimizer == "adamw_8bit":
        return ADAM_8BIT_BYTES
    if optimizer == "adafactor":
        return ADAFACTOR_BYTES
    if optimizer == "muon":
        return state
    return 0.0 if optimizer in ("paged_adamw_8bit", *LOW_RANK_OPTIMIZERS) else 2 * state


@lru_cache(maxsize=512)
def _state_bytes(
    backend: str, precision: str, param_dtype: str, master: bool, optimizer: str, deepspeed: bool, fsdp: bool
) -> StateBytes:
    full = precision == "fp32"
    frozen = 4.0 if full else 2.0
    paged = ADAM_8BIT_BYTES if optimizer == "paged_adamw_8bit" else 0.0
    if backend == "megatron":
        weight = frozen + (FP8_COPY_BYTES if precision == "fp8" else 0.0)
        own_master = 0.0 if full else 4.0
        sharded = own_master + moment_bytes(optimizer, 4.0)
        return StateBytes(frozen, weight, MEGATRON_GRADIENT, sharded, 0.0, 0.0, paged)
    single = full or param_dtype == "fp32"
    if deepspeed and not full:
        return StateBytes(2.0, 2.0, 2.0, 4.0 + moment_bytes(optimizer, 4.0), 4.0, 0.0, paged)
    weight = 4.0 if single else 2.0
    state = 4.0 if single or master else 2.0
    held = moment_bytes(optimizer, state) + (4.0 if master and not single else 0.0)
    step = state if optimizer == "adamw_foreach" else 0.0
    cast = 2.0 if single and not full and not fsdp and precision != "bf16-pure" else 0.0
    return StateBytes(frozen, weight, weight, held, step, cast, paged)


def state_bytes(plan: Plan) -> StateBytes:
    """Bytes per parameter.

    pure bf16 AdamW 2 + 2 + 4 = 8; bf16 with fp32 master 2 + 2 + 12 = 16; fp32 weights under autocast
    4 + 4 + 8 = 16 and a 16-bit copy in forward; FSDP mixed 16 / N; DeepSpeed always holds an fp32 master:
    2 + 2 + 12 and an fp32 gradient copy at the step; Megatron 6 + 12 / dp. foreach AdamW makes one more
    state-sized copy of all trainable parameters. Source: PyTorch, DeepSpeed, Megatron-LM sources.
    """
    deepspeed = plan.backend == "hf" and plan.zero_stage > 0 and not plan.fsdp
    return _state_bytes(
        plan.backend,
        plan.precision,
        plan.param_dtype,
        plan.master_weights,
        plan.optimizer,
        deepspeed,
        plan.fsdp,
    )


@dataclass(frozen=True, slots=True)
class Shards:
    """Ranks each kind of state is divided over, for dense and for routed-expert parameters."""

    data: int
    expert_data: int
    weight: int
    gradient: int
    optimizer: int
    expert_weight: int
    expert_gradient: int
    expert_optimizer: int


@lru_cache(maxsize=4096)
def _shards(
    backend: str,
    world: int,
    tensor: int,
    pipeline: int,
    expert: int,
    expert_tensor: int,
    stage: int,
    replicas: int,
) -> Shards:
    data = max(1, world // (tensor * pipeline * replicas))
    experts = max(1, world // (expert_tensor * expert * pipeline * replicas))
    if backend == "megatron":
        return Shards(data, experts, 1, 1, data, 1, 1, experts)
    if stage == 0:
        return Shards(data, experts, 1, 1, 1, 1, 1, 1)
    weight = data if stage >= 3 else 1
    gradient = data if stage >= 2 else 1
    expert_weight = experts if stage >= 3 else 1
    expert_gradient = experts if stage >= 2 else 1
    return Shards(data, experts, weight, gradient, data, expert_weight, expert_gradient, experts)


def sharding_stage(plan: Plan) -> int:
    """FSDP counts as stage 3."""
    return 3 if plan.fsdp else plan.zero_stage


def shards(plan: Plan) -> Shards:
    """Dense states are sharded over data x context parallel ranks (world / (TP x PP)), expert states over
    world / (ETP x EP x PP): Megatron folds the two grids separately. Without Megatron an expert is sliced
    by ETP only when asked to. Hybrid sharding divides both by its replicas."""
    return _shards(
        plan.backend,
        plan.nodes * plan.gpus_per_node,
        plan.tensor_parallel,
        plan.pipeline_parallel,
        plan.expert_parallel,
        plan.expert_tensor_parallel,
        sharding_stage(plan),
        plan.fsdp_replicas,
    )
