"""The time estimate ranks plans as people's measurements do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from advisor.estimate.model_sums import model_sums
from advisor.estimate.rule_of_thumb import rule_of_thumb
from advisor.estimate.speed import network_bytes, rates
from advisor.estimate.time import estimate_time, flops_per_token, seconds_per_step, step_time
from advisor.estimate.traffic import gather_seconds, input_copies
from advisor.facts.software import TODAY, Software
from advisor.facts.types import ClusterFacts, ModelFacts
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import A100, cluster, full, gpu, lora


def _hf(**changes: Any) -> Plan:
    return full(**{"gpus_per_node": 8, "seq_len": 8192, "packing": True, "precision": "bf16", **changes})


def _megatron(**changes: Any) -> Plan:
    return _hf(**{"backend": "megatron", "recompute": "full", "sequence_parallel": True, **changes})


def _rate(model: ModelFacts, plan: Plan, where: ClusterFacts | None = None) -> float:
    rate = estimate_time(model, plan, where or cluster(plan.gpus_per_node, plan.nodes), None, None)
    assert rate.tokens_per_second
    return rate.tokens_per_second


def test_flops() -> None:
    """Full without recomputation: 6 x parameters outside the embedding, + 6 x layers x q x tokens."""
    plan = full(gradient_checkpointing=False)
    expected = 6 * (8_030_261_248 - 128256 * 4096) + 6 * 32 * 4096 * 2048
    assert flops_per_token(model_sums(m.LLAMA_8B), plan, 2048) == pytest.approx(expected, rel=0.001)


def test_expert_parallel_beats_sharding_for_moe() -> None:
    """Published: Qwen3-30B-A3B on 16 GPUs, 9.6 s/it with Megatron PP2 EP8, 91.2 with ZeRO-3 and a loop over the
    experts; today's grouped product lies between."""
    where, sums = cluster(8, 2, A100), model_sums(m.QWEN3_30B)
    experts = _megatron(nodes=2, pipeline_parallel=2, expert_parallel=8, gradient_accumulation_steps=2)
    sharded = _hf(nodes=2, zero_stage=3)
    spread, grouped = (step_time(sums, p, where, 8192, 312.0).total for p in (experts, sharded))
    loop = step_time(sums, sharded, where, 8192, 312.0, Software(expert_loop=True)).total
    assert spread < grouped < loop / 5


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (_hf(gradient_accumulation_steps=8), _hf(zero_stage=3, gradient_accumulation_steps=8)),
        (_hf(zero_stage=3), _hf(zero_stage=3, offload="optimizer")),
        (_hf(zero_stage=3, offload="optimizer"), _hf(zero_stage=3, offload="all")),
        (_hf(zero_stage=3, offload="all"), _hf(zero_stage=3, offload="nvme")),
        (_megatron(tensor_parallel=1), _megatron(tensor_parallel=2)),
        (_megatron(tensor_parallel=2), _megatron(tensor_parallel=8)),
        (_hf(attention="flash"), _hf(attention="sdpa")),
        (_hf(attention="sdpa"), _hf(attention="eager")),
        (_hf(gradient_checkpointing=False), _hf()),
        (_hf(liger=True), _hf()),
        (_hf(micro_batch_size=4, seq_len=512), _hf(micro_batch_size=1, seq_len=512)),
        (
            _megatron(pipeline_parallel=2, gradient_accumulation_steps=16),
            _megatron(pipeline_parallel=2, gradient_accumulation_steps=2),
        ),
        (lora(gpus_per_node=8), full(gpus_per_node=8)),
        (lora(), lora(tuning="qlora", quantization="4bit")),
    ],
)
def test_order(better: Plan, worse: Plan) -> None:
    assert _rate(m.LLAMA_8B, better) > _rate(m.LLAMA_8B, worse)


@pytest.mark.parametrize(
    ("model", "plan", "where", "seconds"),
    [
        (
            m.QWEN25_14B,
            _megatron(tensor_parallel=4, gradient_accumulation_steps=8),
            cluster(8, 1, A100),
            9.04,
        ),
        (m.QWEN25_14B, _hf(zero_stage=2, gradient_accumulation_steps=2), cluster(8, 1, A100), 10.32),
        (m.QWEN25_14B, _hf(zero_stage=3, gradient_accumulation_steps=2), cluster(8, 1, A100), 10.56),
        (
            m.QWEN25_72B,
            _megatron(tensor_parallel=8, gradient_accumulation_steps=16, offload="optimizer"),
            cluster(8, 1, A100),
            80.0,
        ),
    ],
)
def test_published_step_times(model: ModelFacts, plan: Plan, where: ClusterFacts, seconds: float) -> None:
    """Within a factor 1.7; tests/accuracy/test_throughput.py holds far more rows to far less."""
    found = seconds_per_step(model, plan, where)
    assert found is not None
    assert 1 / 1.7 < found / seconds < 1.7


