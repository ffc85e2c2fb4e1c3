"""Writes the weights of a text decoder from its family row and its config."""

from __future__ import annotations

from collections.abc import Callable

from advisor.facts.architectures.family import Family, MoeFamily
from advisor.facts.architectures.fields import Fields
from advisor.facts.architectures.inventory import Inventory


def text_decoder(family: Family, fields: Fields, model: Inventory) -> None:
    """Everything below `model` except the output head."""
    model.add("embed_tokens.weight", (fields.size("vocab_size"), fields.hidden), "embedding")
    layers = model.under("layers.*")
    ATTENTION[family.attention](family, fields, layers)
    _feed_forward(family, fields, layers)
    if family.norm_weight:
        for name in family.norms:
            layers.norm(name, fields.hidden, fields.layers, bias=family.norm_bias)
        model.norm("norm", fields.hidden, bias=family.norm_bias)


def lm_head(family: Family, fields: Fields, top: Inventory, *, tied: bool) -> None:
    """The output head; a tied one is the embedding and is not counted twice."""
    if not tied:
        shape = (fields.size("vocab_size"), fields.hidden)
        top.linear("lm_head", shape, "lm_head", bias=False)
    if fields.flag(family.lm_head_bias):
        top.add("lm_head.bias", (fields.size("vocab_size"),), "lm_head")


def _grouped(family: Family, fields: Fields, layers: Inventory) -> None:
    grouped_attention(family, fields, layers.under("self_attn"), fields.layers)


def grouped_attention(family: Family, fields: Fields, block: Inventory, count: int) -> None:
    """Multi-head or grouped-query attention in `count` layers."""
    hidden, head = fields.hidden, fields.head_dim
    queries, keys = fields.heads * head, fields.kv_heads * head
    bias, o_bias = fields.flag(family.qkv_bias), fields.flag(family.o_bias)
    q_rows = queries * 2 if family.output_gate else queries
    block.linear("q_proj", (q_rows, hidden), "attention", count, bias=bias)
    block.linear("k_proj", (keys, hidden), "attention", count, bias=bias)
    block.linear("v_proj", (keys, hidden), "attention", count, bias=bias)
    block.linear("o_proj", (hidden, queries), "attention", count, bias=o_bias)
    if family.sinks:
        block.add("sinks", (fields.heads,), "attention", count)
    if family.qk_norm and (not family.qk_norm_if or fields.flag(family.qk_norm_if)):
        _qk_norms(family, fields, block, count)


def _qk_norms(family: Family, fields: Fields, block: Inventory, count: int) -> None:
    head = fields.head_dim
    shapes = {
        "head": ((head,), (head,)),
        "full": ((fields.heads * head,), (fields.kv_heads * head,)),
        "per-head": ((fields.heads, head), (fields.kv_heads, head)),
    }[family.qk_norm]
    for name, shape in zip(family.qk_norm_names, shapes, strict=True):
        block.add(f"{name}.weight", shape, "norm", count)


def _fused(family: Family, fields: Fields, layers: Inventory) -> None:
    block, head = layers.under("self_attn"), fields.head_dim
    queries = fields.heads * head
    rows = queries + 2 * fields.kv_heads * head
    block.linear("qkv_proj", (rows, fields.hidden), "attention", fields.layers)
    block.linear("o_proj", (fields.hidden, queries), "attention", fields.layers)


def _latent(family: Family, fields: Fields, layers: Inventory) -> None:
    """Multi-head latent attention: queries and keys/values pass a low-rank bottleneck."""
    block, count, hidden = layers.under("self_attn"), fields.layers, fields.hidden
    rope, nope = fields.size("qk_rope_head_dim"), fields.size("qk_nope_head_dim")
    value, kv_rank = fields.size("v_head_dim"), fields.size("kv_lora_rank")
    bias = fields.flag(family.qkv_bias)
    q_rows = fields.heads * (nope + rope)
    q_rank = fields.size_or("q_lora_rank", 0)
    if q_rank:
        block.linear("q_a_proj", (q_rank, hidden), "attention", count, bias=bias)
        block.norm("q_a_layernorm", q_rank, count)
        block.linear("q_b_proj", (q_rows, q_rank), "attention", count)
    else:
        block.linear("q_proj", (q_rows, hidden), "attention", count)
    block.linear("kv_a_proj_with_mqa", (kv_rank + rope, hidden), "attention", count, bias=bias)
    block.norm("kv_a_layernorm", kv_rank, count)
    block.linear("kv_b_proj", (fields.heads * (nope + value), kv_rank), "attention", count)
    block.linear("o_proj", (hidden, fields.heads * value), "attention", count, bias=bias)
    if family.indexer:
        _indexer(fields, block.under("indexer"), q_rank or hidden)


def _indexer(fields: Fields, block: Inventory, query_in: int) -> None:
    count = _indexed_layers(fields)
    heads, width = fields.size("index_n_heads"), fields.size("index_head_dim")
    block.linear("wq_b", (heads * width, query_in), "attention", count)
    block.linear("wk", (width, fields.hidden), "attention", count)
    block.norm("k_norm", width, count, bias=True)
    block.linear("weights_proj", (heads, fields.hidden), "attention", count)


