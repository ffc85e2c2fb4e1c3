"""Seconds of compute of one micro batch: matrix products, attention, memory traffic, launches.

Counted per layer and pass. A training pass is a forward, a backward (twice the matrix work; once when only
adapters train) and, with full recomputation, another forward.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.estimate.model_sums import ModelSums
from advisor.estimate.rollout import REFERENCE_METHODS
from advisor.estimate.speed import Rates
from advisor.estimate.states import sharding_stage
from advisor.facts.software import Software
from advisor.plan import Plan


@dataclass(slots=True)
class Passes:
    """Forward-equivalents of one kind of work per trained token."""

    matrix: float
    attention: float
    head: float
    other: float
    """Memory traffic and launches."""


def recomputes(plan: Plan) -> bool:
    """Whether whole layers run forward again in the backward."""
    return plan.recompute == "full" if plan.backend == "megatron" else plan.gradient_checkpointing


def training_passes(plan: Plan, layers: int, attention_backward: float) -> Passes:
    """Full: 1 forward + 2 backward. Adapters skip the weight gradients: 1 + 1. `freeze` trains the last
    layers only, so the backward ends there. Full recomputation adds a forward of what is differentiated."""
    again = 1.0 if recomputes(plan) else 0.0
    core = 1.0 if plan.backend == "megatron" and plan.recompute == "selective" else again
    if plan.tuning == "freeze":
        share = min(1.0, plan.freeze_trainable_layers / layers)
        rest = 1.0 + share * (2.0 + again)
        return Passes(rest, 1.0 + share * (attention_backward + again), 2.0, rest)
    backward = 1.0 if plan.uses_adapter else 2.0
    return Passes(
        1.0 + backward + again, 1.0 + attention_backward + core, 1.0 + backward, 3.0 + again
    )  # fmt: skip


def extra_forwards(plan: Plan) -> float:
    """Forward passes beside training's: a reference, old log-probabilities, a teacher."""
    extra = 1.0 if plan.method in REFERENCE_METHODS or plan.method == "gkd" else 0.0
    if plan.online:
        extra += 1.0 + (1.0 if plan.beta > 0 and plan.method != "ppo" else 0.0)
    return extra


@dataclass(slots=True)
class Forward:
    """Seconds of one forward on one rank: of an average layer, and of the output head."""

    matrix: float
    attention: float
    traffic: float
    launch: float
    routing: float
    head: float
    logits: float
    """Memory traffic of the loss, forward and backward together."""


def _product(elements: float, tokens: float, width: float, narrow: float, rate: float, few: float) -> float:
    """Seconds of 2 x tokens x elements FLOP at rate x tokens / (tokens + few) x width / (width + narrow).

    `few`: the tokens at which reading the weights takes as long as multiplying. Ignores tile quantization.
    """
    return 2.0 * elements * (tokens + few) * (width + narrow) / (width * rate)


def _matrix(sums: ModelSums, plan: Plan, r: Rates, software: Software, tokens: float) -> float:
    """Mean layer: attention projections, dense or shared MLP, routed experts."""
    c, tensor = r.constants, plan.tensor_parallel
    narrow, few, rate = c.narrow_width, r.few_tokens, r.linear
    held = (sums.attention_per_layer + sums.replicated_per_layer) / tensor
    seconds = _product(held, tokens, max(sums.query, sums.hidden) / tensor, narrow, rate, few)
    if sums.dense_layers:
        share = sums.dense_layers / sums.layers
        mlp = _product(sums.mlp_per_layer / tensor, tokens, sums.ffn / tensor, narrow, rate, few)
        seconds += share * mlp
    if not sums.moe_layers:
        return seconds
    moe = 0.0
    if sums.shared_per_layer:
        moe += _product(
            sums.shared_per_layer / tensor, tokens, sums.shared_ffn / tensor, narrow, rate, few
        )  # fmt: skip
    return seconds + sums.moe_layers / sums.layers * (moe + _experts(sums, plan, r, software, tokens))


def _experts(sums: ModelSums, plan: Plan, r: Rates, software: Software, tokens: float) -> float:
    """Routed experts of one layer: a rank multiplies tokens x top-k / TP token copies, spread over the experts
    it holds; the busiest rank of an expert-parallel group sets the pace."""
    if not sums.top_k:  # they are computed elsewhere
        return 0.0
    c = r.constants
    spread = plan.expert_parallel * plan.expert_tensor_parallel
    copies = tokens * sums.top_k / plan.tensor_parallel
    each = max(copies * spread / sums.experts, 1.0)
    width = sums.expert_ffn / plan.expert_tensor_parallel
    work = sums.expert_per_layer / sums.experts * copies / each
    seconds = _product(work, each, width, c.expert_narrow_width, r.linear, r.few_tokens)
    if plan.backend == "hf" and not software.expert_loop:
        return seconds * (c.moe_hf_gathered_slowdown if _deepspeed3(plan) else c.moe_hf_slowdown)
    even = software.even_routing or plan.expert_parallel == 1
    return seconds * (1.0 if even else c.expert_imbalance)


LINEARS = 7
"""Linears of an ordinary layer: query, key, value, output, gate, up, down."""


def _adapted(plan: Plan) -> float:
    """Share of a layer's linears that carry an adapter."""
    named = {"all-linear": LINEARS, "experts": LINEARS, "attention": 4}
    return min(1.0, sum(named.get(target, 1) for target in plan.lora_targets) / LINEARS)


