"""Seconds of communication, offload and the optimizer step that compute does not hide."""

from __future__ import annotations

from advisor.estimate.host_experts import experts_away
from advisor.estimate.model_sums import ModelSums
from advisor.estimate.parameters import trainable_parameters
from advisor.estimate.speed import GIGA, Rates, exchange_seconds, link_bytes
from advisor.estimate.states import sharding_stage, state_bytes
from advisor.estimate.work import recomputes
from advisor.facts.software import Software
from advisor.facts.types import ClusterFacts
from advisor.plan import Plan


def layer_communication(
    sums: ModelSums,
    plan: Plan,
    cluster: ClusterFacts,
    r: Rates,
    tokens: float,
    software: Software,
    training: bool = True,
) -> float:
    """Exposed seconds per micro batch of tensor, expert, context and pipeline parallelism on one rank.

    Ring collectives move (n - 1) / n of the data. Tensor parallel: 2 all-reduces of tokens x hidden x 2 bytes
    per layer and pass (forward, backward, recomputation). Expert parallel: dispatch and combine of tokens x
    top-k x hidden x 2 bytes per layer and pass; the ranks that slice an expert gather each other's copies before it
    and reduce-scatter after it. Pipeline: one hop each way, for each model chunk of a rank.
    """
    c = r.constants
    passes = (3.0 if recomputes(plan) else 2.0) if training else 1.0
    tensor, layers = plan.tensor_parallel, sums.layers / plan.pipeline_parallel
    hidden = 2.0 * tokens * sums.hidden
    seconds = 0.0
    if tensor > 1:
        moved = 2 * passes * layers * 2 * (tensor - 1) / tensor * hidden
        seconds += c.exposed_tensor * moved / link_bytes(cluster, tensor)
    expert, slices = plan.expert_parallel, plan.expert_tensor_parallel
    if expert * slices > 1 and sums.moe_layers:
        moved = 2 * passes * sums.moe_layers / plan.pipeline_parallel / tensor * hidden
        if expert > 1:
            once = software.dispatch_once
            seconds += exchange_seconds(cluster, expert, moved, sums.top_k, once, slices)
        if slices > 1:
            gathered = moved * sums.top_k * (slices - 1)
            seconds += c.exposed_tensor * gathered / link_bytes(cluster, slices)
    context = plan.context_parallel
    if context > 1:
        moved = passes * layers * (context - 1) * 4.0 * tokens * sums.key_value / tensor
        seconds += c.exposed_context * moved / link_bytes(cluster, context, tensor)
    stages = plan.pipeline_parallel
    if stages > 1:
        hops = 2 * plan.virtual_pipeline_parallel
        stride = plan.world_size // stages
        seconds += c.exposed_context * hops * hidden / tensor / link_bytes(cluster, 2, stride)
    return seconds


def gather_seconds(sums: ModelSums, plan: Plan, cluster: ClusterFacts, training: bool = True) -> float:
    """Seconds that stage 3 communicates per micro batch, hidden or not: the weights for the forward and again
    for the backward, and the gradients of what trains.

    DeepSpeed gathers once more for a recomputed forward. The experts of an expert-parallel rank are its own. Hybrid
    sharding does all of this inside a group and all-reduces the shards of the gradients between the groups; over the
    network both go on at the same time, because the group has the links of its node.
    """
    data = plan.shard_group
    if sharding_stage(plan) < 3 or plan.backend != "hf" or data <= 1:
        return 0.0
    experts = sums.expert_per_layer * sums.moe_layers
    held = (sums.total - experts) / plan.tensor_parallel
    held += 0.0 if experts_away(plan) else experts / plan.expert_parallel
    width = 2.0 if plan.quantization == "none" else 0.6
    gathers = 1.0
    if training:
        gathers = 2.0 if plan.fsdp or not recomputes(plan) else 3.0
    moved = gathers * width * held
    reduced = _reduced_bytes(plan, held) if training else 0.0
    inside = (moved + reduced) * (data - 1) / data / link_bytes(cluster, data, plan.tensor_parallel)
    if plan.fsdp_replicas == 1 or not training:
        return inside
    trained = reduced or _adapter_bytes(sums, plan)
    between = _between_groups(plan, cluster, trained / data)
    apart = data * plan.tensor_parallel <= cluster.gpus_per_node < plan.world_size
    return max(inside, between) if apart else inside + between


def _reduced_bytes(plan: Plan, held: float) -> float:
    """Gradients of all weights in the type in which they are reduced; those of adapters and of a few layers are
    left out."""
    if plan.tuning != "full":
        return 0.0
    return 4.0 * held if plan.param_dtype == "fp32" and plan.fsdp else 2.0 * held


def _adapter_bytes(sums: ModelSums, plan: Plan) -> float:
    """fp32 gradients of what trains when not all weights do."""
    return 4.0 * sum(trainable_parameters(sums, plan)) / plan.tensor_parallel


def _between_groups(plan: Plan, cluster: ClusterFacts, shard_bytes: float) -> float:
    """Ring all-reduce of a rank's shard of the gradients with the ranks that hold the same shard."""
    copies = plan.fsdp_replicas
    moved = 2.0 * (copies - 1) / copies * shard_bytes
    return moved / link_bytes(cluster, copies, plan.shard_group * plan.tensor_parallel)


