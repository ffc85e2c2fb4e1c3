"""Each term against a number computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from advisor.estimate.activations import layer_bytes
from advisor.estimate.memory import estimate_memory, in_flight
from advisor.estimate.model_sums import model_sums
from advisor.estimate.moments import Alive, loss_bytes, moments
from advisor.estimate.parameters import count_parameters
from advisor.estimate.rollout import Extras, cache_bytes_per_token
from advisor.estimate.stage import make_setting, pinned_bytes, stage_layers, stage_parts
from advisor.estimate.states import shards, state_bytes
from advisor.estimate.types import TERMS
from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from tests.estimate import samples as m
from tests.estimate.samples import GIB, cluster, full, lora

MEGATRON = {
    "backend": "megatron", "recompute": "full", "sequence_parallel": True, "gpus_per_node": 8, "packing": True
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "total"),
    [
        (m.LLAMA_8B, 8_030_261_248),
        (m.QWEN25_72B, 72_706_203_648),
        (m.QWEN3_30B, 30_532_122_624),
        (m.QWEN3_235B, 235_093_634_560),
        (m.DEEPSEEK_R1, 671_026_404_352),
    ],
)
def test_parameter_counts(model: ModelFacts, total: int) -> None:
    assert count_parameters(model, full()).total == total
    assert count_parameters(model, full()).trainable == total


def test_trainable_counts() -> None:
    per_layer = (4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3
    assert count_parameters(m.LLAMA_8B, lora(lora_rank=16)).trainable == 32 * 16 * per_layer
    experts = count_parameters(m.QWEN3_30B, lora(lora_rank=16, lora_targets=("experts",)))
    assert experts.trainable == pytest.approx(642e6, rel=0.01)
    frozen = count_parameters(m.LLAMA_8B, full(tuning="freeze", freeze_trainable_layers=2))
    assert frozen.trainable == 2 * 218_112_000


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (full(), (2, 2, 4)),
        (full(precision="bf16", master_weights=True), (2, 2, 12)),
        (full(precision="bf16", param_dtype="fp32"), (4, 4, 8)),
        (full(precision="fp32"), (4, 4, 8)),
        (full(optimizer="adamw_8bit"), (2, 2, 2.03)),
        (full(optimizer="paged_adamw_8bit"), (2, 2, 0)),
        (full(optimizer="adafactor"), (2, 2, 0.02)),
        (full(optimizer="muon"), (2, 2, 2)),
        (full(zero_stage=3, gpus_per_node=8, precision="bf16"), (2, 2, 12)),
        (full(**MEGATRON), (2, 4, 12)),
        (full(optimizer="muon", **MEGATRON), (2, 4, 8)),
    ],
)
def test_state_bytes(plan: Plan, expected: tuple[float, float, float]) -> None:
    states = state_bytes(plan)
    assert (states.weight, states.gradient, states.optimizer) == pytest.approx(expected)


def test_expert_grid_is_separate() -> None:
    """235B on 128 GPUs, TP4 PP8 EP8: dense data parallel 4, expert data parallel 2."""
    cut = shards(full(nodes=16, tensor_parallel=4, pipeline_parallel=8, expert_parallel=8, **MEGATRON))
    assert (cut.optimizer, cut.expert_optimizer) == (4, 2)


def _bytes(model: ModelFacts, plan: Plan, moe: bool = False) -> float:
    kind = layer_bytes(model_sums(model), make_setting(model_sums(model), plan).kernels, moe)
    return kind.whole + kind.split + kind.routed


def test_dense_layer_bytes() -> None:
    """Llama-3.1-8B: 16h + 4q + 4kv + 8f = 200,704 bytes per token (traced 200,802)."""
    assert _bytes(m.LLAMA_8B, full()) == 16 * 4096 + 4 * 4096 + 4 * 1024 + 8 * 14336 == 200_704


def test_qk_norm_and_routed_bytes() -> None:
    """Qwen3-30B-A3B: 193,536 bytes per token and about 1 kB of router (traced 194,511)."""
    assert _bytes(m.QWEN3_30B, full(), moe=True) == pytest.approx(194_511, rel=0.002)


def test_lora_layer_bytes() -> None:
    """Llama-3.1-8B, all-linear under autocast: 53 bytes x h and the rank activations (traced 53)."""
    ranks = 7 * 2 * 16
    assert _bytes(m.LLAMA_8B, lora(lora_rank=16)) == 53 * 4096 + ranks


def test_autocast_over_fp32_weights_keeps_more() -> None:
    """26h in place of 16h for the norms, and 4h per checkpoint."""
    amp = full(precision="bf16", param_dtype="fp32", gradient_accumulation_steps=2)
    assert _bytes(m.LLAMA_8B, amp) == 26 * 4096 + 4 * 4096 + 4 * 1024 + 8 * 14336
    kept = stage_parts(make_setting(model_sums(m.LLAMA_8B), amp), 0, 32, True, True, 1).kept
    assert kept == 32 * 4 * 4096 * 2048


def test_lean_kernels_keep_less() -> None:
    assert _bytes(m.LLAMA_8B, full(liger=True)) == 8 * 4096 + 4 * 4096 + 4 * 1024 + 6 * 14336


def test_eager_keeps_the_square() -> None:
    plans = [full(attention=a, seq_len=2048, gradient_checkpointing=False) for a in ("eager", "flash")]
    eager, flash = (estimate_memory(m.LLAMA_8B, p, cluster(1)).terms["activations"] for p in plans)
    per_layer = 6 * 32 * 2048 * 2048 + 4 * (4096 - 1024) * 2048
    assert eager - flash == pytest.approx(32 * per_layer / GIB)


def test_mla_keeps_expanded_heads() -> None:
    """DeepSeek-V3, 128 heads: q and k of 192 and the output of 128, 2 bytes each; values stay a part of the expanded
    latent of 256. FlashAttention pads values and output to 192 and hands on the cropped output."""
    rest = 16 * 7168 + 8 * (1536 + 512) + 8 * 18432
    assert _bytes(m.DEEPSEEK_R1, full(attention="sdpa")) == rest + 2 * 128 * (2 * 192 + 256 + 128)
    assert _bytes(m.DEEPSEEK_R1, full(attention="flash")) == rest + 2 * 128 * (4 * 192 + 128)


def test_loss_bytes() -> None:
    sums = model_sums(m.LLAMA_8B)
    tokens, vocab, hidden = 2 * 4096, 128256, 4096
    sizes = {
        loss: loss_bytes(make_setting(sums, full(seq_len=4096, micro_batch_size=2, loss=loss)))
        for loss in ("stock", "chunked", "fused")
    }
    assert sizes["stock"] == (12 * tokens * vocab, 0)
    assert sizes["chunked"] == (4 * tokens * vocab, 0)
    assert sizes["fused"] == (8 * tokens * hidden, 2 * vocab * hidden)
    assert loss_bytes(make_setting(sums, full(method="rm"))) == (0, 0)


def test_megatron_slices_the_vocabulary() -> None:
    plan = full(tensor_parallel=4, seq_len=4096, **MEGATRON)
    assert loss_bytes(make_setting(model_sums(m.LLAMA_8B), plan))[0] == 6 * 4096 * 128256 / 4


def test_quantized_base() -> None:
    """Qwen3-8B: 6.9459e9 linear parameters at 0.515625 bytes, the rest at 2 (or 4 when prepared)."""
    linear = 36 * (4096 * (4096 * 2 + 1024 * 2) + 3 * 4096 * 12288)
    rest = 8_190_735_360 - linear
    adapters = 43_646_976
    plain = estimate_memory(
        m.QWEN3_8B, lora(tuning="qlora", quantization="4bit", param_dtype="bf16"), cluster(1)
    )
    assert plain.terms["weights"] == pytest.approx((linear * (0.5 + 1 / 64) + 2 * (rest + adapters)) / GIB)
    prepared = estimate_memory(m.QWEN3_8B, lora(tuning="qlora", quantization="4bit"), cluster(1))
    assert prepared.terms["weights"] == pytest.approx((linear * (0.5 + 1 / 64) + 4 * (rest + adapters)) / GIB)


def test_fused_experts_stay_in_16_bit_unless_packed() -> None:
    plan = lora(tuning="qlora", quantization="4bit", param_dtype="bf16")
    stock = estimate_memory(m.QWEN3_30B, plan, cluster(1))
    packed = estimate_memory(m.QWEN3_30B, replace(plan, quantize_experts=True), cluster(1))
    assert stock.terms["weights"] > 50
    assert packed.terms["weights"] < 17
    assert any("experts" in note for note in stock.notes)
    assert not packed.notes


@pytest.mark.parametrize(
    ("plan", "states"),
    [
        (
            full(
                nodes=16, tensor_parallel=4, pipeline_parallel=8, expert_parallel=8, pipeline_first_layers=11,
                pipeline_last_layers=11, gradient_accumulation_steps=16, **MEGATRON,
            ),
            [40.12] + [42.35] * 6 + [40.12],
        ),
    ],
)  # fmt: skip
def test_pipeline_states_match_two_independent_estimators(plan: Plan, states: list[float]) -> None:
    """Two independent Megatron estimators agree on 42.35/42.29 and 40.12 GiB for Qwen3-235B-A22B."""
    estimate = estimate_memory(m.QWEN3_235B, plan, cluster(8, 16))
    assert [stage["state"] for stage in estimate.stages] == pytest.approx(states, abs=0.02)
    assert estimate.allocated == pytest.approx(max(stage["allocated"] for stage in estimate.stages))
    quick = estimate_memory(m.QWEN3_235B, plan, cluster(8, 16), all_stages=False)
    assert quick.total == pytest.approx(estimate.total)
    assert not quick.stages


def test_deepseek_stage_state() -> None:
    """DeepSeek-V3 on 1024 GPUs, PP16 EP64: 17.18/17.14 GiB in a middle stage of both estimators."""
    plan = full(
        nodes=128, pipeline_parallel=16, expert_parallel=64, gradient_accumulation_steps=16, **MEGATRON
    )
    stages = estimate_memory(m.DEEPSEEK_R1, plan, cluster(8, 128)).stages
    assert stages[4]["state"] == pytest.approx(17.18, abs=0.05)


def test_llama_with_distributed_optimizer() -> None:
    """Llama-3.1-8B, DP8: 8.03e9 x (6 + 12 / 8) = 56.1 GiB in both estimators."""
    terms = estimate_memory(m.LLAMA_8B, full(seq_len=4096, **MEGATRON), cluster()).terms
    state = terms["weights"] + terms["gradients"] + terms["optimizer"]
    assert state == pytest.approx(56.10, abs=0.02)


def test_pipeline_split() -> None:
    assert stage_layers(Plan(pipeline_parallel=4, pipeline_first_layers=23, pipeline_last_layers=23), 94) == [
        23, 24, 24, 23,
    ]  # fmt: skip
    assert stage_layers(Plan(pipeline_parallel=4), 30) == [8, 8, 7, 7]
    assert stage_layers(Plan(), 32) == [32]


def test_micro_batches_in_flight() -> None:
    """1F1B: the first of four stages keeps four micro batches, the last one."""
    plan = full(
        pipeline_parallel=4, gradient_accumulation_steps=8, seq_len=8192, **{**MEGATRON, "recompute": "none"}
    )
    rows = estimate_memory(m.LLAMA_8B, plan, cluster()).stages
    assert rows[0]["activations"] > 3 * rows[3]["activations"]


@pytest.mark.parametrize(
    ("stages", "chunks", "steps", "first", "last"),
    [
        (8, 1, 16, 8.0, 1.0),
        (8, 2, 16, 8 * (1 + 7 / 16), 4.5),
        (4, 4, 16, 4 * (1 + 3 / 16), 3.25),
        (8, 2, 8, 8.0, 4.5),
    ],
)
def test_chunks_in_flight(stages: int, chunks: int, steps: int, first: float, last: float) -> None:
    """Megatron-LM's own formula for the first stage, (1 + (pp - 1) / (pp vp)) pp, and no more than a step has."""
    plan = full(pipeline_parallel=stages, virtual_pipeline_parallel=chunks, gradient_accumulation_steps=steps)
    assert in_flight(plan, 0) == pytest.approx(first)
    assert in_flight(plan, stages - 1) == pytest.approx(last)


