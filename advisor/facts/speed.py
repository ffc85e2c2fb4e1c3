"""What is known about how fast cards, networks and software are: rules/catalog/speed.json, loaded once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache

from advisor.paths import rules_root


@dataclass(frozen=True, slots=True)
class SpeedConstants:
    """The constants of the time model by name; what each is, its tag and its source stand in the catalog."""

    matmul_share_unknown: float
    gemm_share: float
    few_ratio: float
    narrow_width: float
    expert_narrow_width: float
    expert_imbalance: float
    fp8_speedup: float
    attention_share: float
    attention_most_tflops: float
    attention3_share: float
    sdpa_share: float
    attention_backward: float
    eager_bytes: float
    stock_hidden_bytes: float
    fused_hidden_bytes: float
    stock_ffn_bytes: float
    fused_ffn_bytes: float
    permute_bytes: float
    memory_share: float
    adapter_traffic: float
    dora_traffic: float
    logit_bytes: float
    logit_fused_bytes: float
    dequantise_bytes: float
    layer_seconds_stock: float
    layer_seconds_fused: float
    moe_layer_seconds: float
    moe_hf_slowdown: float
    moe_hf_gathered_slowdown: float
    adapter_launches: float
    expert_seconds: float
    gathered_expert_seconds: float
    micro_batch_seconds: float
    link_share: float
    alltoall_share: float
    exposed_tensor: float
    exposed_expert: float
    exposed_alltoall: float
    exposed_context: float
    hidden_stage3: float
    exposed_stage3: float
    pcie_gb_s: float
    nvme_gb_s: float
    cpu_adam_per_second: float
    host_expert_tflops: float
    host_gb_s: float
    step_bytes: float
    decode_share: float
    decode_layer_seconds: float
    decode_hop_seconds: float
    decode_share_hf: float
    decode_layer_seconds_hf: float
    decode_rows: float
    response_share: float
    length_spread: float
    sync_gb_s: float


@dataclass(frozen=True, slots=True, eq=False)
class SpeedFacts:
    constants: SpeedConstants
    matmul: Mapping[str, float]
    """GPU id -> achievable over nominal rate of a large matrix product."""
    networks: Mapping[str, float]
    """Network between nodes -> GB/s per GPU and direction."""


@cache
def speed_facts() -> SpeedFacts:
    """The catalog's speed rows. Raises ValueError when names and constants do not match."""
    data = json.loads((rules_root() / "catalog" / "speed.json").read_text(encoding="utf-8"))
    values = {row["name"]: float(row["value"]) for row in data["constants"]}
    expected = {field.name for field in fields(SpeedConstants)}
    if set(values) != expected or len(values) != len(data["constants"]):
        raise ValueError(f"speed.json: constants that differ from the code: {sorted(set(values) ^ expected)}")
    return SpeedFacts(
        constants=SpeedConstants(**values),
        matmul={row["gpu"]: float(row["share"]) for row in data["matmul"]},
        networks={row["name"]: float(row["gb_s"]) for row in data["networks"]},
    )
