"""What the estimator needs of a model, summed once.

`model_sums` walks the weights of a model the first time it sees it and keeps the result for the same
object (`ModelFacts` holds a dict, so it cannot be hashed; the store keeps the model alive, so an id is
never reused). Everything after that is arithmetic on a few numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.facts.types import ModelFacts, Weight

IN_LAYER_ROLES = ("attention", "mlp", "shared_expert", "expert", "router", "norm", "other")
STORE_LIMIT = 512
ROUTER_IN_FP32 = (
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "exaone_moe", "glm4_moe", "glm4_moe_lite",
    "glm4v_moe", "glm_moe_dsa", "kimi_k2", "kimi_k25", "solar_open",
)  # fmt: skip
"""Model types whose router multiplies in fp32 where autocast does not stop it (`hidden_states.type(torch.float32)` in
transformers 5.23) and whose scores then stay in fp32."""
SCORES_IN_FP32 = ("deepseek_v2", "minimax_m2", "mixtral")
"""Model types whose scores are fp32 always (a softmax or sigmoid in fp32, not cast back)."""
NORMS_IN_FP32 = ("gemma", "qwen3_next", "qwen3_5")
"""Model types whose RMSNorm multiplies by its weight in fp32 (transformers 5.23: models/gemma3, models/qwen3_next)."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelSums:
    """Sizes of a model. Elements are parameters; `_per_layer` means of one layer of that kind."""

    model: ModelFacts
    total: int
    embedding: int
    head: int
    """Output head, 0 when tied to the embedding."""
    head_matrix: int
    """vocab x hidden: what the head multiplies by, tied or not."""
    outside: int
    """Everything else outside the decoder layers: final norm, projector."""
    vision: int
    layers: int
    dense_layers: int
    moe_layers: int
    attention_per_layer: float
    """Sliced by tensor parallelism."""
    replicated_per_layer: float
    """Norms and MLA's down projections: every tensor-parallel rank holds them."""
    mlp_per_layer: float
    """Dense MLP of a dense layer."""
    shared_per_layer: float
    """Shared experts of an MoE layer."""
    router_per_layer: float
    expert_per_layer: float
    """All routed experts of an MoE layer."""
    quantizable: int
    """Elements of plain linears in the layers: what bitsandbytes replaces."""
    projected: tuple[tuple[int, int, int], ...]
    """(rows, columns, how many) of the plain linears in the layers, kind by kind: what GaLore and APOLLO project."""
    unprojected: tuple[tuple[int, bool], ...]
    """(elements, whether in the layers) of each other weight, kind by kind in the order of the model."""
    largest_linear: int
    largest_parameter: int
    """One tensor: embedding, head, a linear or the fused matrices of a layer's experts."""
    largest_but_experts: int
    largest_module: float
    """The parameters of one module: fused experts have all their matrices in one."""
    largest_layer: float
    hidden: int
    vocab: int
    heads: int
    query: int
    """heads x head_dim."""
    key_value: int
    """kv_heads x head_dim."""
    ffn: int
    gated: bool
    """Gate and up projections (SwiGLU), as against one up projection (GELU)."""
    fused_qkv: bool
    """One matrix for queries, keys and values (Phi-3): the values are a view that keeps its whole output."""
    rotary: int
    """Of a head, the part that turns with the position."""
    qk_norm: bool
    norms_after: int
    """Norms of what attention, and of what the MLP, puts out, besides those of what goes in (Gemma, GLM-4): 0 or 1."""
    norms_in_fp32: bool
    """The norm's weight multiplies before the result is cast down."""
    mla: bool
    mla_query_rank: int
    mla_kv_rank: int
    mla_qk: int
    """heads x (qk_nope + qk_rope)."""
    mla_nope: int
    """heads x qk_nope: the part of keys without a position."""
    mla_value: int
    """heads x v_head_dim."""
    experts: int
    top_k: int
    expert_ffn: int
    shared_ffn: int
    router_in_fp32: bool
    scores_in_fp32: bool
    """Experts' outputs are weighted with fp32 scores, so that the weighted copies are fp32."""
    fused_experts: bool
    """Routed experts are one 3-D parameter, not plain linears."""
    capped_logits: bool
    """The head's output passes tanh (Gemma-2's final_logit_softcapping)."""

    def dense_in(self, first: int, count: int) -> int:
        """Dense layers among `count` layers from `first`; dense layers come first (DeepSeek, GLM)."""
        return max(0, min(first + count, self.dense_layers) - first)


_STORE: dict[int, ModelSums] = {}


def model_sums(model: ModelFacts) -> ModelSums:
    """The sums of `model`, built at the first call for this object."""
    known = _STORE.get(id(model))
    if known is not None and known.model is model:
        return known
    if len(_STORE) >= STORE_LIMIT:
        _STORE.clear()
    sums = _build(model)
    _STORE[id(model)] = sums
    return sums


def _config_value(model: ModelFacts, key: str) -> object:
    config = model.config
    value = config.get(key)
    if value is None and isinstance(config.get("text_config"), dict):
        value = config["text_config"].get(key)
    return value