def _traffic(sums: ModelSums, plan: Plan, r: Rates, tokens: float, fused: bool) -> float:
    """Bytes that norms, RoPE, activations, residuals and routing move, over the memory rate."""
    c, tensor = r.constants, plan.tensor_parallel
    whole = c.fused_hidden_bytes if fused else c.stock_hidden_bytes
    inner = c.fused_ffn_bytes if fused else c.stock_ffn_bytes
    hidden = sums.hidden / (tensor if plan.sequence_parallel else 1)
    moved = whole * hidden
    if sums.dense_layers:
        moved += sums.dense_layers / sums.layers * inner * sums.ffn / tensor
    if sums.moe_layers:
        routed = sums.top_k * (c.permute_bytes * sums.hidden + inner * sums.expert_ffn)
        moved += sums.moe_layers / sums.layers * (routed + inner * sums.shared_ffn) / tensor
    if plan.uses_adapter:
        moved *= 1 + c.adapter_traffic * _adapted(plan)
        moved *= c.dora_traffic if plan.tuning == "dora" else 1.0
    return tokens * moved / r.memory


def _dequantise(sums: ModelSums, plan: Plan, r: Rates) -> float:
    """Mean layer: packed weights written out in 16 bit before each product."""
    if plan.quantization == "none":
        return 0.0
    held = sums.quantizable / sums.layers
    if plan.quantize_experts:
        held += sums.moe_layers / sums.layers * sums.expert_per_layer
    return r.constants.dequantise_bytes * held / r.memory


def _launch(plan: Plan, r: Rates) -> float:
    """Shortest time of a layer's forward, however little it computes."""
    c = r.constants
    fused = plan.compile or plan.backend == "megatron"
    seconds = c.layer_seconds_fused if fused else c.layer_seconds_stock
    if plan.uses_adapter and not plan.compile:
        seconds *= 1 + c.adapter_launches * _adapted(plan)
    return seconds


def _deepspeed3(plan: Plan) -> bool:
    return sharding_stage(plan) >= 3 and not plan.fsdp and plan.world_size > 1


def _routing(sums: ModelSums, plan: Plan, r: Rates, software: Software) -> float:
    """Mean layer: a routed layer stops to read its token counts back before it can launch the experts, so this
    adds to the work and does not hide behind it."""
    if not sums.moe_layers:
        return 0.0
    c = r.constants
    seconds = c.moe_layer_seconds
    if software.expert_loop:
        # DeepSpeed gathers each expert when its turn comes, FSDP a layer at once.
        seconds = sums.experts * (c.gathered_expert_seconds if _deepspeed3(plan) else c.expert_seconds)
    return sums.moe_layers / sums.layers * seconds


def forward(
    sums: ModelSums, plan: Plan, r: Rates, software: Software, tokens: float, length: float
) -> Forward:
    """One forward of `tokens` tokens per rank (after context parallelism) in samples `length` long."""
    c, tensor = r.constants, plan.tensor_parallel
    fused = plan.liger or plan.compile or plan.backend == "megatron"
    # MLA's query and key are wider than its value: the mean of the two products.
    width = (sums.mla_qk + sums.mla_value) / 2 if sums.mla else sums.query
    # Causal: half of the square, two products of 2 FLOP.
    attention = 2.0 * tokens * length * width / tensor / r.attention
    if plan.attention == "eager":
        attention += tokens * length * sums.heads / tensor * c.eager_bytes / r.memory
    plain = plan.loss == "stock" and not fused
    logit = c.logit_bytes if plain else c.logit_fused_bytes
    return Forward(
        matrix=_matrix(sums, plan, r, software, tokens) + _dequantise(sums, plan, r),
        attention=attention,
        traffic=_traffic(sums, plan, r, tokens, fused),
        launch=_launch(plan, r),
        routing=_routing(sums, plan, r, software),
        head=_product(
            sums.head_matrix / tensor, tokens, sums.hidden, c.narrow_width, r.matmul, r.few_tokens
        ),
        logits=tokens * sums.vocab / tensor * logit / r.memory,
    )  # fmt: skip


def pass_seconds(plan: Plan, layers: int, f: Forward, p: Passes, head: float, beside: float) -> float:
    """All passes of one micro batch on the slowest stage: what the card works, or what the processor needs to
    launch it, whichever is longer; the two run side by side. `beside`: the processor's time outside the layers."""
    stop = p.other * f.routing
    layer = p.matrix * f.matrix + p.attention * f.attention + p.other * f.traffic + stop
    launch = p.other * f.launch + stop
    return max(stage_seconds(plan, layers, layer, head), stage_seconds(plan, layers, launch, beside))


def stage_seconds(plan: Plan, layers: int, layer: float, head: float) -> float:
    """The slowest pipeline stage: its layers, and on the last one the output head. Model chunks change nothing: a
    rank computes the same layers in other turns."""
    stages = plan.pipeline_parallel
    if stages == 1:
        return layers * layer + head
    first, last = plan.pipeline_first_layers, plan.pipeline_last_layers
    named = (1 if first else 0) + (1 if last else 0)
    middle = (layers - first - last) / max(stages - named, 1)
    return max((first or middle) * layer, middle * layer, (last or middle) * layer + head)
