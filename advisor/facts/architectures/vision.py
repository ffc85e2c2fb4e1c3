"""Vision (and audio) towers and projectors of multimodal models."""

from __future__ import annotations

from advisor.facts.architectures.fields import Fields
from advisor.facts.architectures.inventory import Inventory


def _patch(fields: Fields) -> tuple[int, int]:
    """Patch height and width, given as one number or two."""
    pair = fields.numbers("patch_size")
    return (pair[0], pair[1]) if pair else (fields.size("patch_size"), fields.size("patch_size"))


def _image(fields: Fields) -> tuple[int, int]:
    pair = fields.numbers("image_size")
    return (pair[0], pair[1]) if pair else (fields.size("image_size"), fields.size("image_size"))


def _attention(block: Inventory, names: tuple[str, ...], width: int, count: int, *, bias: bool) -> None:
    for name in names:
        block.linear(name, (width, width), "vision", count, bias=bias)


def _mlp(block: Inventory, names: tuple[str, str], width: int, ffn: int, count: int) -> None:
    block.linear(names[0], (ffn, width), "vision", count, bias=True)
    block.linear(names[1], (width, ffn), "vision", count, bias=True)


def _norms(block: Inventory, names: tuple[str, ...], width: int, count: int, *, bias: bool = True) -> None:
    for name in names:
        block.norm(name, width, count, bias=bias, role="vision")


def qwen_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    """Qwen3-VL and Qwen3.5: plain ViT blocks, one merger, with Qwen3-VL's deep-stack mergers."""
    tower, width, depth = model.under("visual"), fields.hidden, fields.size("depth")
    patch = fields.size("patch_size")
    shape = (width, fields.size("in_channels"), fields.size("temporal_patch_size"), patch, patch)
    tower.add("patch_embed.proj.weight", shape, "vision")
    tower.add("patch_embed.proj.bias", (width,), "vision")
    tower.add("pos_embed.weight", (fields.size("num_position_embeddings"), width), "vision")
    block = tower.under("blocks.*")
    _norms(block, ("norm1", "norm2"), width, depth)
    block.linear("attn.qkv", (3 * width, width), "vision", depth, bias=True)
    block.linear("attn.proj", (width, width), "vision", depth, bias=True)
    _mlp(block, ("mlp.linear_fc1", "mlp.linear_fc2"), width, fields.size("intermediate_size"), depth)
    merged = width * fields.size("spatial_merge_size") ** 2
    out = fields.size("out_hidden_size")
    deep = len(fields.numbers("deepstack_visual_indexes") or [])
    for name, norm, count in (("merger", width, 1), ("deepstack_merger_list.*", merged, deep)):
        merger = tower.under(name)
        merger.norm("norm", norm, count, bias=True, role="projector")
        merger.linear("linear_fc1", (merged, merged), "projector", count, bias=True)
        merger.linear("linear_fc2", (out, merged), "projector", count, bias=True)


def qwen2_5_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("visual"), fields.hidden, fields.size("depth")
    patch = fields.size("patch_size")
    shape = (width, fields.size("in_channels"), fields.size("temporal_patch_size"), patch, patch)
    tower.add("patch_embed.proj.weight", shape, "vision")
    block, ffn = tower.under("blocks.*"), fields.size("intermediate_size")
    _norms(block, ("norm1", "norm2"), width, depth, bias=False)
    block.linear("attn.qkv", (3 * width, width), "vision", depth, bias=True)
    block.linear("attn.proj", (width, width), "vision", depth, bias=True)
    block.gated_mlp("mlp", width, ffn, "vision", depth, bias=True)
    merged, merger = width * fields.size("spatial_merge_size") ** 2, tower.under("merger")
    merger.norm("ln_q", width, role="projector")
    merger.linear("mlp.*", (merged, merged), "projector", bias=True)
    merger.linear("mlp.*", (fields.size("out_hidden_size"), merged), "projector", bias=True)


