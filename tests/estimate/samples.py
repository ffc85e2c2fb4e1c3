"""Hand-built facts: public dimensions of known models, with the weights transformers gives them."""

from __future__ import annotations

from typing import Any

from advisor.facts.types import ClusterFacts, GpuFacts, ModelFacts, Moe, Weight
from advisor.plan import Plan

GIB = 1024.0**3


def _linear(name: str, rows: int, columns: int, count: int, role: str) -> Weight:
    return Weight(f"model.layers.*.{name}.weight", (rows, columns), count, role, True)


def _attention(layers: int, h: int, q: int, kv: int, d: int, qk_norm: bool, bias: bool) -> list[Weight]:
    weights = [
        _linear("self_attn.q_proj", q, h, layers, "attention"),
        _linear("self_attn.k_proj", kv, h, layers, "attention"),
        _linear("self_attn.v_proj", kv, h, layers, "attention"),
        _linear("self_attn.o_proj", h, q, layers, "attention"),
    ]
    if qk_norm:
        weights.append(Weight("model.layers.*.self_attn.q_norm.weight", (d,), layers, "norm"))
        weights.append(Weight("model.layers.*.self_attn.k_norm.weight", (d,), layers, "norm"))
    if bias:
        weights.append(Weight("model.layers.*.self_attn.q_proj.bias", (q,), layers, "attention"))
        weights.append(Weight("model.layers.*.self_attn.kv_proj.bias", (kv,), 2 * layers, "attention"))
    return weights


def _mla(layers: int, h: int, heads: int, c: dict[str, int]) -> list[Weight]:
    qk, qr, kr = c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["q_lora_rank"], c["kv_lora_rank"]
    value = c["v_head_dim"]
    weights = [
        _linear("self_attn.kv_a_proj_with_mqa", kr + c["qk_rope_head_dim"], h, layers, "attention"),
        _linear("self_attn.kv_b_proj", heads * (c["qk_nope_head_dim"] + value), kr, layers, "attention"),
        _linear("self_attn.o_proj", h, heads * value, layers, "attention"),
        Weight("model.layers.*.self_attn.kv_a_layernorm.weight", (kr,), layers, "norm"),
    ]
    if qr:
        weights.append(_linear("self_attn.q_a_proj", qr, h, layers, "attention"))
        weights.append(_linear("self_attn.q_b_proj", heads * qk, qr, layers, "attention"))
        weights.append(Weight("model.layers.*.self_attn.q_a_layernorm.weight", (qr,), layers, "norm"))
    else:
        weights.append(_linear("self_attn.q_proj", heads * qk, h, layers, "attention"))
    return weights


def _swiglu(prefix: str, h: int, width: int, count: int, role: str) -> list[Weight]:
    return [
        _linear(f"{prefix}.gate_proj", width, h, count, role),
        _linear(f"{prefix}.up_proj", width, h, count, role),
        _linear(f"{prefix}.down_proj", h, width, count, role),
    ]


def _experts(h: int, moe: Moe) -> list[Weight]:
    n, e, m = moe.moe_layers, moe.experts, moe.expert_ffn
    weights = [
        Weight("model.layers.*.mlp.experts.gate_up_proj", (e, 2 * m, h), n, "expert"),
        Weight("model.layers.*.mlp.experts.down_proj", (e, h, m), n, "expert"),
        Weight("model.layers.*.mlp.gate.weight", (e, h), n, "router"),
    ]
    if moe.shared_ffn:
        weights += _swiglu("mlp.shared_experts", h, moe.shared_ffn, n, "shared_expert")
    return weights


def build(
    name: str,
    h: int,
    layers: int,
    heads: int,
    kv_heads: int,
    d: int,
    ffn: int,
    vocab: int,
    *,
    tied: bool = False,
    qk_norm: bool = False,
    bias: bool = False,
    moe: Moe | None = None,
    mla: dict[str, int] | None = None,
) -> ModelFacts:
    """A decoder-only model from its dimensions."""
    weights = [Weight("model.embed_tokens.weight", (vocab, h), 1, "embedding")]
    if not tied:
        weights.append(Weight("lm_head.weight", (vocab, h), 1, "lm_head", True))
    if mla:
        weights += _mla(layers, h, heads, mla)
    else:
        weights += _attention(layers, h, heads * d, kv_heads * d, d, qk_norm, bias)
    dense = layers - (moe.moe_layers if moe else 0)
    if dense:
        weights += _swiglu("mlp", h, ffn, dense, "mlp")
    if moe:
        weights += _experts(h, moe)
    weights.append(Weight("model.layers.*.input_layernorm.weight", (h,), layers, "norm"))
    weights.append(Weight("model.layers.*.post_attention_layernorm.weight", (h,), layers, "norm"))
    weights.append(Weight("model.norm.weight", (h,), 1, "norm"))
    config: dict[str, Any] = dict(mla or {})
    return ModelFacts(
        id=name, model_type="llama", architecture="LlamaForCausalLM", hidden=h, layers=layers, heads=heads,
        kv_heads=kv_heads, head_dim=d, ffn=ffn, vocab=vocab, max_positions=131072, tied_embeddings=tied,
        moe=moe, mla=mla is not None, vision=False, native_dtype="bf16", decoder_layer="LlamaDecoderLayer",
        weights=tuple(weights), config=config, source="public config",
    )  # fmt: skip


