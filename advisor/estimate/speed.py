"""How fast a card, its links and its network do the parts of training. Constants: rules/catalog/speed.json.

Rates are achieved ones: nominal rate x what a large matrix product reaches on that card (measured where
published) x what training's products reach of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from advisor.facts.software import Software
from advisor.facts.speed import SpeedConstants, speed_facts
from advisor.facts.types import ClusterFacts
from advisor.plan import Plan

DEFAULT_LINK_GB_S = 32.0
"""PCIe 4 x16, where a card's link is unknown."""
DEFAULT_BANDWIDTH_GB_S = 1000.0
"""Where a card's memory bandwidth is unknown."""
TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """Achieved rates of one card, per second."""

    constants: SpeedConstants
    matmul: float
    """FLOP of a wide matrix product over many tokens, 16 bit."""
    linear: float
    """The same for the linears of the layers: fp8 where the plan trains in it."""
    attention: float
    """FLOP of the attention kernel."""
    memory: float
    """Bytes of device memory."""
    few_tokens: float
    """Tokens at which a product reaches half of its rate."""


def rates(cluster: ClusterFacts, plan: Plan, software: Software, tflops: float) -> Rates:
    """What this card reaches with this plan's precision and attention kernel.

    attention = min(share x nominal, ceiling): FlashAttention-2 does not use the matrix instructions that came
    after Ampere. Megatron-LM goes through cuDNN. Valid for 16-bit and fp8 training on GPUs.
    """
    gpu = cluster.gpu
    newer = plan.backend == "megatron" and float(gpu.compute_capability or 0) >= HOPPER
    fp8 = plan.precision == "fp8" and gpu.supports_fp8
    return _rates(
        gpu.id, tflops, gpu.bandwidth_gb_s, plan.precision == "fp32", fp8, software.flash3 or newer,
        plan.attention == "sdpa",
    )  # fmt: skip


@lru_cache(maxsize=256)
def _rates(
    gpu: str, tflops: float, bandwidth: float | None, fp32: bool, fp8: bool, newer: bool, sdpa: bool
) -> Rates:
    facts = speed_facts()
    c, nominal = facts.constants, tflops * TERA
    matmul = nominal * facts.matmul.get(gpu, c.matmul_share_unknown) * c.gemm_share
    if fp32:
        matmul *= FP32_SHARE
    memory = (bandwidth or DEFAULT_BANDWIDTH_GB_S) * GIGA
    attention = min(nominal * c.attention_share, c.attention_most_tflops * TERA)
    if newer:
        attention = max(attention, nominal * c.attention3_share)
    if sdpa:
        attention *= c.sdpa_share
    return Rates(
        c, matmul, matmul * (c.fp8_speedup if fp8 else 1.0), attention, memory * c.memory_share,
        c.few_ratio * nominal / memory,
    )  # fmt: skip


FP32_SHARE = 0.5
"""TF32 over 16-bit rate of tensor cores, NVIDIA's data sheets."""
HOPPER = 9.0


def network_bytes(cluster: ClusterFacts) -> float:
    """Achieved bytes per second and GPU between nodes."""
    facts = speed_facts()
    nominal = facts.networks.get(cluster.interconnect.lower(), facts.networks["none"])
    return nominal * GIGA * facts.constants.link_share


def node_link_bytes(cluster: ClusterFacts) -> float:
    """Achieved bytes per second and GPU inside a node."""
    return (cluster.gpu.link_gb_s or DEFAULT_LINK_GB_S) * GIGA * speed_facts().constants.link_share


def link_bytes(cluster: ClusterFacts, ranks: int, stride: int = 1) -> float:
    """Bytes per second and GPU of a ring of `ranks` GPUs that lie `stride` apart.

    Inside a node its link. Across nodes, a node's GPUs of the same ring share the data that leaves it, each over
    its own port, so a ring that fills whole nodes gets all of a node's ports; never more than the inner link.
    """
    inner = node_link_bytes(cluster)
    if ranks * stride <= cluster.gpus_per_node:
        return inner
    inside = max(cluster.gpus_per_node // stride, 1)
    return min(inner, network_bytes(cluster) * inside)


def exchange_seconds(
    cluster: ClusterFacts, ranks: int, token_bytes: float, copies: int, once: bool, stride: int = 1
) -> float:
    """Exposed seconds of the all-to-all of expert parallelism over `ranks` GPUs that lie `stride` apart: each token
    goes to `copies` experts.

    A copy travels over the node's links, or over the network when its expert is on another node; `once`: over the
    network one copy for each other node that any of the experts is on, nodes - 1 times 1 - (1 - 1/nodes)^copies.
    Both at the same time. Routing is taken as even.
    """
    c = speed_facts().constants
    nodes = max(ranks * stride / cluster.gpus_per_node, 1.0)
    inner = token_bytes * copies * (1 - 1 / ranks) / node_link_bytes(cluster)
    away = (nodes - 1) * (1 - (1 - 1 / nodes) ** copies) if once else copies * (1 - 1 / nodes)
    outer = token_bytes * away / network_bytes(cluster) * (c.exposed_expert if once else c.exposed_alltoall)
    return max(inner * c.exposed_expert, outer) * c.link_share / c.alltoall_share