def test_chunks_hold_more_activations() -> None:
    plan = full(
        pipeline_parallel=4, gradient_accumulation_steps=16, seq_len=8192, **{**MEGATRON, "recompute": "none"}
    )
    one, two = (
        estimate_memory(m.LLAMA_8B, replace(plan, virtual_pipeline_parallel=v), cluster()).stages
        for v in (1, 2)
    )
    # the layer whose backward runs first is not in flight any more
    assert 1.2 < two[0]["activations"] / one[0]["activations"] < 1 + 3 / 8
    assert two[0]["state"] == one[0]["state"]


def test_sliced_experts_hold_every_ranks_tokens() -> None:
    spread = full(tensor_parallel=2, expert_parallel=8, seq_len=8192, **{**MEGATRON, "recompute": "none"})
    whole, parts = (
        estimate_memory(m.QWEN3_30B, plan, cluster())
        for plan in (spread, replace(spread, expert_parallel=4, expert_tensor_parallel=2))
    )
    assert parts.terms["activations"] > whole.terms["activations"]
    assert parts.terms["weights"] == pytest.approx(whole.terms["weights"])


def test_reference_model() -> None:
    whole = 2 * 8_030_261_248 / GIB
    dpo = estimate_memory(m.LLAMA_8B, full(method="dpo"), cluster(1))
    assert dpo.terms["reference"] == pytest.approx(whole)
    assert estimate_memory(m.LLAMA_8B, lora(method="dpo"), cluster(1)).terms["reference"] == 0
    assert estimate_memory(m.LLAMA_8B, full(method="orpo"), cluster(1)).terms["reference"] == 0
    sharded = full(method="dpo", zero_stage=3, fsdp=True, gpus_per_node=8)
    assert estimate_memory(m.LLAMA_8B, sharded, cluster()).terms["reference"] == pytest.approx(whole / 8)


