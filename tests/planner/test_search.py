"""The search: pruning loses nothing, pins are kept, and more never hurts."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.frameworks import NAMES
from advisor.plan import changed
from advisor.planner.fill import Unfilled
from advisor.planner.interleave import CHUNKS, chunked
from advisor.planner.legality import is_legal
from advisor.planner.order import describe, order
from advisor.planner.pools import NO_ENGINE
from advisor.planner.search import Found, Searcher
from advisor.planner.space import rollouts, skeletons, squeezes
from advisor.request import parse_request
from advisor.resolve import Resolved, resolve
from advisor.rules import cheap_refusals, limit_refusals, load_framework


def resolved(**answers: Any) -> Resolved:
    return resolve(parse_request({"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", **answers}))


def search(name: str, **answers: Any) -> Found:
    return Searcher(resolved(**answers)).search(load_framework(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "answers",
    [
        {"tuning": "lora"},
        {"tuning": "full", "gpus_per_node": 8},
        {"tuning": "full", "model": "Qwen/Qwen3-30B-A3B", "gpus_per_node": 8, "nodes": 2},
        {"method": "grpo", "gpus_per_node": 8},
    ],
)
def test_what_is_found_is_legal_allowed_and_fits(name: str, answers: dict[str, Any]) -> None:
    request = resolved(**answers)
    rules = load_framework(name)
    found = Searcher(request).search(rules)
    if found.best is None:
        assert found.refusals
        return
    plan, memory = found.best.plan, found.best.memory
    assert plan == plan.normalised()
    assert memory.fits in ("fits", "tight")
    assert not cheap_refusals(rules, plan)
    assert not limit_refusals(rules, plan, Searcher(request).facts)
    assert plan.world_size == request.cluster.world_size


@pytest.mark.parametrize(
    ("flag", "field", "value"),
    [
        ("zero", "zero_stage", 3),
        ("micro_batch_size", "micro_batch_size", 2),
        ("gradient_accumulation_steps", "gradient_accumulation_steps", 7),
        ("gradient_checkpointing", "gradient_checkpointing", True),
        ("attention", "attention", "sdpa"),
        ("offload", "offload", "optimizer"),
        ("activation_offload", "activation_offload", True),
    ],
)
def test_pins_are_kept(flag: str, field: str, value: Any) -> None:
    found = search("trl", tuning="full", gpus_per_node=8, **{flag: value})
    assert found.best is not None
    assert getattr(found.best.plan, field) == value


LONG = {
    "gpu": "rtx-4090",
    "seq_len": 32768,
    "global_batch_size": 1,
    "tuning": "qlora",
    "quantization": "4bit",
}


def test_inputs_go_to_the_host_where_that_is_fastest_of_what_fits() -> None:
    found, without = search("llamafactory", **LONG), search("llamafactory", **LONG, activation_offload=False)
    assert found.best is not None
    assert without.best is not None
    assert found.best.plan.activation_offload
    assert found.best.plan.offload == "none" != without.best.plan.offload
    assert found.best.seconds < without.best.seconds
    short = search("llamafactory", **{**LONG, "seq_len": 2048})
    assert short.best is not None
    assert not short.best.plan.activation_offload


def test_a_habit_moves_inputs_and_a_missing_key_is_said() -> None:
    habit = search("unsloth", **LONG)
    assert habit.best is not None
    assert habit.best.plan.activation_offload
    for name, pin in (("unsloth", False), ("ms-swift", True)):
        refused = search(name, **LONG, gradient_checkpointing=True, activation_offload=pin)
        assert refused.best is None
        assert any(
            "activation_offload" in r.because or "activation-offload" in r.rule for r in refused.refusals
        )


def test_an_illegal_pin_is_refused_with_the_two_numbers() -> None:
    found = search("ms-swift", tuning="full", gpus_per_node=8, backend="megatron", tensor_parallel=3)
    assert found.best is None
    assert any(
        "8 GPUs do not split into groups of TP x PP x CP = 3" in reason.because for reason in found.refusals
    )


def test_a_plan_that_does_not_fit_says_by_how_much() -> None:
    found = search("trl", model="Qwen/Qwen3-32B", tuning="full")
    assert found.best is None
    (reason,) = [reason for reason in found.refusals if reason.rule == "planner.memory"]
    assert "GiB" in reason.because
    assert "are there" in reason.because


@settings(max_examples=15, deadline=None)
@given(memory=st.floats(16, 140), more=st.floats(0, 100), tuning=st.sampled_from(["lora", "full"]))
def test_more_memory_never_makes_it_infeasible(memory: float, more: float, tuning: str) -> None:
    small = search("trl", tuning=tuning, gpu_memory_gib=memory, gpus_per_node=2)
    large = search("trl", tuning=tuning, gpu_memory_gib=memory + more, gpus_per_node=2)
    assert small.best is None or large.best is not None


@settings(max_examples=15, deadline=None)
@given(length=st.sampled_from([512, 1024, 2048, 4096, 8192]))
def test_a_shorter_sequence_never_makes_it_infeasible(length: int) -> None:
    long = search("trl", tuning="lora", gpu="rtx-4090", seq_len=2 * length, global_batch_size=8)
    short = search("trl", tuning="lora", gpu="rtx-4090", seq_len=length, global_batch_size=8)
    assert long.best is None or short.best is not None


def test_brute_force_finds_nothing_better() -> None:
    """Every layout, squeeze and micro batch of a small space, without any early stop."""

    request = resolved(tuning="full", gpus_per_node=4, model="Qwen/Qwen3-1.7B")
    rules = load_framework("trl")
    searcher = Searcher(request)
    found = searcher.search(rules)
    assert found.best is not None
    best = found.best.seconds

    for skeleton in skeletons(request):
        for layout in searcher._layouts(rules, skeleton.plan, skeleton.pins):
            if not is_legal(layout, request.model):
                continue
            for squeeze in chain.from_iterable(squeezes(layout, skeleton.pins)):
                plan = searcher._settle(rules, replace(layout, **squeeze), skeleton.pins)
                for size in searcher._micro_batches(plan, skeleton.pins) if plan else ():
                    candidate = searcher._estimate(searcher._batch(plan, size, skeleton.pins))
                    # kernels beyond the stock ones are taken only where nothing fits without
                    if candidate.plan.liger and not found.best.plan.liger:
                        continue
                    if candidate.memory.fits == "fits" and not limit_refusals(
                        rules, candidate.plan, searcher.facts
                    ):
                        assert candidate.seconds >= best * 0.97


SPLITS: list[tuple[str, dict[str, Any], str]] = [
    # framework, request, what the plan found splits further
    ("verl", {"model": "mistralai/Mixtral-8x7B-Instruct-v0.1", "nodes": 2}, "VPP"),
    ("verl", {"model": "mistralai/Mixtral-8x22B-Instruct-v0.1", "nodes": 4}, ""),
    ("verl", {"model": "mistralai/Mixtral-8x22B-Instruct-v0.1", "nodes": 8, "global_batch_size": 32}, "ETP"),
    ("ms-swift", {"model": "Qwen/Qwen3-235B-A22B", "nodes": 8}, "VPP"),
    ("ms-swift", {"model": "Qwen/Qwen3-30B-A3B", "nodes": 1}, ""),
    ("ms-swift", {"model": "Qwen/Qwen3-32B", "nodes": 2, "global_batch_size": 16}, "VPP"),
    ("verl", {"model": "Qwen/Qwen3-8B", "nodes": 4, "gpu": "a100-sxm-40", "global_batch_size": 256}, ""),
]


@pytest.mark.parametrize(("name", "answers", "splits"), SPLITS)
def test_no_model_chunks_and_no_slicing_of_experts_left_out_is_better(
    name: str, answers: dict[str, Any], splits: str
) -> None:
    """Every layout with 1, 2 and 4 model chunks and, where they are spread, with whole and sliced experts, against what
    the search finds, which tries few of them."""
    request = resolved(tuning="full", gpus_per_node=8, backend="megatron", **answers)
    rules = load_framework(name)
    searcher = Searcher(request)
    found = searcher.search(rules)
    assert found.best is not None
    assert found.best.memory.fits == "fits"
    assert splits in describe(found.best.plan)
    skeleton = next(skeletons(request))
    for plan in searcher._backends(rules, skeleton):
        for layout in searcher._layouts(rules, plan, skeleton.pins):
            degrees = {1, layout.tensor_parallel if layout.expert_parallel > 1 else 1}
            for tried, slices in product(
                (chunked(layout, request.model, chunks, {}) for chunks in (1, *CHUNKS)), degrees
            ):
                way = changed(tried, {"expert_tensor_parallel": slices})
                candidate = searcher._fill(rules, way, skeleton.pins)
                if candidate is None or candidate.memory.fits != "fits":
                    continue
                if not searcher._limited(rules, candidate, skeleton.pins):
                    assert order(found.best)[:2] <= order(candidate)[:2], describe(candidate.plan)


def test_an_interleaved_schedule_that_was_asked_for_gets_its_micro_batches() -> None:
    """Eight replicas' share of 64 sequences would be 16 micro batches of 1: no multiple of three stages."""
    asked = {"model": "Qwen/Qwen3-8B", "nodes": 3, "pipeline_parallel": 3, "virtual_pipeline_parallel": 4}
    found = search("ms-swift", tuning="full", gpus_per_node=8, backend="megatron", **asked)
    assert found.best is not None
    plan = found.best.plan
    assert plan.virtual_pipeline_parallel == 4
    assert plan.gradient_accumulation_steps % 3 == 0


