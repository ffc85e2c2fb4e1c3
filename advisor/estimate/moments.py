"""The moments of a training step at which memory can peak, and what is alive at each.

Peak memory is the maximum over moments, not the sum of all terms: activations are gone when gradients are
complete, gradients do not exist yet when the loss is computed, nothing but states lives at the step.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.estimate.host_experts import experts_away, gathered_bytes
from advisor.estimate.rollout import Extras
from advisor.estimate.stage import Setting, StageParts
from advisor.estimate.states import sharding_stage

STOCK_LOSS = 12.0
"""Bytes per token and vocabulary entry at the backward of transformers' loss: log-softmax 4, its gradient 4,
the gradient of the negative log-likelihood 4 (traced: exact for Llama-3.1-8B)."""
LOSS_FORWARD = 10.0
"""Of these, before the backward: 16-bit logits 2, in fp32 4, log-softmax 4."""
CAPPED_LOSS = 2.0
"""What a soft cap on the logits adds: the output of its tanh, kept in 16 bit."""
COMPILED_LOSS, COMPILED_AUTOCAST_LOSS = 4.0, 6.0
"""The stock loss compiled with its head: 16-bit logits 2, written over by their gradient, and 2 of zeros for the
logits handed out beside the loss; under autocast those are handed out in fp32, 4 (traced)."""
CHUNKED_LOSS = 4.0
"""16-bit logits 2, written over by the gradients of the chunks, and those joined again, 2. The chunks' losses are
compiled, so that nothing is held in fp32 (axolotl 0.21.0, monkeypatch/loss/chunked.py:67; traced)."""
CHUNKED_HEAD = 2.25
"""16-bit logits 2 and the gradient of one of eight chunks: all losses run backward before the first product does. The
products give the head's gradient eight times, two of which stand beside each other."""
MEGATRON_LOSS = 6.0
"""Vocabulary-parallel cross-entropy works in place, fused or not: 16-bit logits 2 and fp32 4, which become the softmax
and then the gradient (megatron-core 0.16.1, tensor_parallel/cross_entropy.py:28-130)."""
FUSED_TOKEN_BYTES = 8.0
"""Fused head and loss per token and hidden unit: input gradient 2, one chunk of V/h-th of the tokens in
16 and 32 bit 6."""
DEEPSPEED_BUCKET = 5e8
"""Elements of DeepSpeed's reduce and all-gather buckets (runtime/zero/config.py defaults)."""
DEEPSPEED_LIVE = 1e9
"""stage3_max_live_parameters."""
DEEPSPEED_GROUP = 4e9
"""Bytes of the fp32 gradients stage 3 steps with at a time: sub_group_size 1e9 elements."""
REDUCE_BYTES = 4.0
"""FSDP reduces in fp32 under mixed precision; with everything in bf16 there is no policy and it reduces in bf16."""
EXPERT_ADAPTER_FACTOR = 1.2
"""peft materialises weight + delta of a layer's fused experts: traced 1.35 GiB on 1.125 GiB of weights."""


@dataclass(slots=True)
class Alive:
    """Bytes alive at one moment."""

    moment: str
    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    reference: float
    rollout: float
    buffers: float

    @property
    def total(self) -> float:
        return (
            self.weights + self.gradients + self.optimizer + self.activations
            + self.logits + self.reference + self.rollout + self.buffers
        )  # fmt: skip


def _entry_bytes(s: Setting) -> float:
    """Bytes per token and vocabulary entry of a loss that holds logits."""
    if s.plan.loss == "chunked":
        return CHUNKED_HEAD if s.software.chunked_head else CHUNKED_LOSS
    if s.plan.compile and not s.software.loss_as_written:
        return COMPILED_AUTOCAST_LOSS if s.kernels.autocast else COMPILED_LOSS
    return STOCK_LOSS + (CAPPED_LOSS if s.sums.capped_logits else 0.0)


def loss_bytes(s: Setting) -> tuple[float, float]:
    """(logits and cross-entropy, 16-bit copy of the head or its early gradient) at the loss.

    Stock: 12 T V, 14 T V with capped logits; compiled 4 T V, under autocast 6; chunked 4 T V. Then 2 T V and, where the
    head trains, its gradient 2 V h. Fused: V h x 2 for the head's gradient (made in forward, when the head trains) +
    8 T h.
    Megatron: 6 T V, then 2 T V and the head's gradient, sliced over tensor-parallel ranks. A reward model has no
    vocabulary.
    """
    plan, sums = s.plan, s.sums
    if plan.method == "rm":
        return 0.0, 0.0
    tokens, vocab = s.loss_tokens, float(sums.vocab)
    if plan.backend == "megatron":
        gradient = 2.0 * sums.head_matrix if plan.tuning == "full" else 0.0
        return max(
            MEGATRON_LOSS * tokens * vocab, 2.0 * tokens * vocab + gradient
        ) / plan.tensor_parallel, 0.0
    head = 2.0 * sums.head_matrix if s.upcast else 0.0
    gradient = 2.0 * sums.head_matrix if plan.tuning == "full" else 0.0
    if plan.loss != "fused":
        size = _entry_bytes(s) * tokens * vocab
        if plan.loss == "chunked" and s.software.chunked_head:
            gradient *= 2
        return max(size, 2.0 * tokens * vocab + gradient), head
    return FUSED_TOKEN_BYTES * tokens * sums.hidden, head + gradient


