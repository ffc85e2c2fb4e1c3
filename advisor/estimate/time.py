"""How long a step takes, part by part, and what that makes for the whole run.

The parts are seconds of one optimizer step. Constants and their sources: rules/catalog/speed.json; how far the
result lies from published measurements: docs/accuracy.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from advisor.estimate.generation import generation_seconds, sync_seconds
from advisor.estimate.host_experts import experts_away, host_expert_seconds, on_gpus
from advisor.estimate.model_sums import ModelSums, model_sums
from advisor.estimate.speed import Rates, rates
from advisor.estimate.stage import sequences_per_row
from advisor.estimate.traffic import (
    exposed_gathers,
    gather_seconds,
    input_copies,
    layer_communication,
    step_parts,
)
from advisor.estimate.types import TimeEstimate
from advisor.estimate.work import (
    Forward,
    Passes,
    extra_forwards,
    forward,
    pass_seconds,
    training_passes,
)
from advisor.facts.software import TODAY, Software
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import BACKENDS, Plan, without_engine

TIME_LOW, TIME_HIGH = 0.75, 1.5
"""Around the likely figure: more than four of five published rows lie within (docs/accuracy.md)."""
UNKNOWN_LENGTH_LOW = 0.25
"""Samples that are taken as `seq_len` long, because nothing is known of them, are shorter."""
RESPONSE_LOW, RESPONSE_HIGH = 0.5, 2.0
"""Answers grow and shrink while a policy trains."""
PROCESSOR_LOW, PROCESSOR_HIGH = 0.7, 2.0
"""Servers that compute routed experts: AMX or AVX-512 alone, one socket or two, memory channels. Assumed."""
UNMEASURED_HIGH = 1.3
"""A network, link or memory rate that the catalog does not know."""


@dataclass(slots=True)
class StepTime:
    """Seconds of one optimizer step, part by part."""

    compute: float
    bubble: float
    communication: float
    offload: float
    optimizer: float
    log_probs: float
    rollout: float
    sync: float

    @property
    def update(self) -> float:
        """The part that any training has: without generation and the passes that only score."""
        return self.compute + self.bubble + self.communication + self.offload + self.optimizer

    @property
    def total(self) -> float:
        return self.update + self.log_probs + self.rollout + self.sync


TrainedSeconds = dict[tuple[Any, ...], float]
"""Seconds of a step that plans share that differ only in how they generate."""


def flops_per_token(sums: ModelSums, plan: Plan, tokens: float) -> float:
    """Work per trained token: 2 x matrix elements x passes + 2 x layers x attention width x tokens x passes
    (causal: half of the square; backward twice the forward, as utilisation is commonly counted). Ignores norms,
    router and loss."""
    p = training_passes(plan, sums.layers, 2.0)
    extra = extra_forwards(plan)
    layer = sums.layers * (sums.attention_per_layer + sums.replicated_per_layer)
    layer += sums.dense_layers * sums.mlp_per_layer
    layer += sums.moe_layers * (sums.shared_per_layer + sums.router_per_layer)
    if sums.experts:
        layer += sums.moe_layers * sums.expert_per_layer * sums.top_k / sums.experts
    width = (sums.mla_qk + sums.mla_value) / 2 if sums.mla else sums.query
    matrix = layer * (p.matrix + extra) + sums.head_matrix * (p.head + extra)
    return 2.0 * matrix + 2.0 * sums.layers * width * tokens * (p.attention + extra)


ONCE = Passes(1.0, 1.0, 1.0, 1.0)


def _score_seconds(
    sums: ModelSums, plan: Plan, cluster: ClusterFacts, r: Rates, f: Forward, local: float, software: Software
) -> float:
    """Forward passes that only score, per micro batch: a reference, old log-probabilities, a teacher."""
    extra = extra_forwards(plan)
    if not extra:
        return 0.0
    busy = pass_seconds(plan, sums.layers, f, ONCE, f.head + f.logits / 2, r.constants.micro_batch_seconds)
    talk = layer_communication(sums, plan, cluster, r, local, software, training=False)
    gather = exposed_gathers(gather_seconds(sums, plan, cluster, training=False), busy, r)
    return extra * (busy + talk + gather)


def step_time(
    sums: ModelSums,
    plan: Plan,
    cluster: ClusterFacts,
    tokens: float,
    tflops: float,
    software: Software = TODAY,
    length: float | None = None,
) -> StepTime:
    """One optimizer step of samples `tokens` long; `length`: what attention looks over, shorter where several
    samples are packed into one and do not see each other.

    A micro batch takes what its slowest pipeline stage computes, plus the communication compute does not hide;
    a pipeline adds (stages - 1) / model chunks micro batches of bubble (arXiv 2104.04473, 2.2.2). A full critic
    trains as its policy does.
    """
    step = _training_time(sums, plan, cluster, tokens, tflops, software, length)
    rollout, step.sync = _between_steps(sums, plan, cluster, tokens, tflops, software)
    step.rollout = _shown(plan, rollout, step.total - step.sync)
    return step


def _shown(plan: Plan, rollout: float, training: float) -> float:
    """Seconds of generation that add to a step: all, but what lies beside the training on the answers of the step
    before."""
    return max(rollout - training, 0.0) if plan.rollout_placement == "separate-async" else rollout


def _between_steps(
    sums: ModelSums, plan: Plan, cluster: ClusterFacts, tokens: float, tflops: float, software: Software
) -> tuple[float, float]:
    """(generation, weight sync) seconds."""
    if not plan.online:
        return 0.0, 0.0
    r = rates(cluster, plan, software, tflops)
    response = max(tokens - plan.prompt_len / 2, 1.0)
    return generation_seconds(sums, plan, cluster, r, software, response), sync_seconds(
        sums, plan, cluster, r
    )


def _training_time(
    sums: ModelSums,
    plan: Plan,
    cluster: ClusterFacts,
    tokens: float,
    tflops: float,
    software: Software,
    length: float | None,
) -> StepTime:
    """What does not depend on how the plan generates, but for a training state that waits on the host meanwhile."""
    r = rates(cluster, plan, software, tflops)
    rows = plan.micro_batch_size * sequences_per_row(plan)
    local = rows * tokens / plan.context_parallel
    p = training_passes(plan, sums.layers, r.constants.attention_backward)
    f = forward(on_gpus(sums, plan), plan, r, software, local, length or tokens)
    head = p.head * f.head + f.logits
    busy = pass_seconds(plan, sums.layers, f, p, head, r.constants.micro_batch_seconds)
    gathers = exposed_gathers(gather_seconds(sums, plan, cluster), busy, r)
    talk = layer_communication(sums, plan, cluster, r, local, software) + gathers
    trained = 2.0 if plan.method == "ppo" else 1.0
    steps = plan.gradient_accumulation_steps
    bubble = trained * (busy + talk) * (plan.pipeline_parallel - 1) / plan.virtual_pipeline_parallel
    reduction, away, optimizer = step_parts(sums, plan, cluster, r, busy)
    if experts_away(plan):
        away += host_expert_seconds(sums, plan, r, local) * steps
    away += input_copies(sums, plan, r, local, busy, p.matrix) * steps
    return StepTime(
        compute=trained * busy * steps,
        bubble=bubble,
        communication=trained * (talk * steps + reduction),
        offload=away,
        optimizer=trained * optimizer,
        log_probs=_score_seconds(sums, plan, cluster, r, f, local, software) * steps,
        rollout=0.0,
        sync=0.0,
    )


def _tokens(plan: Plan, mean_tokens: float | None) -> float:
    """Tokens of a sample: packed ones fill `seq_len`; a generated one is the prompt and a usual share of the
    longest response; others are as long as the data says, or as `seq_len` allows."""
    if plan.online:
        from advisor.facts.speed import speed_facts

        share = speed_facts().constants.response_share
        prompt = min(mean_tokens or plan.prompt_len / 2, plan.prompt_len)
        return max(prompt + share * plan.response_len, 1.0)
    if plan.packing or not mean_tokens:
        return float(plan.seq_len)
    return min(mean_tokens, float(plan.seq_len))


def planned_step(model: ModelFacts, plan: Plan, cluster: ClusterFacts) -> StepTime | None:
    """One optimizer step, samples taken as `seq_len` long; None when the card's peak is unknown."""
    tflops = cluster.gpu.tflops_bf16
    return step_time(model_sums(model), plan, cluster, _tokens(plan, None), tflops) if tflops else None


