"""GPUs that only generate: who can, how the cluster is divided, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.errors import InputError
from advisor.planner.search import Found, Searcher
from advisor.request import parse_request
from advisor.resolve import resolve
from advisor.rules import load_framework


def search(name: str, **answers: Any) -> Found:
    asked = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "grpo", "tuning": "full", **answers}
    return Searcher(resolve(parse_request(asked))).search(load_framework(name))


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
