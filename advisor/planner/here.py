"""What each plan field means in one plan, in that plan's numbers: the text behind `advisor explain FIELD --for`.

The reasons of an advice (`planner.explain`) are the same texts, for the choices that a person would question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from advisor.estimate.model_sums import model_sums
from advisor.estimate.parameters import count_parameters
from advisor.estimate.rollout import engine_weights, needs_reference
from advisor.estimate.types import MemoryEstimate
from advisor.plan import Plan
from advisor.planner.fill import PLANNED
from advisor.request import PINS
from advisor.resolve import Resolved
from advisor.rules import FrameworkRules
from advisor.rules.implied import implied_values

Fact = Callable[[Plan, MemoryEstimate, Resolved], str]


@dataclass(frozen=True, slots=True)
class Here:
    """One plan on its facts."""

    resolved: Resolved
    plan: Plan
    memory: MemoryEstimate
    rules: FrameworkRules | None = None
    """The framework that runs it, where one is chosen."""


def _method(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    counts = count_parameters(r.model, p)
    return f"{p.method} on {r.model.id} trains {counts.trainable:,} of {counts.total:,} parameters"


def _tuning(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.tuning not in ("lora", "qlora"):
        return (
            f"--tuning {p.tuning} was asked for" if not r.origins.get("tuning") else f"{p.tuning} tuning fits"
        )
    if not r.origins.get("tuning"):
        return f"--tuning {r.request.tuning} was asked for"
    return (
        f"{'a quantized base' if p.tuning == 'qlora' else 'LoRA'} is the first of the tunings tried that fits"
    )


def _quantization(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    whole = 2 * r.model.total_parameters / 2**30
    if p.quantization == "none":
        return f"all {whole:.0f} GiB of 16-bit weights are kept as they are"
    return f"{whole:.0f} GiB of 16-bit weights are stored in {p.quantization}: {m.terms['weights']:.1f} GiB on a GPU"


def _zero(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.backend == "megatron":
        return f"the distributed optimizer is stage 1: its states are split over DP = {p.data_parallel}"
    if p.zero_stage == 0:
        return f"the whole model fits each GPU ({m.total:.0f} of {m.capacity_gib:.0f} GiB), so nothing is sharded"
    return (
        f"ZeRO-{p.zero_stage} is the lowest-cost stage that fits: {m.total:.0f} of {m.capacity_gib:.0f} GiB"
    )


def _fsdp(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if not p.fsdp:
        return "nothing is sharded by FSDP2"
    copies = f", in {p.fsdp_replicas} copies" if p.fsdp_replicas > 1 else ""
    return (
        f"weights, gradients and states are sharded over {p.shard_group} GPUs{copies}: "
        f"{m.total:.0f} of {m.capacity_gib:.0f} GiB each"
    )


def _replicas(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if not p.fsdp:
        return "nothing is sharded by FSDP2"
    if p.fsdp_replicas == 1:
        return f"one copy over {p.shard_group} GPUs: nothing but it is gathered and reduced"
    network = "" if p.nodes == 1 else f"; layers are gathered over {'the node' if _in_node(p) else 'nodes'}"
    return (
        f"{p.fsdp_replicas} copies, each sharded over {p.shard_group} GPUs{network}, and only the gradients of "
        "what trains are all-reduced between them"
    )


def _in_node(p: Plan) -> bool:
    return p.shard_group * p.tensor_parallel <= p.gpus_per_node


def _offload(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.offload == "none":
        return f"everything stays on the GPUs; loading takes {m.host_gib:.0f} GiB of host memory a node"
    if p.offload == "experts" and r.model.moe:
        lead = "was asked for" if r.request.offload else "is for where nothing fits on the GPUs"
        return (
            f"the {r.model.moe.experts} experts of each layer stay in host memory, {m.host_gib:.0f} GiB a node with "
            f"the rest, and the processor computes them; that {lead}"
        )
    why = (
        f"--offload {p.offload} was asked for"
        if r.request.offload
        else "no plan without it leaves as much room"
    )
    disk = f" and {m.nvme_gib:.0f} GiB on its disk" if m.nvme_gib else ""
    return f"{why}; it takes {m.host_gib:.0f} GiB of host memory a node{disk}"


def _saved(p: Plan, m: MemoryEstimate) -> str:
    host = f" and {m.host_parts['saving']:.0f} GiB of a node's memory" if m.host_parts["saving"] >= 1 else ""
    return f"a checkpoint every {p.save_steps} optimizer steps takes {m.checkpoint_gib:.3g} GiB of disk{host}"


def _tensor(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.tensor_parallel == 1:
        return "no matrix is sliced"
    return f"TP = {p.tensor_parallel} slices every matrix inside a node"


def _pipeline(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.pipeline_parallel == 1:
        return f"all {r.model.layers} layers are on each GPU's own stage"
    uneven = (
        f", {p.pipeline_first_layers} in the first and {p.pipeline_last_layers} in the last stage"
        if p.pipeline_first_layers
        else ""
    )
    return f"PP = {p.pipeline_parallel} splits {r.model.layers} layers{uneven}"


def _chunks(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    waits = f"{p.pipeline_parallel - 1} / ({p.virtual_pipeline_parallel} x {p.gradient_accumulation_steps})"
    share = (p.pipeline_parallel - 1) / (p.virtual_pipeline_parallel * p.gradient_accumulation_steps)
    chunks = (
        "the layers of a rank are one piece"
        if p.virtual_pipeline_parallel == 1
        else f"a rank holds {p.virtual_pipeline_parallel} model chunks of its layers"
    )
    return f"{chunks}, so the bubble is {waits} = {share:.0%} of the computing time"


def _experts(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if r.model.moe is None:
        return f"{r.model.id} has no routed experts to spread"
    if p.expert_parallel == 1:
        return f"all {r.model.moe.experts} experts are whole on each GPU, or sharded with the rest"
    return (
        f"EP = {p.expert_parallel}: each rank holds {r.model.moe.experts // p.expert_parallel} "
        f"of {r.model.moe.experts} experts, and one layer no longer has to fit whole"
    )


def _recompute(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if not p.gradient_checkpointing:
        return f"activations are kept: {m.terms['activations']:.1f} GiB at the {m.moment}"
    return "activations are recomputed in backward: they would not fit, or leave no room, otherwise"


def _inputs(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if not p.gradient_checkpointing:
        return "nothing is recomputed, so no layer's input is kept for that"
    if not p.activation_offload:
        return "the inputs of all layers are kept on the GPU"
    return f"the inputs of the layers wait in host memory, {m.host_gib:.0f} GiB a node with all else that is there"


def _rollout(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.rollout_engine == "none":
        return f"{p.method} generates nothing"
    if p.rollout_engine == "hf":
        return "the trainer's own model generates, without an engine beside it"
    return (
        f"vLLM generates with {_degrees(p)} in {p.rollout_memory_fraction:.0%} of each GPU: "
        f"{_engine_weights(p, r):.0f} GiB of weights and its cache"
    )


def _degrees(p: Plan) -> str:
    text = f"TP = {p.rollout_tensor_parallel}"
    if p.rollout_data_parallel > 1:
        text += f", DP = {p.rollout_data_parallel}"
    return text + (f", EP = {p.rollout_expert_parallel}" if p.rollout_expert_parallel > 1 else "")


def _engine_weights(p: Plan, r: Resolved) -> float:
    """GiB of 16-bit weights that the rollout engine holds on a GPU."""
    return engine_weights(model_sums(r.model), p) / 2**30


def _placement(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.rollout_placement == "colocated":
        return "the GPUs that train generate too"
    where = f"{p.rollout_nodes} machines of their own" if p.rollout_nodes else "the same machine"
    waits = "trains on the answers of the step before" if p.rollout_placement == "separate-async" else "waits"
    return f"{p.generating_gpus} GPUs on {where} only generate, {p.world_size} train; meanwhile the policy {waits}"


def _rollout_ranks(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    size = p.rollout_tensor_parallel * p.rollout_data_parallel
    return f"{p.generating_gpus // size} engines of {size} GPUs, {_engine_weights(p, r):.1f} GiB of weights on each"


def _rollout_experts(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if p.rollout_expert_parallel == 1 or r.model.moe is None:
        return "experts are sliced like the rest of the engine's weights"
    share = r.model.moe.experts // p.rollout_expert_parallel
    return f"each GPU of an engine holds {share} of {r.model.moe.experts} experts"


def _rollout_share(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    share = p.rollout_memory_fraction * m.capacity_gib
    return f"{share:.1f} GiB of a GPU: {_engine_weights(p, r):.1f} for weights, the rest for the cache"


def _stage(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    first, last = p.pipeline_first_layers, p.pipeline_last_layers
    rest = r.model.layers - first - last
    return (
        f"{first} + {rest} + {last} = {r.model.layers} layers: the first stage also holds the embedding, "
        "the last the head"
    )


def _batch(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    return (
        f"{p.micro_batch_size} x {p.gradient_accumulation_steps} x {p.data_parallel} = {p.global_batch_size} "
        f"sequences a step (asked for: {r.request.global_batch_size})"
    )


def _groups(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    if not p.generations:
        return f"{p.method} samples no groups"
    prompts = p.global_batch_size // p.generations
    return f"{p.global_batch_size} answers a step are {p.generations} to each of {prompts} prompts"


def _data_parallel(p: Plan, m: MemoryEstimate, r: Resolved) -> str:
    parts = f"TP {p.tensor_parallel} x PP {p.pipeline_parallel} x CP {p.context_parallel}"
    return f"{p.world_size} GPUs / ({parts}) = {p.data_parallel} replicas that see different data"


def _only_if(holds: Callable[[Plan], object], text: Fact, otherwise: str) -> Fact:
    return lambda p, m, r: text(p, m, r) if holds(p) else otherwise


ADAPTERS = "no adapters train here"
GENERATES = "nothing is generated here"
NO_ENGINE = "no engine runs beside the trainer"


def _has_engine(plan: Plan) -> bool:
    return plan.rollout_engine == "vllm"


FACTS: Mapping[str, Fact] = {
    "method": _method,
    "tuning": _tuning,
    "quantization": _quantization,
    "quantize_experts": _only_if(
        lambda p: p.quantization != "none",
        lambda p, m, r: f"routed experts are {'packed too' if p.quantize_experts else 'left in 16 bit'}",
        "the base is not quantized"),
    "fp32_leftovers": _only_if(
        lambda p: p.quantization != "none",
        lambda p, m, r: f"norms, embedding and head are held in {'32' if p.fp32_leftovers else '16'} bit",
        "the base is not quantized"),
    "precision": lambda p, m, r: f"{r.cluster.gpu.name} computes in {p.precision}",
    "param_dtype": lambda p, m, r: f"what trains is held in {p.param_dtype}: gradients {m.terms['gradients']:.1f} and "
        f"optimizer {m.terms['optimizer']:.1f} GiB at the {m.moment}",
    "master_weights": lambda p, m, r: "the optimizer keeps an fp32 copy beside the 16-bit weights"
        if p.master_weights else "no fp32 copy is kept beside the weights",
    "lora_rank": _only_if(lambda p: p.uses_adapter, lambda p, m, r:
        f"rank {p.lora_rank} makes {count_parameters(r.model, p).trainable:,} adapter parameters", ADAPTERS),
    "lora_alpha": _only_if(lambda p: p.uses_adapter, lambda p, m, r:
        f"adapters' output is scaled by {p.lora_alpha} / {p.lora_rank} = {p.lora_alpha / p.lora_rank:g}", ADAPTERS),
    "lora_dropout": _only_if(lambda p: p.uses_adapter, lambda p, m, r:
        f"{p.lora_dropout:.0%} of the adapters' inputs are dropped", ADAPTERS),
    "lora_targets": _only_if(lambda p: p.uses_adapter, lambda p, m, r:
        f"adapters sit on {', '.join(p.lora_targets)}: {count_parameters(r.model, p).trainable:,} parameters", ADAPTERS),
    "freeze_trainable_layers": _only_if(lambda p: p.tuning == "freeze", lambda p, m, r:
        f"the last {p.freeze_trainable_layers} of {r.model.layers} layers train", "the tuning is not freeze"),
    "seq_len": lambda p, m, r: f"{p.micro_batch_size} x {p.seq_len} tokens a pass: activations "
        f"{m.terms['activations']:.1f} and logits {m.terms['logits']:.1f} GiB at the {m.moment}; {r.model.id} has "
        f"{r.model.max_positions:,} positions",
    "packing": lambda p, m, r: f"short samples are joined up to {p.seq_len} tokens" if p.packing
        else f"each sample is a row of its own, of at most {p.seq_len} tokens",
    "micro_batch_size": _batch,
    "gradient_accumulation_steps": _batch,
    "global_batch_size": _batch,
    "epochs": lambda p, m, r: f"{p.epochs:g} x {r.request.samples:,} rows" if r.request.samples
        else f"{p.epochs:g} passes over the data, whose number of rows is not known",
    "learning_rate": lambda p, m, r: f"the peak of the schedule is {p.learning_rate:g}",
    "lr_scheduler": lambda p, m, r: f"{p.lr_scheduler} from {p.learning_rate:g}",
    "warmup_ratio": lambda p, m, r: f"the first {p.warmup_ratio:.0%} of the steps rise to {p.learning_rate:g}",
    "weight_decay": lambda p, m, r: f"decay {p.weight_decay:g}",
    "max_grad_norm": lambda p, m, r: f"gradients longer than {p.max_grad_norm:g} are scaled down to it",
    "optimizer": lambda p, m, r: f"{p.optimizer} holds {m.terms['optimizer']:.1f} GiB on a GPU at the {m.moment}",
    "optimizer_rank": _only_if(lambda p: p.low_rank_optimizer, lambda p, m, r:
        f"gradients are projected to rank {p.optimizer_rank}: the optimizer holds {m.terms['optimizer']:.1f} GiB",
        "the optimizer projects no gradients"),
    "seed": lambda p, m, r: f"seed {p.seed}",
    "save_steps": lambda p, m, r: _saved(p, m),
    "logging_steps": lambda p, m, r: f"a log line every {p.logging_steps} optimizer steps",
    "nodes": lambda p, m, r: f"{p.nodes} x {p.gpus_per_node} {r.cluster.gpu.name}, network {r.cluster.interconnect}",
    "gpus_per_node": lambda p, m, r: f"{p.nodes} x {p.gpus_per_node} {r.cluster.gpu.name} of {m.capacity_gib:.1f} GiB",
    "world_size": lambda p, m, r: f"{p.nodes} nodes x {p.gpus_per_node} GPUs",
    "data_parallel": _data_parallel,
    "backend": lambda p, m, r: "transformers modules under DDP, ZeRO or FSDP hold the model" if p.backend == "hf" else
        f"Megatron-LM holds the model: TP {p.tensor_parallel}, PP {p.pipeline_parallel}, EP {p.expert_parallel}",
    "zero_stage": _zero,
    "fsdp": _fsdp,
    "fsdp_replicas": _replicas,
    "offload": _offload,
    "tensor_parallel": _tensor,
    "sequence_parallel": lambda p, m, r: f"norms and dropout are split over TP = {p.tensor_parallel} too"
        if p.sequence_parallel else "norms and dropout are whole on each rank",
    "pipeline_parallel": _pipeline,
    "pipeline_first_layers": _only_if(lambda p: p.pipeline_first_layers, _stage, "all stages hold as many layers"),
    "pipeline_last_layers": _only_if(lambda p: p.pipeline_last_layers, _stage, "all stages hold as many layers"),
    "virtual_pipeline_parallel": _only_if(lambda p: p.pipeline_parallel > 1, _chunks, "there is no pipeline to wait in"),
    "expert_parallel": _experts,
    "expert_tensor_parallel": lambda p, m, r: f"each expert is sliced over {p.expert_tensor_parallel} ranks"
        if p.expert_tensor_parallel > 1 else "no expert is sliced",
    "context_parallel": lambda p, m, r: f"CP = {p.context_parallel} splits {p.seq_len} tokens"
        if p.context_parallel > 1 else f"each GPU sees all {p.seq_len} tokens of its samples",
    "gradient_checkpointing": _recompute,
    "recompute": _recompute,
    "activation_offload": _inputs,
    "attention": lambda p, m, r: f"{p.attention} on {r.cluster.gpu.name}, {p.seq_len} tokens",
    "liger": lambda p, m, r: "Liger's fused kernels keep fewer intermediate results" if p.liger
        else "stock modules compute the layers",
    "compile": lambda p, m, r: "torch.compile fuses what stands between the products of a layer" if p.compile
        else "the layers run as they are written",
    "loss": lambda p, m, r: f"{p.loss}: logits of {r.model.vocab:,} words take {m.terms['logits']:.1f} GiB at the "
        f"{m.moment}",
    "beta": lambda p, m, r: f"beta {p.beta:g}; " + (
        "a frozen reference is held beside the model" if needs_reference(p) else "no second model is held for it"),
    "reference": lambda p, m, r: f"reference models take {m.terms['reference']:.1f} GiB at the {m.moment}"
        if needs_reference(p) else "no reference is held: the method has none, or the base without adapters serves",
    "prompt_len": _only_if(lambda p: p.prompt_len, lambda p, m, r:
        f"{p.prompt_len} + {p.response_len} = {p.seq_len} tokens a sequence", GENERATES),
    "response_len": _only_if(lambda p: p.response_len, lambda p, m, r:
        f"{p.prompt_len} + {p.response_len} = {p.seq_len} tokens a sequence", GENERATES),
    "generations": _groups,
    "rollout_engine": _rollout,
    "rollout_placement": _only_if(_has_engine, _placement, NO_ENGINE),
    "rollout_gpus": _only_if(_has_engine, _placement, NO_ENGINE),
    "rollout_nodes": _only_if(_has_engine, _placement, NO_ENGINE),
    "rollout_tensor_parallel": _only_if(_has_engine, _rollout_ranks, NO_ENGINE),
    "rollout_data_parallel": _only_if(_has_engine, _rollout_ranks, NO_ENGINE),
    "rollout_expert_parallel": _only_if(_has_engine, _rollout_experts, NO_ENGINE),
    "rollout_offload": _only_if(_has_engine, lambda p, m, r: "weights, optimizer states and reference wait in host "
        f"memory while it generates: {m.host_gib:.0f} GiB a node" if p.rollout_offload else
        "the training state stays on the GPUs while it generates", NO_ENGINE),
    "rollout_memory_fraction": _only_if(_has_engine, _rollout_share, NO_ENGINE),
    "rollout_sleep": _only_if(_has_engine, lambda p, m, r:
        f"the engine {'frees' if p.rollout_sleep else 'keeps'} its {p.rollout_memory_fraction:.0%} of each GPU while "
        "the policy trains", NO_ENGINE),
    "moe": lambda p, m, r: f"{r.model.id}: {r.model.moe.experts_per_token} of {r.model.moe.experts} experts a token, "
        f"{r.model.active_parameters / 1e9:.1f}B of {r.model.total_parameters / 1e9:.1f}B parameters active"
        if r.model.moe else f"{r.model.id} is dense",
    "mla": lambda p, m, r: f"{r.model.id} {'has' if r.model.mla else 'does not have'} latent attention",
}  # fmt: skip
"""Plan field, derived size or property of the model -> what it is here."""


def fact(here: Here, topic: str) -> str:
    """`topic = value (where the value is from): what that means here`."""
    text = FACTS[topic](here.plan, here.memory, here.resolved)
    if topic not in here.plan.as_dict():
        return text
    value = getattr(here.plan, topic)
    shown = (
        ", ".join(value)
        if isinstance(value, tuple)
        else str(value).lower()
        if isinstance(value, bool)
        else value
    )
    return f"{topic} = {shown} ({origin(here, topic)}): {text}"


def origin(here: Here, field: str) -> str:
    """Who decided the value: the user, a default, the framework's habit or the search."""
    flags = {plan_field: name for name, plan_field in PINS.items()}
    request = here.resolved.request.given()
    asked = flags.get(field, field)
    from_default = here.resolved.origins.get(asked)
    if asked in request and from_default is None and request[asked] != "auto":
        return f"--{asked.replace('_', '-')}"
    if field not in Plan.__dataclass_fields__:
        return "derived"
    if here.rules is not None and field not in PLANNED and field in implied_values(here.rules, here.plan):
        return f"habit of {here.rules.title}"
    if asked in request and field not in flags and request[asked] != "auto":
        return from_default or "default"
    return "chosen by the search" if field in PLANNED else "default"
