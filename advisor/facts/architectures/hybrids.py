"""Text decoders whose layers are not uniform enough for a table row."""

from __future__ import annotations

from advisor.errors import InputError
from advisor.facts.architectures.decoder import grouped_attention, routed_block
from advisor.facts.architectures.family import Family, MoeFamily
from advisor.facts.architectures.fields import Fields
from advisor.facts.architectures.inventory import Inventory
from advisor.facts.architectures.mllama import MLLAMA, mllama_text

NEMOTRON_LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
NEMOTRON_NAMES = {"mamba": "linear_attention", "attention": "full_attention"}


def falcon_h1(family: Family, fields: Fields, model: Inventory) -> None:
    """Attention and a Mamba-2 mixer side by side in every layer."""
    hidden, count = fields.hidden, fields.layers
    model.add("embed_tokens.weight", (fields.size("vocab_size"), hidden), "embedding")
    layers = model.under("layers.*")
    grouped_attention(family, fields, layers.under("self_attn"), count)
    inner = fields.size_or("mamba_d_ssm", fields.size("mamba_expand") * hidden)
    states = fields.size("mamba_n_groups") * fields.size("mamba_d_state")
    block = layers.under("mamba")
    _mamba(fields, block, count, inner, states, fields.size("mamba_n_heads"), "mamba_d_conv")
    if fields.flag("mamba_conv_bias"):
        block.add("conv1d.bias", (inner + 2 * states,), "attention", count)
    if fields.flag("mamba_rms_norm"):
        block.norm("norm", inner, count)
    ffn, bias = fields.size("intermediate_size"), fields.flag("mlp_bias")
    layers.gated_mlp("feed_forward", hidden, ffn, "mlp", count, bias=bias)
    layers.norm("input_layernorm", hidden, count)
    layers.norm("pre_ff_layernorm", hidden, count)
    model.norm("final_layernorm", hidden)


def _mamba(
    fields: Fields, block: Inventory, count: int, inner: int, states: int, heads: int, kernel: str
) -> None:
    conv = inner + 2 * states
    for name in ("dt_bias", "A_log", "D"):
        block.add(name, (heads,), "attention", count)
    block.add("conv1d.weight", (conv, 1, fields.size(kernel)), "attention", count)
    in_bias = fields.flag("mamba_proj_bias") or fields.flag("use_bias")
    out_bias = fields.flag("projectors_bias") or fields.flag("use_bias")
    block.linear("in_proj", (inner + conv + heads, fields.hidden), "attention", count, bias=in_bias)
    block.linear("out_proj", (fields.hidden, inner), "attention", count, bias=out_bias)


def nemotron_blocks(fields: Fields) -> list[str]:
    """Kind of each layer, from layers_block_type or the older letter pattern."""
    listed = fields.names("layers_block_type")
    pattern = fields.get("hybrid_override_pattern")
    if listed is None and pattern is not None:
        return [NEMOTRON_LETTERS.get(letter, letter) for letter in str(pattern)]
    if listed is None:
        raise InputError(
            "model", "the nemotron_h config has neither layers_block_type nor hybrid_override_pattern"
        )
    return [NEMOTRON_NAMES.get(name, name) for name in listed]


def nemotron_h(family: Family, fields: Fields, model: Inventory) -> None:
    """Layers that are each one of Mamba-2, attention, MLP or routed experts."""
    kinds, hidden = nemotron_blocks(fields), fields.hidden
    model.add("embeddings.weight", (fields.size("vocab_size"), hidden), "embedding")
    layers, block = model.under("layers.*"), model.under("layers.*.mixer")
    layers.norm("norm", hidden, len(kinds))
    count = kinds.count("linear_attention")
    heads = fields.size("mamba_num_heads")
    inner = heads * fields.size("mamba_head_dim")
    states = fields.size("n_groups") * fields.size("ssm_state_size")
    _mamba(fields, block, count, inner, states, heads, "conv_kernel")
    if fields.flag("use_conv_bias"):
        block.add("conv1d.bias", (inner + 2 * states,), "attention", count)
    block.norm("norm", inner, count)
    grouped_attention(family, fields, block, kinds.count("full_attention"))
    _up_down(block, hidden, fields.size("intermediate_size"), "mlp", kinds.count("mlp"), fields)
    if kinds.count("moe"):
        _nemotron_moe(fields, block, kinds.count("moe"))
    model.norm("norm_f", hidden)


