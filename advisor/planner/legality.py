"""Divisibility and legality of a plan on a model and cluster: one table, each row with its source.

A plan that breaks a row is never proposed; a pinned field that breaks one is refused with the two numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advisor.facts.types import ModelFacts
from advisor.plan import LOW_RANK_OPTIMIZERS, Plan


@dataclass(frozen=True, slots=True)
class Legality:
    id: str
    field: str
    """The plan field to change."""
    broken: Callable[[Plan, ModelFacts], str]
    """What is wrong with the two numbers in it, or ""."""
    source: str


def _world(plan: Plan, model: ModelFacts) -> str:
    group = plan.tensor_parallel * plan.pipeline_parallel * plan.context_parallel
    return (
        f"{plan.world_size} GPUs do not split into groups of TP x PP x CP = {group}"
        if plan.world_size % group
        else ""
    )


def _expert_world(plan: Plan, model: ModelFacts) -> str:
    if plan.backend != "megatron":
        ep = plan.expert_parallel
        return f"{plan.world_size} GPUs do not split into groups of EP = {ep}" if plan.world_size % ep else ""
    group = plan.expert_tensor_parallel * plan.expert_parallel * plan.pipeline_parallel
    return (
        f"{plan.world_size} GPUs do not split into groups of ETP x EP x PP = {group}"
        if plan.world_size % group
        else ""
    )


def _replicas(plan: Plan, model: ModelFacts) -> str:
    copies, ranks = plan.fsdp_replicas, plan.data_parallel
    if copies == 1:
        return ""
    if ranks % copies or ranks == copies:
        return (
            f"{ranks} data-parallel ranks do not split into {copies} groups of several that shard a copy each"
        )
    group, experts = plan.shard_group, plan.expert_parallel
    return f"groups of {group} GPUs do not split into EP = {experts}" if group % experts else ""


def _heads(plan: Plan, model: ModelFacts) -> str:
    tp = plan.tensor_parallel
    return f"{model.heads} attention heads do not split over TP = {tp}" if model.heads % tp else ""


def _kv_heads(plan: Plan, model: ModelFacts) -> str:
    tp, kv = plan.tensor_parallel, model.kv_heads
    if model.mla or kv % tp == 0 or tp % kv == 0:
        return ""
    return f"{kv} key/value heads neither divide nor are divided by TP = {tp}"


def _experts(plan: Plan, model: ModelFacts) -> str:
    ep = plan.expert_parallel
    if ep == 1:
        return ""
    if model.moe is None:
        return f"EP = {ep}, but the model has no experts"
    return f"{model.moe.experts} experts do not split over EP = {ep}" if model.moe.experts % ep else ""


def _expert_slices(plan: Plan, model: ModelFacts) -> str:
    etp = plan.expert_tensor_parallel
    if etp == 1:
        return ""
    if model.moe is None:
        return f"ETP = {etp}, but the model has no experts"
    if model.moe.expert_ffn % etp:
        return f"experts of width {model.moe.expert_ffn} do not split over ETP = {etp}"
    biased = any(weight.role == "expert" and weight.name.endswith("bias") for weight in model.weights)
    return f"experts with biases are whole on a rank, not on ETP = {etp}" if biased else ""


def _expert_adapters(plan: Plan, model: ModelFacts) -> str:
    if plan.uses_adapter and "experts" in plan.lora_targets and model.moe is None:
        return "adapters on experts, but the model has none; all-linear takes every linear of a dense model"
    return ""


def _expert_offload(plan: Plan, model: ModelFacts) -> str:
    if plan.offload != "experts":
        return ""
    if model.moe is None:
        return "offload = experts, but the model has no routed experts"
    if plan.nodes > 1:
        return (
            f"offload = experts is the work of one machine's processors, and here are {plan.nodes} machines"
        )
    if plan.backend != "hf" or plan.expert_parallel > 1:
        return "offload = experts keeps all of them in host memory, so there is nothing to spread by EP or Megatron"
    return (
        "" if plan.uses_adapter else f"offload = experts freezes them, and {plan.tuning} tuning trains them"
    )


def _layers(plan: Plan, model: ModelFacts) -> str:
    pp, first, last = plan.pipeline_parallel, plan.pipeline_first_layers, plan.pipeline_last_layers
    if pp == 1:
        return ""
    stages = pp - (first > 0) - (last > 0)
    middle = model.layers - first - last
    if middle < 0 or (stages == 0 and middle) or (stages and (middle % stages or middle < stages)):
        return f"{middle} of {model.layers} layers do not split over {stages} of PP = {pp} stages"
    return ""


def _virtual_stages(plan: Plan, model: ModelFacts) -> str:
    """Every stage, an uneven first or last one too, splits into model chunks of as many layers."""
    chunks, pp = plan.virtual_pipeline_parallel, plan.pipeline_parallel
    if chunks == 1:
        return ""
    if pp == 1:
        return f"{chunks} model chunks a rank need more than PP = {pp} stage"
    first, last = plan.pipeline_first_layers, plan.pipeline_last_layers
    middle = (model.layers - first - last) // max(pp - (first > 0) - (last > 0), 1)
    uneven = [layers for layers in (first, middle, last) if layers % chunks]
    return f"a stage of {uneven[0]} layers does not split into {chunks} model chunks" if uneven else ""


def _virtual_batches(plan: Plan, model: ModelFacts) -> str:
    if _whole_rounds(plan):
        return ""
    steps, pp = plan.gradient_accumulation_steps, plan.pipeline_parallel
    return f"{steps} micro batches are no multiple of PP = {pp}, which the interleaved schedule needs"


def _positions(plan: Plan, model: ModelFacts) -> str:
    if 0 < model.max_positions < plan.seq_len:
        return f"{plan.seq_len} tokens are more than the model's {model.max_positions} positions"
    return ""


def _context(plan: Plan, model: ModelFacts) -> str:
    chunks = 2 * plan.context_parallel
    if plan.context_parallel > 1 and plan.seq_len % chunks:
        return f"{plan.seq_len} tokens do not split into 2 x CP = {chunks} chunks"
    return ""


def _generations(plan: Plan, model: ModelFacts) -> str:
    if _whole_groups(plan):
        return ""
    return f"{plan.global_batch_size} answers per step do not split into groups of {plan.generations}"


def _whole_groups(plan: Plan) -> bool:
    return not plan.online or plan.generations == 0 or plan.global_batch_size % plan.generations == 0


def _whole_rounds(plan: Plan) -> bool:
    return (
        plan.virtual_pipeline_parallel == 1 or plan.gradient_accumulation_steps % plan.pipeline_parallel == 0
    )


def is_legal_batch(plan: Plan) -> bool:
    """Of the table only the groups of online RL and the interleaved schedule ask for the batch."""
    return _whole_groups(plan) and _whole_rounds(plan)


def _compiled(plan: Plan, model: ModelFacts) -> str:
    if not plan.compile or plan.backend == "hf":
        return ""
    return "compile is for transformers' modules; Megatron compiles its own fused functions"


def _low_rank(plan: Plan, model: ModelFacts) -> str:
    if plan.optimizer not in LOW_RANK_OPTIMIZERS:
        return ""
    if plan.tuning != "full":
        return f"{plan.optimizer} projects the gradients of full tuning, and here tuning is {plan.tuning}"
    if (
        plan.zero_stage
        or plan.fsdp
        or plan.backend != "hf"
        or plan.tensor_parallel * plan.expert_parallel > 1
    ):
        return f"{plan.optimizer} projects whole matrices, and sharding leaves a GPU only pieces of them"
    if plan.master_weights:
        return f"{plan.optimizer} keeps no fp32 copy beside 16-bit weights"
    return ""


def _layerwise(plan: Plan, model: ModelFacts) -> str:
    if plan.optimizer not in LOW_RANK_OPTIMIZERS or not plan.steps_layerwise:
        return ""
    if plan.world_size > 1:
        return f"{plan.optimizer} steps within the backward, before {plan.world_size} GPUs have added their gradients"
    return "its steps come before fp16's scaled gradients are scaled back" if plan.precision == "fp16" else ""


def _layerwise_batch(plan: Plan, model: ModelFacts) -> str:
    steps = plan.gradient_accumulation_steps
    if steps == 1 or plan.optimizer not in LOW_RANK_OPTIMIZERS or not plan.steps_layerwise:
        return ""
    return f"{plan.optimizer} steps at every backward, so {steps} of them cannot be accumulated"


def _inputs_away(plan: Plan, model: ModelFacts) -> str:
    if not plan.activation_offload or plan.backend == "hf":
        return ""
    return "activation_offload is for transformers' checkpointing; Megatron's recomputation keeps its inputs on the GPU"


def _rollout(plan: Plan, model: ModelFacts) -> str:
    tp, dp, gpus = plan.rollout_tensor_parallel, plan.rollout_data_parallel, plan.generating_gpus
    if gpus % (tp * dp):
        engine = f"TP = {tp}" if dp == 1 else f"TP x DP = {tp * dp}"
        return f"{gpus} GPUs do not split into rollout engines of {engine}"
    return f"{model.heads} attention heads do not split over rollout TP = {tp}" if model.heads % tp else ""


def _pool(plan: Plan, model: ModelFacts) -> str:
    if plan.nodes > 1 and plan.rollout_gpus and not plan.rollout_nodes:
        return (
            f"{plan.rollout_gpus} GPUs to generate on the machine that trains, but {plan.nodes} machines train; "
            "give whole machines"
        )
    return ""


def _rollout_experts(plan: Plan, model: ModelFacts) -> str:
    ep, ranks = plan.rollout_expert_parallel, plan.rollout_tensor_parallel * plan.rollout_data_parallel
    if ep == 1:
        return ""
    if model.moe is None:
        return f"rollout EP = {ep}, but the model has no experts"
    if ep != ranks:
        return f"rollout EP = {ep} is not TP x DP = {ranks} of its engine"
    return (
        f"{model.moe.experts} experts do not split over rollout EP = {ep}" if model.moe.experts % ep else ""
    )


TABLE = (
    Legality(
        "planner.low-rank", "optimizer", _low_rank,
        "galore-torch==1.0:galore_torch/galore_projector.py:15; llamafactory==0.9.5:llamafactory/hparams/parser.py:400",
    ),
    Legality(
        "planner.layerwise", "optimizer", _layerwise,
        "transformers==5.23.0:transformers/trainer_optimizer.py:116",
    ),
    Legality(
        "planner.layerwise-batch", "gradient_accumulation_steps", _layerwise_batch,
        "transformers==5.23.0:transformers/trainer_optimizer.py:165",
    ),
    Legality("planner.compile", "compile", _compiled, "megatron-core==0.16.1:megatron/core/jit.py:21"),
    Legality(
        "planner.activation-offload", "activation_offload", _inputs_away,
        "megatron-core==0.16.1:megatron/core/tensor_parallel/random.py:496",
    ),
    Legality("planner.world", "tensor_parallel", _world, "megatron-core==0.16.1:megatron/core/parallel_state.py:740"),
    Legality(
        "planner.expert-world", "expert_parallel", _expert_world,
        "megatron-core==0.16.1:megatron/core/parallel_state.py:792",
    ),
    Legality(
        "planner.fsdp-replicas", "fsdp_replicas", _replicas,
        "accelerate==1.15.0:accelerate/parallelism_config.py:369",
    ),
    Legality(
        "planner.heads", "tensor_parallel", _heads,
        "megatron-core==0.16.1:megatron/core/transformer/transformer_config.py:924",
    ),
    Legality(
        "planner.kv-heads", "tensor_parallel", _kv_heads,
        "megatron-core==0.16.1:megatron/core/transformer/transformer_config.py:940",
    ),
    Legality(
        "planner.experts", "expert_parallel", _experts,
        "megatron-core==0.16.1:megatron/core/transformer/moe/moe_layer.py:101",
    ),
    Legality(
        "planner.expert-slices", "expert_tensor_parallel", _expert_slices,
        "megatron-core==0.16.1:megatron/core/transformer/transformer_config.py:1588",
    ),
    Legality("planner.expert-adapters", "lora_targets", _expert_adapters, "the model's config.json: no experts"),
    Legality(
        "planner.expert-offload", "offload", _expert_offload,
        "kt-kernel==0.7.0:kt_kernel/sft/wrapper.py: routed experts of a frozen base",
    ),
    Legality(
        "planner.layers", "pipeline_parallel", _layers,
        "megatron-core==0.16.1:megatron/core/transformer/transformer_config.py:1405",
    ),
    Legality(
        "planner.virtual-stages", "virtual_pipeline_parallel", _virtual_stages,
        "megatron-core==0.16.1:megatron/core/transformer/transformer_block.py:175",
    ),
    Legality(
        "planner.virtual-batches", "gradient_accumulation_steps", _virtual_batches,
        "megatron-core==0.16.1:megatron/core/pipeline_parallel/schedules.py:1008",
    ),
    Legality("planner.positions", "seq_len", _positions, "the model's config.json: max_position_embeddings"),
    Legality(
        "planner.context", "context_parallel", _context,
        "transformers ring attention: the sequence is cut into 2 x CP chunks",
    ),
    Legality(
        "planner.generations", "generations", _generations,
        "trl==1.16.0:trl/trainer/grpo_config.py:__post_init__",
    ),
    Legality(
        "planner.rollout", "rollout_tensor_parallel", _rollout,
        "verl==0.9.1:verl/workers/engine_workers.py:659",
    ),
    Legality(
        "planner.rollout-pool", "rollout_gpus", _pool,
        "verl==0.9.1:verl/trainer/ppo/v1/trainer_separate_async.py:64",
    ),
    Legality(
        "planner.rollout-experts", "rollout_expert_parallel", _rollout_experts,
        "verl==0.9.1:verl/workers/config/rollout.py:295",
    ),
)  # fmt: skip


def illegal(plan: Plan, model: ModelFacts) -> list[tuple[Legality, str]]:
    """Every row that the plan breaks, with the numbers; empty: legal."""
    return [(row, text) for row in TABLE if (text := row.broken(plan, model))]


def is_legal(plan: Plan, model: ModelFacts) -> bool:
    return not any(row.broken(plan, model) for row in TABLE)


def stage_layers(layers: int, stages: int, chunks: int = 1) -> tuple[int, int]:
    """(first, last) layers of an uneven pipeline split; (0, 0) when it is even.

    Middle stages take the rounded-up share; the first and last, which also hold embedding and head, the rest:
    61 layers on 8 stages are 7 + 6 x 8 + 6. Where that leaves them nothing, middle stages take the rounded-down
    share: 61 on 12 are 5 + 10 x 5 + 6. A split that would leave a stage empty is (0, 0), and illegal.
    `chunks`: model chunks a stage has to split into; where the layers as a whole do not, no split of them does.
    """
    if chunks > 1 and layers % chunks == 0:
        first, last = stage_layers(layers // chunks, stages)
        return chunks * first, chunks * last
    if layers % stages == 0:
        return 0, 0
    rest = layers - -(-layers // stages) * (stages - 2)
    if rest >= 2:
        return rest - rest // 2, rest // 2
    rest = layers - layers // stages * (stages - 2)
    return (rest // 2, rest - rest // 2) if layers >= stages else (0, 0)