def test_copies_of_layer_inputs_cost_what_compute_does_not_hide() -> None:
    plan = lora(seq_len=8192, packing=True)
    there = replace(plan, activation_offload=True)
    assert _rate(m.LLAMA_8B, there) == _rate(m.LLAMA_8B, plan)
    sums, r = model_sums(m.LLAMA_8B), rates(cluster(), there, TODAY, 989.0)
    seconds = 2.0 * 8192 * 4096 * 31 / (r.constants.pcie_gb_s * 1e9)
    assert input_copies(sums, there, r, 8192, 0.0, 3.0) == pytest.approx(2 * seconds)
    assert input_copies(sums, there, r, 8192, 1.5 * seconds, 3.0) == pytest.approx(0.5 * seconds)
    assert input_copies(sums, there, r, 8192, 3 * seconds, 3.0) == 0
    assert input_copies(sums, plan, r, 8192, 0.0, 3.0) == 0


def test_hours_and_cost() -> None:
    plan = lora(gpus_per_node=8, micro_batch_size=2, epochs=3)
    estimate = estimate_time(m.LLAMA_8B, plan, cluster(), 16_000, 1024.0)
    seconds = seconds_per_step(m.LLAMA_8B, plan, cluster(), 1024.0)
    assert seconds is not None
    assert estimate.hours is not None
    assert estimate.low
    assert estimate.high
    assert estimate.hours == pytest.approx(3 * 16_000 / 16 * seconds / 3600)
    assert estimate.gpu_hours == pytest.approx(8 * estimate.hours)
    assert estimate.cost == pytest.approx(16 * estimate.hours)
    assert estimate.low < estimate.hours < estimate.high


def test_packing_takes_fewer_steps() -> None:
    open_plan, packed = (lora(gpus_per_node=8, seq_len=4096, packing=p) for p in (False, True))
    loose, tight = (estimate_time(m.LLAMA_8B, p, cluster(), 10_000, 512.0) for p in (open_plan, packed))
    assert tight.extra["steps"] == pytest.approx(loose.extra["steps"] / 8)


def test_unknown_inputs_have_a_reason() -> None:
    unknown = estimate_time(m.LLAMA_8B, lora(), cluster(1), None, None)
    assert unknown.hours is None
    assert "samples" in unknown.reason
    assert unknown.tokens_per_second
    card = cluster(1, 1, gpu(tflops=None))
    nothing = estimate_time(m.LLAMA_8B, lora(), card, 10, 10.0)
    assert nothing.tokens_per_second is None
    assert "TFLOP" in nothing.reason
    assert seconds_per_step(m.LLAMA_8B, lora(), card) is None


SLOW = {"interconnect": "ethernet"}


def test_copies_keep_the_gathers_inside_a_node() -> None:
    """LoRA on four nodes: only the adapters' gradients cross the network, so it is as fast as on one node."""
    flat = lora(nodes=4, gpus_per_node=8, fsdp=True, zero_stage=3)
    copies, alone = replace(flat, fsdp_replicas=4), replace(flat, nodes=1)
    where = replace(cluster(8, 4), **SLOW)
    seconds = [seconds_per_step(m.LLAMA_70B, plan, where) or 0.0 for plan in (flat, copies)]
    assert seconds[0] > 4 * seconds[1]
    assert seconds[1] == pytest.approx(seconds_per_step(m.LLAMA_70B, alone, cluster(8, 1)), rel=0.01)


def test_copies_still_reduce_all_gradients_of_full_tuning() -> None:
    """Between nodes a rank's eighth of the fp32 gradients goes round a ring: 2 x 3/4 x 4 bytes / 8 a parameter."""
    plan = full(
        nodes=4,
        gpus_per_node=8,
        fsdp=True,
        zero_stage=3,
        fsdp_replicas=4,
        precision="bf16",
        param_dtype="fp32",
    )
    where = replace(cluster(8, 4), **SLOW)
    expected = 2 * 0.75 * 4 * m.LLAMA_8B.total_parameters / 8 / network_bytes(where)
    assert gather_seconds(model_sums(m.LLAMA_8B), plan, where) == pytest.approx(expected, rel=0.001)