def test_changed_is_dataclasses_replace() -> None:
    plan = next(skeletons(resolved(tuning="full"))).plan
    changes = {"zero_stage": 3, "seq_len": 4096, "lora_targets": ("attention",)}
    assert changed(plan, changes) == replace(plan, **changes)
    assert changed(plan, {}) is plan


@pytest.mark.parametrize(
    "answers",
    [
        {"tuning": "full", "gpus_per_node": 8, "model": "Qwen/Qwen3-30B-A3B"},
        {"method": "grpo", "gpus_per_node": 8, "tuning": "full"},
    ],
)
def test_the_way_that_recomputes_most_holds_least(answers: dict[str, Any]) -> None:
    """What the search leaves out on: when that way does not fit, the others do not either."""
    request = resolved(**answers)
    rules = load_framework("ms-swift")
    searcher = Searcher(request)
    for skeleton in skeletons(request):
        for plan in searcher._backends(rules, skeleton):
            for layout in searcher._layouts(rules, plan, skeleton.pins):
                if not is_legal(layout, request.model):
                    continue
                for group in squeezes(layout, skeleton.pins):
                    settled = [
                        searcher._settle(rules, replace(layout, **way), skeleton.pins) for way in group
                    ]
                    sizes = [searcher._estimate(plan).memory.excess if plan else None for plan in settled]
                    if sizes[-1] is not None and sizes[-1] > 1:
                        assert all(size is None or size > 1 for size in sizes)
                ways = list(chain.from_iterable(squeezes(layout, skeleton.pins)))
                plans = [searcher._settle(rules, replace(layout, **way), skeleton.pins) for way in ways]
                if plans[-1] and not searcher.could_fill(plans[-1]):
                    assert not any(plan and searcher.could_fill(plan) for plan in plans)