def test_pairs_double_the_tokens() -> None:
    sft, dpo = (estimate_memory(m.LLAMA_8B, lora(method=x), cluster(1)) for x in ("sft", "dpo"))
    assert dpo.terms["logits"] == pytest.approx(2 * sft.terms["logits"])


def test_critic_and_reward_model() -> None:
    """PPO with adapters: reward model and critic base, 2 copies; full tuning trains a second model."""
    whole = 2 * 8_030_261_248 / GIB
    adapters = estimate_memory(m.LLAMA_8B, lora(method="ppo"), cluster(1))
    assert adapters.terms["reference"] == pytest.approx(2 * whole)
    trained = estimate_memory(m.LLAMA_8B, full(method="ppo"), cluster(1))
    assert trained.terms["weights"] == pytest.approx(2 * whole)
    assert trained.terms["reference"] == pytest.approx(2 * whole)


def test_teacher() -> None:
    plan = full(method="gkd")
    known = estimate_memory(m.QWEN3_4B, plan, cluster(1), teacher=m.QWEN3_8B)
    assert known.terms["reference"] == pytest.approx(2 * 8_190_735_360 / GIB)
    unknown = estimate_memory(m.QWEN3_4B, plan, cluster(1))
    assert any("teacher" in note for note in unknown.notes)