def glm4v_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("visual"), fields.hidden, fields.size("depth")
    patch, merge = fields.size("patch_size"), fields.size("spatial_merge_size")
    out = fields.size("out_hidden_size")
    places = (fields.size("image_size") // patch) ** 2
    tower.add("embeddings.position_embedding.weight", (places, width), "vision")
    shape = (width, fields.size("in_channels"), fields.size("temporal_patch_size"), patch, patch)
    tower.add("patch_embed.proj.weight", shape, "vision")
    tower.add("patch_embed.proj.bias", (width,), "vision")
    block = tower.under("blocks.*")
    _norms(block, ("norm1", "norm2"), width, depth, bias=False)
    block.linear("attn.qkv", (3 * width, width), "vision", depth, bias=fields.flag("attention_bias"))
    block.linear("attn.proj", (width, width), "vision", depth)
    block.gated_mlp("mlp", width, out, "vision", depth)
    _norms(tower, ("post_conv_layernorm", "post_layernorm"), width, 1, bias=False)
    tower.add("downsample.weight", (out, width, merge, merge), "projector")
    tower.add("downsample.bias", (out,), "projector")
    merger = tower.under("merger")
    merger.linear("proj", (out, out), "projector")
    merger.norm("post_projection_norm", out, bias=True, role="projector")
    ffn = fields.size("intermediate_size")
    for name in ("gate_proj", "up_proj"):
        merger.linear(name, (ffn, out), "projector")
    merger.linear("down_proj", (out, ffn), "projector")


def siglip_gemma3(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("vision_tower"), fields.hidden, fields.layers
    rows, columns = _patch(fields)
    patches = (width, fields.size("num_channels"), rows, columns)
    tower.add("embeddings.patch_embedding.weight", patches, "vision")
    tower.add("embeddings.patch_embedding.bias", (width,), "vision")
    places = (fields.size("image_size") // fields.size("patch_size")) ** 2
    tower.add("embeddings.position_embedding.weight", (places, width), "vision")
    ffn = fields.size("intermediate_size")
    block = tower.under("encoder.layers.*")
    _norms(block, ("layer_norm1", "layer_norm2"), width, depth)
    _attention(block.under("self_attn"), ("q_proj", "k_proj", "v_proj", "out_proj"), width, depth, bias=True)
    _mlp(block, ("mlp.fc1", "mlp.fc2"), width, ffn, depth)
    _norms(tower, ("post_layernorm",), width, 1)
    if fields.get("vision_use_head") is not False:
        _siglip_head(tower.under("head"), width, ffn)
    projector = model.under("multi_modal_projector")
    projector.add("mm_input_projection_weight", (width, text.hidden), "projector")
    projector.norm("mm_soft_emb_norm", width, role="projector")


def _siglip_head(head: Inventory, width: int, ffn: int) -> None:
    head.add("probe", (1, 1, width), "vision")
    head.add("attention.in_proj_weight", (3 * width, width), "vision")
    head.add("attention.in_proj_bias", (3 * width,), "vision")
    head.linear("attention.out_proj", (width, width), "vision", bias=True)
    _norms(head, ("layernorm",), width, 1)
    _mlp(head, ("mlp.fc1", "mlp.fc2"), width, ffn, 1)


def pixtral(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("vision_tower"), fields.hidden, fields.layers
    rows, columns = _patch(fields)
    tower.add("patch_conv.weight", (width, fields.size("num_channels"), rows, columns), "vision")
    tower.norm("ln_pre", width, role="vision")
    block = tower.under("transformer.layers.*")
    _norms(block, ("attention_norm", "ffn_norm"), width, depth, bias=False)
    block.gated_mlp("feed_forward", width, fields.size("intermediate_size"), "vision", depth)
    _attention(block.under("attention"), ("q_proj", "k_proj", "v_proj", "o_proj"), width, depth, bias=False)
    projector, bias = model.under("multi_modal_projector"), top.flag("multimodal_projector_bias")
    projector.norm("norm", width, role="projector")
    merged = width * top.size("spatial_merge_size") ** 2
    projector.linear("patch_merger.merging_layer", (width, merged), "projector")
    projector.linear("linear_1", (text.hidden, width), "projector", bias=bias)
    projector.linear("linear_2", (text.hidden, text.hidden), "projector", bias=bias)


def llama4_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("vision_model"), fields.hidden, fields.layers
    patch, ffn = fields.size("patch_size"), fields.size("intermediate_size")
    places = (fields.size("image_size") // patch) ** 2 + 1
    tower.add("class_embedding", (width,), "vision")
    tower.add("positional_embedding_vlm", (places, width), "vision")
    tower.linear("patch_embedding.linear", (width, fields.size("num_channels") * patch**2), "vision")
    _norms(tower, ("layernorm_pre", "layernorm_post"), width, 1)
    block = tower.under("model.layers.*")
    _attention(block.under("self_attn"), ("q_proj", "k_proj", "v_proj", "o_proj"), width, depth, bias=True)
    _mlp(block, ("mlp.fc1", "mlp.fc2"), width, ffn, depth)
    _norms(block, ("input_layernorm", "post_attention_layernorm"), width, depth)
    inner, out = fields.size("projector_input_dim"), fields.size("projector_output_dim")
    tower.linear("vision_adapter.mlp.fc1", (inner, ffn), "projector")
    tower.linear("vision_adapter.mlp.fc2", (out, out), "projector")
    projected = (text.hidden, fields.size("vision_output_dim"))
    model.linear("multi_modal_projector.linear_1", projected, "projector")


def internvl_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("vision_tower"), fields.hidden, fields.layers
    (rows, columns), (height, breadth) = _patch(fields), _image(fields)
    embeddings = tower.under("embeddings")
    embeddings.add("cls_token", (1, 1, width), "vision")
    places = (height // rows) * (breadth // columns) + 1
    embeddings.add("position_embeddings", (1, places, width), "vision")
    patches = (width, fields.size("num_channels"), rows, columns)
    embeddings.add("patch_embeddings.projection.weight", patches, "vision")
    embeddings.add("patch_embeddings.projection.bias", (width,), "vision")
    block = tower.under("encoder.layer.*")
    block.add("lambda_1", (width,), "vision", depth)
    block.add("lambda_2", (width,), "vision", depth)
    attention = block.under("attention")
    _attention(attention, ("q_proj", "k_proj", "v_proj"), width, depth, bias=fields.flag("attention_bias"))
    _attention(attention, ("projection_layer",), width, depth, bias=True)
    if fields.flag("use_qk_norm"):
        _norms(attention, ("q_norm", "k_norm"), width, depth, bias=False)
    _mlp(block, ("mlp.fc1", "mlp.fc2"), width, fields.size("intermediate_size"), depth)
    _norms(block, ("layernorm_before", "layernorm_after"), width, depth)
    merged = width * 4
    projector = model.under("multi_modal_projector")
    projector.norm("layer_norm", merged, bias=True, role="projector")
    projector.linear("linear_1", (text.hidden, merged), "projector", bias=True)
    projector.linear("linear_2", (text.hidden, text.hidden), "projector", bias=True)


def kimi_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width, depth = model.under("vision_tower"), fields.hidden, fields.layers
    patch = fields.size("patch_size")
    tower.add("patch_embed.proj.weight", (width, 3, patch, patch), "vision")
    tower.add("patch_embed.proj.bias", (width,), "vision")
    places = (fields.size("pos_emb_height"), fields.size("pos_emb_width"), width)
    tower.add("patch_embed.pos_emb.position_embeddings", places, "vision")
    block = tower.under("layers.*")
    _norms(block, ("norm1", "norm2"), width, depth)
    _attention(block.under("attn"), ("q_proj", "k_proj", "v_proj", "proj"), width, depth, bias=True)
    _mlp(block, ("mlp.fc1", "mlp.fc2"), width, fields.size("intermediate_size"), depth)
    _norms(tower, ("final_layernorm",), width, 1)
    rows, columns = fields.numbers("merge_kernel_size") or [2, 2]
    merged, projector = width * rows * columns, model.under("mm_projector")
    projector.norm("pre_norm", top.size("projection_hidden_size"), bias=True, role="projector")
    projector.linear("in_proj", (merged, merged), "projector", bias=True)
    projector.linear("out_proj", (text.hidden, merged), "projector", bias=True)