def _indexed_layers(fields: Fields) -> int:
    """Layers with an indexer of their own; the others reuse the choice of the layer before."""
    kinds = fields.names("indexer_types")
    if kinds is None and isinstance(fields.get("index_topk_pattern"), str):
        return str(fields.get("index_topk_pattern")).count("F")
    if kinds is not None:
        return kinds.count("full")
    every, offset = max(fields.size_or("index_topk_freq", 1), 1), fields.size_or("index_skip_topk_offset", 2)
    return sum(1 for i in range(fields.layers) if max(i - offset + 1, 0) % every == 0)


def linear_layers(fields: Fields) -> int:
    """Layers with linear instead of softmax attention."""
    kinds = fields.layer_types()
    if kinds is not None:
        return kinds.count("linear_attention")
    every = fields.size_or("full_attention_interval", 4)
    return fields.layers - fields.layers // every


def _deltanet(family: Family, fields: Fields, layers: Inventory) -> None:
    """Gated delta-rule layers with a full-attention layer in between."""
    count = linear_layers(fields)
    grouped_attention(family, fields, layers.under("self_attn"), fields.layers - count)
    block, hidden = layers.under("linear_attn"), fields.hidden
    key = fields.size("linear_num_key_heads") * fields.size("linear_key_head_dim")
    heads = fields.size("linear_num_value_heads")
    value = heads * fields.size("linear_value_head_dim")
    block.add("dt_bias", (heads,), "attention", count)
    block.add("A_log", (heads,), "attention", count)
    block.add(
        "conv1d.weight", (2 * key + value, 1, fields.size("linear_conv_kernel_dim")), "attention", count
    )
    split = {"in_proj_qkv": 2 * key + value, "in_proj_z": value, "in_proj_b": heads, "in_proj_a": heads}
    joined = {"in_proj_qkvz": 2 * key + 2 * value, "in_proj_ba": 2 * heads}
    for name, rows in (split if family.attention == "deltanet-split" else joined).items():
        block.linear(name, (rows, hidden), "attention", count)
    block.norm("norm", fields.size("linear_value_head_dim"), count)
    block.linear("out_proj", (hidden, value), "attention", count)


ATTENTION: dict[str, Callable[[Family, Fields, Inventory], None]] = {
    "grouped": _grouped,
    "fused": _fused,
    "latent": _latent,
    "deltanet": _deltanet,
    "deltanet-split": _deltanet,
}


def sparse_layers(family: Family, fields: Fields) -> int:
    return 0 if family.moe is None else family.moe.layers(fields)


def _feed_forward(family: Family, fields: Fields, layers: Inventory) -> None:
    sparse = sparse_layers(family, fields)
    if fields.layers > sparse:
        _dense_mlp(family, fields, layers.under("mlp" if family.moe is None else family.moe.block), sparse)
    if family.moe is not None and sparse:
        bias = fields.flag(family.mlp_bias)
        routed_block(family.moe, fields, layers.under(family.moe.block), sparse, shared_bias=bias)


def _dense_mlp(family: Family, fields: Fields, block: Inventory, sparse: int) -> None:
    hidden, count = fields.hidden, fields.layers - sparse
    ffn = fields.size_or("intermediate_size_mlp", fields.size("intermediate_size"))
    bias = fields.flag(family.mlp_bias)
    rows = {
        "gated": {"gate_proj": (ffn, hidden), "up_proj": (ffn, hidden), "down_proj": (hidden, ffn)},
        "fused": {"gate_up_proj": (2 * ffn, hidden), "down_proj": (hidden, ffn)},
        "up-down": {"up_proj": (ffn, hidden), "down_proj": (hidden, ffn)},
        "c_fc": {"c_fc": (ffn, hidden), "c_proj": (hidden, ffn)},
    }[family.mlp]
    for name, shape in rows.items():
        block.linear(name, shape, "mlp", count, bias=bias)
    for name in family.activation_weights:
        block.add(f"act_fn.{name}", (1,), "other", count)


def routed_block(moe: MoeFamily, fields: Fields, block: Inventory, count: int, *, shared_bias: bool) -> None:
    """Router, fused routed experts and the always-on expert of `count` layers."""
    hidden, experts, ffn = fields.hidden, fields.size(moe.experts), fields.size(moe.ffn)
    block.add(f"{moe.router}.weight", (experts, hidden), "router", count, linear=moe.router_linear)
    if moe.router_bias:
        block.add(f"{moe.router}.bias", (experts,), "router", count)
    if moe.correction:
        block.add(moe.correction, (*moe.correction_shape, experts), "router", count)
    block.add("experts.gate_up_proj", (experts, 2 * ffn, hidden), "expert", count)
    block.add("experts.down_proj", (experts, hidden, ffn), "expert", count)
    if moe.expert_bias:
        block.add("experts.gate_up_proj_bias", (experts, 2 * ffn), "expert", count)
        block.add("experts.down_proj_bias", (experts, hidden), "expert", count)
    shared = moe.shared_ffn(fields)
    if moe.shared and shared:
        block.gated_mlp(moe.shared, hidden, shared, "shared_expert", count, bias=shared_bias)
    if moe.shared_gate:
        block.linear(f"{moe.shared}_gate", (1, hidden), "router", count)
    if moe.post_norm:
        block.norm(moe.post_norm, hidden, count)
