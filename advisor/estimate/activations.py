"""Bytes per token that decoder layers keep for backward.

Formulas are for stock transformers modules; symbols: h hidden, q = heads x head_dim, kv = kv_heads x
head_dim, f intermediate size, k experts per token, m expert intermediate size, E experts, S tokens a
query attends over. All in bytes per token of the rank. Checked against traced real training steps
(tests/accuracy/test_traced.py): within 1 % for Llama and Qwen3, dense and MoE.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from advisor.estimate.model_sums import ModelSums
from advisor.facts.lora import lora_modules


@dataclass(frozen=True, slots=True)
class Kernels:
    """What decides how much a layer keeps."""

    lean: bool
    """Fused norms and SwiGLU (Liger, Transformer Engine): inputs are kept, not fp32 copies."""
    megatron: bool
    attention: str
    trains_base: bool
    """Base weights get gradients, so their inputs are kept."""
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


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Bytes per token of one layer. `whole`: kept by every tensor-parallel rank unless the sequence is
    split too; `split`: sliced by tensor parallelism; `routed`: sliced with the experts."""

    whole: float
    split: float
    per_context: float
    """Bytes per token and per token of context (eager attention's S^2)."""
    routed: float
    transient: float
    """Gradients alive at the worst point of the layer's own backward (sliced)."""
    routed_transient: float
    transient_per_context: float


def norm_bytes(width: float, kernels: Kernels) -> float:
    """One RMSNorm: fp32 input 4, normalised copy 2 (only for a trained weight), output 2 (kept by the
    next linear, only if that trains). Fused kernels keep the 2-byte input and the output."""
    if kernels.lean:
        return width * 2 * kernels.wide * (2 if kernels.trains_base else 1)
    return width * (4 + (4 * kernels.wide if kernels.trains_base else 0))


def _attention_bytes(sums: ModelSums, kernels: Kernels) -> float:
    """Saved tensors of the attention block besides its input norm.

    GQA/MHA: q 2q, k 2kv, v 2kv, output 2q = 4q + 4kv. With q/k-norms (Qwen3): + (norm - 2) per feature,
    the output replacing the raw projection: 6 stock, 2 fused. MLA (DeepSeek): the two low-rank norms,
    expanded q, k, v and the output. Eager: k and v repeated to all heads, + 4(q - kv). sdpa is taken as
    using its flash kernel with grouped keys; a padding mask makes it repeat them (uncertainty only).
    """
    wide = kernels.wide
    if sums.mla:
        ranks = sums.mla_query_rank + sums.mla_kv_rank
        return norm_bytes(ranks, kernels) + wide * (4.0 * sums.mla_qk + 4.0 * sums.mla_value)
    query, key_value = sums.query, sums.key_value
    size = wide * (4.0 * query + 4.0 * key_value)
    if kernels.attention == "eager":
        size += wide * 4.0 * (query - key_value)
    if sums.qk_norm:
        trained = 2 * wide if kernels.trains_base else 0
        size += (query + key_value) * (2 * wide if kernels.lean else 4 + trained)
    return size


def _mlp_bytes(width: float, gated: bool, kernels: Kernels) -> float:
    """SwiGLU: gate 2f, up 2f, silu 2f, product 2f (the product only if down_proj trains); fused kernels
    recompute silu. GELU: up 2f and its activation 2f."""
    parts = (2 if kernels.lean else 3) if gated else 1
    return 2.0 * kernels.wide * width * (parts + (1 if kernels.trains_base else 0))


def _routed_bytes(sums: ModelSums, kernels: Kernels, experts_train: bool) -> float:
    """Grouped matmul over permuted copies: input 2kh, gate and up 4km, silu 2km, product 2km, output 2kh;
    frozen experts keep neither inputs nor products. Megatron fuses silu with the product."""
    trained = experts_train or kernels.trains_base
    hidden = (4 if trained else 2) * sums.hidden
    width = (4 if kernels.megatron else 6) + (2 if trained else 0)
    return kernels.wide * sums.top_k * (hidden + float(width) * sums.expert_ffn)


def _adapter_bytes(sums: ModelSums, kernels: Kernels, role: str, layers: int) -> float:
    """What adapters on weights of `role` keep per token and layer: a copy of each target's input (fp32
    adapters make their own, 16-bit ones share it) and the rank activation 2r; dropout adds its mask, DoRA
    the target's output twice."""
    total, seen = 0.0, set[int]()
    for weight in lora_modules(sums.model, kernels.adapter_targets):
        if weight.role != role or len(weight.shape) != 2:
            continue
        rows, columns = weight.shape
        copy = kernels.adapter_copy_bytes or (0 if columns in seen else 2)
        seen.add(columns)
        kept = copy * columns + 2.0 * kernels.adapter_rank
        kept += (columns if kernels.dropout else 0) + (4.0 * rows if kernels.dora else 0.0)
        total += kept * weight.count / layers
    return total


def adapts_experts(sums: ModelSums, kernels: Kernels) -> bool:
    return any(w.role == "expert" for w in lora_modules(sums.model, kernels.adapter_targets))


def _norms_bytes(sums: ModelSums, kernels: Kernels) -> float:
    """Both norms of a layer. Under autocast with fp32 weights: fp32 input 4 and normalised 4 each (fused
    kernels the input alone), and a 16-bit input copy 2 for each of q, k, v, gate and up."""
    if kernels.fp32_stream:
        return sums.hidden * ((8.0 if kernels.lean else 16.0) + 5 * 2.0)
    return 2 * norm_bytes(sums.hidden, kernels)


@lru_cache(maxsize=4096)
def layer_bytes(sums: ModelSums, kernels: Kernels, moe: bool) -> LayerBytes:
    """What one dense or MoE layer keeps per token without checkpointing, and its backward transients.

    Llama-like, trained, stock: 16h + 4q + 4kv + 8f. Ignores dropout in the base model and linear-attention
    states (their projections are counted as attention).
    """
    wide = kernels.wide
    split = _attention_bytes(sums, kernels) + _adapter_bytes(sums, kernels, "attention", sums.layers)
    transient = 10.0 * (sums.mla_qk if sums.mla else sums.query)
    routed = routed_transient = 0.0
    if moe:
        split += _adapter_bytes(sums, kernels, "shared_expert", sums.moe_layers)
        split += _mlp_bytes(sums.shared_ffn, True, kernels) if sums.shared_ffn else 0.0
        split += 6.0 * sums.experts + 24.0 * sums.top_k
        routed = _routed_bytes(sums, kernels, adapts_experts(sums, kernels))
        routed_transient = wide * sums.top_k * (2.0 * sums.hidden + 6.0 * sums.expert_ffn)
        transient = max(transient, 6.0 * sums.shared_ffn)
    else:
        split += _adapter_bytes(sums, kernels, "mlp", max(sums.dense_layers, 1))
        split += _mlp_bytes(sums.ffn, sums.gated, kernels)
        transient = max(transient, 6.0 * sums.ffn)
    eager = kernels.attention == "eager"
    return LayerBytes(
        whole=_norms_bytes(sums, kernels),
        split=split,
        per_context=6.0 * sums.heads if eager else 0.0,
        routed=routed,
        transient=wide * (transient + 2.0 * sums.hidden),
        routed_transient=routed_transient,
        transient_per_context=8.0 * sums.heads if eager else 0.0,
    )
