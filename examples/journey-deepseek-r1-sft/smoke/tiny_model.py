"""Make a tiny random model of the same architecture as yours, so that training can be tried on a CPU.

    python smoke/tiny_model.py --config config.json --rows data/train.jsonl --out smoke/tiny

The result is an ordinary Hugging Face model folder (config, safetensors weights, tokenizer with a chat
template) with a few hundred thousand random float32 weights. It knows nothing and answers nonsense: it
only shows whether the framework, your configuration and your data fit together.

    --config FILE          the config.json of the real model (a folder that holds one works too)
    --rows FILE            your training rows (.jsonl, .json or .parquet): a small byte-level tokenizer is
                           trained on their text. Any characters can be encoded: nothing is unknown.
    --out DIR              the folder to write
    --tokenizer-from DIR   copy a real tokenizer instead (the model then grows with its vocabulary)
    --family NAME          whose special tokens and chat format to use, when config.json does not tell
                           (a DeepSeek distillation of a Llama has the config.json of a Llama)
    --seq-class            a model with one score as its output: a reward model or a critic
    --seed N               of the random weights; a teacher must not be the student (default 20)

Kept: the architecture (kinds of attention, experts, tied embeddings, biases, position scaling). Made
small: every width, the number of layers, heads, experts and words. Dropped: quantization and extra
prediction heads. Nothing is downloaded. The last line it prints is JSON:

    {"parameters": 140352, "vocab": 512, "class": "Qwen3ForCausalLM"}

Exit code 0 = written, 1 = could not build the model, 2 = wrong arguments, 3 = the installed
transformers does not know this architecture, or has no reward model of it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HIDDEN, HEADS, HEAD_DIM, FFN, EXPERTS, EXPERT_FFN = 64, 4, 16, 128, 4, 32
VISION_HIDDEN, VISION_HEADS, VISION_FFN = 32, 2, 64
WORDS = 512
TEXT_LIMIT = 2_000_000

Config = dict[str, Any]


class UnknownArchitecture(Exception):
    """The installed transformers has no class for this config.json."""


# ---------------------------------------------------------------------------------------------------
# Shrinking a configuration
# ---------------------------------------------------------------------------------------------------

# Sizes by key name. A key that is absent, null, zero or a flag stays as it is, so that an optional
# part which the real model does not have is not switched on by making it small.
TEXT_SIZES: dict[str, int] = {
    "hidden_size": HIDDEN, "n_embd": HIDDEN, "d_model": HIDDEN, "head_dim": HEAD_DIM,
    "global_head_dim": HEAD_DIM, "swa_head_dim": HEAD_DIM, "attention_head_dim": HEAD_DIM,
    "num_attention_heads": HEADS, "n_head": HEADS, "swa_num_attention_heads": HEADS,
    "num_heads": HEADS, "intermediate_size": FFN, "intermediate_size_mlp": FFN, "n_inner": FFN,
    "query_pre_attn_scalar": HEAD_DIM,
    # experts
    "num_experts": EXPERTS, "num_local_experts": EXPERTS, "n_routed_experts": EXPERTS,
    "moe_num_experts": EXPERTS, "n_shared_experts": 1, "num_shared_experts": 1,
    "moe_num_shared_experts": 1, "moe_intermediate_size": EXPERT_FFN,
    "shared_expert_intermediate_size": EXPERT_FFN, "shared_intermediate_size": EXPERT_FFN,
    "moe_shared_expert_intermediate_size": EXPERT_FFN, "n_group": 1, "topk_group": 1,
    "num_expert_group": 1, "dense_intermediate_size": FFN, "projector_hidden_size": HIDDEN,
    "merged_hidden_size": HIDDEN,
    # multi-head latent attention and its sparse index
    "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "o_lora_rank": 16,
    "index_n_heads": 2, "index_head_dim": 16, "index_topk": 16,
    # linear attention and state space layers
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_head_dim": 16, "linear_num_heads": 4,
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16,
    "mamba_n_groups": 1, "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16,
    "mamba_d_ssm": 128, "mamba_chunk_size": 16, "chunk_size": 16, "n_groups": 1,
    # windows, learned positions, per-layer inputs
    "sliding_window": 16, "attention_chunk_size": 16, "n_positions": 1024,
    "hidden_size_per_layer_input": 16, "sliding_window_pattern": 4, "_sliding_window_pattern": 4,
    "full_attention_interval": 4,
}  # fmt: skip

VISION_SIZES: dict[str, int] = {
    "hidden_size": VISION_HIDDEN, "embed_dim": VISION_HIDDEN, "intermediate_size": VISION_FFN,
    "num_attention_heads": VISION_HEADS, "num_key_value_heads": VISION_HEADS,
    "num_heads": VISION_HEADS, "attention_heads": VISION_HEADS, "head_dim": 16, "depth": 2,
    "global_head_dim": 16, "num_hidden_layers": 2, "num_global_layers": 1, "out_hidden_size": HIDDEN,
    "vision_output_dim": HIDDEN, "projector_input_dim": HIDDEN, "projector_output_dim": HIDDEN,
    "projection_intermediate_size": VISION_FFN, "num_position_embeddings": 16, "position_embedding_size": 64,
}  # fmt: skip

OFF = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "num_kv_shared_layers")
TOP_K = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "top_k_experts", "moe_topk",
         "moe_k", "moe_top_k")  # fmt: skip
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
DROPPED = ("quantization_config", "compression_config", "auto_map", "_name_or_path", "transformers_version",
           "torch_dtype", "pruned_heads", "id2label", "label2id")  # fmt: skip
LATENT = ("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim")
VISION_PARTS = ("vision_config", "audio_config", "vit_config", "vision_tower_config")


def shrink(config: Config, vocab: int) -> Config:
    """The same configuration with small numbers. `config` must be complete (defaults filled in)."""
    small = {key: value for key, value in config.items() if key not in DROPPED}
    for key, value in small.items():
        if isinstance(value, dict) and key in VISION_PARTS:
            small[key] = shrink_vision(value)
        elif isinstance(value, dict) and key.endswith("_config") and not _by_layer(value):
            small[key] = shrink(value, vocab)
    _shrink_layers(small)
    _shrink_widths(small)
    _shrink_rope(small)
    for key in ("vocab_size", "vocab_size_per_layer_input"):
        if _positive(small.get(key)):
            small[key] = vocab
    if _positive(small.get("mm_tokens_per_image")):
        small["mm_tokens_per_image"] = 4
    small["dtype"] = "float32"
    return small


def shrink_vision(config: Config) -> Config:
    """A vision or audio tower of two narrow layers."""
    small = {key: value for key, value in config.items() if key not in DROPPED}
    for key, size in VISION_SIZES.items():
        if _positive(small.get(key)):
            small[key] = size
    patch = small.get("patch_size")
    if _positive(small.get("image_size")) and isinstance(patch, int):
        small["image_size"] = 4 * patch
    for key in ("fullatt_block_indexes", "deepstack_visual_indexes"):
        if small.get(key):
            small[key] = [1]
    _cut_lists(small, 2)
    small["dtype"] = "float32"
    return small


def _by_layer(value: object) -> bool:
    """A table with layer numbers as keys, not a part of the configuration."""
    return isinstance(value, dict) and all(str(key).isdigit() for key in value)


def _numbers_of_layers(key: str, value: object) -> bool:
    """A list of layer numbers; a list of zeros and ones holds a flag for each layer instead."""
    return key.endswith(("_layers", "_indices", "_indexes")) and isinstance(value, list) and (
        all(isinstance(item, int) for item in value) and not set(value) <= {0, 1}
    )  # fmt: skip


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _shrink_latent(small: Config) -> None:
    """Latent attention: some models call the rotated part of a head its size, others the whole head."""
    whole = small.get("head_dim")
    nope, rope = small.get("qk_nope_head_dim"), small.get("qk_rope_head_dim")
    if not (_positive(nope) and _positive(rope)):
        return
    small["qk_nope_head_dim"], small["qk_rope_head_dim"] = (8, 8) if nope == rope else (16, 8)
    both = small["qk_nope_head_dim"] + small["qk_rope_head_dim"]
    if "qk_head_dim" in small:
        small["qk_head_dim"] = both
    if _positive(whole):
        small["head_dim"] = 8 if whole == rope else both


def _shrink_widths(small: Config) -> None:
    heads, kv_heads = small.get("num_attention_heads"), small.get("num_key_value_heads")
    head_dim, rotated = small.get("head_dim"), small.get("rotary_dim")
    _shrink_latent(small)
    fixed = {key: small[key] for key in LATENT if key in small and _positive(small.get("qk_nope_head_dim"))}
    for key, size in TEXT_SIZES.items():
        if _positive(small.get(key)) and not (key in EXPERT_COUNTS and small[key] == 1):
            small[key] = size
    for key in ("num_key_value_heads", "num_global_key_value_heads", "swa_num_key_value_heads"):
        if _positive(small.get(key)):
            # Multi-head stays multi-head: latent attention breaks otherwise.
            small[key] = HEADS if kv_heads == heads else min(2, int(small[key]))
    for key in TOP_K:
        if _positive(small.get(key)):
            small[key] = min(2, int(small[key]))
    for key in OFF:
        if _positive(small.get(key)):
            small[key] = 0
    small.update(fixed)
    if isinstance(rotated, int) and _positive(head_dim):
        small["rotary_dim"] = max(2, HEAD_DIM * rotated // int(head_dim))
    has_experts = any(_positive(small.get(key)) and small[key] > 1 for key in EXPERT_COUNTS)
    if has_experts and "moe_intermediate_size" not in small and "intermediate_size" in small:
        small["intermediate_size"] = EXPERT_FFN


def _shrink_layers(small: Config) -> None:
    """Fewer layers, each kind of layer kept, every per-layer list shortened in the same way."""
    count_key = next((key for key in LAYER_COUNTS if _positive(small.get(key))), None)
    if count_key is None:
        return
    count = int(small[count_key])
    numbers = {key: value for key, value in small.items() if _numbers_of_layers(key, value)}
    lists = {
        key: value
        for key, value in small.items()
        if isinstance(value, list) and len(value) == count and key not in numbers
    }
    dense = small.get("first_k_dense_replace")
    columns = [[str(item) for item in value] for value in lists.values()]
    if isinstance(dense, int):
        columns.append([str(layer < dense) for layer in range(count)])
    step_key = next((k for k in ("decoder_sparse_step", "interleave_moe_layer_step") if small.get(k)), None)
    step = int(small[step_key]) if step_key else 1
    if step > 1 and step_key:
        small[step_key] = 2
    kept = pick_layers(list(zip(*columns)) or [()] * count, at_least=4 if step > 1 else 2)
    for key, value in lists.items():
        small[key] = [value[layer] for layer in kept]
    if isinstance(dense, int):
        small["first_k_dense_replace"] = sum(layer < dense for layer in kept)
    for key, value in numbers.items():
        # As long as the model: layer i takes something from layer value[i]. Shorter: a choice of layers.
        sources = {new: value[layer] for new, layer in enumerate(kept) if len(value) == count}
        chosen = [new for new, layer in enumerate(kept) if layer in value]
        small[key] = [kept.index(s) if s in kept else new for new, s in sources.items()] or chosen
    for key, value in small.items():
        if _by_layer(value):
            old = {int(layer): part for layer, part in value.items()}
            small[key] = {new: old[layer] for new, layer in enumerate(kept) if layer in old}
    if _positive(small.get("max_window_layers")):
        small["max_window_layers"] = min(int(small["max_window_layers"]), len(kept))
    small[count_key] = len(kept)


def pick_layers(kinds: list[tuple[str, ...]], at_least: int = 2) -> list[int]:
    """Two layers, or four where kinds alternate; the first layer of each kind is always among them."""
    first = {kind: layer for layer, kind in reversed(list(enumerate(kinds)))}
    runs = 1 + sum(before != after for before, after in pairwise(kinds))
    wanted = max(at_least, len(first), 4 if runs > len(first) else 2)
    kept = set(first.values())
    for layer in range(len(kinds)):
        if len(kept) < wanted:
            kept.add(layer)
    return sorted(kept)


def _cut_lists(small: Config, layers: int) -> None:
    for key in ("layer_types", "mlp_layer_types", "attention_types"):
        if isinstance(small.get(key), list):
            small[key] = small[key][:layers]


def _shrink_rope(small: Config) -> None:
    for key in ("rope_parameters", "rope_scaling"):
        rope = small.get(key)
        if isinstance(rope, dict):
            # Some models have one set of positions for each kind of layer.
            parts = {kind: _small_rope(part, small) for kind, part in rope.items() if isinstance(part, dict)}
            small[key] = {**rope, **parts} if parts else _small_rope(rope, small)


def _small_rope(rope: Config, config: Config) -> Config:
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
    rotated = config.get("qk_rope_head_dim") or int((config.get("head_dim") or HEAD_DIM) * share)
    pairs = rotated // 2
    small = dict(rope)
    for key in ("short_factor", "long_factor"):
        if isinstance(rope.get(key), list):
            small[key] = rope[key][:pairs]
    if isinstance(rope.get("mrope_section"), list):
        height = pairs * 3 // 8
        small["mrope_section"] = [pairs - 2 * height, height, height]
    return small


# ---------------------------------------------------------------------------------------------------
# Special tokens and chat formats
# ---------------------------------------------------------------------------------------------------

# Each family: how the text begins, what stands before and after a message of each role, and further
# tokens that frameworks expect to exist. `assistant` is also what is asked to be continued.
FAMILIES: dict[str, Config] = {
    "chatml": {
        "bos": "<|endoftext|>", "eos": "<|im_end|>", "pad": "<|endoftext|>", "begin": "",
        "before": "<|im_start|>{role}\n", "after": "<|im_end|>\n",
        "more": ["<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_call>"],
    },
    "qwen": {
        "bos": None, "eos": "<|im_end|>", "pad": "<|endoftext|>", "begin": "",
        "before": "<|im_start|>{role}\n", "after": "<|im_end|>\n",
        "more": ["<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
                 "</tool_response>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
                 "<|video_pad|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
                 "<|box_end|>"],
    },
    "llama2": {
        "bos": "<s>", "eos": "</s>", "pad": "<pad>", "begin": "<s>",
        "before": "", "after": "", "user": ("[INST] ", " [/INST]"), "assistant": (" ", " </s>"),
        "system": ("<<SYS>>\n", "\n<</SYS>>\n\n"), "more": ["<unk>"],
    },
    "llama3": {
        "bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "pad": "<|finetune_right_pad_id|>",
        "begin": "<|begin_of_text|>", "before": "<|start_header_id|>{role}<|end_header_id|>\n\n",
        "after": "<|eot_id|>", "tool": ("<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>"),
        "more": ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
                 "<|python_tag|>", "<think>", "</think>"],
    },
    "llama4": {
        "bos": "<|begin_of_text|>", "eos": "<|eot|>", "pad": "<|finetune_right_pad|>",
        "begin": "<|begin_of_text|>", "before": "<|header_start|>{role}<|header_end|>\n\n",
        "after": "<|eot|>",
        "more": ["<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eom|>", "<|python_start|>",
                 "<|python_end|>", "<|image_start|>", "<|image_end|>", "<|image|>", "<|patch|>",
                 "<|tile_x_separator|>", "<|tile_y_separator|>"],
    },
    "deepseek": {
        "bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>", "pad": "<｜▁pad▁｜>",
        "begin": "<｜begin▁of▁sentence｜>", "before": "", "after": "",
        "user": ("<｜User｜>", ""), "assistant": ("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        "tool": ("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
        "more": ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜tool▁calls▁begin｜>",
                 "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
                 "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>",
                 "<｜tool▁output▁end｜>", "<｜tool▁sep｜>"],
    },
    "gemma": {
        "bos": "<bos>", "eos": "<end_of_turn>", "pad": "<pad>", "begin": "<bos>",
        "before": "<start_of_turn>user\n", "after": "<end_of_turn>\n",
        "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        "more": ["<eos>", "<unk>", "<start_of_turn>", "<start_of_image>", "<end_of_image>",
                 "<image_soft_token>"],
    },
    "gemma4": {
        "bos": "<bos>", "eos": "<turn|>", "pad": "<pad>", "begin": "<bos>",
        "before": "<|turn>{role}\n", "after": "<turn|>\n", "assistant": ("<|turn>model\n", "<turn|>\n"),
        "more": ["<eos>", "<unk>", "<|turn>", "<|think|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>",
                 "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|image>",
                 "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>", "<|video|>"],
    },
    "mistral": {
        "bos": "<s>", "eos": "</s>", "pad": "<pad>", "begin": "<s>", "before": "", "after": "",
        "system": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), "user": ("[INST]", "[/INST]"),
        "assistant": ("", "</s>"), "tool": ("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        "more": ["<unk>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]",
                 "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[ARGS]",
                 "[CALL_ID]", "[THINK]", "[/THINK]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"],
    },
    "phi": {
        "bos": "<|endoftext|>", "eos": "<|end|>", "pad": "<|endoftext|>", "begin": "",
        "before": "<|{role}|>\n", "after": "<|end|>\n",
        "more": ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<think>", "</think>"],
    },
    "phi4": {
        "bos": "<|endoftext|>", "eos": "<|im_end|>", "pad": "<|dummy_85|>", "begin": "",
        "before": "<|im_start|>{role}<|im_sep|>", "after": "<|im_end|>",
        "more": ["<|im_start|>", "<|im_sep|>", "<think>", "</think>"],
    },
    "glm": {
        "bos": None, "eos": "<|user|>", "pad": "<|endoftext|>", "begin": "[gMASK]<sop>",
        "before": "<|{role}|>\n", "after": "", "tool": ("<|observation|>\n", ""),
        "assistant": ("<|assistant|>\n", "<|user|>"), "user": ("<|user|>\n", ""),
        "more": ["[gMASK]", "<sop>", "<eop>", "<|system|>", "<|assistant|>", "<|observation|>", "<think>",
                 "</think>", "/nothink", "<tool_call>", "</tool_call>", "<tool_response>",
                 "</tool_response>", "<|begin_of_image|>", "<|end_of_image|>", "<|image|>",
                 "<|begin_of_video|>", "<|end_of_video|>", "<|video|>"],
    },
    "gpt_oss": {
        "bos": "<|startoftext|>", "eos": "<|return|>", "pad": "<|endoftext|>", "begin": "",
        "before": "<|start|>{role}<|message|>", "after": "<|end|>",
        "assistant": ("<|start|>assistant<|channel|>final<|message|>", "<|return|>"),
        "more": ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>"],
    },
    "granite": {
        "bos": "<|end_of_text|>", "eos": "<|end_of_text|>", "pad": "<|pad|>", "begin": "",
        "before": "<|start_of_role|>{role}<|end_of_role|>", "after": "<|end_of_text|>\n",
        "more": ["<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"],
    },
    "kimi": {
        "bos": "[BOS]", "eos": "<|im_end|>", "pad": "[PAD]", "begin": "",
        "before": "<|im_system|>{role}<|im_middle|>", "after": "<|im_end|>",
        "user": ("<|im_user|>user<|im_middle|>", "<|im_end|>"),
        "assistant": ("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
        "more": ["[EOS]", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>", "<think>",
                 "</think>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
                 "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"],
    },
}  # fmt: skip

# (pattern on model_type, family); the first that matches.
FAMILY_OF_TYPE = (
    (r"qwen|qwq", "qwen"), (r"kimi", "kimi"), (r"deepseek", "deepseek"), (r"gpt_oss", "gpt_oss"),
    (r"gemma4", "gemma4"), (r"gemma", "gemma"), (r"mi[nx]?[is]tral|mixtral|pixtral|ministral", "mistral"),
    (r"phi", "phi"), (r"glm", "glm"), (r"granite", "granite"), (r"llama4", "llama4"),
)  # fmt: skip

# Which token a `<name>_token_id` of the configuration means, besides bos, eos and pad.
NAMED_TOKENS: dict[str, tuple[str, ...]] = {
    "image": ("<|image_pad|>", "<image_soft_token>", "[IMG]", "<|image|>", "<|patch|>"),
    "video": ("<|video_pad|>", "<|video|>"), "audio": ("<|audio|>",),
    "vision_start": ("<|vision_start|>",), "vision_end": ("<|vision_end|>",),
    "boi": ("<start_of_image>", "<|image>", "<|image_start|>"),
    "eoi": ("<end_of_image>", "<image|>", "<|image_end|>"),
    "boa": ("<|audio>",), "eoa": ("<audio|>",),
    "image_start": ("<|begin_of_image|>",), "image_end": ("<|end_of_image|>",),
    "video_start": ("<|begin_of_video|>",), "video_end": ("<|end_of_video|>",),
}  # fmt: skip


def family_of(config: Config) -> str:
    """Guess the chat family from config.json; vocabulary sizes tell the generations of Llama and Phi."""
    text = config.get("text_config") or config
    model_type = str(config.get("model_type", ""))
    vocab = text.get("vocab_size") or config.get("vocab_size") or 0
    if model_type in ("llama", "mllama"):
        return {True: "llama3", False: "llama2" if vocab == 32000 else "chatml"}[128256 <= vocab <= 128512]
    if model_type == "phi3" and 100_000 < vocab < 101_000:
        return "phi4"
    return next((family for pattern, family in FAMILY_OF_TYPE if re.search(pattern, model_type)), "chatml")


def special_tokens(family: Config) -> list[str]:
    """All special tokens of a family, each once."""
    named = [family[key] for key in ("pad", "bos", "eos") if family[key]]
    return list(dict.fromkeys([*named, *family["more"]]))


def chat_template(family: Config) -> str:
    """A chat template with the family's markers; the assistant's words are marked for loss masks."""
    default = (family["before"], family["after"])
    roles = {role: family.get(role, default) for role in ("system", "user", "assistant", "tool")}

    def quoted(text: str, role: str) -> str:
        return json.dumps(text.replace("{role}", role), ensure_ascii=False)

    branches = ""
    for role in ("system", "user", "tool"):
        before, after = roles[role]
        names = {"system": ["system", "developer"], "user": ["user"], "tool": ["tool", "function"]}[role]
        test = f"message['role'] in {names}"
        branches += "{%- elif " + test + " %}{{- " + quoted(before, role) + " }}{{- ns.text }}"
        branches += "{{- " + quoted(after, role) + " }}"
    opening, closing = (quoted(text, "assistant") for text in roles["assistant"])
    system_before, system_after = (quoted(text, "system") for text in roles["system"])
    return (
        "{{- " + json.dumps(family["begin"], ensure_ascii=False) + " }}"
        "{%- if tools %}{{- " + system_before + " }}{{- '# Tools' }}"
        "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}{{- " + system_after + " }}"
        "{%- endif %}"
        "{%- for message in messages %}{%- set ns = namespace(text='') %}"
        "{%- if message['content'] is string %}{%- set ns.text = message['content'] %}"
        "{%- elif message['content'] %}{%- for part in message['content'] %}"
        "{%- if part['text'] is string %}{%- set ns.text = ns.text + part['text'] %}{%- endif %}"
        "{%- endfor %}{%- endif %}"
        "{%- if message['role'] == 'assistant' %}"
        "{%- for call in message['tool_calls'] or [] %}"
        "{%- set ns.text = ns.text + '<tool_call>' + (call | tojson) + '</tool_call>' %}{%- endfor %}"
        "{{- " + opening + " }}{%- generation %}{{- ns.text }}{{- " + closing + " }}{%- endgeneration %}"
        + branches
        + "{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- " + opening + " }}{%- endif %}"
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------
# The tokenizer
# ---------------------------------------------------------------------------------------------------


def row_texts(path: Path) -> list[str]:
    """Every string in the rows, whatever their columns are."""
    texts: list[str] = []
    size = 0
    for row in _rows(path):
        stack = [row]
        while stack:
            value = stack.pop()
            if isinstance(value, str):
                texts.append(value)
                size += len(value)
            elif isinstance(value, dict):
                stack.extend(value.values())
            elif isinstance(value, (list, tuple)):
                stack.extend(value)
        if size > TEXT_LIMIT:
            break
    return texts


def _rows(path: Path) -> Any:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json" and text.lstrip().startswith("["):
        return json.loads(text)
    return (json.loads(line) for line in text.splitlines() if line.strip())


def train_tokenizer(texts: list[str], family: Config, out: Path) -> None:
    """A byte-level BPE tokenizer in the generic format that every transformers 5 release can load."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = special_tokens(family)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = family["bos"]
    if bos and family["begin"].startswith(bos):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    saved = json.loads(tokenizer.to_str())
    for token in saved["added_tokens"]:
        # Thoughts and tool calls stay in decoded text, as with the real tokenizers: rewards read them.
        token["special"] = not re.fullmatch(r"</?(think|tool_call|tool_response)>", token["content"])
    _write(out / "tokenizer.json", saved)
    settings: Config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32768, "padding_side": "right",
        "bos_token": bos, "eos_token": family["eos"], "pad_token": family["pad"],
        "clean_up_tokenization_spaces": False, "chat_template": chat_template(family),
    }  # fmt: skip
    if "<unk>" in specials:
        settings["unk_token"] = "<unk>"
    _write(out / "tokenizer_config.json", settings)
    (out / "chat_template.jinja").write_text(settings["chat_template"], encoding="utf-8")


