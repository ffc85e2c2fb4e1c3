"""Config variants of every model type: sizes, switches and layer mixes that the catalog does not show."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from advisor.facts.architectures.fields import class_defaults
from advisor.facts.architectures.hybrids import HYBRIDS
from advisor.facts.architectures.table import TEXT

Config = dict[str, Any]

SMALL = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 320,
    "vocab_size": 1000,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {
    "num_key_value_heads": 8,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 40,
}
SIZES = {
    "moe_intermediate_size": 72,
    "shared_expert_intermediate_size": 88,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}
EXPERT_KEYS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
SWITCHES = (
    *("attention_bias", "mlp_bias", "use_bias", "attention_out_bias"),
    *("qkv_bias", "use_qk_norm", "lm_head_bias"),
)
NO_CLASS = ("kimi_k2", "internlm2", "internlm3", "baichuan", "mimo")
"""Published types without a class in transformers 5; counted as the class their catalog rows name."""
WITHOUT_TEXT_CLASS = ("qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text", "glm4v_text", "glm4v_moe_text")
"""Text parts that exist only inside a multimodal class."""


def _small_text(model_type: str) -> Config:
    known = class_defaults()[model_type]["defaults"]
    config: Config = {"model_type": model_type, **SMALL}
    if "kv_lora_rank" in known:
        config |= LATENT
    elif "head_dim" in known or model_type in ("qwen3", "gpt_oss", "hunyuan_v1_dense", "hunyuan_v1_moe"):
        config["head_dim"] = 40
    config |= {key: value for key, value in SIZES.items() if key in known}
    config |= {key: 8 for key in EXPERT_KEYS if key in known}
    if any(key in config for key in EXPERT_KEYS):
        config["moe_k" if "moe_k" in known else "num_experts_per_tok"] = 2
    for group in ("n_group", "topk_group"):
        if group in known:
            config[group] = 1
    return config


def _edits(model_type: str, config: Config) -> Iterator[tuple[str, Config]]:
    known = class_defaults()[model_type]["defaults"]
    yield "small", {}
    yield "tied", {"tie_word_embeddings": True}
    yield "untied", {"tie_word_embeddings": False}
    yield "more layers, fewer heads", {"num_hidden_layers": 8, "num_attention_heads": 4, "vocab_size": 1503}
    for switch in SWITCHES:
        if switch in known:
            yield f"{switch} flipped", {switch: not known[switch]}
    if "q_lora_rank" in known and model_type not in ("axk1", "deepseek_v32", "glm_moe_dsa"):
        yield "no query bottleneck", {"q_lora_rank": None}
    if "first_k_dense_replace" in known:
        yield "two dense layers", {"first_k_dense_replace": 2}
    if "n_shared_experts" in known:
        yield "two shared experts", {"n_shared_experts": 2}
    if "decoder_sparse_step" in known:
        yield "every second layer routes", {"decoder_sparse_step": 2, "mlp_only_layers": [1]}


def _text_variants() -> Iterator[tuple[str, Config]]:
    for model_type, family in {**TEXT, **{name: kind for name, (kind, _) in HYBRIDS.items()}}.items():
        if model_type in NO_CLASS or model_type in WITHOUT_TEXT_CLASS or model_type in HYBRIDS:
            continue
        base = _small_text(model_type)
        for label, edit in _edits(model_type, base):
            config = {**base, **edit, "architectures": [family.architecture]}
            if family.attention == "latent":
                config["num_key_value_heads"] = config["num_attention_heads"]
            yield f"{model_type}: {label}", config


def _hybrid_variants() -> Iterator[tuple[str, Config]]:
    falcon = {**_small_text("falcon_h1"), "architectures": ["FalconH1ForCausalLM"]}
    falcon |= {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 32}
    yield "falcon_h1: small", falcon
    switches = {"mamba_rms_norm": True, "mamba_conv_bias": False, "mamba_proj_bias": True, "mlp_bias": True}
    yield "falcon_h1: switches", {**falcon, **switches, "attention_bias": True, "projectors_bias": True}
    granite = {**_small_text("granitemoehybrid"), "architectures": ["GraniteMoeHybridForCausalLM"]}
    granite |= {"mamba_n_heads": 8, "mamba_d_head": 64, "mamba_d_state": 32, "shared_intermediate_size": 96}
    granite["layer_types"] = ["mamba", "mamba", "attention", "mamba", "mamba", "attention"]
    yield "granitemoehybrid: small", granite
    yield "granitemoehybrid: dense", {**granite, "num_local_experts": 0, "mamba_proj_bias": True}
    gemma = {**_small_text("gemma4_text"), "architectures": ["Gemma4ForCausalLM"]}
    yield "gemma4_text: small", {**gemma, "hidden_size_per_layer_input": 0}
    nemotron = {**_small_text("nemotron_h"), "architectures": ["NemotronHForCausalLM"]}
    nemotron |= {"mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 32, "n_groups": 2}
    nemotron |= {"moe_shared_expert_intermediate_size": 96, "num_nextn_predict_layers": 0}
    del nemotron["num_hidden_layers"]
    yield "nemotron_h: letters", {**nemotron, "hybrid_override_pattern": "MEM*-ME*"}
    listed = ["linear_attention", "moe", "full_attention", "mlp", "linear_attention"]
    yield "nemotron_h: list", {**nemotron, "layers_block_type": listed}
    yield "nemotron_h: latent", {**nemotron, "layers_block_type": listed, "moe_latent_size": 48}


def _edited(rows: dict[str, Config], name: str, **parts: Config) -> Config:
    """A catalog config with keys of its text or vision part replaced."""
    config = copy.deepcopy(rows[name])
    for part, edit in parts.items():
        target = config.get(part, config)
        target.update(edit)
        if "num_hidden_layers" in edit and part == "text_config":
            target.pop("layer_types", None)
    return config


def _multimodal_variants(rows: dict[str, Config]) -> Iterator[tuple[str, Config]]:
    fewer: Config = {"num_hidden_layers": 4}
    for name in (
        "Qwen/Qwen3.5-9B",
        "Qwen/Qwen3.5-35B-A3B",
        "google/gemma-3-4b-it",
        "google/gemma-4-26B-A4B-it",
        "google/gemma-4-31B-it",
        "mistralai/Ministral-3-3B-Instruct-2512",
        "OpenGVLab/InternVL3_5-1B-HF",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "Qwen/Qwen3-VL-2B-Instruct",
        "zai-org/GLM-4.1V-9B-Thinking",
        "zai-org/GLM-4.5V",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "moonshotai/Kimi-K2.5",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    ):
        edit = {"num_hidden_layers": 6} if "gemma-4" in name else fewer
        yield f"{name}: fewer text layers", _edited(rows, name, text_config=edit)
    flat = {**_small_text("qwen2_5_vl_text"), "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    flat |= {"model_type": "qwen2_5_vl", "tie_word_embeddings": True}
    tower = {"depth": 2, "hidden_size": 128, "num_heads": 8, "intermediate_size": 160, "out_hidden_size": 256}
    yield "qwen2_5_vl: keys at the top", {**flat, "vision_config": tower}
    deep = {"depth": 5, "deepstack_visual_indexes": [1, 3]}
    yield "qwen3_vl: vision", _edited(rows, "Qwen/Qwen3-VL-2B-Instruct", vision_config=deep)
    yield "gemma3: head", _edited(rows, "google/gemma-3-4b-it", vision_config={"vision_use_head": True})
    image = {"image_size": [224, 224], "num_hidden_layers": 3, "use_qk_norm": True}
    yield "internvl: vision", _edited(rows, "OpenGVLab/InternVL3_5-1B-HF", vision_config=image)
    shared = {"num_hidden_layers": 10, "num_kv_shared_layers": 4}
    yield "gemma4: shared keys", _edited(rows, "google/gemma-4-E2B-it", text_config=shared)
    yield "gemma4: own keys", _edited(rows, "google/gemma-4-31B-it", text_config={"attention_k_eq_v": False})
    step = {"num_hidden_layers": 6, "interleave_moe_layer_step": 2}
    yield "llama4: step", _edited(rows, "meta-llama/Llama-4-Scout-17B-16E-Instruct", text_config=step)


def variants(rows: dict[str, Config]) -> dict[str, Config]:
    """Label -> config; `rows` are the catalog's configs by id."""
    return dict([*_text_variants(), *_hybrid_variants(), *_multimodal_variants(rows)])