def test_rollout_share() -> None:
    plan = lora(
        method="grpo", rollout_engine="vllm", rollout_memory_fraction=0.3, prompt_len=512, response_len=1536,
        generations=8,
    )  # fmt: skip
    awake = estimate_memory(m.QWEN3_4B, plan, cluster(1))
    assert awake.terms["rollout"] == pytest.approx(0.3 * 79.6)
    asleep = estimate_memory(m.QWEN3_4B, replace(plan, rollout_sleep=True), cluster(1))
    assert asleep.total < awake.total


def test_cache_bytes() -> None:
    assert cache_bytes_per_token(model_sums(m.LLAMA_8B)) == 2 * 2 * 32 * 1024


def test_offload_moves_states_to_the_host() -> None:
    here = full(zero_stage=3, gpus_per_node=8, precision="bf16")
    there = full(zero_stage=3, gpus_per_node=8, precision="bf16", offload="optimizer")
    everything = full(zero_stage=3, gpus_per_node=8, precision="bf16", offload="all")
    disk = full(zero_stage=3, gpus_per_node=8, precision="bf16", offload="nvme")
    a, b, c, d = (estimate_memory(m.QWEN25_72B, p, cluster()) for p in (here, there, everything, disk))
    assert a.terms["optimizer"] > 0 == b.terms["optimizer"]
    assert c.terms["weights"] == 0
    # Rank 0 gathers 16-bit weights to save them, beside what is offloaded.
    assert b.host_gib == pytest.approx(3 * 8 + (16 + 2) * 72.706e9 / GIB, rel=0.01)
    assert c.host_gib > b.host_gib > d.host_gib
    assert d.nvme_gib > 1000