@dataclass(slots=True)
class Buffers:
    """Working memory that belongs to sharding and kernels, at each moment."""

    loss: float = 0.0
    head: float = 0.0
    """At the head's end of backward, before any layer's."""
    backward: float = 0.0
    unsharded: float = 0.0
    """Of `backward`, bytes per parameter of the current layer's own whole gradients (FSDP)."""
    reduction: float = 0.0
    """Of `backward`, what the layer done before is reduced in (FSDP)."""
    reduced: float = 0.0
    """When a layer is reduced itself, its weights gone (FSDP)."""
    optimizer: float = 0.0
    root: float = 0.0
    """FSDP's last group: the root unit's gradient and its fp32 reduction; 0 when not FSDP."""
    held: float = 0.0
    """Bytes per parameter of the rank's shard that stay, once reduced, until the backward ends (hybrid sharding)."""


def _fsdp_buffers(s: Setting, p: StageParts, out: Buffers) -> None:
    """FSDP2 per decoder layer of L parameters and a root unit R: at the loss R and one prefetched layer are
    unsharded; in a layer's backward its weights 2, the prefetched next 2, its gradient 2 and the previous
    layer's fp32 reduction 4 = 10 L; when it is reduced itself, its weights gone, 8 L. Layers that are few of their
    kind have smaller ones beside them. At the end R's gradient and reduction. A frozen base needs no reduction:
    2 x 2 L. Traced: Llama-3.1-8B, Qwen3-30B-A3B, GLM-4.5-Air and DeepSeek-V3, the last two with one or two MoE layers."""
    gather = min(s.dense_bytes, 2.0) if s.plan.quantization == "none" else s.dense_bytes
    if s.plan.precision == "fp32":
        gather = 4.0
    reduce = 2.0 if s.plan.precision == "bf16-pure" else REDUCE_BYTES
    layer, root = p.layer_elements, p.root_elements
    out.loss = out.head = gather * (layer + root)
    if s.base_trains:
        head = gather * s.sums.head_matrix / s.plan.tensor_parallel if p.last else 0.0
        beside = gather * (p.next_elements + root) + head
        out.unsharded, out.reduction = gather, reduce * p.reduced_elements
        out.backward = 2 * gather * layer + out.reduction + beside
        out.reduced = (gather + reduce) * layer + beside
        out.head += head
        out.root = (gather + reduce) * root
        out.held = _held_reductions(s, reduce)
    else:
        out.backward = 2 * gather * layer + gather * root


def _held_reductions(s: Setting, reduce: float) -> float:
    """Hybrid sharding keeps what a unit's shard of the gradients was reduced in until the whole backward is done
    (torch==2.13.0:torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py:759): it is the gradient itself only when
    it has its type, stays on the GPU and is not added to an earlier one."""
    own = reduce == s.states.gradient and s.plan.gradient_accumulation_steps == 1 and not s.states_away
    return 0.0 if own or s.plan.fsdp_replicas == 1 else reduce


def _deepspeed_buffers(s: Setting, p: StageParts, out: Buffers) -> None:
    """Buckets of 5e8 elements (reduce; two with overlap), stage 3 also up to 1e9 live parameters and the
    unsharded gradients of a layer."""
    bucket = 2 * 2.0 * min(DEEPSPEED_BUCKET, p.trainable * s.shards.data)
    if s.stage3:
        total = s.sums.layers * p.layer_elements + p.root_elements
        live = s.dense_bytes * min(total, max(DEEPSPEED_LIVE, 2 * p.layer_elements))
        out.loss += live
        out.backward += live + (2.0 * p.layer_elements if s.base_trains else 0.0)
    out.backward += bucket
    out.optimizer += bucket / 2


