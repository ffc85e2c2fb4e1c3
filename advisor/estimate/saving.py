"""The moment of saving: what it takes on the host and on a GPU, and what a checkpoint is on disk.

How a framework saves is a fact (`Saving`); sizes follow from the states. Frameworks save weights first and optimizer
states after them, so that the larger of both stands on the host, unless they stage them together.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.estimate.parameters import trainable_parameters
from advisor.estimate.stage import Setting
from advisor.facts.saving import Saving, splits_experts

COPIED_EXPERTS = 2 / 3
"""Of gate, up and down, which are equally large, gate and up are copied where fused experts are cut up."""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of all ranks' states together, each counted once."""

    weights: float
    """The whole model, frozen weights too, in the types they are held in."""
    written: float
    """What trains is part of: the adapter, or the whole model."""
    optimizer: float
    trained: int
    copied: float
    """What cutting up fused experts copies."""
    tied: float
    """The head, where it is the embedding."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Bytes on disk."""

    model: float
    """Model files, or the adapter's."""
    resume: float
    """Weights once more, for resuming."""
    optimizer: float
    """Moments and fp32 masters."""
    final: float
    """The trained model, or adapter, when training is over."""

    @property
    def total(self) -> float:
        return self.model + self.resume + self.optimizer


def weight_bytes(s: Setting) -> float:
    """Per trained parameter, without the copies that fp8 computes with."""
    return s.states.frozen if s.plan.backend == "megatron" else s.states.weight


def held(s: Setting, way: Saving) -> Held:
    """Everything at its resting size; experts that rest on the host are no part of what is gathered."""
    plan, sums = s.plan, s.whole
    trained = sum(trainable_parameters(sums, plan))
    every_expert = sums.expert_per_layer * sums.moe_layers
    experts = 0.0 if plan.offload == "experts" else every_expert
    base = (sums.total - every_expert) * s.dense_bytes + experts * s.expert_bytes
    size = weight_bytes(s)
    optimizer = trained * (s.states.optimizer + s.states.paged)
    tied = 0.0 if sums.head else float(sums.head_matrix)
    if plan.uses_adapter:
        return Held(base + trained * size, trained * size, optimizer, trained, 0.0, tied * s.dense_bytes)
    weights = base + trained * (size - s.dense_bytes)
    cut_up = way.splits_experts and sums.fused_experts and splits_experts(sums.model.model_type)
    copied = COPIED_EXPERTS * experts * size if cut_up else 0.0
    return Held(weights, weights, optimizer, trained, copied, tied * size)


def _files(s: Setting, way: Saving, all_of: Held) -> float:
    """What model files hold."""
    return 4.0 * all_of.trained if way.adapters_fp32 and s.plan.uses_adapter else all_of.written


def host_bytes(s: Setting, way: Saving) -> float:
    """What saving puts into the host memory of the node where most of it lands.

    `file`: min(file, written); `first`: all that is gathered; `ranks`: that on each of the node's GPUs; `shards`: the
    node's share, of HSDP's copies the copy each rank has. What offload keeps there already is not counted twice.
    Ignores the page cache and the few MB of a stream.
    """
    plan, all_of = s.plan, held(s, way)
    local = plan.gpus_per_node
    share = local * plan.fsdp_replicas / plan.world_size
    gathered = all_of.weights if way.gathers_frozen else _files(s, way, all_of)
    if way.unties != "nothing" and (way.gathers_frozen or not plan.uses_adapter):
        gathered += all_of.tied
    weights = {
        "file": min(way.file_gb * 1e9, all_of.written),
        "first": gathered + all_of.copied,
        "ranks": local * gathered + all_of.copied,
        "shards": 0.0 if s.weights_away else share * gathered,
        "stream": 0.0,
    }[way.weights]
    optimizer = {
        "first": all_of.optimizer,
        "shards": 0.0 if s.states_away else share * all_of.optimizer,
        "stream": 0.0,
    }[way.optimizer]
    size = weights + optimizer if way.together else max(weights, optimizer)
    return max(size, 2.0 * s.whole.total) if way.joins and not plan.uses_adapter else size


def gathered_bytes(s: Setting, way: Saving) -> float:
    """What saving puts together on a GPU: one parameter (FSDP2), one module (ZeRO-3: all matrices of a layer's fused
    experts at once), one matrix (Megatron-LM); and the copied halves of experts where the GPU's own weights are cut up.
    """
    size = weight_bytes(s)
    if way.gathers == "module":
        return size * s.sums.largest_module
    if way.gathers == "parameter":
        if s.plan.backend == "megatron":
            return size * s.sums.largest_linear
        only_adapters = s.plan.uses_adapter and not way.gathers_frozen
        return 0.0 if only_adapters else size * s.sums.largest_parameter
    return held(s, way).copied if way.weights == "file" else 0.0


def checkpoint(s: Setting, way: Saving) -> Checkpoint:
    """A checkpoint that training can be resumed from, as this framework writes it.

    AdamW in pure bf16 saved by one process: 2 + 4 bytes a parameter, as gpt-oss-120b's 720 GB in Axolotl's example;
    ZeRO-1 and -2 write 16-bit weights twice, masters and moments: 2 + 2 + 12; ZeRO-3 2 + 12; FSDP2 gathered, in fp32,
    4 + 4 + 8.
    """
    plan, all_of = s.plan, held(s, way)
    untied = 0.0 if plan.uses_adapter else all_of.tied
    files = _files(s, way, all_of) + (untied if way.unties != "nothing" else 0.0)
    resume = {"none": 0.0, "trained": all_of.written, "all": all_of.weights}[way.resume_weights]
    resume += untied if way.unties == "all" else 0.0
    masters = 4.0 * all_of.trained if way.masters and plan.precision == "fp32" else 0.0
    copies = plan.fsdp_replicas if way.resume_weights == "all" else 1
    if way.critic and plan.method == "ppo" and not plan.uses_adapter:
        copies *= 2
    in_16_bit = 2.0 * (all_of.trained if plan.uses_adapter else s.whole.total)
    return Checkpoint(
        model=copies * files if way.model_files else 0.0,
        resume=copies * resume,
        optimizer=copies * (all_of.optimizer + masters),
        final={"files": files, "held": all_of.written, "16bit": in_16_bit}[way.final],
    )