def granite_hybrid(family: Family, fields: Fields, model: Inventory) -> None:
    """Granite 4: Mamba-2 or attention, then routed experts (if any) and an always-on MLP."""
    hidden, layers = fields.hidden, model.under("layers.*")
    model.add("embed_tokens.weight", (fields.size("vocab_size"), hidden), "embedding")
    kinds = fields.layer_types() or fields.names("layers_block_type") or []
    attention = sum(1 for kind in kinds if kind.endswith("attention") and kind != "linear_attention")
    count = fields.layers - attention
    grouped_attention(family, fields, layers.under("self_attn"), attention)
    inner = fields.size("mamba_expand") * hidden
    states = fields.size("mamba_n_groups") * fields.size("mamba_d_state")
    block = layers.under("mamba")
    _mamba(fields, block, count, inner, states, fields.size("mamba_n_heads"), "mamba_d_conv")
    if fields.flag("mamba_proj_bias"):
        block.add("out_proj.bias", (hidden,), "attention", count)
    if fields.flag("mamba_conv_bias"):
        block.add("conv1d.bias", (inner + 2 * states,), "attention", count)
    block.norm("norm", inner, count)
    if family.moe is not None and family.moe.layers(fields):
        moe = layers.under(family.moe.block)
        routed_block(family.moe, fields, moe, fields.layers, shared_bias=False)
    shared = fields.size("shared_intermediate_size")
    layers.linear("shared_mlp.input_linear", (2 * shared, hidden), "mlp", fields.layers)
    layers.linear("shared_mlp.output_linear", (hidden, shared), "mlp", fields.layers)
    for name in family.norms:
        layers.norm(name, hidden, fields.layers)
    model.norm("norm", hidden)


def layer_count(fields: Fields) -> int:
    """Decoder layers; a nemotron_h config may only list their kinds."""
    return len(nemotron_blocks(fields)) if fields.model_type == "nemotron_h" else fields.layers


def _up_down(block: Inventory, hidden: int, ffn: int, role: str, count: int, fields: Fields) -> None:
    bias = fields.flag("mlp_bias")
    block.linear("up_proj", (ffn, hidden), role, count, bias=bias)
    block.linear("down_proj", (hidden, ffn), role, count, bias=bias)


def _nemotron_moe(fields: Fields, block: Inventory, count: int) -> None:
    experts, ffn = fields.size("n_routed_experts"), fields.size("moe_intermediate_size")
    latent = fields.size_or("moe_latent_size", 0)
    inner = latent or fields.hidden
    block.add("gate.weight", (experts, fields.hidden), "router", count)
    block.add("experts.up_proj", (experts, ffn, inner), "expert", count)
    block.add("experts.down_proj", (experts, inner, ffn), "expert", count)
    if latent:
        bias = fields.flag("mlp_bias")
        block.linear("fc1_latent_proj", (latent, fields.hidden), "shared_expert", count, bias=bias)
        block.linear("fc2_latent_proj", (fields.hidden, latent), "shared_expert", count, bias=bias)
    shared = fields.size("moe_shared_expert_intermediate_size")
    _up_down(block.under("shared_experts"), fields.hidden, shared, "shared_expert", count, fields)


def gemma4_kinds(fields: Fields) -> list[str]:
    kinds = fields.layer_types()
    if kinds is None:
        kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(fields.layers)]
    return [*kinds[:-1], "full_attention"]


def gemma4_text(family: Family, fields: Fields, model: Inventory) -> None:
    """Sliding layers and wider global ones; the last layers may reuse earlier keys and values."""
    if fields.get("per_layer_config"):
        raise InputError("model", "gemma4 configs with per_layer_config are not supported")
    hidden, vocab = fields.hidden, fields.size("vocab_size")
    model.add("embed_tokens.weight", (vocab, hidden), "embedding")
    layers = model.under("layers.*")
    _gemma4_attention(fields, layers.under("self_attn"))
    _gemma4_feed_forward(family, fields, layers)
    for name in family.norms:
        layers.norm(name, hidden, fields.layers)
    model.norm("norm", hidden)
    per_layer = fields.size_or("hidden_size_per_layer_input", 0)
    if per_layer:
        layers.linear("per_layer_input_gate", (per_layer, hidden), "mlp", fields.layers)
        layers.linear("per_layer_projection", (hidden, per_layer), "mlp", fields.layers)
        layers.norm("post_per_layer_input_norm", hidden, fields.layers)
        all_layers, rows = fields.layers * per_layer, fields.size("vocab_size_per_layer_input")
        model.add("embed_tokens_per_layer.weight", (rows, all_layers), "embedding")
        model.linear("per_layer_model_projection", (all_layers, hidden), "mlp")
        model.norm("per_layer_projection_norm", per_layer)


