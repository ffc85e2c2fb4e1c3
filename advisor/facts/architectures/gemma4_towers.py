"""Vision and audio towers of Gemma 4."""

from __future__ import annotations

from advisor.facts.architectures.fields import Fields
from advisor.facts.architectures.inventory import Inventory


def gemma4_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("vision_tower"), fields.hidden, fields.layers
    patch = fields.size("patch_size")
    embedder = tower.under("patch_embedder")
    embedder.add("position_embedding_table", (2, fields.size("position_embedding_size"), width), "vision")
    embedder.linear("input_proj", (width, 3 * patch**2), "vision")
    block = tower.under("encoder.layers.*")
    queries, keys = fields.heads * fields.head_dim, fields.kv_heads * fields.head_dim
    shapes = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
    }
    ffn = fields.size("intermediate_size")
    shapes |= {"mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width), "mlp.down_proj": (width, ffn)}
    for name, shape in shapes.items():
        block.linear(f"{name}.linear", shape, "vision", depth)
    for name in ("self_attn.q_norm", "self_attn.k_norm"):
        block.norm(name, fields.head_dim, depth, role="vision")
    for name in ("input_", "post_attention_", "pre_feedforward_", "post_feedforward_"):
        block.norm(f"{name}layernorm", width, depth, role="vision")
    model.linear("embed_vision.embedding_projection", (text.hidden, width), "projector")


def gemma4_audio(fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("audio_tower"), fields.hidden, fields.layers
    _subsampling(tower.under("subsample_conv_projection"), fields, width)
    block = tower.under("layers.*")
    for name in ("feed_forward1", "feed_forward2"):
        part = block.under(name)
        part.linear("ffw_layer_1.linear", (4 * width, width), "vision", depth)
        part.linear("ffw_layer_2.linear", (width, 4 * width), "vision", depth)
        part.norm("pre_layer_norm", width, depth, role="vision")
        part.norm("post_layer_norm", width, depth, role="vision")
    attention = block.under("self_attn")
    attention.add("per_dim_scale", (width // fields.heads,), "vision", depth)
    for name in ("q_proj.linear", "k_proj.linear", "v_proj.linear", "post.linear", "relative_k_proj"):
        attention.linear(name, (width, width), "vision", depth)
    conv = block.under("lconv1d")
    conv.linear("linear_start.linear", (2 * width, width), "vision", depth)
    conv.linear("linear_end.linear", (width, width), "vision", depth)
    conv.add("depthwise_conv1d.weight", (width, 1, fields.size("conv_kernel_size")), "vision", depth)
    for name in ("pre_layer_norm", "conv_norm"):
        conv.norm(name, width, depth, role="vision")
    for name in ("norm_pre_attn", "norm_post_attn", "norm_out"):
        block.norm(name, width, depth, role="vision")
    out = fields.size("output_proj_dims")
    tower.linear("output_proj", (out, width), "vision", bias=True)
    model.linear("embed_audio.embedding_projection", (text.hidden, out), "projector")


def _subsampling(part: Inventory, fields: Fields, width: int) -> None:
    first, second = fields.numbers("subsampling_conv_channels") or [128, 32]
    part.add("layer0.conv.weight", (first, 1, 3, 3), "vision")
    part.norm("layer0.norm", first, role="vision")
    part.add("layer1.conv.weight", (second, first, 3, 3), "vision")
    part.norm("layer1.norm", second, role="vision")
    part.linear("input_proj_linear", (width, first // 4 * second), "vision")
