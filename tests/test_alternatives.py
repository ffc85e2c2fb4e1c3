"""The ladder: every lever is there, the nearest comes first, and each alternative is planned again."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advise import Advice, advise
from advisor.alternatives import MORE_GPUS, Change, asked_for, changes, gpus_text, grown, no_nearer
from advisor.request import parse_request
from advisor.resolve import Resolved, resolve

R1_ON_ONE_NODE = {
    "model": "deepseek-ai/DeepSeek-R1-0528", "gpu": "h100", "gpus_per_node": 8, "method": "sft", "tuning": "full",
}  # fmt: skip


def ask(**answers: Any) -> Advice:
    return advise(parse_request(answers))


def resolved(**answers: Any) -> Resolved:
    return resolve(parse_request({"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", **answers}))


@pytest.mark.parametrize(
    ("answers", "kind", "text"),
    [
        ({"zero": 2, "offload": "none"}, "pins", "without --zero 2"),
        ({"zero": 2, "offload": "none"}, "pins", "without any pinned part of the plan"),
        ({"framework": "trl"}, "framework", "another framework than trl"),
        ({"avoid": ("axolotl",)}, "framework", "without --avoid axolotl"),
        ({"method": "grpo", "gpus_per_node": 8, "rollout_gpus": 2}, "pins", "without --rollout-gpus 2"),
        (
            {"method": "grpo", "gpus_per_node": 8, "rollout_placement": "colocated"},
            "pins",
            "without --rollout-placement colocated",
        ),
        (
            {"method": "grpo", "gpus_per_node": 8},
            "placement",
            "answers generated on GPUs of their own, one step ahead",
        ),
        ({"tuning": "full"}, "optimizer", "8-bit AdamW states"),
        ({"tuning": "full"}, "low-rank", "GaLore: moments of projected gradients"),
        ({"tuning": "full"}, "low-rank", "GaLore layer by layer"),
        ({"seq_len": 8192}, "length", "sequences of 4096 tokens"),
        ({"method": "grpo", "response_len": 8192}, "length", "answers of 2048 tokens"),
        ({"gpus_per_node": 8}, "host", "2048 GiB of host memory a node"),
        ({}, "disk", "8192 GiB of NVMe a node"),
        ({"tuning": "full"}, "tuning", "lora instead of full"),
        ({}, "tuning", "qlora instead of auto"),
        ({}, "gpus", "2 GPUs (1 x 2) instead of 1"),
        ({"gpu": "4090"}, "card", "l40s instead of rtx-4090"),
        ({}, "card", "h200-sxm instead of h100-sxm"),
        ({}, "model", "the smaller Qwen/"),
        ({"tuning": "full"}, "tuning + gpus", "lora instead of full, and 2 GPUs (1 x 2) instead of 1"),
    ],
)
def test_levers(answers: dict[str, Any], kind: str, text: str) -> None:
    assert any(change.kind == kind and text in change.text for change in changes(resolved(**answers)))


def test_nearest_first_and_hopeless_sizes_are_left_out() -> None:
    request = resolved(tuning="full")
    ladder = changes(request)
    assert [change.weight for change in ladder] == sorted(change.weight for change in ladder)
    kinds = [change.kind for change in ladder]
    assert kinds.index("optimizer") < kinds.index("tuning") < kinds.index("card") < kinds.index("model")
    alone = [change.text for change in changes(request, least=5.0) if change.kind == "gpus"]
    assert alone[0].startswith("6 GPUs")


@pytest.mark.parametrize(
    ("answers", "factor", "expected"),
    [
        ({}, 2, (1, 2)),
        ({"gpus_per_node": 2}, 4, (1, 8)),
        ({"gpus_per_node": 8}, 3, (3, 8)),
        ({"gpus_per_node": 4}, 3, None),  # 12 GPUs are no whole machines of 8
        ({"gpu": "4090"}, 8, (2, 4)),
        ({"nodes": 3, "gpus_per_node": 4}, 2, (6, 4)),
    ],
)
def test_a_machine_is_filled_before_another_is_added(
    answers: dict[str, Any], factor: int, expected: tuple[int, int] | None
) -> None:
    assert grown(resolved(**answers).cluster, factor) == expected


def test_a_change_keeps_what_was_asked() -> None:
    request = resolved(tuning="full", zero=2, seq_len=4096)
    asked = asked_for(request)
    assert "epochs" not in asked
    change = next(change for change in changes(request) if "--zero" in change.text)
    assert change.request(asked) == {name: value for name, value in asked.items() if name != "zero"}


def test_a_pair_is_left_out_where_one_of_it_was_enough() -> None:
    two = Change("two", {}, "gpus", 5.0)
    four = Change("four", {}, "gpus", 6.0)
    lora = Change("lora", {}, "tuning", 5.0)
    assert no_nearer(Change("", {}, "tuning + gpus", 11.0, (lora, four)), [two])
    assert not no_nearer(Change("", {}, "tuning + gpus", 10.0, (lora, two)), [four])


CASES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (R1_ON_ONE_NODE, ("GPUs (", "lora instead of full, and ", "the smaller deepseek-ai/")),
    (
        {"model": "Qwen/Qwen3-235B-A22B", "gpu": "4090", "method": "sft", "tuning": "qlora"},
        ("GiB of host memory", "the smaller Qwen/"),
    ),
    (
        {
            "model": "Qwen/Qwen3-32B",
            "gpu": "h100",
            "gpus_per_node": 8,
            "method": "sft",
            "tuning": "full",
            "zero": 0,
        },
        ("without --zero 0",),
    ),
]


@pytest.mark.parametrize(("answers", "texts"), CASES, ids=lambda case: str(case)[:40])
def test_what_people_ask_that_does_not_fit(answers: dict[str, Any], texts: tuple[str, ...]) -> None:
    advice = ask(**answers)
    assert advice.ranking == ()
    found = [row.change for row in advice.alternatives]
    for text in texts:
        assert any(text in change for change in found), found
    for row in advice.alternatives:
        again = ask(**row.request)
        assert again.best is not None
        assert again.best.framework == row.framework
        assert again.best.memory.total == row.memory.total


@pytest.mark.parametrize(
    "answers",
    [
        {**R1_ON_ONE_NODE, "method": "grpo", "nodes": 2},  # no engine of the few GPUs holds the weights
        {**R1_ON_ONE_NODE, "nodes": 2},
        {"model": "Qwen/Qwen3-32B", "gpu": "h100", "method": "sft", "tuning": "full"},
        {"model": "Qwen/Qwen3-32B", "gpu": "h100", "method": "grpo", "tuning": "full"},
    ],
)
def test_the_fewest_gpus_that_do_are_named(answers: dict[str, Any]) -> None:
    request = resolve(parse_request(answers))
    named = {row.change.partition(" instead")[0] for row in ask(**answers).alternatives}
    for factor in MORE_GPUS:
        shape = grown(request.cluster, factor)
        if shape is None:
            continue
        more = {**answers, "nodes": shape[0], "gpus_per_node": shape[1]}
        if ask(**more).best:
            assert gpus_text(*shape) in named
            return
    raise AssertionError("no size does it")


@pytest.mark.parametrize(
    "answers",
    [
        {"gpus_per_node": 8},
        {"method": "grpo"},
        {"method": "grpo", "gpus_per_node": 8, "rollout_gpus": 2},
        {
            "method": "grpo",
            "gpus_per_node": 8,
            "rollout_placement": "auto",
            "launcher": "ray",
            "rollout_gpus": 4,
        },
    ],
)
def test_working_ahead_is_no_lever_where_it_is_settled(answers: dict[str, Any]) -> None:
    assert not [change for change in changes(resolved(**answers)) if change.kind == "placement"]


def test_projected_gradients_keep_full_tuning_where_states_do_not_fit() -> None:
    card = {
        "model": "Qwen/Qwen3-8B",
        "method": "sft",
        "tuning": "full",
        "seq_len": 512,
        "cpu_memory_gib": 32.0,
    }
    one, layers = (ask(**card, gpu=gpu).alternatives[0] for gpu in ("l40s", "a100-sxm-40"))
    assert one.change.startswith("GaLore: moments of projected gradients")
    assert layers.change.startswith("GaLore layer by layer")
    again = ask(**one.request)
    assert again.best is not None
    assert again.best.plan.optimizer == "galore_adamw"


def test_several_gpus_are_not_stepped_layer_by_layer() -> None:
    ladder = changes(resolved(tuning="full", gpus_per_node=2))
    assert not any("layer by layer" in change.text for change in ladder)


def test_auto_is_no_pin() -> None:
    assert not [
        change
        for change in changes(resolved(method="grpo", gpus_per_node=8, rollout_placement="auto"))
        if change.kind == "pins"
    ]


def test_a_placement_that_does_not_fit_is_taken_back() -> None:
    """Seven training GPUs and one that generates hold too little of it; all eight do both."""
    advice = ask(
        model="Qwen/Qwen2.5-72B", gpu="h100", gpus_per_node=8, method="grpo", tuning="lora", rollout_gpus=1
    )
    assert not advice.ranking
    assert advice.alternatives[0].change.startswith("without --rollout-gpus 1: ")