def test_layer_inputs_wait_on_the_host() -> None:
    """Llama-3.1-8B, 32 layers, 8192 tokens x 4096 x 2 bytes = 64 MiB an input: two stay, two buffers, 31 copies."""
    here = lora(seq_len=8192, gpus_per_node=8, offload="none")
    there = replace(here, activation_offload=True)
    parts = [
        stage_parts(make_setting(model_sums(m.LLAMA_8B), plan), 0, 32, True, True, 1.0)
        for plan in (here, there)
    ]
    assert [part.kept / 2**20 for part in parts] == [32 * 64, 4 * 64]
    assert [part.inputs_away / 2**20 for part in parts] == [0, 31 * 64]
    assert [part.kept_each / 2**20 for part in parts] == [64, 64]
    longer = replace(there, seq_len=32768)
    assert estimate_memory(m.LLAMA_8B, longer, cluster()).host_gib == pytest.approx(
        3 * 8 + 8 * 31 / 4, rel=0.01
    )


def test_pinned_memory_comes_in_powers_of_two() -> None:
    assert [pinned_bytes(size) for size in (0, 64, 65, 96)] == [0, 64, 128, 128]


def test_foreach_makes_a_copy() -> None:
    plain, foreach = (
        estimate_memory(m.LLAMA_8B, full(optimizer=o), cluster(1)) for o in ("adamw", "adamw_foreach")
    )
    assert foreach.moment == "optimizer"
    assert foreach.allocated - plain.allocated == pytest.approx(2 * 8_030_261_248 / GIB, rel=0.001)


def test_ddp_holds_buckets() -> None:
    alone = estimate_memory(m.LLAMA_8B, full(), cluster(1))
    many = estimate_memory(m.LLAMA_8B, full(gpus_per_node=8), cluster())
    assert many.allocated - alone.allocated == pytest.approx(2 * 8_030_261_248 / GIB, rel=0.02)


def test_layer_is_the_unit_of_sharding() -> None:
    """DeepSeek-V3 under FSDP over many ranks cannot go below about 10 bytes of one MoE layer (11.5e9)."""
    plan = full(nodes=128, gpus_per_node=8, zero_stage=3, fsdp=True, precision="bf16", param_dtype="fp32")
    assert estimate_memory(m.DEEPSEEK_R1, plan, cluster(8, 128)).terms["buffers"] > 10 * 11.4e9 / GIB


def test_terms_and_range() -> None:
    estimate = estimate_memory(m.LLAMA_8B, lora(), cluster(1))
    assert tuple(estimate.terms) == TERMS
    assert estimate.low < estimate.total < estimate.high
    assert estimate.as_dict()["fits"] == "fits"