def input_copies(sums: ModelSums, plan: Plan, r: Rates, tokens: float, busy: float, passes: float) -> float:
    """Seconds per micro batch that layer inputs take to the host and back beyond the compute they run beside: forward
    is one of `passes`, recomputation and backward the others. tokens x hidden x 2 bytes a layer each way; fp32 inputs
    travel in 16 bit. Ignores that copies out of memory that is not pinned run beside nothing."""
    if not plan.activation_offload:
        return 0.0
    copied = 2.0 * tokens * sums.hidden * max(sums.layers - 1, 0) / (r.constants.pcie_gb_s * GIGA)
    share = busy / max(passes, 1.0)
    return max(copied - share, 0.0) + max(copied - (busy - share), 0.0)


def exposed_gathers(gather: float, compute: float, r: Rates) -> float:
    """What of `gather` seconds shows beside `compute` seconds: a fixed share, and all that compute is too short
    to hide."""
    c = r.constants
    return max(c.exposed_stage3 * gather, gather - c.hidden_stage3 * compute)


def _reduction(plan: Plan, cluster: ClusterFacts, local: float, data: int) -> float:
    """Seconds of the gradient all-reduce (or reduction and gathering of weights) once per step, hidden or not:
    2 x 2 to 4 bytes per trainable parameter."""
    if data <= 1 or (sharding_stage(plan) >= 3 and plan.backend == "hf"):
        return 0.0
    width = 3.0 if plan.backend == "megatron" else (4.0 if plan.param_dtype == "fp32" else 2.0)
    moved = 2.0 * width * local * (data - 1) / data
    return moved / link_bytes(cluster, data, plan.tensor_parallel * plan.context_parallel)


def _parked_seconds(sums: ModelSums, plan: Plan, owned: float, pcie: float) -> float:
    """Of a training state that waits on the host while the engine generates: optimizer states to the GPU and back
    once a step, weights once for each phase that needs them. Gradient buffers are freed, not moved.

    verl loads and offloads weights around the log-probabilities, around the update and around the weight sync, the
    optimizer around the update alone (verl==0.9.1:verl/workers/engine/base.py:314, engine_workers.py:811). ms-swift
    moves both once, around the generation (ms-swift==4.6.0:swift/rlhf_trainers/grpo_trainer.py:1843), so that its
    weights travel less than counted here.
    """
    if not plan.rollout_offload:
        return 0.0
    experts = sums.expert_per_layer * sums.moe_layers
    dense = (sums.total - experts) / plan.tensor_parallel
    held = (dense + experts / (plan.expert_parallel * plan.expert_tensor_parallel)) / plan.pipeline_parallel
    if plan.backend == "hf" and sharding_stage(plan) >= 3:
        held = sums.total * plan.fsdp_replicas / plan.world_size
    each = state_bytes(plan)
    weights = (each.weight if plan.tuning == "full" else each.frozen) * held
    states = each.optimizer * owned if plan.offload == "none" else 0.0
    return 2.0 * (PARKED_PHASES * weights + states) / pcie


PARKED_PHASES = 3
"""Log-probabilities, update and weight sync."""


def step_parts(
    sums: ModelSums, plan: Plan, cluster: ClusterFacts, r: Rates, busy: float
) -> tuple[float, float, float]:
    """(gradient reduction, offload, optimizer) seconds per optimizer step; `busy`: compute of one micro batch, the
    last of which the reduction runs beside."""
    c = r.constants
    dense, experts = trainable_parameters(sums, plan)
    replicas = max(plan.data_parallel, 1) * plan.context_parallel
    model_ranks = plan.tensor_parallel * plan.pipeline_parallel
    expert_ranks = plan.expert_parallel * plan.expert_tensor_parallel * plan.pipeline_parallel
    stepped_on_host = 0
    if experts_away(plan):
        stepped_on_host, experts = experts, 0
    local = dense / model_ranks + experts / expert_ranks
    sharded = (sharding_stage(plan) > 0 or plan.backend == "megatron") and replicas > 1
    owned = (dense + experts) * plan.fsdp_replicas / plan.world_size if sharded else local
    reduction = exposed_gathers(_reduction(plan, cluster, local, replicas), busy, r)
    pcie = c.pcie_gb_s * GIGA
    parked = _parked_seconds(sums, plan, owned, pcie)
    if plan.offload in ("none", "experts"):
        parked += stepped_on_host / c.cpu_adam_per_second
        return reduction, parked, c.step_bytes * owned / r.memory
    node = owned * plan.gpus_per_node
    away = parked + 6.0 * owned / pcie + node / c.cpu_adam_per_second
    if plan.offload == "nvme":
        away += 24.0 * node / (c.nvme_gb_s * GIGA)
    if plan.offload in ("all", "nvme"):
        gathers = 3.0 if recomputes(plan) else 2.0
        held = 2.0 * sums.total * plan.fsdp_replicas / plan.world_size * plan.gradient_accumulation_steps
        away += gathers * held / pcie
    return reduction, away, 0.0