def _gemma4_attention(fields: Fields, block: Inventory) -> None:
    shared = fields.size_or("num_kv_shared_layers", 0)
    kinds = gemma4_kinds(fields)
    own = kinds[: len(kinds) - shared]
    same = fields.flag("attention_k_eq_v")
    global_kv = fields.size_or("num_global_key_value_heads", fields.kv_heads) if same else fields.kv_heads
    global_dim = fields.size_or("global_head_dim", 512)
    widths = {
        "sliding_attention": (fields.head_dim, fields.kv_heads, False),
        "full_attention": (global_dim, global_kv, same),
    }
    bias, hidden = fields.flag("attention_bias"), fields.hidden
    for kind, (head, kv_heads, k_is_v) in widths.items():
        count, with_kv = kinds.count(kind), own.count(kind)
        rows = fields.heads * head
        block.linear("q_proj", (rows, hidden), "attention", count, bias=bias)
        block.norm("q_norm", head, count)
        block.linear("k_proj", (kv_heads * head, hidden), "attention", with_kv, bias=bias)
        block.norm("k_norm", head, with_kv)
        if not k_is_v:
            block.linear("v_proj", (kv_heads * head, hidden), "attention", with_kv, bias=bias)
        block.linear("o_proj", (hidden, rows), "attention", count, bias=bias)


def _gemma4_feed_forward(family: Family, fields: Fields, layers: Inventory) -> None:
    hidden, ffn = fields.hidden, fields.size("intermediate_size")
    wide = fields.size_or("num_kv_shared_layers", 0) if fields.flag("use_double_wide_mlp") else 0
    layers.gated_mlp("mlp", hidden, ffn, "mlp", fields.layers - wide)
    layers.gated_mlp("mlp", hidden, 2 * ffn, "mlp", wide)
    if not fields.flag("enable_moe_block") or family.moe is None:
        return
    experts, inner = fields.size(family.moe.experts), fields.size(family.moe.ffn)
    layers.add("router.scale", (hidden,), "router", fields.layers)
    layers.add("router.per_expert_scale", (experts,), "router", fields.layers)
    layers.linear("router.proj", (experts, hidden), "router", fields.layers)
    layers.add("experts.gate_up_proj", (experts, 2 * inner, hidden), "expert", fields.layers)
    layers.add("experts.down_proj", (experts, hidden, inner), "expert", fields.layers)
    for name in ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2"):
        layers.norm(name, hidden, fields.layers)
    layers.norm("pre_feedforward_layernorm_2", hidden, fields.layers)


def _gemma4_moe_layers(fields: Fields) -> int:
    return fields.layers if fields.flag("enable_moe_block") else 0


def _nemotron_moe_layers(fields: Fields) -> int:
    return nemotron_blocks(fields).count("moe")


FALCON_H1 = Family(
    "FalconH1ForCausalLM", "FalconH1DecoderLayer", qkv_bias="attention_bias", o_bias="attention_bias"
)
NEMOTRON_H = Family(
    "NemotronHForCausalLM",
    "NemotronHBlock",
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    moe=MoeFamily(
        layers=_nemotron_moe_layers,
        experts="n_routed_experts",
        block="mixer",
        shared="shared_experts",
        shared_ffn=lambda fields: fields.size("moe_shared_expert_intermediate_size"),
    ),
)
GEMMA4 = Family(
    "Gemma4ForCausalLM",
    "Gemma4TextDecoderLayer",
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    moe=MoeFamily(layers=_gemma4_moe_layers, per_token="top_k_experts", block=""),
)
GRANITE_HYBRID = Family(
    "GraniteMoeHybridForCausalLM",
    "GraniteMoeHybridDecoderLayer",
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    moe=MoeFamily(
        layers=lambda fields: fields.layers if fields.size_or("num_local_experts", 0) else 0,
        experts="num_local_experts",
        ffn="intermediate_size",
        block="block_sparse_moe",
        router="router",
    ),
)
HYBRIDS = {
    "granitemoehybrid": (GRANITE_HYBRID, granite_hybrid),
    "mllama_text_model": (MLLAMA, mllama_text),
    "falcon_h1": (FALCON_H1, falcon_h1),
    "nemotron_h": (NEMOTRON_H, nemotron_h),
    "gemma4_text": (GEMMA4, gemma4_text),
}
"""Model type -> its description and the function that writes its weights."""