def test_packed_pairs_share_a_pack() -> None:
    apart = estimate_memory(m.LLAMA_8B, lora(method="dpo", seq_len=4096), cluster(1))
    packed = estimate_memory(m.LLAMA_8B, lora(method="dpo", seq_len=4096, packing=True), cluster(1))
    alone = estimate_memory(m.LLAMA_8B, lora(seq_len=4096), cluster(1))
    assert packed.allocated == pytest.approx(alone.allocated)
    assert apart.terms["logits"] == pytest.approx(2 * packed.terms["logits"])


def test_leftovers_of_a_quantized_base_in_16_bit() -> None:
    """Embedding and head of Qwen3-8B: 2 x 622 M parameters, 2 bytes less each."""
    plan = lora(tuning="qlora", quantization="4bit")
    raised, kept = (
        estimate_memory(m.QWEN3_8B, replace(plan, fp32_leftovers=x), cluster(1)) for x in (True, False)
    )
    saved = (raised.terms["weights"] - kept.terms["weights"]) * GIB
    assert saved == pytest.approx(2 * 2 * 151936 * 4096, rel=0.01)


def test_pure_bf16_fsdp_reduces_in_bf16() -> None:
    sharded = {"gpus_per_node": 8, "fsdp": True, "zero_stage": 3, "seq_len": 128}
    mixed = estimate_memory(m.LLAMA_70B, full(precision="bf16", **sharded), cluster())
    pure = estimate_memory(m.LLAMA_70B, full(precision="bf16-pure", **sharded), cluster())
    assert pure.terms["buffers"] < mixed.terms["buffers"]


HYBRID = {"nodes": 2, "gpus_per_node": 8, "fsdp": True, "zero_stage": 3, "seq_len": 128}


@pytest.mark.parametrize("offload", ["none", "all"])
def test_a_copy_on_each_node_is_held_as_by_one_node(offload: str) -> None:
    """Weights, gradients, states and what each host takes."""
    plan = full(precision="bf16", param_dtype="fp32", offload=offload, **HYBRID)
    copies, one = replace(plan, fsdp_replicas=2), replace(plan, nodes=1)
    many, alone = (estimate_memory(m.LLAMA_70B, p, cluster(8, p.nodes)) for p in (copies, one))
    for term in ("weights", "optimizer"):
        assert many.terms[term] == pytest.approx(alone.terms[term])
    assert many.host_gib == pytest.approx(alone.host_gib)
    assert many.total > estimate_memory(m.LLAMA_70B, plan, cluster(8, 2)).total


@pytest.mark.parametrize(
    ("changes", "bytes_each"),
    [
        ({"param_dtype": "fp32"}, 0.0),  # the gradient is what was reduced
        ({"param_dtype": "fp32", "gradient_accumulation_steps": 2}, 4.0),
        ({"param_dtype": "bf16"}, 4.0),
        ({"param_dtype": "fp32", "offload": "all"}, 4.0),
        ({"param_dtype": "bf16", "precision": "bf16-pure"}, 0.0),
    ],
)
def test_reduced_shards_of_copies_stay_until_the_backward_ends(
    changes: dict[str, Any], bytes_each: float
) -> None:
    """70B on 8 GPUs a copy, in the backward of the first layer: 78 of 80 layers (of 68.45e9 parameters) are reduced;
    their shards lie beside the gradients where they are not the gradients themselves."""
    copies = full(**{"precision": "bf16", **HYBRID, "fsdp_replicas": 2, **changes})
    alone = replace(copies, nodes=1, fsdp_replicas=1)
    held = [max(moment.buffers for moment in _backwards(plan)) for plan in (copies, alone)]
    assert (held[0] - held[1]) * 8 == pytest.approx(bytes_each * 68.45e9 * 78 / 80, rel=0.001)


def _backwards(plan: Plan) -> list[Alive]:
    s = make_setting(model_sums(m.LLAMA_70B), plan)
    part = stage_parts(s, 0, m.LLAMA_70B.layers, True, True, 1)
    return [alive for alive in moments(s, part, Extras()) if alive.moment == "backward"]
