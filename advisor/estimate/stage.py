"""What one GPU of one pipeline stage holds: the parts from which the moments of a step are put together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log2

from advisor.estimate.activations import Kernels, LayerBytes, layer_bytes, norm_backward_bytes, norm_bytes
from advisor.estimate.host_experts import on_gpus
from advisor.estimate.low_rank import Projected, with_low_rank
from advisor.estimate.model_sums import ModelSums
from advisor.estimate.parameters import trainable_parameters
from advisor.estimate.states import (
    INT8_BYTES,
    NF4_BYTES,
    Shards,
    StateBytes,
    sharding_stage,
    shards,
    state_bytes,
)
from advisor.facts.software import TODAY, Software
from advisor.plan import Plan

PAIRED_METHODS = ("dpo", "ipo", "kto", "orpo", "simpo", "cpo", "rm")
"""Two sequences per sample in one forward pass: chosen and rejected (KTO: completion and its KL pair)."""


STATES_AWAY = ("optimizer", "all", "nvme")
"""Offloads that take optimizer states off the GPU."""
INPUT_BUFFERS = 2
"""Of layer inputs that wait on the host, those that copies go through, in 16 bit whatever the input
(unsloth_zoo==2026.10.9, gradient_checkpointing.py:1403, :1472, :1488). Other libraries keep none (copies that compute
waits for) to five (a stash of copies under way)."""


def sequences_per_row(plan: Plan) -> int:
    """2 for pairs; 1 where samples are packed, because both halves then share the `seq_len` of a pack
    (ms-swift 4.6.0, swift/dataset/packing.py:163 packs by the sum of a pair's lengths)."""
    return 2 if plan.method in PAIRED_METHODS and not plan.packing else 1


@dataclass(slots=True)
class Setting:
    """Everything about a plan and a model that all pipeline stages share. Not frozen, like other records that a search
    makes by the thousand: a frozen one takes several times as long to make."""

    sums: ModelSums
    """What GPUs hold and compute."""
    whole: ModelSums
    """The same, with routed experts that rest elsewhere."""
    plan: Plan
    states: StateBytes
    shards: Shards
    kernels: Kernels
    dense_layer: LayerBytes
    moe_layer: LayerBytes
    checkpointing: bool
    stage3: bool
    weights_away: bool
    """Weights rest in host memory or on disk and are gathered layer by layer."""
    states_away: bool
    base_trains: bool
    software: Software
    upcast: bool
    """prepare_model_for_kbit_training: 16-bit leftovers of a quantized base are held in fp32."""
    dense_bytes: float
    """Bytes per resident dense base parameter."""
    expert_bytes: float
    tokens: float
    """Tokens of one micro batch on the rank."""
    loss_tokens: float
    context: int
    whole_div: int
    trainable_dense: int
    trainable_experts: int
    projected: Projected | None
    """Of a low-rank optimizer."""


@lru_cache(maxsize=1024)
def _kernels(
    megatron: bool, liger: bool, attention: str, base_trains: bool, keeps_inputs: bool,
    adapter: tuple[tuple[str, ...], int], copy: int, dropout: bool, dora: bool, wide: int, fp32_stream: bool,
    autocast: bool, fp32_outputs: bool, compiled: bool,
) -> Kernels:  # fmt: skip
    return Kernels(
        liger or megatron or compiled, megatron, attention, base_trains, keeps_inputs, *adapter, copy, dropout, dora,
        wide, fp32_stream, autocast, fp32_outputs, compiled,
    )  # fmt: skip


def _plan_kernels(plan: Plan, adapters: bool, fp32_stream: bool, upcast: bool, software: Software) -> Kernels:
    copy = 0
    # FSDP's mixed precision and DeepSpeed's engine hand the layers 16-bit adapters, which share their inputs
    if adapters and plan.param_dtype == "fp32" and plan.backend == "hf" and not sharding_stage(plan):
        copy = 4 if plan.precision in ("bf16-pure", "fp32") else 2
    return _kernels(
        plan.backend == "megatron",
        plan.liger,
        plan.attention,
        not adapters,
        not adapters or (plan.quantization == "4bit" and software.quantized_keeps_input),
        (plan.lora_targets, plan.lora_rank) if adapters else ((), 0),
        copy,
        adapters and plan.lora_dropout > 0,
        plan.tuning == "dora",
        2 if plan.precision == "fp32" else 1,
        fp32_stream,
        plan.precision in ("bf16", "fp16") and plan.backend == "hf" and not (plan.fsdp and not adapters),
        upcast,
        plan.compile,
    )


def _base_bytes(sums: ModelSums, plan: Plan, upcast: bool) -> tuple[float, float]:
    """Mean bytes per dense and per expert parameter of a quantized base: plain linears in 4 or 8 bit,
    embedding, head, norms and fused expert tensors in 16 bit (or fp32 after preparation)."""
    code = NF4_BYTES if plan.quantization == "4bit" else INT8_BYTES
    experts = sums.expert_per_layer * sums.moe_layers
    fused = sums.fused_experts
    dense_total = sums.total - experts
    packed = sums.quantizable if fused else sums.quantizable - experts
    rest = 4.0 if upcast else 2.0
    dense = (packed * code + (dense_total - packed) * rest) / dense_total
    return dense, code if plan.quantize_experts or not fused else rest


def make_setting(whole: ModelSums, plan: Plan, software: Software = TODAY) -> Setting:
    """Read the plan once."""
    sums = on_gpus(whole, plan)
    megatron = plan.backend == "megatron"
    adapters = plan.uses_adapter
    base_trains = not adapters
    states, low_rank = with_low_rank(state_bytes(plan), sums, plan)
    stage3 = sharding_stage(plan) >= 3 and not megatron
    upcast = plan.quantization != "none" and plan.precision == "bf16" and plan.param_dtype == "fp32"
    upcast = upcast and plan.fp32_leftovers
    kernels = _plan_kernels(plan, adapters, states.autocast > 0 and plan.tuning == "full", upcast, software)
    dense_bytes = expert_bytes = states.frozen
    if plan.quantization != "none":
        dense_bytes, expert_bytes = _base_bytes(sums, plan, upcast)
    online = plan.online
    rows = plan.micro_batch_size / plan.context_parallel * sequences_per_row(plan)
    tensor = plan.tensor_parallel
    dense, experts = trainable_parameters(sums, plan)
    if plan.offload == "experts":
        experts = 0
    dense_kind = layer_bytes(sums, kernels, False)
    return Setting(
        sums, whole, plan, states, shards(plan), kernels,
        dense_kind, layer_bytes(sums, kernels, True) if sums.moe_layers else dense_kind,
        plan.recompute == "full" if megatron else plan.gradient_checkpointing,
        stage3, stage3 and plan.offload in ("all", "nvme"), plan.offload in STATES_AWAY, base_trains, software,
        upcast,
        dense_bytes, expert_bytes,
        rows * plan.seq_len,
        rows * (plan.response_len if online and plan.response_len else plan.seq_len),
        plan.seq_len, tensor if plan.sequence_parallel else 1, dense, experts, low_rank,
    )  # fmt: skip


@dataclass(slots=True)
class LayerSizes:
    """Bytes of one layer on the rank: what it keeps for backward, and all of it that is alive at the worst points of
    its forward, of its MLP's backward, and from the MLP's last gradients on."""

    kept: float
    in_forward: float
    in_mlp: float
    after_mlp: float
    first_gradient: float
    """When the first of its gradients is whole, of a dense layer its MLP's output projection."""


@dataclass(slots=True)
class StageParts:
    """Bytes on one GPU of a stage."""

    weights: float
    base_weights: float
    """One more 16-bit copy of the base, sliced the same way: a reference, reward or frozen critic model."""
    gradients: float
    optimizer: float
    step: float
    autocast: float
    kept: float
    """Activations kept by all layers at the end of forward, of all micro batches in flight."""
    kept_each: float
    """A layer's share of it."""
    inputs_away: float
    """Layer inputs that wait in host memory."""
    layer: LayerSizes
    """The largest layer: recomputed under checkpointing, a part of `kept` without."""
    head_norm: float
    """The final norm: what it keeps, and what is alive in its backward."""
    head_norm_backward: float
    up_gradient: float
    """In Megatron the 16-bit gradient of gate and up before it is added to the fp32 buffer; half as much of down."""
    layer_elements: float
    next_elements: float
    """Parameters of the layer that is prefetched in its backward, and of the one whose gradients are still being reduced:
    as large, where the stage has enough layers of that kind."""
    reduced_elements: float
    late_in_mlp: float
    """Trained parameters of that layer whose gradient does not exist yet in its MLP's backward, and after it."""
    late_after_mlp: float
    root_elements: float
    """Embedding, head and leftovers on this stage: FSDP's root unit."""
    trainable: float
    first: bool
    last: bool


def stage_layers(plan: Plan, layers: int) -> list[int]:
    """Layers per pipeline stage: the first and last as asked, the rest even, a remainder to the earliest."""
    stages = plan.pipeline_parallel
    if stages <= 1:
        return [layers]
    first, last = plan.pipeline_first_layers, plan.pipeline_last_layers
    open_stages = stages - (first > 0) - (last > 0)
    rest = max(layers - first - last, 0)
    even, extra = divmod(rest, open_stages) if open_stages else (0, 0)
    middle = [even + (i < extra) for i in range(open_stages)]
    return ([first] if first else []) + middle + ([last] if last else [])


def _elements(s: Setting, count: int, dense: int, first: bool, last: bool) -> tuple[float, float, float]:
    """(dense in layers, routed experts, root) parameters of the rank before data-parallel sharding."""
    sums, plan = s.sums, s.plan
    tensor = plan.tensor_parallel
    moe = count - dense
    inside = count * (sums.attention_per_layer / tensor + sums.replicated_per_layer)
    inside += dense * sums.mlp_per_layer / tensor
    inside += moe * (sums.shared_per_layer / tensor + sums.router_per_layer)
    experts = moe * sums.expert_per_layer / (plan.expert_parallel * plan.expert_tensor_parallel)
    root = 0.0
    if first:
        root += sums.embedding / tensor + sums.vision
    if last:
        root += sums.head / tensor + sums.outside
        if not first and not sums.head:
            root += sums.head_matrix / tensor
    return inside, experts, root


def _trainable(s: Setting, start: int, count: int, dense_el: float, experts: float) -> tuple[float, float]:
    """(dense, routed experts) trainable parameters of the rank before data-parallel sharding."""
    sums, plan = s.sums, s.plan
    if plan.tuning == "full":
        return dense_el, experts
    if plan.tuning == "freeze":
        trained = max(0, start + count - (sums.layers - plan.freeze_trainable_layers))
        share = min(trained, count) / min(plan.freeze_trainable_layers, sums.layers)
        return (
            s.trainable_dense * share / plan.tensor_parallel,
            s.trainable_experts * share / (plan.expert_parallel * plan.expert_tensor_parallel),
        )
    share = count / sums.layers
    tensor_share = (1 + 1 / plan.tensor_parallel) / 2
    return (
        s.trainable_dense * share * tensor_share,
        s.trainable_experts * share / (plan.expert_parallel * plan.expert_tensor_parallel),
    )


def _one_layer(s: Setting, kind: LayerBytes) -> LayerSizes:
    """Tensor parallelism slices `split`; the sequence split (SP) slices the rest; routed tokens are balanced over
    the experts' ranks, and the ranks that slice an expert all hold the copies that go through it."""
    tensor, whole, tokens = s.plan.tensor_parallel, s.whole_div, s.tokens
    gathered = (s.plan.expert_tensor_parallel - 1) * kind.routed_copies
    kept = (kind.whole + kind.routed + gathered) / whole + kind.everywhere
    kept += (kind.split + kind.per_context * s.context) / tensor
    in_forward = kept + kind.forward_routed / whole + kind.forward_split / tensor
    in_mlp = kept + (kind.mlp_whole + kind.mlp_routed) / whole + kind.mlp_split / tensor
    last = (kind.last_whole + kind.last_routed + gathered / 2) / whole
    last += (kind.last_split + kind.per_context * s.context) / tensor
    attention = (kind.attention_split + kind.attention_per_context * s.context) / tensor
    after_mlp = max(last, kind.attention_whole / whole + attention)
    if s.checkpointing:  # the layer's forward runs again inside its backward
        in_mlp = max(in_mlp, in_forward)
    first = after_mlp if kind.routed else kept + kind.mlp_whole / whole
    return LayerSizes(*(size * tokens for size in (kept, in_forward, in_mlp, after_mlp, first)))


def _autocast(s: Setting, trained: float, last: bool) -> float:
    """16-bit copies of fp32 weights at the loss: of everything that trains, or under checkpointing (whose
    layers drop theirs) of the head alone."""
    if not s.checkpointing:
        return trained * s.states.autocast
    return s.states.autocast * s.sums.head_matrix if last and s.plan.tuning == "full" else 0.0


def _activations(
    s: Setting, start: int, count: int, dense: int, in_flight: float
) -> tuple[float, float, float, LayerSizes]:
    """(kept by all layers in flight, a layer's share of it, layer inputs on the host, the largest layer) in bytes of
    the rank.

    Checkpointing keeps one hidden state per layer (2 T h, 4 T h where the residual stream is fp32); `freeze`
    keeps nothing below the first trained layer. All but the last layer's input, which backward takes first, can wait on
    the host; under adapters the first layer's is here all the same: what the frozen embedding puts out is made a leaf
    of the graph (transformers: enable_input_require_grads), which autograd holds.
    """
    dense_one, moe_one = _one_layer(s, s.dense_layer), _one_layer(s, s.moe_layer)
    kept = dense * dense_one.kept + (count - dense) * moe_one.kept
    kinds = [one for one, layers in ((dense_one, dense), (moe_one, count - dense)) if layers]
    one = max(kinds, key=lambda kind: kind.in_mlp)
    live = count
    if s.plan.tuning == "freeze":
        live = min(count, max(0, start + count - (s.sums.layers - s.plan.freeze_trainable_layers)))
    if s.checkpointing:
        width = 4.0 if s.upcast or s.kernels.fp32_stream else 2.0 * s.kernels.wide
        each = width * s.sums.hidden * s.tokens / s.whole_div
        stays = s.moe_layer.stays * (count - dense) * s.tokens / s.whole_div
        if s.plan.activation_offload:
            moved = 2.0 * s.sums.hidden * s.tokens / s.whole_div
            whole = min(live, 2 if s.plan.uses_adapter else 1)
            here = whole * each + min(live - whole, INPUT_BUFFERS) * moved
            return here + stays, each, max(live - 1, 0) * pinned_bytes(moved), one
        kept = live * each * in_flight + stays
        return kept, kept / max(count, 1), 0.0, one
    kept = kept * live / max(count, 1) * in_flight
    return kept, kept / max(count, 1), 0.0, one


def pinned_bytes(size: float) -> float:
    """What PyTorch pins for a tensor: its size rounded up to a power of two (torch==2.13.0,
    aten/src/ATen/core/CachingHostAllocator.h: PowerOf2Ceil)."""
    return 2.0 ** ceil(log2(size)) if size else 0.0


def _layer_elements(s: Setting, count: int, dense: int) -> float:
    """Parameters of the stage's largest layer on this rank, unsharded: the unit FSDP and ZeRO-3 gather."""
    sums, plan = s.sums, s.plan
    tensor = plan.tensor_parallel
    mlp = sums.mlp_per_layer / tensor if dense else 0.0
    if count > dense:
        routed = sums.expert_per_layer / (plan.expert_parallel * plan.expert_tensor_parallel)
        mlp = max(mlp, sums.shared_per_layer / tensor + sums.router_per_layer + routed)
    return sums.attention_per_layer / tensor + sums.replicated_per_layer + mlp


def _up_gradient(s: Setting, count: int, dense: int) -> float:
    """Bytes of the weight gradients that one product of the largest MLP makes, those of all its experts in one tensor
    (TransformerEngine v2.16.1, pytorch/module/grouped_linear.py:460). ms-swift adds into the buffer in the kernel only
    where apex is installed (ms-swift 4.6.0, swift/megatron/arguments/megatron_args.py:902)."""
    sums, plan = s.sums, s.plan
    if plan.backend != "megatron" or not s.base_trains:
        return 0.0
    mlp = sums.mlp_per_layer / plan.tensor_parallel if dense else 0.0
    if count > dense:
        mlp = max(mlp, sums.expert_per_layer / (plan.expert_parallel * plan.expert_tensor_parallel))
    return 2.0 * mlp * 2 / 3


def stage_parts(s: Setting, start: int, count: int, first: bool, last: bool, in_flight: float) -> StageParts:
    """Everything one GPU of this stage holds. A full critic (PPO) doubles weights, gradients and states."""
    plan, states, cut = s.plan, s.states, s.shards
    dense = s.sums.dense_in(start, count) if s.sums.moe_layers else count
    inside, experts, root = _elements(s, count, dense, first, last)
    dense_el = inside + root
    train_dense, train_experts = _trainable(s, start, count, dense_el, experts)
    base = dense_el / cut.weight * s.dense_bytes + experts / cut.expert_weight * s.expert_bytes
    own = train_dense / cut.weight + train_experts / cut.expert_weight
    weights = base + own * (states.weight if plan.uses_adapter else states.weight - s.dense_bytes)
    gradients = states.gradient * (train_dense / cut.gradient + train_experts / cut.expert_gradient)
    moments = train_dense / cut.optimizer + train_experts / cut.expert_optimizer
    if plan.method == "ppo" and not plan.uses_adapter:
        weights, gradients, moments = 2 * weights, 2 * gradients, 2 * moments
    layer = _layer_elements(s, count, dense)
    alike = count - dense if 0 < count - dense < count else count
    other = _layer_elements(s, dense, dense) if alike < count else 0.0
    attention = s.sums.attention_per_layer / plan.tensor_parallel
    down = s.sums.mlp_per_layer / 3 / plan.tensor_parallel if dense == count else 0.0
    kept, kept_each, inputs_away, one = _activations(s, start, count, dense, in_flight)
    return StageParts(
        weights=weights,
        base_weights=2.0 * (dense_el / cut.weight + experts / cut.expert_weight),
        gradients=gradients,
        optimizer=moments * states.optimizer,
        step=moments * states.step,
        autocast=_autocast(s, train_dense + train_experts, last),
        kept=kept,
        kept_each=kept_each,
        inputs_away=inputs_away,
        layer=one,
        head_norm=norm_bytes(s.sums, s.sums.hidden, s.kernels) * s.loss_tokens / s.whole_div if last else 0.0,
        head_norm_backward=norm_backward_bytes(s.sums, s.kernels) * s.loss_tokens / s.whole_div
        if last
        else 0.0,
        up_gradient=_up_gradient(s, count, dense),
        layer_elements=layer,
        next_elements=layer if alike > 2 else other,
        reduced_elements=layer if alike > 1 else other,
        late_in_mlp=layer - (2 if plan.compile else 1) * down if plan.tuning == "full" else 0.0,
        late_after_mlp=attention if plan.tuning == "full" else 0.0,
        root_elements=root,
        trainable=moments,
        first=first,
        last=last,
    )