def buffers(s: Setting, p: StageParts) -> Buffers:
    """All working memory: sharding, data-parallel buckets, tensor- and expert-parallel communication,
    dequantisation, adapters on fused experts."""
    plan, out = s.plan, Buffers()
    stage = sharding_stage(plan)
    if (plan.backend == "hf" and s.shards.data > 1) or s.weights_away:
        if plan.fsdp:
            _fsdp_buffers(s, p, out)
        elif stage:
            _deepspeed_buffers(s, p, out)
        elif s.shards.data > 1:
            out.backward = out.optimizer = p.gradients
    hidden = 2.0 * s.tokens * s.sums.hidden
    moving = 2 * hidden if plan.tensor_parallel > 1 else 0.0
    sliced = plan.expert_tensor_parallel
    if plan.backend == "megatron":
        out.loss += hidden if s.whole_div > 1 else 0.0
    else:
        if plan.expert_parallel * sliced > 1:
            moving += 2 * hidden * s.sums.top_k * sliced / s.whole_div
        if experts_away(plan):
            moving += gathered_bytes(s.sums, plan)
        out.loss += moving
    out.backward += moving
    if plan.quantization != "none":
        out.backward += 2.0 * s.sums.largest_linear / plan.tensor_parallel
    if s.trainable_experts and plan.uses_adapter and plan.backend == "hf":
        out.backward += 2.0 * EXPERT_ADAPTER_FACTOR * s.sums.expert_per_layer / plan.expert_parallel
    return out


def held_bytes(s: Setting, p: StageParts) -> tuple[float, float, float]:
    """(weights, gradients, optimizer) that stay on the GPU under the plan's offload.

    DeepSpeed and FSDP move gradients with the states; Megatron's CPU optimizer keeps the fp32 gradients.
    """
    weights = 0.0 if s.weights_away else p.weights
    gradients = 0.0 if s.states_away and s.plan.backend == "hf" else p.gradients
    optimizer = 0.0 if s.states_away else p.optimizer
    return weights, gradients, optimizer


def moments(s: Setting, p: StageParts, extra: Extras) -> list[Alive]:
    """Every moment at which this stage can peak, in the order of a step.

    Gradients that outlive a micro batch (accumulation, Megatron's buffers) are alive at the loss too; others
    grow from the head's to all of them during backward, while kept activations shrink: the peak of that
    straight line is at one of its ends. Within the last layer to be done, its own gradients come while its activations
    go. The embedding's gradient comes last, after all activations; a tied one is there twice, as the head's and as its
    own, until both are added.
    """
    weights, gradients, optimizer = held_bytes(s, p)
    plan = s.plan
    early = gradients if plan.gradient_accumulation_steps > 1 or plan.backend == "megatron" else 0.0
    work = buffers(s, p)
    logits, head = loss_bytes(s) if p.last else (0.0, 0.0)
    logits *= extra.logits_factor
    ref, roll = extra.reference, extra.rollout_always

    def at(moment: str, grads: float, kept: float, logit: float, buffer: float) -> Alive:
        return Alive(moment, weights, grads, optimizer, kept, logit, ref, roll, buffer)

    found: list[Alive] = []
    forward = p.kept if s.checkpointing else p.kept - p.layer.kept + p.layer.in_forward
    found.append(at("forward", early, forward, 0.0, work.loss + p.autocast))
    found.append(at("loss", early, p.kept + p.head_norm, logits, work.loss + p.autocast + head))
    if s.states.autocast and s.checkpointing and plan.tuning == "full" and p.last and not plan.compile:
        found.append(at("loss", early, p.kept + p.head_norm, *_under_autocast(s, work)))
    steps = _layerwise(s, p, work) if plan.steps_layerwise else _backward(s, p, work, gradients, early)
    for grads, alive, buffer in steps:
        found.append(at("backward", grads, alive, 0.0, buffer))
    step = min(p.step, DEEPSPEED_GROUP) if s.stage3 and not plan.fsdp else p.step
    if s.states_away:
        step = 0.0
    found.append(at("optimizer", gradients, 0.0, 0.0, step + work.optimizer))
    return found


def _under_autocast(s: Setting, work: Buffers) -> tuple[float, float]:
    """(logits, buffers) before the loss has left autocast, which until then keeps the 16-bit copy of every linear's
    weight, also of layers that are computed again; the loss has its gradients still to make. A compiled layer's copies
    are its own."""
    plan, sums = s.plan, s.sums
    logits = (
        LOSS_FORWARD * s.loss_tokens * sums.vocab if plan.loss == "stock" and plan.method != "rm" else 0.0
    )
    linears = sum(rows * columns * count for rows, columns, count in sums.projected) + sums.head_matrix
    return logits, work.loss + s.states.autocast * linears / plan.tensor_parallel


