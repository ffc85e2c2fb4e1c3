"""How long a step takes. Made to rank plans; absolute figures carry a wide range."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.estimate import speed
from advisor.estimate.model_sums import ModelSums, model_sums
from advisor.estimate.parameters import trainable_parameters
from advisor.estimate.rollout import REFERENCE_METHODS, cache_bytes_per_token
from advisor.estimate.stage import sequences_per_row
from advisor.estimate.states import sharding_stage
from advisor.estimate.types import TimeEstimate
from advisor.facts.types import ClusterFacts, GpuFacts, ModelFacts
from advisor.plan import Plan


@dataclass(slots=True)
class StepTime:
    """Seconds of one optimizer step, part by part."""

    compute: float
    bubble: float
    communication: float
    offload: float
    optimizer: float
    rollout: float

    @property
    def total(self) -> float:
        return self.compute + self.bubble + self.communication + self.offload + self.optimizer + self.rollout


def _matrix_elements(sums: ModelSums) -> float:
    """Parameters a token is multiplied with: active ones without the embedding, the head once."""
    layer = sums.layers * (sums.attention_per_layer + sums.replicated_per_layer)
    layer += sums.dense_layers * sums.mlp_per_layer
    layer += sums.moe_layers * (sums.shared_per_layer + sums.router_per_layer)
    if sums.experts:
        layer += sums.moe_layers * sums.expert_per_layer * sums.top_k / sums.experts
    return layer + sums.head_matrix


def _passes(plan: Plan) -> tuple[float, float]:
    """(forward-equivalents of matrix work, of attention work) per trained token.

    Full: 1 forward + 2 backward; adapters skip the weight gradients: 1 + 1; `freeze` reaches only the last
    layers. Full recomputation adds 1. A reference, old log-probabilities, a teacher add 1 each.
    """
    full = plan.recompute == "full" if plan.backend == "megatron" else plan.gradient_checkpointing
    again = 1.0 if full else 0.0
    matrix, attention = 3.0 + again, 3.0 + again
    if plan.uses_adapter:
        matrix = 2.0 + again
    extra = 1.0 if plan.method in REFERENCE_METHODS or plan.method == "gkd" else 0.0
    if plan.online:
        extra += 1.0 + (1.0 if plan.beta > 0 and plan.method != "ppo" else 0.0)
        extra += matrix if plan.method == "ppo" else 0.0
    return matrix + extra, attention + extra


def flops_per_token(sums: ModelSums, plan: Plan, tokens: float) -> float:
    """Work per trained token: 2 x matrix elements x passes + 2 x layers x attention width x tokens x passes
    (causal: half of the square). Standard counting; ignores norms, router and loss."""
    matrix, attention = _passes(plan)
    width = (sums.mla_qk + sums.mla_value) / 2 if sums.mla else sums.query
    return 2.0 * _matrix_elements(sums) * matrix + 2.0 * sums.layers * width * tokens * attention


def _utilisation(sums: ModelSums, plan: Plan, gpu: GpuFacts, tokens: float) -> float:
    value = speed.card_utilisation(gpu)
    if plan.attention == "eager":
        value *= speed.EAGER_ATTENTION
    elif plan.attention == "sdpa":
        value *= speed.SDPA_ATTENTION
    megatron = plan.backend == "megatron"
    if megatron:
        value *= speed.MEGATRON_DENSE
    elif plan.liger:
        value *= speed.LIGER
    if sums.moe_layers:
        value *= speed.MOE_MEGATRON if megatron else speed.MOE_HF
        if not megatron and sharding_stage(plan) >= 3 and plan.expert_parallel == 1:
            value *= speed.MOE_STAGE3
    width = sums.hidden / plan.tensor_parallel
    value *= speed.QUANTIZED[plan.quantization] * width / (width + speed.NARROW)
    return value * tokens / (tokens + speed.FEW_TOKENS)


def _communication(sums: ModelSums, plan: Plan, cluster: ClusterFacts, tokens: float) -> float:
    """Exposed seconds of communication per micro batch (tensor, expert, context parallel; stage 3 gathers).

    Ring collectives move (n - 1) / n of the data: tensor parallel 4 all-reduces of 2 T h bytes per layer and
    2 more when recomputing; expert parallel dispatch and combine, forward and backward, 2 T k h each.
    """
    full = plan.recompute == "full" if plan.backend == "megatron" else plan.gradient_checkpointing
    again = 1.5 if full else 1.0
    tensor, layers = plan.tensor_parallel, sums.layers / plan.pipeline_parallel
    hidden = 2.0 * tokens * sums.hidden
    seconds = 0.0
    if tensor > 1:
        moved = 4 * again * layers * 2 * (tensor - 1) / tensor * hidden
        seconds += speed.EXPOSED_TENSOR * moved / speed.link_bytes(cluster, tensor)
    expert = plan.expert_parallel
    if expert > 1 and sums.moe_layers:
        share = sums.moe_layers / plan.pipeline_parallel / (tensor if plan.sequence_parallel else 1)
        moved = 4 * again * share * sums.top_k * hidden * (expert - 1) / expert
        seconds += speed.EXPOSED_EXPERT * moved / speed.link_bytes(cluster, expert)
    context = plan.context_parallel
    if context > 1:
        moved = 3 * layers * (context - 1) * 4.0 * tokens * sums.key_value / tensor
        seconds += speed.EXPOSED_DATA * moved / speed.link_bytes(cluster, context, tensor)
    data = plan.world_size // (tensor * plan.pipeline_parallel)
    if sharding_stage(plan) >= 3 and plan.backend == "hf" and data > 1:
        seconds += _stage3_gather(sums, plan, cluster, data)
    return seconds


def _stage3_gather(sums: ModelSums, plan: Plan, cluster: ClusterFacts, data: int) -> float:
    """All weights once in forward and once in backward (recomputation uses the same gather), and the
    gradients of what trains."""
    experts = sums.expert_per_layer * sums.moe_layers
    held = (sums.total - experts) / plan.tensor_parallel + experts / plan.expert_parallel
    width = 2.0 if plan.quantization == "none" else 0.6
    moved = 2 * width * held + (4.0 * held if not plan.uses_adapter else 0.0)
    bandwidth = speed.link_bytes(cluster, data, plan.tensor_parallel)
    if cluster.nodes > 1:
        bandwidth = min(bandwidth * plan.gpus_per_node / 2, speed.link_bytes(cluster, 1))
    return speed.EXPOSED_STAGE3 * moved * (data - 1) / data / bandwidth


def _reduce_seconds(plan: Plan, cluster: ClusterFacts, local: float, data: int) -> float:
    """Gradient all-reduce (or reduce and gather) once per step: 2 x 2 to 4 bytes per trainable parameter."""
    if data <= 1 or (sharding_stage(plan) >= 3 and plan.backend == "hf"):
        return 0.0
    width = 4.0 if plan.backend == "megatron" or plan.param_dtype == "fp32" else 2.0
    moved = 2.0 * width * local * (data - 1) / data
    bandwidth = speed.link_bytes(cluster, data, plan.tensor_parallel * plan.context_parallel)
    share = speed.EXPOSED_DATA * (1.1 if plan.zero_stage else 1.0)
    return share * moved / bandwidth


def _step_parts(sums: ModelSums, plan: Plan, cluster: ClusterFacts, data: int) -> tuple[float, float, float]:
    """(gradient reduction, offload, optimizer) seconds per optimizer step."""
    dense, experts = trainable_parameters(sums, plan)
    model_ranks = plan.tensor_parallel * plan.pipeline_parallel
    expert_ranks = plan.expert_parallel * plan.expert_tensor_parallel * plan.pipeline_parallel
    local = dense / model_ranks + experts / expert_ranks
    shard = 1 if sharding_stage(plan) == 0 and plan.backend == "hf" else max(data * plan.context_parallel, 1)
    owned = (dense + experts) / plan.world_size if shard > 1 else local
    reduce = _reduce_seconds(plan, cluster, local, data * plan.context_parallel)
    if plan.offload == "none":
        bandwidth = (cluster.gpu.bandwidth_gb_s or 1000.0) * 1e9
        return reduce, 0.0, speed.STEP_BYTES * owned / bandwidth
    away = 6.0 * owned / (speed.PCIE_GB_S * 1e9)
    node = owned * plan.gpus_per_node
    away += node / speed.CPU_ADAM_PER_SECOND
    if plan.offload == "nvme":
        away += 24.0 * node / (speed.NVME_GB_S * 1e9)
    if plan.offload in ("all", "nvme"):
        gathered = 2 * 2.0 * sums.total / plan.world_size * plan.gradient_accumulation_steps
        away += gathered / (speed.PCIE_GB_S * 1e9)
    return reduce, away, 0.0


def _rollout(sums: ModelSums, plan: Plan, cluster: ClusterFacts) -> float:
    """Seconds to generate one step's responses.

    Each decoding step reads the weights and every sequence's cache once: (2 P / tp + n x cache) / (bandwidth
    x efficiency), never shorter than its kernel launches. Ignores prefix caching and speculative decoding.
    """
    if plan.rollout_engine == "none" or not plan.response_len:
        return 0.0
    vllm = plan.rollout_engine == "vllm"
    ranks = max(plan.rollout_tensor_parallel, 1) if vllm else 1
    engines = max(plan.world_size // ranks, 1)
    rows = max(plan.global_batch_size / engines, 1.0)
    bandwidth = (cluster.gpu.bandwidth_gb_s or 1000.0) * 1e9 * speed.DECODE_EFFICIENCY[plan.rollout_engine]
    context = plan.prompt_len + plan.response_len / 2
    read = (2.0 * sums.total + rows * context * cache_bytes_per_token(sums)) / ranks
    step = max(read / bandwidth, speed.DECODE_SECONDS[plan.rollout_engine])
    if not vllm and sharding_stage(plan) >= 3:
        step *= 2
    return step * plan.response_len * (1.0 if not vllm else speed.RESPONSE_SHARE + 0.3)


def _step_time(sums: ModelSums, plan: Plan, cluster: ClusterFacts, tokens: float, peak: float) -> StepTime:
    rows = plan.micro_batch_size * sequences_per_row(plan)
    local = rows * tokens / plan.context_parallel
    data = plan.data_parallel
    work = local * flops_per_token(sums, plan, tokens) / (plan.tensor_parallel * plan.pipeline_parallel)
    rate = peak * 1e12 * _utilisation(sums, plan, cluster.gpu, local)
    micro, steps = work / rate + speed.STEP_SECONDS, plan.gradient_accumulation_steps
    talk = _communication(sums, plan, cluster, local) * steps
    reduce, away, optimizer = _step_parts(sums, plan, cluster, max(data, 1))
    bubble = micro * (plan.pipeline_parallel - 1)
    return StepTime(micro * steps, bubble, talk + reduce, away, optimizer, _rollout(sums, plan, cluster))


def seconds_per_step(
    model: ModelFacts, plan: Plan, cluster: ClusterFacts, mean_tokens: float | None = None
) -> float | None:
    """Seconds of one optimizer step, samples taken as `mean_tokens` long (default: `seq_len`); None when the
    card's peak is unknown."""
    peak = cluster.gpu.tflops_bf16
    if not peak:
        return None
    tokens = float(plan.seq_len) if plan.packing or not mean_tokens else min(mean_tokens, plan.seq_len)
    return _step_time(model_sums(model), plan, cluster, tokens, peak).total


