"""Constants of the time estimate, each with its source or marked assumed.

Utilisation = floating-point work really done (recomputation included) over the card's dense 16-bit peak.
"""

from __future__ import annotations

from advisor.facts.types import ClusterFacts, GpuFacts

BALANCE = 240.0
"""Utilisation of a dense model with flash attention = 1 / (1 + (TFLOP/s per TB/s of memory) / BALANCE): cards
with much compute for their bandwidth reach less of it. One constant through three published points: A800
(balance 153) about 0.6 (Qwen2.5-14B on 8, ms-swift documentation), H100 (295) 0.37 to 0.45 (torchtitan
Llama-3.1-8B, 5762 to 6667 tokens/s/GPU), H20 (37) about 0.8 (verl: 0.63 to 0.83)."""
UTILISATION_MOST, UTILISATION_UNKNOWN = 0.80, 0.40
"""Upper bound, and cards without a known bandwidth. Assumed."""
EAGER_ATTENTION, SDPA_ATTENTION = 0.65, 0.96
"""Against flash. Assumed: S^2 traffic; padding masks move sdpa to slower kernels."""
LIGER = 1.08
"""Fused norms, RoPE, SwiGLU: ms-swift's liger pair 95 against 100 minutes, torchtune compile more."""
MEGATRON_DENSE = 1.12
"""Fused kernels against HF modules: 9.04 against 10.32 s/it (ms-swift documentation), part of it sharding."""
MOE_MEGATRON = 0.42
"""Routed layers against dense: Megatron-Bridge Qwen3-30B-A3B 8901 tokens/s/GPU on H100 is 0.21 of peak."""
MOE_HF = 0.30
"""grouped_mm without fused permutation. Assumed, below Megatron's."""
MOE_STAGE3 = 0.25
"""On top under ZeRO-3/FSDP: published 91.2 s/it with ZeRO-3 against 9.6 with Megatron PP2 EP8 for
Qwen3-30B-A3B on 16 GPUs (ms-swift); half of that gap is taken, newer grouped kernels being faster."""
QUANTIZED = {"none": 1.0, "8bit": 0.70, "4bit": 0.78}
"""Dequantisation in front of every matmul. Assumed; PEFT's rows lie between 0.7 and 0.9."""
NARROW = 128.0
"""Width at which a matmul reaches half of its speed: hidden / TP over itself plus this. Assumed."""
FEW_TOKENS = 256.0
"""Tokens of a micro batch at which kernels reach half of their speed. Assumed."""

LINK_EFFICIENCY = 0.7
"""Achieved over nominal bandwidth of NCCL collectives. Assumed; 0.6 to 0.85 is usual."""
DEFAULT_LINK_GB_S = 32.0
"""PCIe 4 x16, where a card's link is unknown."""
INTERCONNECT_GB_S = {"infiniband": 50.0, "roce": 40.0, "efa": 40.0, "ethernet": 3.0, "tcp": 1.5}
"""GB/s per GPU between nodes: InfiniBand NDR 400 Gb/s one port per GPU; RoCE and EFA assumed a little less;
Ethernet 200 Gb/s and TCP 100 Gb/s shared by eight GPUs."""
DEFAULT_INTERCONNECT_GB_S = 3.0
PCIE_GB_S = 25.0
"""Achieved host to device. Assumed: PCIe 4 x16."""
NVME_GB_S = 5.0
"""Per node. Assumed."""
CPU_ADAM_PER_SECOND = 4e9
"""Parameters a node's processors step per second. Assumed: bound by host memory, about 30 bytes each."""
STEP_BYTES = 28.0
"""GPU memory traffic of one Adam step per parameter: weight, gradient, two moments, read and written."""
EXPOSED_TENSOR, EXPOSED_DATA, EXPOSED_STAGE3, EXPOSED_EXPERT = 0.85, 0.30, 0.55, 0.75
"""Share of communication that compute does not hide. Assumed."""
STEP_SECONDS = 0.02
"""Launch, data loading and logging per micro batch. Assumed."""

DECODE_EFFICIENCY = {"vllm": 0.55, "hf": 0.20}
"""Achieved share of memory bandwidth while decoding. Assumed."""
DECODE_SECONDS = {"vllm": 0.006, "hf": 0.035}
"""Shortest time of one decoding step. Assumed: kernel launches of all layers."""
RESPONSE_SHARE = 0.7
"""Mean over longest response while generating. Assumed."""
TIME_LOW, TIME_HIGH = 0.65, 1.7
"""Around the likely figure: real utilisation varies that much between clusters of one card."""


def card_utilisation(gpu: GpuFacts) -> float:
    """Utilisation of a dense model on this card."""
    if not gpu.bandwidth_gb_s or not gpu.tflops_bf16:
        return UTILISATION_UNKNOWN
    balance = gpu.tflops_bf16 / (gpu.bandwidth_gb_s / 1000)
    return min(UTILISATION_MOST, 1 / (1 + balance / BALANCE))


def link_bytes(cluster: ClusterFacts, ranks: int, stride: int = 1) -> float:
    """Bytes per second and GPU of a group of `ranks` GPUs that lie `stride` apart: inside a node its link,
    across nodes the interconnect."""
    if ranks * stride <= cluster.gpus_per_node:
        return (cluster.gpu.link_gb_s or DEFAULT_LINK_GB_S) * 1e9 * LINK_EFFICIENCY
    between = INTERCONNECT_GB_S.get(cluster.interconnect.lower(), DEFAULT_INTERCONNECT_GB_S)
    return between * 1e9 * LINK_EFFICIENCY
