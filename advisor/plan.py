"""The neutral training plan: the one language that estimator, rules and frameworks all speak.

A field is here because the estimator or a rule reads it, or because two frameworks express it. It
means one thing in the field's own terms; the string below it says which, with unit and default, and
is what `advisor explain FIELD` prints. This module knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

OFFLINE_PREFERENCE = ("dpo", "ipo", "kto", "orpo", "simpo", "cpo")
"""Methods that learn from fixed pairs or labels."""

ONLINE_RL = ("ppo", "grpo", "dapo", "gspo", "dr-grpo", "rloo", "reinforce++")
"""Methods that generate while they train."""

METHODS = ("cpt", "sft", *OFFLINE_PREFERENCE, "rm", *ONLINE_RL, "gkd")
TUNINGS = ("full", "freeze", "lora", "dora", "qlora")
ADAPTER_TUNINGS = ("lora", "dora", "qlora")
QUANTIZATIONS = ("none", "8bit", "4bit")
PRECISIONS = ("bf16", "bf16-pure", "fp16", "fp32", "fp8")
OFFLOADS = ("none", "optimizer", "all", "nvme", "experts")
BACKENDS = ("hf", "megatron")
RECOMPUTES = ("none", "selective", "full")
ATTENTIONS = ("flash", "sdpa", "eager")
LOSSES = ("stock", "chunked", "fused")
LOW_RANK_OPTIMIZERS = ("galore_adamw", "galore_adamw_layerwise", "apollo_adamw", "apollo_adamw_layerwise")
"""AdamW whose moments of a matrix live in a projection of its gradient to `optimizer_rank`."""
OPTIMIZERS = (
    "adamw",
    "adamw_foreach",
    "adamw_8bit",
    "paged_adamw_8bit",
    "adafactor",
    "muon",
    *LOW_RANK_OPTIMIZERS,
)
ROLLOUT_ENGINES = ("none", "hf", "vllm")
ROLLOUT_PLACEMENTS = ("colocated", "separate", "separate-async")
LORA_TARGET_WORDS = ("all-linear", "attention", "experts")


@dataclass(frozen=True)
class Plan:
    """One complete way to train: every choice a framework's configuration has to express."""

    method: str = "sft"
    """What is learned, one of METHODS: `cpt` raw text, `sft` answers, `dpo` ... `cpo` preferences, `rm` a
    reward model, `ppo` ... `reinforce++` online RL, `gkd` distillation from a teacher."""
    tuning: str = "lora"
    """Which weights train, one of TUNINGS. `qlora` is LoRA over a base quantized as `quantization` says."""
    quantization: str = "none"
    """How the frozen base is stored: `none` (16 bit), `8bit` or `4bit` (bitsandbytes). Default none."""
    quantize_experts: bool = False
    """Whether a quantized base packs the fused routed experts too; stock bitsandbytes leaves them in 16 bit."""
    fp32_leftovers: bool = True
    """Whether what a quantized base leaves in 16 bit (norms, embedding, head) is raised to fp32, as PEFT's
    prepare_model_for_kbit_training does under autocast with fp32 adapters."""
    precision: str = "bf16"
    """`bf16`: autocast mixed precision as trainers do; `bf16-pure`: everything in bf16; `fp16`, `fp32`, `fp8`."""
    param_dtype: str = "bf16"
    """What trainable weights are held in, `bf16` or `fp32`."""
    master_weights: bool = False
    """Whether an fp32 copy of bf16 trainable weights is kept by the optimizer."""

    lora_rank: int = 16
    """Rank of the adapters; 0 when `tuning` trains no adapter."""
    lora_alpha: int = 32
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    lora_dropout: float = 0.0
    """Dropout on the adapters' input. Must be 0 where adapters sit on fused expert weights."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Modules that get adapters: one of LORA_TARGET_WORDS or module names. `all-linear`: every linear of
    attention and dense/shared MLP, never the output head, never routed experts, never the router;
    `attention`: attention projections only; `experts`: attention projections and the routed experts."""
    freeze_trainable_layers: int = 2
    """Last layers that train under `tuning: freeze`."""

    seq_len: int = 2048
    """Tokens per sample after which it is cut (unit: tokens). For online RL prompt_len + response_len."""
    packing: bool = False
    """Whether short samples are concatenated up to `seq_len`."""
    micro_batch_size: int = 1
    """Sequences per data-parallel rank and forward pass."""
    gradient_accumulation_steps: int = 1
    """Forward/backward passes per optimizer step."""
    epochs: float = 1.0
    """Passes over the data."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    lr_scheduler: str = "cosine"
    """`cosine`, `linear` or `constant`."""
    warmup_ratio: float = 0.03
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    optimizer: str = "adamw"
    """`adamw` (fused), `adamw_foreach`, `adamw_8bit`, `paged_adamw_8bit`, `adafactor`, `muon`; of full tuning on whole
    matrices also `galore_adamw` and `apollo_adamw`, which keep the moments of a low-rank projection of each gradient;
    `..._layerwise` steps each parameter as soon as its gradient is there, so that no other gradient is held."""
    optimizer_rank: int = 128
    """Rank that GaLore and APOLLO project gradients to. Default 128, as in transformers and ms-swift (transformers
    5.23.0, trainer_optimizer.py:370)."""
    seed: int = 42
    """Seed of shuffling and initialisation."""
    save_steps: int = 200
    """Optimizer steps between checkpoints."""
    logging_steps: int = 1
    """Optimizer steps between log lines."""

    nodes: int = 1
    """Machines."""
    gpus_per_node: int = 1
    """GPUs used on each machine."""
    backend: str = "hf"
    """`hf`: transformers modules under DDP/ZeRO/FSDP; `megatron`: Megatron-LM (distributed optimizer, fp32 gradients)."""
    zero_stage: int = 0
    """What data-parallel ranks shard: 0 nothing, 1 optimizer states, 2 + gradients, 3 + weights."""
    fsdp: bool = False
    """Sharding by PyTorch FSDP2 instead of DeepSpeed; implies zero_stage 3."""
    fsdp_replicas: int = 1
    """Hybrid sharding (HSDP) under FSDP2: copies of the sharded state, each spread over its own group of world /
    replicas neighbouring GPUs; the groups all-reduce gradients. 1: one copy over all GPUs."""
    offload: str = "none"
    """What moves to host memory: `none`, `optimizer` (states and step), `all` (weights too), `nvme` (states and
    weights to disk), `experts` (the frozen routed experts of an MoE with their adapters: they rest there and the
    processor multiplies by them, so that they never visit a GPU)."""
    tensor_parallel: int = 1
    """Ranks that slice every matrix."""
    sequence_parallel: bool = False
    """Whether tensor-parallel ranks also split norms and dropout along the sequence (Megatron SP)."""
    pipeline_parallel: int = 1
    """Stages the layers are split into."""
    pipeline_first_layers: int = 0
    """Layers of the first stage; 0: even split."""
    pipeline_last_layers: int = 0
    """Layers of the last stage; 0: even split."""
    virtual_pipeline_parallel: int = 1
    """Model chunks a pipeline rank holds (interleaved schedule); 1: its layers in one piece."""
    expert_parallel: int = 1
    """Ranks over which an MoE's routed experts are spread."""
    expert_tensor_parallel: int = 1
    """Ranks that slice each expert."""
    context_parallel: int = 1
    """Ranks that split the sequence (ring attention or Ulysses)."""
    gradient_checkpointing: bool = True
    """Whether layer activations are recomputed in backward instead of kept."""
    recompute: str = "none"
    """Megatron's own checkpointing: `none`, `selective` (attention core), `full`."""
    activation_offload: bool = False
    """Whether the layer inputs that gradient checkpointing keeps for backward rest in host memory until backward comes
    to them. Default false."""

    attention: str = "sdpa"
    """Attention kernel: `flash` (FlashAttention-2), `sdpa` (PyTorch), `eager` (S^2 memory)."""
    liger: bool = False
    """Whether Liger's fused Triton kernels replace norms, RoPE and MLP."""
    compile: bool = False
    """Whether torch.compile fuses the elementwise operations of the layers, and of a stock loss with its head, and
    chooses what is kept for backward. Default false."""
    loss: str = "stock"
    """Cross-entropy path: `stock` fp32 logits, `chunked` over tokens, `fused` with the output head."""

    beta: float = 0.1
    """Strength of the KL or preference term (dpo, ipo, kto, orpo, simpo, cpo: their beta; online RL: KL coefficient)."""
    prompt_len: int = 0
    """Online RL and distillation: longest prompt kept, tokens."""
    response_len: int = 0
    """Online RL and distillation: longest generated response, tokens."""
    generations: int = 0
    """Online RL: responses sampled per prompt (group size)."""
    rollout_engine: str = "none"
    """Who generates: `none` (no generation), `hf` (the trainer's own model), `vllm`."""
    rollout_placement: str = "colocated"
    """Where the engine runs: `colocated` on the GPUs that train, `separate` on GPUs of its own while the policy waits,
    `separate-async` on GPUs of its own while the policy trains on the answers of the step before."""
    rollout_gpus: int = 0
    """GPUs that only generate, on each machine that has some; they come on top of `gpus_per_node`, which train. 0 when
    `rollout_placement` is colocated, or where a configuration does not tell."""
    rollout_nodes: int = 0
    """Machines that only generate, beside the `nodes` that train. 0: GPUs of the machine that trains generate."""
    rollout_tensor_parallel: int = 1
    """Tensor parallel degree of the rollout engine."""
    rollout_data_parallel: int = 1
    """Data-parallel ranks inside one rollout engine, each of `rollout_tensor_parallel` GPUs. Default 1."""
    rollout_expert_parallel: int = 1
    """Ranks of the engine over which an MoE's experts are spread: 1 (sliced like the rest) or all of the engine's
    `rollout_tensor_parallel` x `rollout_data_parallel`."""
    rollout_memory_fraction: float = 0.0
    """Share of a GPU's memory the rollout engine may take."""
    rollout_sleep: bool = False
    """Whether the rollout engine gives its memory back while the policy trains."""
    rollout_offload: bool = False
    """Whether weights, optimizer states and the reference rest in host memory while the engine generates."""

    @property
    def world_size(self) -> int:
        """Number of GPUs that train."""
        return self.nodes * self.gpus_per_node

    @property
    def generates_apart(self) -> bool:
        """Whether the engine has GPUs of its own."""
        return self.rollout_placement != "colocated"

    @property
    def generating_gpus(self) -> int:
        """Number of GPUs that generate: those of a pool, or the ones that train."""
        return self.rollout_gpus * max(self.rollout_nodes, 1) or self.world_size

    @property
    def all_gpus(self) -> int:
        """Number of GPUs, training or generating."""
        return self.world_size + (self.generating_gpus if self.rollout_gpus else 0)

    @property
    def machines(self) -> int:
        """Machines, training or generating."""
        return self.nodes + self.rollout_nodes

    @property
    def gpus_per_machine(self) -> int:
        """GPUs used on a machine that trains."""
        return self.gpus_per_node + (0 if self.rollout_nodes else self.rollout_gpus)

    @property
    def data_parallel(self) -> int:
        """Replicas that see different data: world / (TP x PP x CP)."""
        return self.world_size // (self.tensor_parallel * self.pipeline_parallel * self.context_parallel)

    @property
    def shard_group(self) -> int:
        """GPUs over which one copy of the sharded state is spread: world / (TP x PP) / replicas."""
        return self.world_size // (self.tensor_parallel * self.pipeline_parallel * self.fsdp_replicas)

    @property
    def global_batch_size(self) -> int:
        """Sequences per optimizer step (online RL: responses, not prompts)."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.data_parallel

    @property
    def uses_adapter(self) -> bool:
        return self.tuning in ADAPTER_TUNINGS

    @property
    def low_rank_optimizer(self) -> bool:
        """Whether the optimizer projects gradients to `optimizer_rank`."""
        return self.optimizer in LOW_RANK_OPTIMIZERS

    @property
    def steps_layerwise(self) -> bool:
        """Whether each parameter is stepped within the backward."""
        return self.optimizer.endswith("_layerwise")

    @property
    def online(self) -> bool:
        return self.method in ONLINE_RL

    def normalised(self) -> Plan:
        """The same plan with every field that has no meaning in it at its default, so that equal ways to
        train are equal plans. LoRA over a quantized base is `qlora`."""
        return changed(self, _meaningless(self))

    def as_dict(self) -> dict[str, Any]:
        """Fields plus the derived sizes, for JSON output and for rules."""
        return {
            **self.__dict__,
            "lora_targets": list(self.lora_targets),
            "world_size": self.world_size,
            "data_parallel": self.data_parallel,
            "global_batch_size": self.global_batch_size,
        }


_FIELDS = frozenset(Plan.__dataclass_fields__)


def changed(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    """dataclasses.replace for a search, which makes tens of thousands of plans and spent half its time there. (A copied
    dictionary is several times faster than 60 fields set one by one: why a plan has no slots.)"""
    if not changes:
        return plan
    assert changes.keys() <= _FIELDS, f"no plan field: {changes.keys() - _FIELDS}"
    made = object.__new__(Plan)
    made.__dict__.update(plan.__dict__)
    made.__dict__.update(changes)
    return made


_GENERATION_FIELDS = ("prompt_len", "response_len")
_ROLLOUT_FIELDS = (
    "generations",
    "rollout_engine",
    "rollout_placement",
    "rollout_gpus",
    "rollout_nodes",
    "rollout_tensor_parallel",
    "rollout_data_parallel",
    "rollout_expert_parallel",
    "rollout_memory_fraction",
    "rollout_sleep",
    "rollout_offload",
)
_LORA_FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
_NO_BETA = ("cpt", "sft", "rm", "gkd")
_DEFAULT = Plan()
NO_ENGINE: Mapping[str, Any] = {
    name: getattr(_DEFAULT, name) for name in _ROLLOUT_FIELDS if name != "generations"
}
"""Plan field -> value of a plan that generates nothing."""
without_engine: Callable[[Plan], tuple[Any, ...]] = attrgetter(*sorted(_FIELDS - NO_ENGINE.keys()))
"""The values of all other fields."""


def _meaningless(plan: Plan) -> dict[str, Any]:
    """Field -> the value it takes because it says nothing in this plan."""
    megatron = plan.backend == "megatron"
    generates = plan.online or plan.method == "gkd"
    reset: list[str] = []
    if not plan.uses_adapter:
        reset += _LORA_FIELDS
    if plan.tuning != "freeze":
        reset.append("freeze_trainable_layers")
    if not plan.low_rank_optimizer:
        reset.append("optimizer_rank")
    if not generates:
        reset += _GENERATION_FIELDS
    if not plan.online:
        reset += _ROLLOUT_FIELDS
    if plan.rollout_engine != "vllm":
        reset += _ROLLOUT_FIELDS[2:]
    if plan.rollout_placement == "colocated":
        reset += ("rollout_gpus", "rollout_nodes")
    else:
        reset += ("rollout_sleep", "rollout_offload")
    if not megatron and plan.zero_stage == 3 and plan.offload in ("all", "nvme"):
        reset.append(
            "rollout_offload"
        )  # weights and states are never on the GPU for longer than they are used
    if plan.method in _NO_BETA:
        reset.append("beta")
    if plan.pipeline_parallel == 1:
        reset += ("pipeline_first_layers", "pipeline_last_layers")
    if plan.pipeline_parallel == 1 or not megatron:
        reset.append("virtual_pipeline_parallel")
    if plan.tensor_parallel == 1:
        reset.append("sequence_parallel")
    if plan.quantization == "none":
        reset += ("quantize_experts", "fp32_leftovers")
    if not megatron:
        reset.append("recompute")
    if not plan.gradient_checkpointing:
        reset.append("activation_offload")
    if megatron or not plan.fsdp:
        reset.append("fsdp_replicas")
    changes = {name: getattr(_DEFAULT, name) for name in reset}
    if plan.tuning in ("lora", "qlora"):
        changes["tuning"] = "lora" if plan.quantization == "none" else "qlora"
    if megatron:
        changes["gradient_checkpointing"] = plan.recompute != "none"
        changes["zero_stage"] = 1
    if plan.fsdp:
        changes["zero_stage"] = 3
    if generates and plan.prompt_len + plan.response_len:
        changes["seq_len"] = plan.prompt_len + plan.response_len
    return {name: value for name, value in changes.items() if getattr(plan, name) != value}