def estimate_time(
    model: ModelFacts,
    plan: Plan,
    cluster: ClusterFacts,
    samples: int | None,
    mean_tokens: float | None,
) -> TimeEstimate:
    """Throughput, and hours and cost for `samples` rows (prompts for online RL) over `plan.epochs`.

    `low` and `high` are hours. Unpacked samples count `mean_tokens` each, packed ones are repacked to
    `seq_len`. Valid for ranking plans; absolute hours within about a factor 0.65 to 1.7 (assumed).
    """
    peak = cluster.gpu.tflops_bf16
    if not peak:
        return TimeEstimate(None, None, None, None, None, None, "the card's TFLOP/s are not known")
    mean = min(mean_tokens or plan.seq_len, plan.seq_len)
    tokens = float(plan.seq_len) if plan.packing else float(mean)
    step = _step_time(model_sums(model), plan, cluster, tokens, peak)
    rows = plan.global_batch_size * sequences_per_row(plan)
    rate = rows * tokens / step.total
    parts = {name: getattr(step, name) for name in StepTime.__slots__}
    extra = {"seconds_per_step": step.total, "parts": parts, "tokens_per_sample": tokens}
    if samples is None:
        return TimeEstimate(rate, None, None, None, None, None, "the number of samples is not known", extra)
    wanted = samples * plan.epochs
    if plan.online:
        wanted *= max(plan.generations, 1)
    per_step = plan.global_batch_size * (plan.seq_len / mean if plan.packing else 1.0)
    steps = max(wanted / per_step, 1.0)
    hours = steps * step.total / 3600
    gpu_hours = hours * plan.world_size
    price = cluster.gpu.usd_per_gpu_hour
    reason = "" if price is not None else "no price is known for this card"
    if mean_tokens is None:
        reason = "; ".join(part for part in (reason, "samples are taken as seq_len tokens long") if part)
    cost = gpu_hours * price if price is not None else None
    return TimeEstimate(
        rate, hours, gpu_hours, cost, hours * speed.TIME_LOW, hours * speed.TIME_HIGH, reason,
        {**extra, "steps": steps},
    )  # fmt: skip
