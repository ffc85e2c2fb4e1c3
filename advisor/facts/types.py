"""What is true of the world, as plain data. Loaded by the modules beside this one; read by every room above.

Memory: GiB = 2^30 bytes; GB = 10^9 bytes; the unit is in each name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from advisor.facts.corrections import Correction


@dataclass(frozen=True, slots=True)
class Weight:
    """Identical weight tensors of a model: `count` tensors of `shape`.

    `role`: embedding, lm_head, attention, mlp (dense or shared linear MLP), shared_expert, expert (routed),
    router, norm, vision, projector, other. `name`: the transformers parameter path with `*` for the layer
    index (`model.layers.*.self_attn.q_proj.weight`). `linear`: it is the weight of an nn.Linear
    (shape = (out, in)) that a LoRA can target by the last module name. For routed experts stored as one
    fused 3-D parameter, shape = (experts, out, in) and linear is False.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    role: str
    linear: bool = False

    @property
    def elements(self) -> int:
        total = self.count
        for size in self.shape:
            total *= size
        return total


@dataclass(frozen=True, slots=True)
class Moe:
    experts: int
    experts_per_token: int
    expert_ffn: int
    """Intermediate size of one routed expert."""
    shared_ffn: int
    """Summed intermediate size of the always-on shared experts, 0 if none."""
    moe_layers: int
    """Layers that route; the other layers are dense."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model architecture with its exact weights."""

    id: str
    model_type: str
    architecture: str
    """transformers class name, e.g. Qwen3ForCausalLM."""
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    """Intermediate size of a dense MLP layer."""
    vocab: int
    max_positions: int
    tied_embeddings: bool
    moe: Moe | None
    mla: bool
    """Multi-head latent attention (DeepSeek-V2/V3 family)."""
    vision: bool
    native_dtype: str
    """dtype of the published checkpoint: bf16, fp16, fp32, fp8 ..."""
    decoder_layer: str
    """Class name of the decoder layer, for FSDP wrapping (Qwen3DecoderLayer)."""
    weights: tuple[Weight, ...]
    config: Mapping[str, Any]
    """The config.json this was read from, or one rebuilt from the catalog row: the source of the tiny smoke model."""
    source: str
    """Where the dimensions come from."""
    local_path: str | None = None
    """Folder of the user's own checkpoint, when the model was given as one."""
    context_note: str = ""

    @property
    def total_parameters(self) -> int:
        return sum(w.elements for w in self.weights)

    @property
    def active_parameters(self) -> int:
        """Parameters a token passes: routed experts count experts_per_token / experts."""
        if self.moe is None:
            return self.total_parameters
        routed = sum(w.elements for w in self.weights if w.role == "expert")
        return self.total_parameters - routed + routed * self.moe.experts_per_token // self.moe.experts

    def elements(self, *roles: str) -> int:
        """Parameters of the given roles."""
        return sum(w.elements for w in self.weights if w.role in roles)


@dataclass(frozen=True, slots=True)
class GpuFacts:
    id: str
    name: str
    vendor: str
    compute_capability: float | None
    memory_gib: float
    """Usable memory in GiB: the reported figure where known, else nominal GB read as GiB minus 1 %."""
    memory_source: str
    bandwidth_gb_s: float | None
    tflops_bf16: float | None
    """Dense tensor-core TFLOP/s in bf16 (fp16 where the card has no bf16)."""
    supports_bf16: bool
    supports_fp8: bool
    supports_flash2: bool
    link_gb_s: float | None
    """Intra-node GB/s per direction (NVLink, else PCIe)."""
    nvlink: bool
    gpus_per_node: int
    """Usual GPUs in one node of this card."""
    usd_per_gpu_hour: float | None
    price_source: str | None


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    gpu: GpuFacts
    gpus_per_node: int
    nodes: int
    gpu_memory_gib: float
    """Capacity a plan must fit in, per GPU."""
    cpu_memory_gib: float
    """Host memory per node."""
    cpu_memory_source: str
    nvme_gib: float = 0.0
    interconnect: str = "infiniband"
    corrections: tuple[Correction, ...] = ()
    """What the user's own runs on this card say about the estimates, one for each framework."""
    correction: Correction | None = None
    """The one that applies: of the framework that is being estimated."""

    @property
    def world_size(self) -> int:
        return self.gpus_per_node * self.nodes

    def under(self, framework: str | None) -> ClusterFacts:
        """The same cluster as one framework's runs have shown it."""
        found = next((c for c in self.corrections if c.framework == framework), None)
        return replace(self, correction=found) if found is not self.correction else self


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was read from the user's data, or what they said about it."""

    path: str
    """A file or folder on disk, or a hub id."""
    local: bool
    format: str
    """text, messages, sharegpt, alpaca, prompt-completion, preference, preference-messages, kto, rl-prompts, unknown."""
    rows: int
    columns: tuple[str, ...] = ()
    bad_rows: tuple[tuple[int, str], ...] = ()
    """(line number from 1, what is wrong)."""
    mean_chars: float = 0.0
    max_chars: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