def test_an_engine_stays_inside_a_node_where_one_holds_the_weights() -> None:
    request = resolved(method="grpo", gpus_per_node=8, nodes=4, model="Qwen/Qwen3-32B")
    for setting in _vllm(request, spreads=True):
        assert setting["rollout_tensor_parallel"] <= 8
        assert setting["rollout_data_parallel"] == setting["rollout_expert_parallel"] == 1


def test_engines_over_nodes_share_the_experts_where_the_framework_can() -> None:
    request = resolved(method="grpo", gpus_per_node=8, nodes=12, model="deepseek-ai/DeepSeek-R1-0528")
    for shared in _vllm(request, spreads=True):
        assert shared["rollout_tensor_parallel"] == 8
        assert shared["rollout_expert_parallel"] == 8 * shared["rollout_data_parallel"] > 8
    assert all(sliced["rollout_tensor_parallel"] > 8 for sliced in _vllm(request, spreads=False))


def _vllm(request: Resolved, spreads: bool) -> list[dict[str, Any]]:
    plan = next(skeletons(request)).plan
    found, _ = rollouts(plan, request.model, request.cluster.gpu_memory_gib, None, spreads)
    assert found
    return found


@pytest.mark.parametrize("gpus", [2, 8])
def test_no_rollout_setting_left_out_is_better(gpus: int) -> None:
    """Every setting of the engine on every layout, parked or not, against what the search stops at."""
    request = resolved(method="grpo", tuning="full", gpus_per_node=gpus, model="Qwen/Qwen3-8B")
    rules = load_framework("verl")
    searcher = Searcher(request)
    found = searcher.search(rules)
    assert found.best is not None
    for backend in searcher._backends(rules, next(skeletons(request))):
        for layout, parked in product(searcher._layouts(rules, backend, {}), (False, True)):
            candidate = searcher._fill(rules, changed(layout, {"rollout_offload": parked}), {})
            if candidate is not None and candidate.memory.fits == "fits":
                assert order(found.best)[:2] <= order(candidate)[:2]