def _config_int(model: ModelFacts, key: str) -> int:
    value = _config_value(model, key)
    return value if isinstance(value, int) else 0


def _rotary_share(model: ModelFacts) -> float:
    share = _config_value(model, "partial_rotary_factor")
    return share if isinstance(share, float) else 1.0


def _in_layers(weight: Weight) -> bool:
    return "*" in weight.name and weight.role in IN_LAYER_ROLES


def _stream_norms(inside: list[Weight], hidden: int, layers: int) -> int:
    """Norms as wide as the residual stream in a layer."""
    return sum(w.count for w in inside if w.role == "norm" and w.shape == (hidden,)) // layers


def _is_matrix(weight: Weight) -> bool:
    return weight.linear and len(weight.shape) == 2


def _replicated(weight: Weight) -> bool:
    return weight.role == "norm" or any(
        part in weight.name for part in ("q_a_proj", "kv_a_proj", "q_a_layernorm", "kv_a_layernorm")
    )


def _build(model: ModelFacts) -> ModelSums:
    inside = [w for w in model.weights if _in_layers(w)]
    moe = model.moe
    layers = max(model.layers, 1)
    moe_layers = moe.moe_layers if moe else 0
    dense_layers = layers - moe_layers

    def per_layer(role: str, count: int) -> float:
        return sum(w.elements for w in inside if w.role == role) / count if count else 0.0

    replicated = sum(w.elements for w in inside if _replicated(w)) / layers
    attention = (
        sum(w.elements for w in inside if w.role in ("attention", "other") and not _replicated(w)) / layers
    )
    mlp = per_layer("mlp", dense_layers)
    shared = per_layer("shared_expert", moe_layers)
    router = per_layer("router", moe_layers)
    expert = per_layer("expert", moe_layers)
    linears = [w for w in inside if w.linear and w.role in ("attention", "mlp", "shared_expert", "expert")]
    embedding = model.elements("embedding")
    head = model.elements("lm_head")
    vision = model.elements("vision")
    in_layers = sum(w.elements for w in inside)
    fused = any(w.role == "expert" and len(w.shape) == 3 for w in inside)
    largest = max((w.elements // w.count for w in model.weights), default=0)
    heads = model.heads
    mlp_weights = [w for w in linears if w.role == "mlp"]
    qk_nope, qk_rope = _config_int(model, "qk_nope_head_dim"), _config_int(model, "qk_rope_head_dim")
    return ModelSums(
        model=model,
        total=model.total_parameters,
        embedding=embedding,
        head=head,
        head_matrix=model.vocab * model.hidden,
        outside=model.total_parameters - in_layers - embedding - head - vision,
        vision=vision,
        layers=layers,
        dense_layers=dense_layers,
        moe_layers=moe_layers,
        attention_per_layer=attention,
        replicated_per_layer=replicated,
        mlp_per_layer=mlp,
        shared_per_layer=shared,
        router_per_layer=router,
        expert_per_layer=expert,
        quantizable=sum(w.elements for w in linears),
        projected=tuple((w.shape[0], w.shape[1], w.count) for w in inside if _is_matrix(w)),
        unprojected=tuple(
            (w.elements // w.count, _in_layers(w))
            for w in model.weights
            if not (_in_layers(w) and _is_matrix(w))
        ),
        largest_linear=max((w.elements // w.count for w in linears), default=0),
        largest_parameter=largest,
        largest_but_experts=max(
            (w.elements // w.count for w in model.weights if w.role != "expert"), default=0
        ),
        largest_module=max(largest, expert if fused else 0.0),
        largest_layer=attention + replicated + max(mlp, shared + router + expert),
        hidden=model.hidden,
        vocab=model.vocab,
        heads=heads,
        query=heads * model.head_dim,
        key_value=model.kv_heads * model.head_dim,
        ffn=model.ffn,
        gated=not mlp_weights or any("gate" in w.name for w in mlp_weights),
        fused_qkv=any("qkv_proj" in w.name for w in inside),
        rotary=qk_rope or int(model.head_dim * _rotary_share(model)),
        qk_norm=any(part in w.name for w in inside for part in ("q_norm", "q_layernorm")),
        norms_after=1 if _stream_norms(inside, model.hidden, layers) >= 4 else 0,
        norms_in_fp32=model.model_type.startswith(NORMS_IN_FP32),
        mla=model.mla,
        mla_query_rank=_config_int(model, "q_lora_rank"),
        mla_kv_rank=_config_int(model, "kv_lora_rank"),
        mla_qk=heads * (qk_nope + qk_rope),
        mla_nope=heads * qk_nope,
        mla_value=heads * _config_int(model, "v_head_dim"),
        experts=moe.experts if moe else 0,
        top_k=moe.experts_per_token if moe else 0,
        expert_ffn=moe.expert_ffn if moe else 0,
        shared_ffn=moe.shared_ffn if moe else 0,
        router_in_fp32=model.model_type in ROUTER_IN_FP32,
        scores_in_fp32=model.model_type in SCORES_IN_FP32,
        fused_experts=fused,
        capped_logits=bool(_config_value(model, "final_logit_softcapping")),
    )
