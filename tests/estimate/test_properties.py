"""What must hold for every plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.estimate.memory import estimate_memory
from advisor.estimate.model_sums import model_sums
from advisor.estimate.stage import make_setting, stage_parts
from advisor.estimate.time import seconds_per_step
from advisor.facts.types import ModelFacts
from advisor.plan import METHODS, OFFLOADS, Plan
from tests.estimate import samples as m
from tests.estimate.samples import cluster

MODELS = st.sampled_from([m.LLAMA_8B, m.LLAMA_3B, m.QWEN3_8B, m.QWEN3_30B, m.MOONLIGHT])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    tuning = draw(st.sampled_from(["full", "freeze", "lora", "dora", "qlora"]))
    megatron = draw(st.booleans()) and tuning in ("full", "lora")
    stage = 0 if megatron else draw(st.sampled_from([0, 1, 2, 3]))
    return Plan(
        method=draw(st.sampled_from(METHODS)),
        tuning=tuning,
        quantization="4bit" if tuning == "qlora" else "none",
        precision=draw(st.sampled_from(["bf16", "bf16-pure", "fp32"])),
        param_dtype=draw(st.sampled_from(["bf16", "fp32"])),
        lora_rank=draw(st.sampled_from([8, 64])),
        seq_len=draw(st.sampled_from([512, 2048, 8192])),
        micro_batch_size=draw(st.sampled_from([1, 4])),
        gradient_accumulation_steps=draw(st.sampled_from([1, 4])),
        optimizer=draw(st.sampled_from(["adamw", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit", "muon"])),
        gpus_per_node=8,
        backend="megatron" if megatron else "hf",
        tensor_parallel=draw(st.sampled_from([1, 2])) if megatron else 1,
        pipeline_parallel=draw(st.sampled_from([1, 2])) if megatron else 1,
        recompute=draw(st.sampled_from(["none", "full"])) if megatron else "none",
        zero_stage=stage,
        fsdp=stage == 3 and draw(st.booleans()),
        offload=draw(st.sampled_from(OFFLOADS)) if stage == 3 else "none",
        gradient_checkpointing=draw(st.booleans()),
        attention=draw(st.sampled_from(["flash", "sdpa", "eager"])),
        liger=draw(st.booleans()),
        loss=draw(st.sampled_from(["stock", "chunked", "fused"])),
    )


def _total(model: ModelFacts, plan: Plan) -> float:
    return estimate_memory(model, plan, cluster()).total


@settings(max_examples=200, deadline=None)
@given(MODELS, plans())
def test_estimates_are_sane(model: ModelFacts, plan: Plan) -> None:
    estimate = estimate_memory(model, plan, cluster())
    assert all(size >= 0 for size in estimate.terms.values())
    assert estimate.low <= estimate.total <= estimate.high
    assert estimate == estimate_memory(model, plan, cluster())
    seconds = seconds_per_step(model, plan, cluster())
    assert seconds is not None
    assert seconds > 0


@settings(max_examples=200, deadline=None)
@given(MODELS, plans())
def test_more_tokens_never_need_less(model: ModelFacts, plan: Plan) -> None:
    assert _total(model, replace(plan, seq_len=2 * plan.seq_len)) >= _total(model, plan)
    assert _total(model, replace(plan, micro_batch_size=2 * plan.micro_batch_size)) >= _total(model, plan)


@settings(max_examples=200, deadline=None)
@given(MODELS, plans())
def test_cheaper_choices_never_need_more(model: ModelFacts, plan: Plan) -> None:
    bare = replace(plan, gradient_checkpointing=False, recompute="none")
    kept = replace(plan, gradient_checkpointing=True, recompute="full")
    assert _total(model, bare) >= _total(model, kept) - 1.5
    assert _total(model, replace(plan, attention="eager")) >= _total(model, replace(plan, attention="flash"))
    stock, chunked, fused = (_total(model, replace(plan, loss=x)) for x in ("stock", "chunked", "fused"))
    assert stock >= chunked
    assert plan.seq_len < 2048 or chunked >= fused - 1.5


@settings(max_examples=200, deadline=None)
@given(MODELS, plans())
def test_more_sharding_never_holds_more_states(model: ModelFacts, plan: Plan) -> None:
    base = replace(plan, backend="hf", tensor_parallel=1, pipeline_parallel=1, fsdp=False, offload="none")
    sizes: list[float] = []
    for stage in (1, 2, 3):
        setting = make_setting(model_sums(model), replace(base, zero_stage=stage))
        part = stage_parts(setting, 0, model.layers, True, True, 1)
        sizes.append(part.weights + part.gradients + part.optimizer)
    assert sizes == sorted(sizes, reverse=True)
    for degree in ("tensor_parallel", "expert_parallel"):
        wide = make_setting(model_sums(model), replace(base, backend="megatron", **{degree: 2}))
        one = make_setting(model_sums(model), replace(base, backend="megatron"))
        big, small = (stage_parts(s, 0, model.layers, True, True, 1).weights for s in (one, wide))
        assert small <= big