@pytest.mark.parametrize("name", ["ms-swift", "trl", "verl"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_bound_changes_nothing_but_the_work(
    name: str, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan that is chosen where every layout is filled in every way."""
    answers = {
        "method": "grpo",
        "tuning": tuning,
        "model": "Qwen/Qwen3-30B-A3B",
        "gpus_per_node": 8,
        "nodes": 2,
    }
    bounded, filled = Searcher(resolved(**answers)), Searcher(resolved(**answers))
    rules = load_framework(name)
    found = bounded.search(rules)
    monkeypatch.setattr(Unfilled, "could_pass", lambda *_: True)
    assert filled.search(rules).best == found.best is not None
    assert bounded.estimated < filled.estimated


def test_another_attention_kernel_is_tried_where_the_fastest_is_refused() -> None:
    """Ring attention in TRL runs on sdpa alone; the card would have flash attention."""
    found = search("trl", gpus_per_node=8, fsdp=True, context_parallel=2)
    assert found.best is not None
    assert found.best.plan.attention == "sdpa"


def test_an_attention_kernel_that_was_asked_for_is_kept() -> None:
    found = search("trl", gpus_per_node=8, fsdp=True, context_parallel=2, attention="flash")
    assert found.best is None
    assert "trl.context-parallel-sdpa" in {reason.rule for reason in found.refusals}


def test_a_rollout_that_is_refused_leaves_the_other() -> None:
    """vLLM takes no 8-bit base from TRL; the trainer's own model generates."""
    found = search("trl", method="grpo", tuning="qlora", quantization="8bit", gpus_per_node=8)
    assert found.best is not None
    assert found.best.plan.rollout_engine == "hf"


@pytest.mark.parametrize("answers", [{"master_weights": True}, {"param_dtype": "bf16"}])
def test_a_pin_without_a_key_is_refused_before_anything_is_written(answers: dict[str, Any]) -> None:
    """Without DeepSpeed, TRL holds adapters in fp32; no key of it says otherwise."""
    found = search("trl", tuning="lora", zero=0, fsdp=False, offload="none", **answers)
    assert found.best is None
    refused = next(reason for reason in found.refusals if reason.rule == "trl.no-key")
    assert next(iter(answers)) in refused.because


R1 = {"model": "deepseek-ai/DeepSeek-R1-0528", "tuning": "lora", "gpus_per_node": 4, "cpu_memory_gib": 2048}


@pytest.mark.parametrize(
    ("answers", "offload"),
    [
        ({"gpu": "rtx-4090"}, "experts"),  # a gathered layer alone is more than the card
        ({"gpu": "h100"}, "all"),  # the GPUs can do it, however slowly: the processor is not asked
        ({"gpu": "h100", "offload": "experts"}, "experts"),
        ({"gpu": "rtx-4090", "gpus_per_node": 1, "gpu_memory_gib": 48}, "experts"),
    ],
)
def test_experts_go_to_the_host_where_nothing_else_fits_or_when_pinned(
    answers: dict[str, Any], offload: str
) -> None:
    found = search("llamafactory", **{**R1, **answers})
    assert found.best is not None
    plan = found.best.plan
    assert plan.offload == offload
    if offload == "experts":
        assert plan.lora_targets == ("experts",)
        assert (plan.micro_batch_size, plan.gradient_checkpointing) == (1, True)
        assert plan.fsdp == (plan.world_size > 1)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("llamafactory", {"cpu_memory_gib": 1024}),
        ("llamafactory", {"nodes": 2, "cpu_memory_gib": 1024}),
        ("llamafactory", {"method": "dpo"}),
        ("llamafactory", {"lora_targets": "attention"}),
        ("llamafactory", {"model": "mistralai/Mixtral-8x7B-v0.1", "gpus_per_node": 1, "gpu_memory_gib": 6}),
        ("trl", {}),
    ],
)
def test_experts_do_not_go_to_the_host_where_that_cannot_be(name: str, answers: dict[str, Any]) -> None:
    found = search(name, **{**R1, "gpu": "rtx-4090", **answers})
    assert found.best is None
    assert found.refusals


SLOW = {"gpus_per_node": 8, "nodes": 4, "interconnect": "ethernet"}


@pytest.mark.parametrize(
    ("name", "answers", "copies"),
    [
        ("trl", {"model": "Qwen/Qwen2.5-72B", "tuning": "lora", **SLOW}, 4),
        ("axolotl", {"model": "Qwen/Qwen2.5-32B", "tuning": "full", **SLOW}, 4),
        ("verl", {"tuning": "lora", "backend": "hf", **SLOW}, 4),
        # no network, no copy that fits, no key for copies
        ("verl", {"tuning": "lora", "backend": "hf", "gpus_per_node": 8}, 1),
        ("trl", {"model": "Qwen/Qwen2.5-72B", "tuning": "full", **SLOW}, 1),
        ("ms-swift", {"model": "Qwen/Qwen2.5-72B", "tuning": "lora", **SLOW}, 1),
    ],
)
def test_a_copy_on_every_node_where_the_network_is_slow(
    name: str, answers: dict[str, Any], copies: int
) -> None:
    found = search(name, **answers)
    assert found.best is not None
    assert found.best.plan.fsdp_replicas == copies


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "Qwen/Qwen2.5-32B"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("interconnect", ["infiniband", "ethernet"])
def test_no_number_of_copies_left_out_is_better(model: str, tuning: str, interconnect: str) -> None:
    """Every number of copies on every layout of FSDP2."""
    _no_copies_are_better("axolotl", model=model, tuning=tuning, interconnect=interconnect)


def test_no_number_of_copies_left_out_is_better_while_an_engine_generates() -> None:
    _no_copies_are_better("verl", method="grpo", tuning="lora", interconnect="ethernet")


def _no_copies_are_better(name: str, **answers: Any) -> None:
    request = resolved(gpus_per_node=8, nodes=4, **answers)
    rules = load_framework(name)
    searcher = Searcher(request)
    found = searcher.search(rules)
    assert found.best is not None
    for layout in searcher._layouts(rules, next(skeletons(request)).plan, {}):
        for copies in (1, 2, 4, 8, 16) if layout.fsdp else ():
            candidate = searcher._fill(rules, changed(layout, {"fsdp_replicas": copies}), {})
            if candidate is not None and candidate.memory.fits == "fits":
                assert order(found.best)[:2] <= order(candidate)[:2]


def test_gpus_that_hold_no_engine_are_named_as_the_cause() -> None:
    found = search(
        "verl", method="grpo", tuning="full", nodes=2, gpus_per_node=8, model="deepseek-ai/DeepSeek-R1-0528"
    )
    assert found.best is None
    assert [reason.rule for reason in found.refusals] == [NO_ENGINE]
    assert "1250 GiB over 16 GPUs are 78.1 GiB" in found.refusals[0].because


def test_a_layerwise_optimizer_steps_at_every_micro_batch() -> None:
    asked = {
        "model": "Qwen/Qwen3-0.6B",
        "gpu": "h100",
        "method": "sft",
        "optimizer": "galore_adamw_layerwise",
    }
    resolved = resolve(parse_request({**asked, "global_batch_size": 16}))
    found = Searcher(resolved).search(load_framework("trl")).best
    assert found is not None
    assert found.plan.tuning == "full"
    assert found.plan.gradient_accumulation_steps == 1