def seconds_per_step(
    model: ModelFacts,
    plan: Plan,
    cluster: ClusterFacts,
    mean_tokens: float | None = None,
    trained: TrainedSeconds | None = None,
) -> float | None:
    """Seconds of one optimizer step, samples taken as `mean_tokens` long (default: `seq_len`); None when the
    card's peak is unknown. `trained`: where a caller that asks about many plans of one model, cluster and length keeps
    what those share that differ only in how they generate."""
    tflops = cluster.gpu.tflops_bf16
    if not tflops:
        return None
    if trained is None or not plan.online:
        return step_time(model_sums(model), plan, cluster, _tokens(plan, mean_tokens), tflops).total
    seconds = training_seconds(model, plan, cluster, trained, mean_tokens)
    if seconds is None:
        return None
    rollout, sync = between_seconds(model, plan, cluster, mean_tokens)
    return seconds + _shown(plan, rollout, seconds) + sync


def training_seconds(
    model: ModelFacts,
    plan: Plan,
    cluster: ClusterFacts,
    trained: TrainedSeconds,
    mean_tokens: float | None = None,
) -> float | None:
    """Of `seconds_per_step`, all but generation and weight sync."""
    tflops = cluster.gpu.tflops_bf16
    if not tflops:
        return None
    key = (*without_engine(plan), plan.rollout_offload)
    known = trained.get(key)
    if known is None:
        tokens = _tokens(plan, mean_tokens)
        step = _training_time(model_sums(model), plan, cluster, tokens, tflops, TODAY, None)
        known = trained[key] = step.total
    return known