def copy_tokenizer(source: Path, out: Path) -> None:
    """Everything in the folder that belongs to its tokenizer or processor."""
    names = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template", "spiece",
             "preprocessor_config", "processor_config", "tekken", "video_preprocessor")  # fmt: skip
    found = [path for path in sorted(source.iterdir()) if path.is_file() and path.name.startswith(names)]
    found += sorted(source.glob("*.tiktoken"))
    if not found:
        raise SystemExit(f"tiny_model: no tokenizer files in {source}")
    for path in found:
        shutil.copyfile(path, out / path.name)


# ---------------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------------


def config_class(config: Config) -> Any:
    """The configuration class, by model_type or else by the model class that config.json names."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = str(config.get("model_type", ""))
    if model_type in CONFIG_MAPPING:
        return CONFIG_MAPPING[model_type]
    for name in config.get("architectures") or []:
        model = getattr(transformers, name, None)
        if model is not None:
            return model.config_class
    raise UnknownArchitecture(
        f"transformers {transformers.__version__} does not know the architecture {model_type!r} "
        f"({', '.join(config.get('architectures') or ['no class named'])})"
    )


def tiny_config(config: Config, tokenizer: Any) -> Any:
    """The shrunk configuration with the ids of the new tokenizer."""
    kind = config_class(config)
    ignored = {key: value for key, value in config.items() if key not in DROPPED and key != "model_type"}
    complete = kind.from_dict(ignored).to_dict()
    complete.setdefault("architectures", config.get("architectures"))
    small = shrink(complete, len(tokenizer))
    _set_token_ids(small, tokenizer)
    small.pop("model_type", None)
    return kind.from_dict(small)


def _set_token_ids(config: Config, tokenizer: Any) -> None:
    words = tokenizer.get_vocab()
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    for key, value in list(config.items()):
        match = re.fullmatch(r"(\w+?)_token_(?:id|index)", str(key))
        if isinstance(value, dict):
            _set_token_ids(value, tokenizer)
        elif match and match[1] in ids:
            config[key] = ids[match[1]]
        elif match and isinstance(value, int):
            known = [words[word] for word in NAMED_TOKENS.get(match[1], ()) if word in words]
            config[key] = known[0] if known else min(value, len(words) - 1)


def model_class(config: Any, seq_class: bool) -> Any:
    """The class to build: the one config.json names, or what transformers would choose."""
    import transformers

    if seq_class:
        return transformers.AutoModelForSequenceClassification
    for name in getattr(config, "architectures", None) or []:
        if hasattr(transformers, name):
            return getattr(transformers, name)
    text = transformers.AutoModelForCausalLM
    return text if type(config) in text._model_mapping else transformers.AutoModelForImageTextToText


def build_model(config: Any, seq_class: bool, seed: int) -> Any:
    """The model with random weights, the same on every run."""
    import torch

    torch.manual_seed(seed)
    kind = model_class(config, seq_class)
    if seq_class:
        if type(config) not in kind._model_mapping:
            raise UnknownArchitecture(f"transformers has no reward model of the kind {config.model_type!r}")
        config.num_labels = 1
    build = getattr(kind, "from_config", None) or kind._from_config
    return build(config, dtype=torch.float32)


def save_model(model: Any, tokenizer: Any, out: Path) -> None:
    """Weights, configuration, generation settings, and which of the saved tensors are no weights."""
    from transformers import GenerationConfig

    words = tokenizer.get_vocab()
    further = [words[word] for word in ("<|endoftext|>", "<|end_of_text|>") if word in words]
    stops = [tokenizer.eos_token_id, *further]
    if model.can_generate():
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=sorted(set(stops), key=stops.index),
            pad_token_id=tokenizer.pad_token_id,
        )
    model.save_pretrained(out, safe_serialization=True)
    # Saved beside the weights, but no optimizer moves them: a router's correction, statistics of a norm.
    _write(out / "buffers.json", [name for name, _ in model.named_buffers()])


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def make(config: Config, out: Path, args: argparse.Namespace) -> Config:
    """Write the model folder and say what is in it."""
    config_class(config)  # an unknown architecture is found out before anything is written
    out.mkdir(parents=True, exist_ok=True)
    if args.tokenizer_from:
        copy_tokenizer(Path(args.tokenizer_from), out)
    else:
        train_tokenizer(row_texts(Path(args.rows)), FAMILIES[args.family or family_of(config)], out)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = build_model(tiny_config(config, tokenizer), args.seq_class, args.seed)
    save_model(model, tokenizer, out)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "vocab": len(tokenizer),
        "class": type(model).__name__,
    }


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a tiny random model of the same architecture.")
    parser.add_argument("--config", required=True, help="config.json of the real model, or its folder")
    parser.add_argument("--rows", help="training rows (.jsonl, .json, .parquet) for the tokenizer")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--tokenizer-from", help="folder of a real tokenizer to copy")
    parser.add_argument("--family", choices=sorted(FAMILIES), help="special tokens and chat format")
    parser.add_argument("--seq-class", action="store_true", help="one score as output")
    parser.add_argument("--seed", type=int, default=20, help="of the random weights: a teacher takes another")
    args = parser.parse_args(argv)
    if not args.rows and not args.tokenizer_from:
        parser.error("give --rows or --tokenizer-from")
    return args


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    args = _arguments(argv)
    path = Path(args.config)
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        print(json.dumps(make(config, Path(args.out), args)))
    except UnknownArchitecture as error:
        print(f"tiny_model: {error}", file=sys.stderr)
        return 3
    except Exception as error:
        print(f"tiny_model: {path}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
