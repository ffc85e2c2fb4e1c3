"""Seconds that online RL generates for, and that weights travel to the engine for."""

from __future__ import annotations

from advisor.estimate.model_sums import ModelSums
from advisor.estimate.rollout import GIB, cache_bytes_per_token, engine_weights
from advisor.estimate.speed import DEFAULT_BANDWIDTH_GB_S, GIGA, Rates, network_bytes
from advisor.estimate.states import sharding_stage
from advisor.facts.software import Software
from advisor.facts.types import ClusterFacts
from advisor.plan import Plan


def generation_seconds(
    sums: ModelSums, plan: Plan, cluster: ClusterFacts, r: Rates, software: Software, response: float
) -> float:
    """One step's responses, `response` tokens long on average and `response_len` at most.

    An engine decodes rows side by side, as many as its cache holds. A decoding step reads the weights once
    (of routed experts those that any row chose) and cannot be shorter than its launches; a token reads its own
    sequence's cache and costs 2 FLOP per active parameter:

        steps x max(weights / bandwidth, launches) + tokens x (context x cache / bandwidth + 2 P / rate)

    steps = max(response_len, tokens / rows at once): some response always runs to the limit. Data-parallel ranks of
    an engine decode rows of their own. Ignores prefix caching, prefill, speculative decoding, and the exchange of
    tokens between expert-parallel ranks beyond its launches.
    """
    if plan.rollout_engine == "none" or not plan.response_len:
        return 0.0
    c, vllm = r.constants, plan.rollout_engine == "vllm"
    ranks = max(plan.rollout_tensor_parallel, 1) if vllm else 1
    rows = max(plan.global_batch_size / max(plan.generating_gpus // ranks, 1), 1.0)
    share = c.decode_share if vllm else c.decode_share_hf
    bandwidth = (cluster.gpu.bandwidth_gb_s or DEFAULT_BANDWIDTH_GB_S) * GIGA * share
    # Each key-value head lives on at least one rank: more ranks than heads hold copies.
    heads = sums.key_value * sums.heads / max(sums.query, 1)
    cache = cache_bytes_per_token(sums) / min(ranks, max(heads, 1.0))
    context = plan.prompt_len / 2 + response * c.length_spread / 2
    together = min(rows, _rows_at_once(sums, plan, cluster, software, cache, context, c.decode_rows))
    steps = max(plan.response_len, rows * response / together)
    wide = ranks * plan.rollout_data_parallel if vllm else 1
    step = max(_weights_read(sums, plan, together) / bandwidth, _launches(sums, cluster, r, wide, vllm))
    if not vllm and sharding_stage(plan) >= 3:
        step *= 2
    token = context * cache / bandwidth + 2.0 * _active(sums) / ranks / r.matmul
    return steps * step + rows * response * token


def _active(sums: ModelSums) -> float:
    experts = sums.expert_per_layer * sums.moe_layers
    return sums.total - experts * (1 - sums.top_k / sums.experts) if sums.experts else sums.total


def _weights_read(sums: ModelSums, plan: Plan, rows: float) -> float:
    """Bytes a GPU reads: its slice of the weights outside the experts, and of the experts that a row chose."""
    vllm = plan.rollout_engine == "vllm"
    ranks = max(plan.rollout_tensor_parallel, 1) if vllm else 1
    experts = sums.expert_per_layer * sums.moe_layers
    if not experts:
        return 2.0 * sums.total / ranks
    spread = plan.rollout_expert_parallel if vllm and plan.rollout_expert_parallel > 1 else ranks
    chosen = 1 - (1 - sums.top_k / sums.experts) ** (rows * plan.rollout_data_parallel)
    return 2.0 * ((sums.total - experts) / ranks + experts * chosen / spread)


def _launches(sums: ModelSums, cluster: ClusterFacts, r: Rates, ranks: int, vllm: bool) -> float:
    c = r.constants
    layer = c.decode_layer_seconds if vllm else c.decode_layer_seconds_hf
    if ranks > cluster.gpus_per_node:
        layer += c.decode_hop_seconds
    return sums.layers * layer


def _rows_at_once(
    sums: ModelSums, plan: Plan, cluster: ClusterFacts, software: Software, cache: float, context: float,
    most: float,
) -> float:  # fmt: skip
    """Sequences whose cache fits beside the weights in the engine's share of the card."""
    if plan.rollout_engine != "vllm":
        return float("inf")
    room = plan.rollout_memory_fraction * cluster.gpu_memory_gib * GIB - engine_weights(sums, plan)
    fits = room / (cache * max(context, 1.0))
    return max(1.0, min(software.engine_rows or most, fits))


def sync_seconds(sums: ModelSums, plan: Plan, cluster: ClusterFacts, r: Rates) -> float:
    """The trained weights brought to the engine once per step, in 16 bit; to machines of its own over one port of the
    network (one rank sends to all engines). A training state that rests in host memory meanwhile is counted with what
    the host costs (estimate/traffic.py). Ignores that an engine which sleeps with its weights in host memory takes
    them back before the new ones overwrite them: twice its weights over PCIe."""
    if plan.rollout_engine != "vllm":
        return 0.0
    rate = r.constants.sync_gb_s * GIGA
    if plan.rollout_nodes:
        rate = min(rate, network_bytes(cluster))
    return 2.0 * sums.total / rate
