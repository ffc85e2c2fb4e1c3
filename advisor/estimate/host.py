"""Host memory and disk per node: what offload moves there, what loading the weights takes, and what saving takes."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.estimate.host_experts import experts_away, host_expert_bytes
from advisor.estimate.rollout import GIB, frozen_copies
from advisor.estimate.saving import host_bytes
from advisor.estimate.stage import Setting, StageParts
from advisor.facts.saving import Saving

PROCESS_GIB = 3.0
"""One training process: Python, PyTorch, CUDA libraries, data loading. Assumed; 2 to 4 GiB is usual."""
SHARD_GIB = 5.0
"""One checkpoint file held while its tensors are copied to the GPU (hub shards are about 5 GB)."""
NVME_HOST_SHARE = 0.1
"""Pinned buffers of DeepSpeed's NVMe offload, as a share of what it swaps. Assumed."""


def offloaded_bytes(s: Setting, p: StageParts) -> float:
    """Bytes one GPU of a stage puts elsewhere: states (and the fp32 gradients DeepSpeed and FSDP step with),
    weights too under `all` and `nvme`."""
    plan = s.plan
    paged = p.trainable * s.states.paged
    parked = _parked_bytes(s, p) if plan.rollout_offload else 0.0
    if not s.states_away:
        return paged + parked
    moved = p.optimizer + paged + parked
    if plan.backend == "hf":
        moved += p.trainable * 4.0
    if s.weights_away:
        moved += p.weights
    return moved


def _parked_bytes(s: Setting, p: StageParts) -> float:
    """What one GPU hands to its host while the engine generates: weights, reference, and the optimizer states
    that are not there anyway. Gradients are dropped, not kept."""
    states = 0.0 if s.states_away else p.optimizer
    return p.weights + states + frozen_copies(s.plan) * p.base_weights


@dataclass(frozen=True, slots=True)
class NodeNeeds:
    """GiB of one node."""

    host: float
    nvme: float
    parts: dict[str, float]
    """Of the host: `processes` and `resting` are always there; of `offloading`, `loading` and `computing` the largest
    counts, with what `saving` adds to what is offloaded."""


def node_needs(s: Setting, p: StageParts, way: Saving) -> NodeNeeds:
    """Host memory and NVMe of a node.

    Host = processes + experts that rest there + the largest of what loading takes, of what else is offloaded with what
    saving takes, and of what computing experts takes: FSDP reads the whole model on one rank, the others stream one
    checkpoint file per process. Ignores the page cache.
    """
    plan = s.plan
    local = plan.gpus_per_node
    moved = offloaded_bytes(s, p) * local / GIB
    resident, working = host_expert_bytes(s.whole, plan) if experts_away(plan) else (0.0, 0.0)
    model = (2.0 * s.sums.total - 2.0 * _experts(s)) / GIB
    shard = min(SHARD_GIB, model) * local
    loading = model + SHARD_GIB if plan.fsdp else shard
    saving = host_bytes(s, way) / GIB
    disk = 0.0
    if plan.offload == "nvme":
        disk, moved = moved, moved * NVME_HOST_SHARE
    moved += p.inputs_away * local / GIB
    parts = {
        "processes": PROCESS_GIB * local,
        "resting": resident / GIB,
        "offloading": moved,
        "loading": loading,
        "saving": saving,
        "computing": working / GIB,
    }
    peak = max(moved + saving, loading, working / GIB)
    return NodeNeeds(PROCESS_GIB * local + resident / GIB + peak, disk, parts)


def _experts(s: Setting) -> float:
    """Parameters of routed experts that are read into host memory to stay there."""
    return s.whole.expert_per_layer * s.whole.moe_layers if experts_away(s.plan) else 0.0
