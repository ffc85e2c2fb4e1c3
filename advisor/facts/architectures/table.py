"""Text decoders that are known, one row a transformers model type.

Checked to the unit against the classes of transformers 5 by tests/conformance/parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from advisor.facts.architectures.family import Family, MoeFamily
from advisor.facts.architectures.fields import Fields

GEMMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
GLM4_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "post_self_attn_layernorm",
    "post_mlp_layernorm",
)
OUTPUT_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


def _every_layer(fields: Fields) -> int:
    return fields.layers


def _listed(fields: Fields, dense_first: int) -> int:
    kinds = fields.names("mlp_layer_types")
    if kinds is not None:
        return kinds.count("sparse")
    return fields.layers - min(dense_first, fields.layers)


def _after_first_dense(fields: Fields) -> int:
    return _listed(fields, fields.size_or("first_k_dense_replace", 0))


def _axk1_layers(fields: Fields) -> int:
    if fields.names("mlp_layer_types") is not None:
        return _listed(fields, 0)
    first, step = fields.size_or("first_k_dense_replace", 1), fields.size_or("moe_layer_freq", 1)
    return sum(1 for i in range(fields.layers) if i >= first and i % step == 0)


def _all_listed(fields: Fields) -> int:
    return _listed(fields, 0)


def _after_one_dense(fields: Fields) -> int:
    return _listed(fields, 1)


def _qwen_layers(fields: Fields) -> int:
    if not fields.size_or("num_experts", 0):
        return 0
    dense = set(fields.numbers("mlp_only_layers") or [])
    step = fields.size_or("decoder_sparse_step", 1)
    return sum(1 for i in range(fields.layers) if i not in dense and (i + 1) % step == 0)


def _ernie_layers(fields: Fields) -> int:
    first = fields.size_or("moe_layer_start_index", 0)
    last = fields.size_or("moe_layer_end_index", -1)
    last = fields.layers - 1 if last < 0 else last
    step = fields.size_or("moe_layer_interval", 1)
    return sum(1 for i in range(fields.layers) if (i + 1) % step == 0 and first <= i <= last)


def _llama4_layers(fields: Fields) -> int:
    listed = fields.numbers("moe_layers")
    if listed is not None:
        return len(listed)
    step = fields.size_or("interleave_moe_layer_step", 1)
    return len(range(step - 1, fields.layers, step))


def _per_shared_expert(count: str) -> Callable[[Fields], int]:
    return lambda fields: fields.size("moe_intermediate_size") * fields.size_or(count, 0)


def _field(name: str) -> Callable[[Fields], int]:
    return lambda fields: fields.size_or(name, 0)


QWEN_MOE = MoeFamily(layers=_qwen_layers)
QWEN_SHARED_MOE = replace(
    QWEN_MOE,
    shared="shared_expert",
    shared_ffn=_field("shared_expert_intermediate_size"),
    shared_gate=True,
)
MIXTRAL_MOE = MoeFamily(layers=_every_layer, experts="num_local_experts", ffn="intermediate_size")
DEEPSEEK_MOE = MoeFamily(
    layers=_after_first_dense,
    experts="n_routed_experts",
    shared="shared_experts",
    shared_ffn=_per_shared_expert("n_shared_experts"),
)
GRANITE_MOE = replace(MIXTRAL_MOE, block="block_sparse_moe", router="router")

LLAMA = Family(
    "LlamaForCausalLM",
    "LlamaDecoderLayer",
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    mlp_bias="mlp_bias",
)
MISTRAL = Family("MistralForCausalLM", "MistralDecoderLayer")
QWEN2 = Family("Qwen2ForCausalLM", "Qwen2DecoderLayer", qkv_bias=True)
QWEN3 = Family(
    "Qwen3ForCausalLM",
    "Qwen3DecoderLayer",
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    qk_norm="head",
)
GEMMA = replace(LLAMA, architecture="GemmaForCausalLM", decoder_layer="GemmaDecoderLayer", mlp_bias=False)
GEMMA2 = replace(
    GEMMA, architecture="Gemma2ForCausalLM", decoder_layer="Gemma2DecoderLayer", norms=GEMMA_NORMS
)
OLMO2 = replace(
    GEMMA,
    architecture="Olmo2ForCausalLM",
    decoder_layer="Olmo2DecoderLayer",
    norms=OUTPUT_NORMS,
    qk_norm="full",
)
GLM = Family("GlmForCausalLM", "GlmDecoderLayer", qkv_bias="attention_bias", mlp="fused")
DEEPSEEK = Family(
    "DeepseekV3ForCausalLM",
    "DeepseekV3DecoderLayer",
    attention="latent",
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    moe=DEEPSEEK_MOE,
)
GLM4_MOE = Family(
    "Glm4MoeForCausalLM",
    "Glm4MoeDecoderLayer",
    qkv_bias="attention_bias",
    qk_norm="head",
    qk_norm_if="use_qk_norm",
    moe=DEEPSEEK_MOE,
)
JAIS = Family(
    "Jais2ForCausalLM",
    "Jais2DecoderLayer",
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    norm_bias=True,
    mlp="up-down",
    mlp_bias="mlp_bias",
)
DELTANET = Family(
    "Qwen3NextForCausalLM",
    "Qwen3NextDecoderLayer",
    attention="deltanet",
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    qk_norm="head",
    output_gate=True,
    moe=QWEN_SHARED_MOE,
)


HUNYUAN = replace(
    QWEN3,
    architecture="HunYuanDenseV1ForCausalLM",
    decoder_layer="HunYuanDenseV1DecoderLayer",
    qk_norm_names=("query_layernorm", "key_layernorm"),
)


def _named(base: Family, stem: str, layer: str = "") -> Family:
    """The same decoder under another class name."""
    return replace(base, architecture=f"{stem}ForCausalLM", decoder_layer=layer or f"{stem}DecoderLayer")


DENSE: dict[str, Family] = {
    "llama": LLAMA,
    "cwm": _named(replace(LLAMA, qkv_bias=False, o_bias=False), "Cwm"),
    "arcee": _named(replace(LLAMA, mlp="up-down"), "Arcee"),
    "granite": _named(LLAMA, "Granite"),
    "smollm3": _named(LLAMA, "SmolLM3"),
    "mistral": MISTRAL,
    "ministral3": _named(MISTRAL, "Ministral3"),
    "qwen2": QWEN2,
    "qwen2_5_vl_text": replace(QWEN2, decoder_layer="Qwen2_5_VLDecoderLayer"),
    "qwen3": QWEN3,
    "qwen3_vl_text": replace(QWEN3, decoder_layer="Qwen3VLTextDecoderLayer"),
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": replace(_named(GEMMA2, "Gemma3"), qk_norm="head"),
    "phi3": Family("Phi3ForCausalLM", "Phi3DecoderLayer", attention="fused", mlp="fused"),
    "glm": GLM,
    "glm4": replace(
        _named(GLM, "Glm4"),
        norms=GLM4_NORMS,
    ),
    "olmo": replace(_named(GEMMA, "Olmo"), norm_weight=False),
    "olmo2": OLMO2,
    "olmo3": _named(OLMO2, "Olmo3"),
    "seed_oss": replace(_named(LLAMA, "SeedOss"), o_bias="attention_out_bias"),
    "cohere": replace(
        _named(GEMMA, "Cohere"), norms=("input_layernorm",), qk_norm="per-head", qk_norm_if="use_qk_norm"
    ),
    "cohere2": replace(_named(GEMMA, "Cohere2"), norms=("input_layernorm",)),
    "starcoder2": Family(
        "Starcoder2ForCausalLM",
        "Starcoder2DecoderLayer",
        qkv_bias="use_bias",
        o_bias="use_bias",
        norm_bias=True,
        mlp="c_fc",
        mlp_bias="use_bias",
    ),
    "ernie4_5": Family(
        "Ernie4_5ForCausalLM",
        "Ernie4_5DecoderLayer",
        qkv_bias="use_bias",
        o_bias="use_bias",
        mlp_bias="use_bias",
    ),
    "hunyuan_v1_dense": HUNYUAN,
    "glm4v_text": replace(
        _named(GLM, "Glm4vText"),
        qkv_bias=True,
        norms=GLM4_NORMS,
    ),
    "exaone4": replace(_named(MISTRAL, "Exaone4"), norms=OUTPUT_NORMS, qk_norm="head"),
    "apertus": replace(
        _named(LLAMA, "Apertus"),
        qk_norm="head",
        norms=("attention_layernorm", "feedforward_layernorm"),
        mlp="up-down",
        mlp_bias=False,
        activation_weights=("alpha_p", "alpha_n"),
    ),
    "jais2": JAIS,
    "youtu": replace(_named(DEEPSEEK, "Youtu"), moe=None, mlp_bias="mlp_bias"),
}

SPARSE: dict[str, Family] = {
    "mixtral": replace(_named(MISTRAL, "Mixtral"), moe=MIXTRAL_MOE),
    "phimoe": replace(
        _named(LLAMA, "Phimoe"),
        mlp_bias=False,
        norm_bias=True,
        lm_head_bias="lm_head_bias",
        moe=replace(MIXTRAL_MOE, router="router", router_linear=True),
    ),
    "qwen2_moe": replace(_named(QWEN2, "Qwen2Moe"), qkv_bias="qkv_bias", moe=QWEN_SHARED_MOE),
    "qwen3_moe": replace(_named(QWEN3, "Qwen3Moe"), moe=QWEN_MOE),
    "qwen3_vl_moe_text": replace(QWEN3, decoder_layer="Qwen3VLMoeTextDecoderLayer", moe=QWEN_MOE),
    "qwen3_next": DELTANET,
    "qwen3_5_text": replace(_named(DELTANET, "Qwen3_5"), attention="deltanet-split", moe=None),
    "qwen3_5_moe_text": replace(
        _named(DELTANET, "Qwen3_5Moe"),
        attention="deltanet-split",
        moe=replace(QWEN_SHARED_MOE, layers=_every_layer),
    ),
    "olmoe": replace(
        _named(GEMMA, "Olmoe"), qk_norm="full", moe=MoeFamily(_every_layer, ffn="intermediate_size")
    ),
    "granitemoe": replace(_named(GEMMA, "GraniteMoe"), moe=GRANITE_MOE),
    "glm4_moe": GLM4_MOE,
    "glm4_moe_lite": _named(
        replace(DEEPSEEK, moe=replace(DEEPSEEK_MOE, layers=_after_one_dense)), "Glm4MoeLite"
    ),
    "deepseek_v2": replace(_named(DEEPSEEK, "DeepseekV2"), mlp_bias="mlp_bias"),
    "deepseek_v3": DEEPSEEK,
    "deepseek_v32": replace(_named(DEEPSEEK, "DeepseekV32"), indexer=True),
    "glm_moe_dsa": replace(_named(DEEPSEEK, "GlmMoeDsa"), indexer=True),
    "mistral4": _named(DEEPSEEK, "Mistral4"),
    "axk1": replace(
        _named(DEEPSEEK, "AXK1"),
        moe=replace(DEEPSEEK_MOE, layers=_axk1_layers, post_norm="post_mlp_layernorm"),
    ),
    "solar_open": replace(
        _named(GEMMA, "SolarOpen"), o_bias=False, moe=replace(DEEPSEEK_MOE, layers=_every_layer)
    ),
    "gpt_oss": Family(
        "GptOssForCausalLM",
        "GptOssDecoderLayer",
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        sinks=True,
        moe=replace(MIXTRAL_MOE, router="router", router_bias=True, expert_bias=True),
    ),
    "minimax_m2": replace(_named(MISTRAL, "MiniMaxM2"), qk_norm="full", moe=MIXTRAL_MOE),
    "ernie4_5_moe": Family(
        "Ernie4_5_MoeForCausalLM",
        "Ernie4_5_MoeDecoderLayer",
        qkv_bias="use_bias",
        o_bias="use_bias",
        mlp_bias="use_bias",
        lm_head_bias="use_bias",
        moe=MoeFamily(
            layers=_ernie_layers,
            experts="moe_num_experts",
            per_token="moe_k",
            correction="gate.moe_statics.e_score_correction_bias",
            correction_shape=(1,),
            shared="shared_experts",
            shared_ffn=_per_shared_expert("moe_num_shared_experts"),
        ),
    ),
    "llama4_text": Family(
        "Llama4ForCausalLM",
        "Llama4TextDecoderLayer",
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        moe=MoeFamily(
            layers=_llama4_layers,
            experts="num_local_experts",
            ffn="intermediate_size",
            block="feed_forward",
            router="router",
            router_linear=True,
            shared="shared_expert",
            shared_ffn=_field("intermediate_size"),
        ),
    ),
    "hunyuan_v1_moe": replace(
        _named(HUNYUAN, "HunYuanMoEV1"),
        moe=MoeFamily(
            layers=_every_layer,
            per_token="moe_topk",
            ffn="intermediate_size",
            router="gate.wg",
            router_linear=True,
            shared="shared_mlp",
            shared_ffn=_field("intermediate_size"),
        ),
    ),
    "exaone_moe": replace(
        _named(MISTRAL, "ExaoneMoe"),
        qk_norm="head",
        moe=replace(DEEPSEEK_MOE, experts="num_experts", shared_ffn=_per_shared_expert("num_shared_experts")),
    ),
    "glm4v_moe_text": replace(
        _named(GLM4_MOE, "Glm4vMoeText"), qk_norm="", decoder_layer="Glm4vMoeTextDecoderLayer"
    ),
    "hy_v3": replace(
        _named(QWEN3, "HYV3"),
        mlp_bias="mlp_bias",
        moe=replace(
            DEEPSEEK_MOE,
            layers=_after_one_dense,
            experts="num_experts",
            shared_ffn=_per_shared_expert("num_shared_experts"),
        ),
    ),
    "mellum": replace(_named(QWEN3, "Mellum"), moe=replace(QWEN_MOE, layers=_all_listed)),
}

TEXT: dict[str, Family] = {**DENSE, **SPARSE}
"""Model type of a text decoder -> its description."""
TEXT["internlm3"] = TEXT["internlm2"] = TEXT["baichuan"] = LLAMA
TEXT["kimi_k2"] = DEEPSEEK
TEXT["mimo"] = QWEN2