def test_rollout_takes_time() -> None:
    base = {"method": "grpo", "prompt_len": 512, "response_len": 1536, "generations": 8, "gpus_per_node": 8}
    plans = [lora(**base, rollout_engine=e, rollout_memory_fraction=0.4) for e in ("vllm", "hf")]
    vllm, hf = (estimate_time(m.QWEN3_4B, p, cluster(), None, None).extra["parts"]["rollout"] for p in plans)
    assert 0 < vllm < hf


def test_rule_of_thumb() -> None:
    rule = rule_of_thumb(100e9)
    assert (rule["full_gb"], rule["lora_gb"], rule["qlora_gb"]) == pytest.approx((1600, 412, 103))
    assert len(rule["differences"]) > 4


def test_the_range_names_its_causes() -> None:
    open_plan, packed = (lora(gpus_per_node=8, packing=p) for p in (False, True))
    short, known = (estimate_time(m.LLAMA_8B, p, cluster(), 1000, None) for p in (open_plan, packed))
    assert short.hours is not None
    assert short.low is not None
    assert known.hours is not None
    assert known.low is not None
    assert short.low / short.hours < known.low / known.hours
    assert any("seq_len" in cause for cause in short.extra["causes"])
    online = estimate_time(
        m.QWEN3_4B, lora(method="grpo", prompt_len=512, response_len=1536), cluster(), 9, None
    )
    assert any("answers" in cause for cause in online.extra["causes"])


def test_virtual_stages_shorten_the_bubble() -> None:
    plan = _megatron(pipeline_parallel=4, gradient_accumulation_steps=8)
    sums = model_sums(m.LLAMA_8B)
    one, four = (
        step_time(sums, replace(plan, virtual_pipeline_parallel=v), cluster(), 8192, 989.0) for v in (1, 4)
    )
    assert four.bubble < one.bubble / 3
    assert four.compute == one.compute
    assert four.communication > one.communication, "each chunk hands its output on"


def test_slicing_experts_gathers_their_tokens() -> None:
    """Over as many ranks, spreading the experts is the cheaper way to split them."""
    spread = _megatron(tensor_parallel=2, sequence_parallel=True, expert_parallel=8)
    sliced = replace(spread, expert_parallel=4, expert_tensor_parallel=2)
    sums = model_sums(m.QWEN3_30B)
    whole, parts = (step_time(sums, plan, cluster(), 8192, 989.0) for plan in (spread, sliced))
    assert parts.communication > whole.communication
    assert parts.compute >= whole.compute


def test_a_token_dispatched_once_crosses_the_network_less() -> None:
    plan = _megatron(nodes=4, expert_parallel=32)
    sums, where = model_sums(m.QWEN3_30B), cluster(8, 4)
    each, once = (
        step_time(sums, plan, where, 8192, 989.0, Software(dispatch_once=x)).communication
        for x in (False, True)
    )
    assert once < each


def test_generation_waits_for_the_cache() -> None:
    """A smaller share of the card holds fewer sequences, so decoding takes more rounds."""
    base = {"method": "grpo", "prompt_len": 512, "response_len": 8192, "generations": 16, "gpus_per_node": 8,
            "rollout_engine": "vllm", "micro_batch_size": 16, "gradient_accumulation_steps": 64}  # fmt: skip
    sums = model_sums(m.QWEN3_8B)
    small, large = (
        step_time(sums, lora(**base, rollout_memory_fraction=f), cluster(), 4096, 989.0).rollout
        for f in (0.3, 0.8)
    )
    assert large < small


def test_an_engine_over_nodes_spreads_its_experts() -> None:
    """The same GPUs in one engine of more data-parallel groups read less of the experts each; states that rest in
    host memory while it generates travel there and back."""
    base = {"method": "grpo", "prompt_len": 512, "response_len": 2048, "generations": 16, "gpus_per_node": 8,
            "nodes": 4, "rollout_engine": "vllm", "rollout_memory_fraction": 0.6, "rollout_tensor_parallel": 8,
            "micro_batch_size": 16, "tuning": "full", "lora_rank": 0}  # fmt: skip
    sums, where = model_sums(m.QWEN3_235B), cluster(8, 4)
    alone, spread, away = (
        step_time(sums, Plan(**{**base, **more}), where, 1500, 989.0)
        for more in (
            {},
            {"rollout_data_parallel": 4, "rollout_expert_parallel": 32},
            {"rollout_data_parallel": 4, "rollout_expert_parallel": 32, "rollout_offload": True},
        )
    )
    assert spread.rollout < alone.rollout
    assert away.sync == spread.sync
    assert away.offload > spread.offload == 0
