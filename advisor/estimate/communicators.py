"""NCCL's own memory, which no counter of PyTorch's sees: how many communicators a run makes, and how many GPUs each
of its ranks sends to directly.

PyTorch makes one communicator per process group at its first collective. Buffers of a connection between two GPUs of
a node, per channel: 4 MiB (Simple), 4.7 MiB (LL128) and 0.5 MiB (LL) to receive into and one page to send from,
10 and 2 MiB once rounded (NVIDIA/nccl v2.30.7, src/init.cc:810, src/transport/p2p.cc:407, :486). Collectives connect
neighbours of rings and trees; an all-to-all or a pipeline's send and receive connect every pair that talks, by as many
channels as reach NVLink's bandwidth (src/graph/paths.cc:937, :980).
"""

from __future__ import annotations

from advisor.plan import Plan

NVLINK_CHANNELS, NETWORK_CHANNELS, PCIE_CHANNELS = 32, 4, 2
"""Channels per peer: of a group inside a node over NVLink (A100 and H100: 2 x 12 or 2 x 17 links, rounded up to a power
of two, 32 at most), of a group that spans nodes, over PCIe."""


def communicator_count(plan: Plan, routed: bool) -> int:
    """Process groups of more than one rank that a training step uses.

    Megatron (megatron-core 0.16.1, parallel_state.py:545-1350): all ranks twice (barriers; the gradient norm of the
    distributed optimizer), tensor, data with context, context, pipeline, and model (tensor x pipeline, whose figures
    are logged) ranks; with experts the expert, the expert-tensor, both together (token counts) and the
    expert-data ranks. Others: all ranks, and each way in which they are split.
    """
    world, tensor, pipeline = plan.world_size, plan.tensor_parallel, plan.pipeline_parallel
    context, expert, sliced = plan.context_parallel, plan.expert_parallel, plan.expert_tensor_parallel
    if plan.backend != "megatron":
        split = (plan.fsdp_replicas, tensor, pipeline, context, expert)
        return (world > 1) + sum(ranks > 1 for ranks in split)
    sizes = [world, world, tensor, world // (tensor * pipeline), context, pipeline, tensor * pipeline]
    if routed:
        sizes += [expert, sliced, expert * sliced, world // (expert * sliced * pipeline)]
    return sum(ranks > 1 for ranks in sizes)


def direct_peers(plan: Plan, routed: bool, nvlink: bool) -> float:
    """GPUs that a rank of a Megatron plan sends to directly, each counted as a whole where it is reached over NVLink
    by all channels, less where fewer channels reach it: experts of an all-to-all, the neighbour of the first or last
    pipeline stage (stages between have two and hold less), and that of context parallelism's ring. Peers on other
    nodes share one buffer, which is left out."""
    if plan.backend != "megatron":
        return 0.0
    node, sliced = plan.gpus_per_node, plan.expert_tensor_parallel
    found = 0.0
    groups = [
        (plan.context_parallel, plan.tensor_parallel, 1),
        (plan.pipeline_parallel, plan.world_size // plan.pipeline_parallel, 1),
    ]
    if routed:
        groups.append((plan.expert_parallel, sliced, plan.expert_parallel - 1))
    for ranks, stride, most in groups:
        inside = min(ranks, max(node // stride, 1))
        channels = NETWORK_CHANNELS if inside < ranks else NVLINK_CHANNELS if nvlink else PCIE_CHANNELS
        found += min(most, inside - 1) * channels / NVLINK_CHANNELS
    return found