LLAMA_8B = build("meta-llama/Llama-3.1-8B", 4096, 32, 32, 8, 128, 14336, 128256)
LLAMA_3B = build("meta-llama/Llama-3.2-3B", 3072, 28, 24, 8, 128, 8192, 128256, tied=True)
LLAMA_70B = build("meta-llama/Llama-3.1-70B", 8192, 80, 64, 8, 128, 28672, 128256)
LLAMA2_70B = build("meta-llama/Llama-2-70b-hf", 8192, 80, 64, 8, 128, 28672, 32000)
QWEN_7B = build("Qwen/Qwen-7B", 4096, 32, 32, 32, 128, 11008, 151936, bias=True)
QWEN25_7B = build("Qwen/Qwen2.5-7B", 3584, 28, 28, 4, 128, 18944, 152064, bias=True)
QWEN25_14B = build("Qwen/Qwen2.5-14B", 5120, 48, 40, 8, 128, 13824, 152064, bias=True)
QWEN25_72B = build("Qwen/Qwen2.5-72B", 8192, 80, 64, 8, 128, 29568, 152064, bias=True)
QWEN3_06B = build("Qwen/Qwen3-0.6B", 1024, 28, 16, 8, 128, 3072, 151936, tied=True, qk_norm=True)
QWEN3_4B = build("Qwen/Qwen3-4B", 2560, 36, 32, 8, 128, 9728, 151936, tied=True, qk_norm=True)
QWEN3_8B = build("Qwen/Qwen3-8B", 4096, 36, 32, 8, 128, 12288, 151936, qk_norm=True)
QWEN3_14B = build("Qwen/Qwen3-14B", 5120, 40, 40, 8, 128, 17408, 151936, qk_norm=True)
QWEN3_32B = build("Qwen/Qwen3-32B", 5120, 64, 64, 8, 128, 25600, 151936, qk_norm=True)
QWEN3_30B = build(
    "Qwen/Qwen3-30B-A3B", 2048, 48, 32, 4, 128, 6144, 151936, qk_norm=True, moe=Moe(128, 8, 768, 0, 48)
)
QWEN3_30B_4L = build(
    "Qwen3-30B-A3B, 4 layers", 2048, 4, 32, 4, 128, 6144, 151936, qk_norm=True, moe=Moe(128, 8, 768, 0, 4)
)
QWEN3_235B = build(
    "Qwen/Qwen3-235B-A22B", 4096, 94, 64, 4, 128, 12288, 151936, qk_norm=True, moe=Moe(128, 8, 1536, 0, 94)
)
_DSV3 = {
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}  # fmt: skip
DEEPSEEK_R1 = build(
    "deepseek-ai/DeepSeek-R1",
    7168,
    61,
    128,
    128,
    192,
    18432,
    129280,
    moe=Moe(256, 8, 2048, 2048, 58),
    mla=_DSV3,
)
MOONLIGHT = build(
    "moonshotai/Moonlight-16B-A3B", 2048, 27, 16, 16, 192, 11264, 163840,
    moe=Moe(64, 6, 1408, 2816, 26), mla={**_DSV3, "q_lora_rank": 0},
)  # fmt: skip
LLAMA2_7B = build("meta-llama/Llama-2-7b-hf", 4096, 32, 32, 32, 128, 11008, 32000)
MODELS = {
    m.id: m
    for m in (
        LLAMA_8B, LLAMA_3B, LLAMA_70B, LLAMA2_70B, LLAMA2_7B, QWEN_7B, QWEN25_7B, QWEN25_14B, QWEN25_72B,
        QWEN3_06B, QWEN3_4B, QWEN3_8B, QWEN3_14B, QWEN3_32B, QWEN3_30B, QWEN3_235B, DEEPSEEK_R1, MOONLIGHT,
    )
}  # fmt: skip


def gpu(
    name: str = "h100-sxm", memory: float = 79.6, tflops: float | None = 989.0, bandwidth: float = 3350.0,
    link: float = 450.0, nvlink: bool = True,
) -> GpuFacts:  # fmt: skip
    return GpuFacts(
        id=name, name=name, vendor="nvidia", compute_capability=9.0, memory_gib=memory, memory_source="test",
        bandwidth_gb_s=bandwidth, tflops_bf16=tflops, supports_bf16=True, supports_fp8=True,
        supports_flash2=True, link_gb_s=link, nvlink=nvlink, gpus_per_node=8, usd_per_gpu_hour=2.0,
        price_source="test",
    )  # fmt: skip


def cluster(
    gpus: int = 8, nodes: int = 1, card: GpuFacts | None = None, host: float = 2048.0
) -> ClusterFacts:
    card = card or gpu()
    return ClusterFacts(
        gpu=card, gpus_per_node=gpus, nodes=nodes, gpu_memory_gib=card.memory_gib, cpu_memory_gib=host,
        cpu_memory_source="test",
    )  # fmt: skip


RTX_4090 = gpu("rtx-4090", 23.5, 165.2, 1008.0, 32.0, False)
A100 = gpu("a100-80gb-sxm", 79.3, 312.0, 2039.0, 300.0)


def full(**changes: Any) -> Plan:
    """Full fine-tuning as the traced rows ran it: pure bf16, AdamW, checkpointing, flash attention."""
    defaults: dict[str, Any] = {
        "tuning": "full", "precision": "bf16-pure", "param_dtype": "bf16", "attention": "flash",
        "lora_rank": 0,
    }  # fmt: skip
    return Plan(**{**defaults, **changes})


def lora(**changes: Any) -> Plan:
    """LoRA as peft runs it: fp32 adapters over a bf16 base under autocast."""
    return Plan(**{"tuning": "lora", "param_dtype": "fp32", "attention": "flash", **changes})