def least_training_seconds(model: ModelFacts, plan: Plan, cluster: ClusterFacts) -> float:
    """Seconds of training for a sequence that no layout of this plan's GPUs gets below: the compute of whole layers on
    one GPU in passes larger than any, nothing recomputed, divided over the GPUs. Slices are narrower, stages idle,
    spread experts are not balanced, and all of them talk."""
    tflops, sums = cluster.gpu.tflops_bf16, model_sums(model)
    if not tflops:
        return 0.0
    tokens, seconds = _tokens(plan, None), float("inf")
    for backend in BACKENDS:
        whole = replace(plan, backend=backend, **WHOLE)
        step = _training_time(sums, whole, cluster, tokens, tflops, TODAY, None)
        seconds = min(seconds, (step.compute + step.log_probs) / whole.global_batch_size)
    return seconds / plan.world_size


WHOLE: dict[str, Any] = {
    "nodes": 1, "gpus_per_node": 1, "zero_stage": 0, "fsdp": False, "fsdp_replicas": 1, "offload": "none",
    "tensor_parallel": 1, "pipeline_parallel": 1, "virtual_pipeline_parallel": 1, "expert_parallel": 1,
    "expert_tensor_parallel": 1, "context_parallel": 1, "gradient_checkpointing": False, "recompute": "none",
    "attention": "flash", "liger": True, "micro_batch_size": 64, "gradient_accumulation_steps": 1,
}  # fmt: skip


def between_seconds(
    model: ModelFacts, plan: Plan, cluster: ClusterFacts, mean_tokens: float | None = None
) -> tuple[float, float]:
    """Of `seconds_per_step`, generation and weight sync."""
    tokens, tflops = _tokens(plan, mean_tokens), cluster.gpu.tflops_bf16
    return _between_steps(model_sums(model), plan, cluster, tokens, tflops, TODAY) if tflops else (0.0, 0.0)


def _spread(plan: Plan, cluster: ClusterFacts, mean_tokens: float | None) -> tuple[float, float, list[str]]:
    """(low, high) factors around the likely time, and what each stands for."""
    low, high = TIME_LOW, TIME_HIGH
    causes = [f"clusters and software of one card differ: x {TIME_LOW:g} to {TIME_HIGH:g}"]
    if plan.online:
        low, high = low * RESPONSE_LOW, high * RESPONSE_HIGH
        causes.append(f"answers are taken as {_tokens(plan, mean_tokens):.0f} tokens with their prompt")
    elif mean_tokens is None and not plan.packing:
        low *= UNKNOWN_LENGTH_LOW
        causes.append("samples are taken as seq_len tokens long")
    if experts_away(plan):
        low, high = low * PROCESSOR_LOW, high * PROCESSOR_HIGH
        causes.append("the processors that compute the experts are not known: their rates are of one server")
    gpu = cluster.gpu
    unknown = [
        name
        for name, value in (("memory bandwidth", gpu.bandwidth_gb_s), ("link", gpu.link_gb_s))
        if not value
    ]
    if unknown:
        high *= UNMEASURED_HIGH
        causes.append(f"not in the catalog for this card: {' and '.join(unknown)}")
    return low, high, causes


def estimate_time(
    model: ModelFacts,
    plan: Plan,
    cluster: ClusterFacts,
    samples: int | None,
    mean_tokens: float | None,
) -> TimeEstimate:
    """Throughput, and hours and cost for `samples` rows (prompts for online RL) over `plan.epochs`.

    `low` and `high` are hours; `extra["causes"]` says what the range stands for. Unpacked samples count
    `mean_tokens` each, packed ones are repacked to `seq_len`.
    """
    tflops = cluster.gpu.tflops_bf16
    if not tflops:
        return TimeEstimate(None, None, None, None, None, None, "the card's TFLOP/s are not known")
    tokens = _tokens(plan, mean_tokens)
    step = step_time(model_sums(model), plan, cluster, tokens, tflops)
    rows = plan.global_batch_size * sequences_per_row(plan)
    rate = rows * tokens / step.total
    low, high, causes = _spread(plan, cluster, mean_tokens)
    extra = {
        "seconds_per_step": step.total, "parts": asdict(step), "tokens_per_sample": tokens, "causes": causes,
    }  # fmt: skip
    if samples is None:
        return TimeEstimate(rate, None, None, None, None, None, "the number of samples is not known", extra)
    wanted = samples * plan.epochs
    if plan.online:
        wanted *= max(plan.generations, 1)
    mean = min(mean_tokens or plan.seq_len, plan.seq_len)
    per_step = plan.global_batch_size * (plan.seq_len / mean if plan.packing and not plan.online else 1.0)
    steps = max(wanted / per_step, 1.0)
    hours = steps * step.total / 3600
    gpu_hours = hours * plan.all_gpus
    price = cluster.gpu.usd_per_gpu_hour
    reason = "" if price is not None else "no price is known for this card"
    if mean_tokens is None and not plan.online:
        reason = "; ".join(part for part in (reason, "samples are taken as seq_len tokens long") if part)
    cost = gpu_hours * price if price is not None else None
    return TimeEstimate(
        rate, hours, gpu_hours, cost, hours * low, hours * high, reason, {**extra, "steps": steps}
    )
