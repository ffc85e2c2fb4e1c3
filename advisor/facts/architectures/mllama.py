"""Llama 3.2 Vision: a tiled ViT and a text decoder with cross-attention layers."""

from __future__ import annotations

from dataclasses import replace

from advisor.facts.architectures.decoder import grouped_attention
from advisor.facts.architectures.family import Family
from advisor.facts.architectures.fields import Fields
from advisor.facts.architectures.inventory import Inventory

MLLAMA = Family("MllamaForCausalLM", "MllamaSelfAttentionDecoderLayer")
CROSS = replace(MLLAMA, qk_norm="head")
CROSS_LAYERS = [3, 8, 13, 18, 23, 28, 33, 38]
FEATURE_LAYERS = [3, 7, 15, 23, 30]
ASPECT_RATIOS = 8
EXTRA_ROWS = 8
"""Embedding rows beyond the vocabulary, for the image token."""


def mllama_text(family: Family, fields: Fields, model: Inventory) -> None:
    hidden, layers = fields.hidden, model.under("layers.*")
    model.add("embed_tokens.weight", (fields.size("vocab_size") + EXTRA_ROWS, hidden), "embedding")
    listed = fields.numbers("cross_attention_layers")
    placed = CROSS_LAYERS if listed is None else listed
    crossing = sum(1 for index in placed if index < fields.layers)
    grouped_attention(family, fields, layers.under("self_attn"), fields.layers - crossing)
    grouped_attention(CROSS, fields, layers.under("cross_attn"), crossing)
    for gate in ("cross_attn_attn_gate", "cross_attn_mlp_gate"):
        layers.add(gate, (1,), "other", crossing)
    layers.gated_mlp("mlp", hidden, fields.size("intermediate_size"), "mlp", fields.layers)
    for name in family.norms:
        layers.norm(name, hidden, fields.layers)
    model.norm("norm", hidden)


def mllama_vision(top: Fields, fields: Fields, text: Fields, model: Inventory) -> None:
    tower, width = model.under("vision_model"), fields.hidden
    patch, tiles = fields.size("patch_size"), fields.size("max_num_tiles")
    places = (fields.size("image_size") // patch) ** 2 + 1
    ratios = fields.get("supported_aspect_ratios")
    rows = (len(ratios) if isinstance(ratios, list) else ASPECT_RATIOS) + 1
    tower.add("class_embedding", (width,), "vision")
    tower.add("patch_embedding.weight", (width, fields.size("num_channels"), patch, patch), "vision")
    positions = tower.under("gated_positional_embedding")
    positions.add("gate", (1,), "vision")
    positions.add("embedding", (places, width), "vision")
    positions.add("tile_embedding.weight", (rows, tiles * places * width), "vision")
    for name in ("pre_tile_positional_embedding", "post_tile_positional_embedding"):
        tower.add(f"{name}.gate", (1,), "vision")
        tower.add(f"{name}.embedding.weight", (rows, tiles * width), "vision")
    for name in ("layernorm_pre", "layernorm_post"):
        tower.norm(name, width, bias=True, role="vision")
    _layers(tower.under("transformer.layers.*"), fields, fields.layers)
    deep = tower.under("global_transformer.layers.*")
    _layers(deep, fields, fields.size("num_global_layers"))
    for gate in ("gate_attn", "gate_ffn"):
        deep.add(gate, (1,), "vision", fields.size("num_global_layers"))
    taken = len(fields.numbers("intermediate_layers_indices") or FEATURE_LAYERS) + 1
    model.linear("multi_modal_projector", (text.hidden, taken * width), "projector", bias=True)


def _layers(block: Inventory, fields: Fields, count: int) -> None:
    width, ffn = fields.hidden, fields.size("intermediate_size")
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        block.linear(f"self_attn.{name}", (width, width), "vision", count)
    block.linear("mlp.fc1", (ffn, width), "vision", count, bias=True)
    block.linear("mlp.fc2", (width, ffn), "vision", count, bias=True)
    for name in ("input_layernorm", "post_attention_layernorm"):
        block.norm(name, width, count, bias=True, role="vision")
