"""Routed experts that rest in host memory and are computed there (`offload: experts`): bytes and seconds.

A token's hidden state goes to the processor and what its experts make of it comes back; their weights never move.
One process of a machine holds them and computes the tokens of all ranks.
Source: kt-kernel==0.7.0 (kt_kernel/sft/wrapper.py, layer.py, lora.py, base.py).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from advisor.estimate.model_sums import ModelSums
from advisor.estimate.parameters import trainable_parameters
from advisor.estimate.speed import GIGA, Rates
from advisor.plan import Plan

ADAPTER_BYTES = 8.0
"""Per parameter of an adapter on a routed expert: bf16 weight 2, gradient 2, and both moments of AdamW, which take
the type of the weight, 4 (kt_kernel/sft/lora.py:_create_fused_expert_lora_buffers)."""
BACKWARD_FORWARDS = 5 / 3
"""Products of an expert's backward over those of its forward: 10 against 6 for each token, as its authors count
(kvcache-ai/ktransformers@95009ea685 doc/en/SFT/KTransformers-Fine-Tuning_Developer-Technical-Notes.md)."""
GATHERED_COPIES = 4.0
"""Hidden states of all ranks on the one that hands them over: the pieces, their concatenation, and both again on
the way back (kt_kernel/sft/layer.py)."""


def experts_away(plan: Plan) -> bool:
    return plan.offload == "experts"


@lru_cache(maxsize=512)
def _without_experts(sums: ModelSums) -> ModelSums:
    largest = sums.largest_but_experts
    return replace(
        sums, expert_per_layer=0.0, expert_ffn=0, top_k=0, largest_parameter=largest, largest_module=largest
    )


def on_gpus(sums: ModelSums, plan: Plan) -> ModelSums:
    """What a GPU holds and computes: the model, without the routed experts when they are elsewhere."""
    return _without_experts(sums) if experts_away(plan) else sums


def _tokens(plan: Plan) -> float:
    """Of all ranks of the machine, which are computed together."""
    return float(plan.micro_batch_size * plan.seq_len * plan.gpus_per_node)


def gathered_bytes(sums: ModelSums, plan: Plan) -> float:
    """On the GPU of the process that holds the experts; of a single GPU what comes back alone."""
    hidden = 2.0 * sums.hidden * _tokens(plan)
    return hidden * (GATHERED_COPIES if plan.gpus_per_node > 1 else 1.0)


def host_expert_bytes(sums: ModelSums, plan: Plan) -> tuple[float, float]:
    """(resident, working) bytes of a node: the experts in bf16 with their adapters; and one layer's second copy,
    unpacked while loading or repacked for the backward, with what one layer keeps for it (recomputed layer by
    layer: inputs and outputs 2h, gate, up, activation and product 4m in bf16 for each token and its experts)."""
    experts = 2.0 * sums.expert_per_layer * sums.moe_layers
    adapters = ADAPTER_BYTES * trainable_parameters(sums, plan)[1] if plan.uses_adapter else 0.0
    layer = 2.0 * sums.expert_per_layer
    kept = 2.0 * _tokens(plan) * sums.top_k * (2.0 * sums.hidden + 4.0 * sums.expert_ffn)
    return experts + adapters, layer + kept


def host_expert_seconds(sums: ModelSums, plan: Plan, r: Rates, tokens: float) -> float:
    """Seconds a micro batch of `tokens` tokens a rank waits for the processor.

    passes x (2 x active expert parameters x tokens / rate + bytes of the experts that any token chose / bandwidth)
    + hidden states both ways over PCIe. Ignores that a shared expert runs on the GPU meanwhile, and how many
    processors there are: both rates are of one kind of machine.
    """
    if not sums.moe_layers:
        return 0.0
    c = r.constants
    again = 1.0 if plan.gradient_checkpointing else 0.0
    total = sums.expert_per_layer * sums.moe_layers
    share = sums.top_k / sums.experts
    everywhere = tokens * plan.gpus_per_node
    chosen = 1.0 - (1.0 - share) ** everywhere
    products = 2.0 * total * share * everywhere * (1.0 + again + BACKWARD_FORWARDS)
    reads = 2.0 * total * chosen * (2.0 + again)
    moved = 2.0 * 2.0 * tokens * sums.hidden * sums.moe_layers * (2.0 + again)
    return (
        products / (c.host_expert_tflops * 1e12) + reads / (c.host_gb_s * GIGA) + moved / (c.pcie_gb_s * GIGA)
    )
