"""How many parameters there are, are active, and train."""

from __future__ import annotations

from functools import lru_cache

from advisor.estimate.model_sums import ModelSums, model_sums
from advisor.estimate.types import ParameterCounts
from advisor.facts.models import lora_parameters
from advisor.facts.types import ModelFacts
from advisor.plan import Plan


@lru_cache(maxsize=1024)
def adapter_parameters(sums: ModelSums, targets: tuple[str, ...], rank: int) -> tuple[int, int]:
    """(on dense weights, on routed experts) of a LoRA."""
    total = lora_parameters(sums.model, targets, rank)
    if "experts" not in targets:
        return total, 0
    rest = tuple(name for name in targets if name != "experts")
    dense = lora_parameters(sums.model, ("attention", *rest), rank)
    return dense, total - dense


def trainable_parameters(sums: ModelSums, plan: Plan) -> tuple[int, int]:
    """(dense, routed experts): everything; the last layers (`freeze`); or the adapters. DoRA adds a
    magnitude per output feature, below 1 % of the adapter, which is ignored. Experts that the processor computes
    have gate, up and down apart, each with an adapter of its own (kt_kernel/sft/lora.py)."""
    experts = int(sums.expert_per_layer * sums.moe_layers)
    if plan.tuning == "full":
        return sums.total - experts, experts
    if plan.tuning == "freeze":
        count = min(plan.freeze_trainable_layers, sums.layers)
        dense_layers = sums.dense_in(sums.layers - count, count)
        routed = (count - dense_layers) * sums.expert_per_layer
        rest = count * (sums.attention_per_layer + sums.replicated_per_layer)
        rest += dense_layers * sums.mlp_per_layer
        rest += (count - dense_layers) * (sums.shared_per_layer + sums.router_per_layer)
        return int(rest), int(routed)
    dense, routed = adapter_parameters(sums, plan.lora_targets, plan.lora_rank)
    if plan.offload == "experts" and routed:
        routed = plan.lora_rank * 3 * (sums.hidden + sums.expert_ffn) * sums.experts * sums.moe_layers
    return dense, routed


def count_parameters(model: ModelFacts, plan: Plan) -> ParameterCounts:
    """Total and active parameters of the model and those the plan trains."""
    dense, experts = trainable_parameters(model_sums(model), plan)
    return ParameterCounts(model.total_parameters, model.active_parameters, dense + experts)