def _backward(
    s: Setting, p: StageParts, work: Buffers, gradients: float, early: float
) -> list[tuple[float, float, float]]:
    """(gradients, activations, buffers) at each point of the backward that can be the worst: the final norm; in the
    last layer, first to be done, and in the first, last to be done, the two points of LayerSizes; under FSDP also
    the second to be done and the reductions; the embedding."""
    plan, layer = s.plan, p.layer
    start = early
    if plan.tuning == "full" and p.last and not early and not plan.fsdp:
        first = s.states.gradient * s.sums.head_matrix / plan.tensor_parallel / s.shards.gradient
        start = min(gradients, first)
    layer_cast = s.states.autocast * p.layer_elements if s.base_trains else 0.0
    cast = work.backward + (layer_cast if s.checkpointing else p.autocast)
    late = gradients if early else max(0.0, gradients - s.states.gradient * _late_elements(s, p))
    others = p.kept if s.checkpointing else max(p.kept - layer.kept, 0.0)
    if (
        plan.activation_offload
    ):  # a function that runs a layer again holds what the layer puts out until it is done
        others += p.kept_each
    second = max(others - p.kept_each, 0.0)
    held = work.held * max(0.0, p.trainable - _late_elements(s, p))
    found = [(start, p.kept + p.head_norm_backward, work.head + p.autocast)]
    points = (
        (layer.in_mlp + p.up_gradient / 2, p.late_in_mlp),
        (layer.after_mlp + p.up_gradient, p.late_after_mlp),
    )
    for alive, elements in points:
        missing = 0.0 if early or plan.fsdp else s.states.gradient * elements / s.shards.gradient
        whole = work.unsharded * elements
        if plan.compile and not plan.fsdp:  # a layer hands over its gradients when all of them are made
            made = s.states.gradient * (p.layer_elements - elements) if s.base_trains else 0.0
            found.append((start + made, others + alive, cast))
        found.append((start, others + alive, cast - whole - work.reduction))
        if work.reduction:
            found.append((start, second + alive, cast - whole))
        found.append((max(late - missing, start), alive, work.backward + layer_cast - whole + held))
    if work.reduction:
        found += [
            (start, others, work.reduced),
            (start, second, cast),
            (max(late, start), 0.0, work.backward + held),
        ]
    # Gradients that wait on the host leave nothing to take off.
    root = s.states.gradient * _root_shard(s, p)
    held = work.held * max(0.0, p.trainable - _root_shard(s, p))
    found.append((max(0.0, gradients - root), 0.0, (work.root or work.optimizer) + held))
    if plan.tuning == "full" and not plan.fsdp and not s.sums.head and p.first and p.last:
        twice = s.states.gradient * s.sums.embedding / plan.tensor_parallel
        found.append((gradients, 0.0, twice + work.optimizer))
    return found


def _layerwise(s: Setting, p: StageParts, work: Buffers) -> list[tuple[float, float, float]]:
    """(gradients, activations, buffers) of a backward that steps each parameter as soon as its gradient is whole: the
    head at once where it is not tied, in the last layer its MLP's worst point and its worst parameter, whose 16-bit copy
    is used up, and at the end the embedding."""
    sizes, layer = s.projected, p.layer
    assert sizes is not None
    wait = sizes.waiting
    copies = s.states.autocast * p.layer_elements if s.checkpointing else p.autocast
    cast = work.backward + copies
    used = s.states.autocast / s.states.weight * sizes.gradient
    without_head = max(0.0, p.autocast - s.states.autocast * s.sums.head_matrix)
    others = p.kept if s.checkpointing else max(p.kept - layer.kept, 0.0)
    head = s.states.weight * s.sums.head
    return [
        (wait, p.kept + p.head_norm_backward, work.head + p.autocast),
        (head, p.kept + p.head_norm, sizes.head - head + without_head),
        (wait, others + layer.in_mlp, cast),
        (wait + sizes.gradient, others + layer.first_gradient, sizes.alone + max(0.0, cast - used)),
        (sizes.embedding / 3, 0.0, 2 * sizes.embedding / 3),
    ]


def _root_shard(s: Setting, p: StageParts) -> float:
    """Parameters of the rank's shard of the root unit, whose gradients its reduction, the last, is about to write."""
    if not s.plan.fsdp or s.plan.tuning != "full":
        return 0.0
    return p.root_elements / s.shards.gradient


def _late_elements(s: Setting, p: StageParts) -> float:
    """Parameters whose gradient does not exist yet while the first layers are in backward: the embedding;
    under FSDP the whole root unit and the two layers being reduced."""
    if s.plan.tuning != "full":
        return 0.0
    if s.plan.fsdp:
        return (p.root_elements + p.layer_elements + p.reduced_elements) / s.shards.gradient
    tied = not s.sums.head
    return s.sums.embedding / s.plan.tensor_parallel / s.shards.gradient if p.first and not tied else 0.0
