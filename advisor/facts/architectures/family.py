"""The description of a text decoder that the table fills in, one row a model type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advisor.facts.architectures.fields import Fields

SparseLayers = Callable[[Fields], int]
"""How many layers route to experts."""


@dataclass(frozen=True, slots=True)
class MoeFamily:
    """Where the routed experts of a decoder are and how their sizes are called."""

    layers: SparseLayers
    experts: str = "num_experts"
    per_token: str = "num_experts_per_tok"
    ffn: str = "moe_intermediate_size"
    block: str = "mlp"
    router: str = "gate"
    router_linear: bool = False
    """The router is an nn.Linear (else a bare parameter)."""
    router_bias: bool = False
    correction: str = ""
    """A trainable correction bias beside the router: its name."""
    correction_shape: tuple[int, ...] = ()
    """Leading sizes of the correction bias before the number of experts."""
    shared: str = ""
    """Name of the always-on expert's MLP, empty if none."""
    shared_ffn: Callable[[Fields], int] = lambda _: 0
    shared_gate: bool = False
    expert_bias: bool = False
    post_norm: str = ""
    """A norm over the MLP's output inside the routed block."""


@dataclass(frozen=True, slots=True)
class Family:
    """One text decoder. Bias settings are a constant or the config key that decides."""

    architecture: str
    decoder_layer: str
    attention: str = "grouped"
    """grouped, fused (one qkv matrix), latent (MLA), or deltanet / deltanet-split: mixed with linear
    attention whose input projections are joined or split."""
    qkv_bias: str | bool = False
    o_bias: str | bool = False
    qk_norm: str = ""
    """head: one norm of head_dim; full: one over all heads; per-head: head_dim weights for each head."""
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm")
    qk_norm_if: str = ""
    """Config key that switches the q/k norms on; empty: always."""
    output_gate: bool = False
    """q_proj also yields a gate of the same width."""
    sinks: bool = False
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm_bias: bool = False
    norm_weight: bool = True
    mlp: str = "gated"
    """gated (gate, up, down), fused (gate_up, down), up-down or c_fc."""
    mlp_bias: str | bool = False
    activation_weights: tuple[str, ...] = ()
    """Scalars inside the activation function."""
    lm_head_bias: str | bool = False
    indexer: bool = False
    """Sparse-attention indexer beside latent attention."""
    moe: MoeFamily | None = None
