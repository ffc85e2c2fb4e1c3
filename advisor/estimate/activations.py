"""Bytes per token that decoder layers keep for backward.

Formulas are for stock transformers modules; symbols: h hidden, q = heads x head_dim, kv = kv_heads x
head_dim, f intermediate size, k experts per token, m expert intermediate size, E experts, S tokens a
query attends over. All in bytes per token of the rank. Source: the modules of transformers 5.23 and peft 0.21.2, and
what autograd saves of them. Held against traced real training steps of Llama, Qwen, Gemma, Mistral, Phi, Mixtral,
GLM-4.5 and DeepSeek-V2/V3 (tests/accuracy/test_traced.py), of Megatron-Core's own model too. Not traced: `lean`
outside Megatron, DoRA, adapters in Megatron.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from advisor.estimate.model_sums import ModelSums
from advisor.facts.lora import lora_modules

OUTPUTS = ("o_proj", "out_proj", "dense", "o_b_proj")
"""Linears that read what attention puts out."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """What decides how much a layer keeps."""

    lean: bool
    """Fused norms and SwiGLU (Liger, Transformer Engine): inputs are kept, not fp32 copies."""
    megatron: bool
    attention: str
    trains_base: bool
    """Base weights get gradients."""
    keeps_inputs: bool
    """Linears of the base keep their inputs: for their weights' gradients, or out of habit."""
    adapter_targets: tuple[str, ...]
    adapter_rank: int
    adapter_copy_bytes: int
    """Bytes per input feature that an adapter keeps of its own: 2 cast by autocast, 4 fp32, 0 none."""
    dropout: bool
    dora: bool
    wide: int
    """1, or 2 when everything runs in fp32."""
    fp32_stream: bool
    """fp32 weights under autocast: the residual stream is fp32 and every linear casts its own input."""
    autocast: bool
    """Linears compute in 16 bit whatever they are given."""
    fp32_outputs: bool
    """bitsandbytes' linears return the dtype of their input, fp32 over a base prepared for k-bit training."""
    compiled: bool
    """torch.compile over the layer: what elementwise operations make is recomputed, `lean` besides."""

    @property
    def mlp_wide(self) -> int:
        """`wide` of what stands between the linears of an MLP."""
        return 2 if self.fp32_outputs else self.wide

    @property
    def expert_wide(self) -> int:
        """`wide` of routed tokens, which a compiled layer never holds in fp32."""
        return self.wide if self.compiled else self.mlp_wide

    @property
    def own_copy_bytes(self) -> int:
        """Bytes per input feature that an adapter keeps beside what its target keeps. A compiled layer casts an
        input once for all who read it."""
        return 0 if self.compiled else self.adapter_copy_bytes


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Bytes per token of one layer. `whole`: on every tensor-parallel rank unless the sequence is split too; `split`:
    sliced by tensor parallelism; `routed`: sliced with the experts.

    What is kept for backward, then what is alive at the points of the layer's own forward and backward that can be
    the worst: in the MLP, nothing of the layer freed yet; at the end of the MLP, most of its gradients made; in
    attention, the MLP's part gone.
    """

    whole: float
    split: float
    everywhere: float
    """On every tensor-parallel rank, whether or not the sequence is split."""
    stays: float
    """Of a routed layer, until its next forward, recomputed or not; where the sequence is split, sliced with it."""
    per_context: float
    """Bytes per token and per token of context (eager attention's S^2)."""
    routed: float
    routed_copies: float
    """Of `routed`, the copies of the hidden state themselves, which expert tensor parallelism gathers on every rank."""
    mlp_whole: float
    """Beyond what is kept, at the MLP's worst point."""
    mlp_split: float
    mlp_routed: float
    forward_split: float
    """Beyond what is kept, at the worst point of the forward."""
    forward_routed: float
    last_whole: float
    """All that is alive when the MLP's last weight gradients are made: its first inputs and their gradients."""
    last_split: float
    last_routed: float
    attention_whole: float
    """All that is alive at attention's worst point."""
    attention_split: float
    attention_per_context: float


def norm_bytes(sums: ModelSums, width: float, kernels: Kernels, *, feeds_linear: bool = True) -> float:
    """One RMSNorm: fp32 input 4, normalised copy 2 (only for a trained weight; 4 where the weight multiplies in
    fp32, as Gemma's does), output 2 (kept by the next linear, only if that trains; not where the output is added
    to the residual stream). Fused kernels keep the 2-byte input and the output."""
    output = 2 * kernels.wide if kernels.keeps_inputs and feeds_linear else 0
    if kernels.lean:
        return width * (2 * kernels.wide + output)
    scaled = 4 if sums.norms_in_fp32 else 2 * kernels.wide
    return width * (4 + (scaled if kernels.trains_base else 0) + output)


def norm_backward_bytes(sums: ModelSums, kernels: Kernels) -> float:
    """The final norm in its backward: the fp32 input 4 and five fp32 intermediates; a fused kernel's input,
    output gradient and input gradient."""
    return sums.hidden * (6.0 * kernels.wide if kernels.lean else 24.0)


def _attention_bytes(sums: ModelSums, kernels: Kernels) -> float:
    """Saved tensors of the attention block besides its input norm.

    GQA/MHA: q 2q, k 2kv, v 2kv, output 2q = 4q + 4kv. With q/k-norms (Qwen3): the norm without its output,
    which replaces the raw projection. One matrix for all three (Phi-3): its whole output, + 2q + 2kv. Eager: k
    and v repeated to all heads, + 4(q - kv). sdpa is taken as using its flash kernel with grouped keys; a padding mask
    makes it repeat them (uncertainty only).
    MLA (DeepSeek): the two low-rank norms, q and k, 2qk each, and with FlashAttention values and output padded to
    the same size, 2qk each, and the cropped output 2v; otherwise the output 2v and the expanded latent that the
    values are a part of, 2(nope + v). Transformer Engine's kernel takes unequal sizes: values and output 2v each.
    Megatron is counted with the kernel's log-sum-exp, 4 a head.
    """
    wide = kernels.wide
    if sums.mla:
        ranks = norm_bytes(sums, sums.mla_query_rank + sums.mla_kv_rank, kernels)
        if kernels.megatron:
            return ranks + wide * (4.0 * sums.mla_qk + 4.0 * sums.mla_value) + 4.0 * sums.heads
        if kernels.attention == "flash":
            return ranks + wide * (8.0 * sums.mla_qk + 2.0 * sums.mla_value)
        return ranks + wide * (4.0 * sums.mla_qk + 2.0 * sums.mla_nope + 4.0 * sums.mla_value)
    query, key_value = sums.query, sums.key_value
    size = wide * (4.0 * query + 4.0 * key_value)
    if sums.fused_qkv and not kernels.megatron and not (kernels.compiled and kernels.fp32_outputs):
        size += wide * 2.0 * (query + key_value)
    if kernels.attention == "eager":
        size += wide * 4.0 * (query - key_value)
    if kernels.megatron:
        size += 4.0 * sums.heads
    if sums.qk_norm:
        size += norm_bytes(sums, query + key_value, kernels, feeds_linear=False)
    return size


def _attention_backward(sums: ModelSums, kernels: Kernels) -> float:
    """What FlashAttention-2's backward holds beyond what was saved: the output's gradient, an fp32 accumulator of
    the query's, the three gradients, and where heads share keys the keys' and values' gradients of every
    query head (flash_api.cpp mha_bwd). MLA: four tensors of the padded size, or of the values' own."""
    if sums.mla:
        padded = kernels.attention == "flash" and not kernels.megatron
        value = sums.mla_qk if padded else sums.mla_value
        return kernels.wide * (8.0 * sums.mla_qk + 4.0 * value)
    query, key_value = sums.query, sums.key_value
    shared = 4.0 * query if key_value < query else 0.0
    return kernels.wide * (8.0 * query + 4.0 * key_value + shared)


def _mlp_bytes(width: float, gated: bool, kernels: Kernels, adapted: bool) -> float:
    """SwiGLU: gate 2f, up 2f, silu 2f, product 2f (the product only if down_proj trains); fused kernels
    recompute silu. GELU: up 2f and its activation 2f. Twice that where linears return fp32; compiled, instead of
    an fp32 sum its two 16-bit parts, a linear's and its adapter's."""
    parts = (2 if kernels.lean else 3) if gated else 1
    wide = kernels.mlp_wide if adapted or not kernels.compiled else kernels.wide
    return 2.0 * wide * width * (parts + (1 if kernels.keeps_inputs else 0))


def _mlp_backward(sums: ModelSums, kernels: Kernels, adapted: bool) -> float:
    """Gradients of the product and of its two factors, 6f (GELU: of the activation and its input, 4f), when the
    saved product, or an adapter's 16-bit copy of it, is gone already. Compiled: one factor's gradient is written
    over the factor, unless both lie in one matrix, and an adapter's gradients of the product and of both factors
    stand beside the product's own, in 16 bit; where one matrix makes both factors and its output is fp32, theirs are
    written over one of the two parts of that output."""
    width = sums.ffn
    freed = 2.0 * kernels.wide * width if kernels.keeps_inputs or adapted else 0.0
    if kernels.compiled:
        joint = sums.fused_qkv
        parts = (2 if joint and kernels.fp32_outputs else 4) if adapted else 3 if joint else 2
        return 2.0 * kernels.wide * width * parts - freed
    return 2.0 * kernels.mlp_wide * width * (3 if sums.gated else 2) - freed


def _forward(width: float, hidden: float, kernels: Kernels) -> float:
    """The product 2f, which no adapter keeps itself, while an fp32 adapter casts it up, 4f, before its matmul casts
    the copy down again; a product that is fp32 already needs no copy. Then four of the residual stream's size: the
    stream, down_proj's output, and the adapter's before and after scaling. Compiled: the two outputs."""
    if kernels.compiled:
        return (8.0 if kernels.fp32_outputs else 4.0) * hidden
    product = 4.0 if kernels.fp32_outputs else 6.0 if kernels.adapter_copy_bytes else 0.0
    return product * width + (16.0 if kernels.fp32_outputs else 8.0) * hidden


def _routed_bytes(sums: ModelSums, kernels: Kernels, experts_train: bool) -> float:
    """Grouped matmul over permuted copies: input 2kh, gate and up 4km, silu 2km, product 2km, output 2kh;
    frozen experts keep neither inputs nor products. Megatron fuses silu with the product, and so does a
    compiled layer. Megatron keeps no output: its SwiGLU weights the product, and the fused permutations keep indices
    alone (NVIDIA/TransformerEngine v2.16.1, transformer_engine/pytorch/permutation.py:519, :808, :1250)."""
    fused = kernels.megatron or kernels.compiled
    width = (4 if fused else 6) + (2 if experts_train or kernels.trains_base else 0)
    inside = kernels.expert_wide * sums.top_k * float(width) * sums.expert_ffn
    return _copies(sums, kernels, experts_train) + inside


def _copies(sums: ModelSums, kernels: Kernels, experts_train: bool) -> float:
    """The experts' inputs, if they train, and outputs, 2kh each; in Megatron the inputs alone."""
    inputs = 2 if experts_train or kernels.trains_base else 0
    hidden = (inputs + (0 if kernels.megatron else 2)) * sums.hidden
    return float(kernels.expert_wide * sums.top_k * hidden)


def _weighted(sums: ModelSums, kernels: Kernels) -> float:
    """Bytes of a token's expert outputs times their scores: kh in fp32 where the scores are. Megatron weights
    inside its fused SwiGLU."""
    fp32 = sums.scores_in_fp32 or (sums.router_in_fp32 and not kernels.autocast)
    size = 4.0 if fp32 and not kernels.megatron else 2.0 * kernels.expert_wide
    return size * sums.top_k * sums.hidden


def _routed_backward(sums: ModelSums, kernels: Kernels, experts_train: bool) -> float:
    """The worse of two points: weighting the experts' outputs (the incoming gradient and both factors' gradients),
    and the experts' SwiGLU (6km, when the outputs 2kh and the saved product are gone)."""
    freed = 2 if experts_train or kernels.trains_base else 0
    inside = kernels.expert_wide * sums.top_k * ((6.0 - freed) * sums.expert_ffn - 2.0 * sums.hidden)
    return max(3 * _weighted(sums, kernels), inside)


def _last_routed(sums: ModelSums, kernels: Kernels) -> float:
    """The experts' inputs and the gradients of gate and up; Transformer Engine makes the inputs' gradients before the
    weights' (NVIDIA/TransformerEngine v2.16.1, transformer_engine/pytorch/module/grouped_linear.py:397)."""
    copies = 4.0 if kernels.megatron else 2.0
    return kernels.expert_wide * sums.top_k * (copies * sums.hidden + 4.0 * sums.expert_ffn)


def _rotary_bytes(sums: ModelSums, kernels: Kernels) -> float:
    """Sines and cosines that Megatron makes anew for the queries and for the keys of every layer (megatron-core 0.16.1,
    models/common/embeddings/rope_utils.py:122; ms-swift and mcore-bridge leave `apply_rope_fusion` off)."""
    return 8.0 * sums.rotary if kernels.megatron else 0.0


def _dispatcher_bytes(sums: ModelSums, kernels: Kernels) -> float:
    """What Megatron's token dispatcher, one a layer, refers to until its next forward: the fp32 scores 4E, the map of
    tokens to experts E, and the fused permutation's 32-bit map of rows 4(2E + 1) (megatron-core 0.16.1,
    transformer/moe/token_dispatcher.py:612, :632; TransformerEngine v2.16.1, pytorch/triton/permutation.py:52)."""
    return 13.0 * sums.experts + 4.0 if kernels.megatron else 0.0


def _adapter_bytes(sums: ModelSums, kernels: Kernels, role: str, layers: int) -> float:
    """What adapters on weights of `role` keep per token and layer: a copy of each target's input (fp32
    adapters make their own, 16-bit ones share it) and the rank activation 2r; dropout adds its mask, DoRA
    the target's output twice. Compiled, fp32 adapters share too, but for attention's output, which the kernel keeps
    as it made it and the adapter as it was cast."""
    total, seen = 0.0, set[int]()
    for weight in lora_modules(sums.model, kernels.adapter_targets):
        if weight.role != role or len(weight.shape) != 2:
            continue
        rows, columns = weight.shape
        copy = kernels.own_copy_bytes or (0 if columns in seen or kernels.keeps_inputs else 2)
        seen.add(columns)
        if kernels.compiled and kernels.adapter_copy_bytes and weight.name.split(".")[-2] in OUTPUTS:
            copy = 2
        kept = copy * columns + 2.0 * kernels.adapter_rank
        kept += (columns if kernels.dropout else 0) + (4.0 * rows if kernels.dora else 0.0)
        total += kept * weight.count / layers
    return total


def _adapts(sums: ModelSums, kernels: Kernels, role: str) -> bool:
    return any(w.role == role for w in lora_modules(sums.model, kernels.adapter_targets))


def _norms_bytes(sums: ModelSums, kernels: Kernels) -> tuple[float, float, float]:
    """(norm before attention, norm before the MLP, each norm of what they put out, which Gemma adds) of a layer.
    Under autocast with fp32 weights: fp32 input 4 and normalised 4 each (fused kernels the input alone), and a
    16-bit input copy 2 for each of q, k, v, gate and up. Compiled, with the stream's input 4: one 16-bit output for
    all who read it, and instead of the stream before the MLP the 16-bit output of attention that was added to it; of
    the two norms of what they put out only the MLP's has anything to keep, the other one's input being that output."""
    hidden, after = sums.hidden, sums.norms_after
    if kernels.compiled:
        first = 4.0 if kernels.fp32_stream or kernels.fp32_outputs else 2.0 * kernels.wide
        output = 2.0 * kernels.wide if kernels.keeps_inputs else 0.0
        return (
            hidden * (first + output),
            hidden * (2.0 * kernels.wide + output),
            after * hidden * kernels.wide,
        )
    if kernels.fp32_stream:
        each = hidden * (4.0 if kernels.lean else 8.0)
        return each + hidden * 3 * 2.0, each + hidden * 2 * 2.0, after * each
    each = norm_bytes(sums, hidden, kernels)
    return each, each, after * norm_bytes(sums, hidden, kernels, feeds_linear=False)


@lru_cache(maxsize=4096)
def layer_bytes(sums: ModelSums, kernels: Kernels, moe: bool) -> LayerBytes:
    """What one dense or MoE layer keeps per token without checkpointing, and what its backward adds.

    Llama-like, trained, stock: 16h + 4q + 4kv + 8f, and in backward 4f + 2h more. Ignores dropout in the base
    model and linear-attention states (their projections are counted as attention).
    """
    attention = _attention_bytes(sums, kernels) + _adapter_bytes(sums, kernels, "attention", sums.layers)
    split, routed, routed_backward = attention, 0.0, 0.0
    adapts_mlp = _adapts(sums, kernels, "mlp")
    if moe:
        split += _adapter_bytes(sums, kernels, "shared_expert", sums.moe_layers)
        split += _mlp_bytes(sums.shared_ffn, True, kernels, adapts_mlp) if sums.shared_ffn else 0.0
        if kernels.megatron:  # every rank routes its own part of the sequence
            routed += 4.0 * sums.experts + 24.0 * sums.top_k + _dispatcher_bytes(sums, kernels)
        else:
            split += 6.0 * sums.experts + 24.0 * sums.top_k
        if sums.router_in_fp32 and kernels.trains_base and not kernels.megatron:
            split += (2.0 if kernels.autocast else 4.0) * sums.hidden
        train = _adapts(sums, kernels, "expert")
        routed += _routed_bytes(sums, kernels, train)
        routed_backward = _routed_backward(sums, kernels, train)
        backward = 0.0
    else:
        split += _adapter_bytes(sums, kernels, "mlp", max(sums.dense_layers, 1))
        split += _mlp_bytes(sums.ffn, sums.gated, kernels, adapts_mlp)
        backward = _mlp_backward(sums, kernels, adapts_mlp)
    eager = kernels.attention == "eager"
    attention_norm, mlp_norm, out_norm = _norms_bytes(sums, kernels)
    beside = 0.0
    if kernels.compiled:  # one more gradient of the MLP's input; its output is gone
        beside = (0.0 if adapts_mlp or moe else 2.0 * kernels.wide * sums.hidden) - out_norm
    stream = (4.0 if kernels.fp32_stream or kernels.fp32_outputs else 2.0 * kernels.wide) * sums.hidden
    return LayerBytes(
        whole=attention_norm + mlp_norm + 2 * out_norm,
        split=split,
        everywhere=_rotary_bytes(sums, kernels),
        stays=_dispatcher_bytes(sums, kernels) if moe else 0.0,
        per_context=(4.0 if kernels.compiled else 6.0) * sums.heads if eager else 0.0,
        routed=routed,
        routed_copies=_copies(sums, kernels, _adapts(sums, kernels, "expert")) if moe else 0.0,
        mlp_whole=stream * (2 if sums.shared_ffn and moe else 1) - out_norm + beside,
        mlp_split=backward,
        mlp_routed=routed_backward,
        forward_split=_forward(sums.ffn, sums.hidden, kernels) if adapts_mlp and not moe else 0.0,
        forward_routed=2 * _weighted(sums, kernels) if moe else 0.0,
        last_whole=attention_norm + mlp_norm + out_norm + 2 * stream,
        last_split=attention
        + (0.0 if moe else (2.0 if kernels.compiled else 4.0) * kernels.mlp_wide * sums.ffn),
        last_routed=_last_routed(sums, kernels) if moe else 0.0,
        attention_whole=attention_norm + stream,
        attention_split=attention + (0.0 if eager else _attention_backward(sums, kernels)),
        attention_per_context=12.0 * sums.heads if eager else 0.0,
    )
