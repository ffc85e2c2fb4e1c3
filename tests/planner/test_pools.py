"""GPUs that only generate: who can, how the cluster is divided, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.errors import InputError
from advisor.plan import changed
from advisor.planner.order import Candidate, describe
from advisor.planner.pools import MARGIN, counts
from advisor.planner.search import Found, Searcher
from advisor.planner.space import Skeleton, skeletons
from advisor.planner.start import divided
from advisor.request import parse_request
from advisor.resolve import resolve
from advisor.rules import load_framework


def searcher(**answers: Any) -> Searcher:
    asked = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "grpo", "tuning": "full", **answers}
    return Searcher(resolve(parse_request(asked)))


def search(name: str, **answers: Any) -> Found:
    return searcher(**answers).search(load_framework(name))


@pytest.mark.parametrize(
    ("name", "placement"),
    [
        ("trl", "separate"),
        ("axolotl", "separate"),
        ("ms-swift", "separate"),
        ("verl", "separate-async"),
    ],
)
@pytest.mark.parametrize(
    ("nodes", "wanted", "trains", "generates"), [(1, 2, (1, 6), (0, 2)), (4, 8, (3, 8), (1, 8))]
)
def test_the_cluster_is_divided(
    name: str, placement: str, nodes: int, wanted: int, trains: tuple[int, int], generates: tuple[int, int]
) -> None:
    found = search(name, gpus_per_node=8, nodes=nodes, rollout_gpus=wanted)
    assert found.best is not None
    plan = found.best.plan
    assert (plan.rollout_placement, plan.rollout_sleep, plan.rollout_offload) == (placement, False, False)
    assert (plan.nodes, plan.gpus_per_node) == trains
    assert (plan.rollout_nodes, plan.rollout_gpus) == generates
    assert plan.all_gpus == 8 * nodes
    assert plan.generating_gpus == wanted
    assert found.best.memory.terms["rollout"] == 0


@pytest.mark.parametrize("name", ["llamafactory", "unsloth"])
def test_who_has_no_such_server_says_so(name: str) -> None:
    found = search(name, gpus_per_node=8, rollout_gpus=2)
    assert found.best is None
    assert found.refusals


@pytest.mark.parametrize("name", ["trl", "axolotl"])
def test_one_server_takes_all_its_gpus(name: str) -> None:
    found = search(name, gpus_per_node=8, rollout_gpus=4)
    assert found.best is not None
    assert found.best.plan.rollout_tensor_parallel == 4


def test_a_pool_too_small_for_the_model_is_named() -> None:
    found = search("ms-swift", model="Qwen/Qwen3-235B-A22B", gpus_per_node=8, nodes=16, rollout_gpus=8)
    assert found.best is not None  # 8 x 80 GB hold 438 GiB of weights
    found = search("ms-swift", model="deepseek-ai/DeepSeek-V3", gpus_per_node=8, nodes=64, rollout_gpus=8)
    assert found.best is None
    assert any("on each GPU that generates" in reason.because for reason in found.refusals)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"gpus_per_node": 8, "rollout_gpus": 8}, "8 of 8 GPUs leave none to train"),
        ({"gpus_per_node": 8, "nodes": 2, "rollout_gpus": 4}, "4 is not whole machines of 8 GPUs"),
        ({"gpus_per_node": 8, "method": "sft", "rollout_gpus": 4}, "sft generates nothing"),
    ],
)
def test_what_cannot_be_divided_is_refused(answers: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search("trl", **answers)


def test_generation_beside_training_shortens_the_step() -> None:
    waits = search("ms-swift", gpus_per_node=8, rollout_gpus=4)
    beside = search("verl", gpus_per_node=8, rollout_gpus=4)
    assert waits.best is not None
    assert beside.best is not None
    assert beside.best.seconds < waits.best.seconds


CRAMPED = {"model": "Qwen/Qwen3-30B-A3B", "gpu": "l40s", "gpus_per_node": 8}
"""An engine beside the trainer leaves so little of these cards that training has to recompute and offload."""
SMALL: list[tuple[str, dict[str, Any], str]] = [
    # framework, request, where it generates
    ("trl", {"gpus_per_node": 8}, "colocated"),
    ("trl", CRAMPED, "separate"),
    ("trl", {"model": "Qwen/Qwen3-14B", "gpu": "l40s", "gpus_per_node": 4, "tuning": "lora"}, "separate"),
    ("trl", {"model": "Qwen/Qwen3-32B", "gpus_per_node": 2, "nodes": 2, "tuning": "lora"}, "separate"),
    ("ms-swift", {"gpus_per_node": 4, "response_len": 8192}, "colocated"),
    ("ms-swift", {"gpu": "rtx-4090", "gpus_per_node": 2, "tuning": "lora"}, "separate"),
    ("ms-swift", {"model": "Qwen/Qwen3-32B", "gpu": "rtx-4090", "gpus_per_node": 8}, "separate"),
    ("ms-swift", {"gpus_per_node": 8, "nodes": 2}, "colocated"),
]


def _apart(one: Searcher, name: str) -> list[Candidate]:
    """The best plan on every split, whatever it promises, without a plan that it would have to come before."""
    rules, found = load_framework(name), list[Candidate]()
    for skeleton in skeletons(one.resolved):
        for generating in counts(one.resolved.cluster):
            fields = divided(one.resolved.cluster, generating, "separate")
            pool = Skeleton(changed(skeleton.plan, fields).normalised(), skeleton.pins)
            best = one.planned(rules, pool, None).best
            if best is not None:
                found.append(best)
    return found


def _shorter(one: Candidate, other: Candidate, by: float = 1.0) -> bool:
    """For a sequence, and for a step."""
    step, others = (c.seconds * c.plan.global_batch_size for c in (one, other))
    return one.seconds * by < other.seconds and step * by < others


@pytest.mark.parametrize(("name", "answers", "placement"), SMALL)
def test_no_placement_left_out_is_better(name: str, answers: dict[str, Any], placement: str) -> None:
    found = search(name, **answers).best
    beside = search(name, **answers, rollout_placement="colocated").best
    assert found is not None
    assert found.plan.rollout_placement == placement, describe(found.plan)
    apart = _apart(searcher(**answers), name)
    if placement == "colocated":
        assert found == beside
        assert not any(
            _shorter(other, found, MARGIN * 1.02) for other in apart if other.memory.fits == "fits"
        )
    else:
        assert beside is None or _shorter(found, beside, MARGIN)
        assert not any(_shorter(other, found, 1.02) for other in apart if other.memory.fits == "fits")


def test_nothing_trains_faster_than_the_bound() -> None:
    """What splits are left out by, against every plan that a few searches estimated."""
    for name, answers in (
        ("ms-swift", {"gpus_per_node": 8, "model": "Qwen/Qwen3-30B-A3B"}),
        ("ms-swift", {"gpus_per_node": 8, "nodes": 2, "tuning": "lora", "response_len": 16384}),
        ("verl", {"gpus_per_node": 8, "nodes": 2, "rollout_placement": "separate-async"}),
        ("trl", {"gpus_per_node": 4, "rollout_placement": "separate", "gpu": "rtx-4090", "tuning": "qlora"}),
    ):
        one = searcher(**answers)
        one.search(load_framework(name))
        plans = [plan for known in one._stores.values() for plan in known]
        assert plans
        for plan in plans:
            assert one.training_seconds(plan) / plan.global_batch_size >= one.least_training(plan)


def test_the_reason_says_what_is_gained_and_what_was_left() -> None:
    apart, beside = search("trl", **CRAMPED), search("trl", gpus_per_node=8)
    assert apart.placement is not None
    assert "4 of 8 GPUs only generate: " in apart.placement.because
    assert "s a step instead of" in apart.placement.because
    assert beside.placement is not None
    assert "with 1, 2, 4 of 8 only generating" in beside.placement.because


def test_a_step_behind_is_only_chosen_when_asked() -> None:
    """One step ahead, generation hides behind training: the shorter step is another algorithm."""
    here, asked = (
        search("verl", gpus_per_node=8),
        search("verl", gpus_per_node=8, rollout_placement="separate-async"),
    )
    assert here.best is not None
    assert asked.best is not None
    assert asked.best.seconds < here.best.seconds
    assert here.best.plan.rollout_placement == "colocated"
    assert here.placement is not None
    assert "only when asked" in here.placement.because


@pytest.mark.parametrize("wanted", [None, 4])
def test_a_placement_that_a_framework_lacks_is_refused(wanted: int | None) -> None:
    found = search("verl", gpus_per_node=8, rollout_placement="separate", rollout_gpus=wanted)
    assert found.best is None
    assert "verl.rollout-placement" in {reason.rule for reason in found.refusals}


@pytest.mark.parametrize("answers", [{"rollout_placement": "colocated"}, {"launcher": "kubeflow"}])
def test_what_rules_out_machines_that_only_generate(answers: dict[str, Any]) -> None:
    found = search("trl", **CRAMPED, **answers)
    assert found.best is not None
    assert found.best.plan.rollout_placement == "colocated"


def test_a_batch_that_was_asked_for_stays() -> None:
    """Six GPUs that train would make it 112 or 144."""
    request: dict[str, Any] = {"gpu": "rtx-4090", "gpus_per_node": 8, "tuning": "lora"}
    free, kept = search("trl", **request), search("trl", **request, global_batch_size=128)
    assert free.best is not None
    assert free.best.plan.rollout_gpus
    assert kept.best is not None
    assert kept.best.plan.global_batch_size == 128


def test_a_quantized_base_gets_no_server() -> None:
    request: dict[str, Any] = {"gpu": "l40s", "gpus_per_node": 8, "tuning": "qlora"}
    for name in ("trl", "ms-swift"):
        found = search(name, **request)
        assert found.best is not None
        assert not found.best.plan.rollout_gpus
        assert search(name, **request, rollout_gpus=2).best is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"gpus_per_node": 8, "rollout_placement": "colocated", "rollout_gpus": 2},
            "drop it or rollout_gpus 2",
        ),
        (
            {"gpus_per_node": 1, "rollout_placement": "separate"},
            "needs a GPU that generates and one that trains",
        ),
        ({"gpus_per_node": 8, "method": "sft", "rollout_placement": "separate"}, "sft generates nothing"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(answers: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search("trl", **answers)
