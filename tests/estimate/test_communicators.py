"""NCCL's communicators and direct connections, counted from a plan."""

from __future__ import annotations

import pytest

from advisor.estimate.communicators import NVLINK_CHANNELS, communicator_count, direct_peers
from advisor.plan import Plan
from tests.estimate.samples import full

MEGATRON = {"backend": "megatron", "gpus_per_node": 8}


def plan(**fields: object) -> Plan:
    return full(**{**MEGATRON, **fields})


@pytest.mark.parametrize(
    ("fields", "routed", "expected"),
    [
        ({"gpus_per_node": 1}, False, 0),
        ({"tensor_parallel": 8}, False, 4),  # all ranks twice, tensor, model
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, False, 6),
        ({"tensor_parallel": 2, "pipeline_parallel": 2, "expert_parallel": 2}, True, 9),
        ({"expert_parallel": 8}, True, 5),  # one replica of each expert
    ],
)
def test_communicators_of_megatron(fields: dict[str, int], routed: bool, expected: int) -> None:
    assert communicator_count(plan(**fields), routed) == expected


def test_communicators_elsewhere() -> None:
    assert communicator_count(full(gpus_per_node=1), False) == 0
    assert communicator_count(full(gpus_per_node=8, fsdp=True, zero_stage=3), False) == 1
    assert (
        communicator_count(full(gpus_per_node=8, nodes=2, fsdp=True, zero_stage=3, fsdp_replicas=2), False)
        == 2
    )


def test_an_all_to_all_talks_to_every_expert_rank_of_the_node() -> None:
    assert direct_peers(plan(expert_parallel=8), True, True) == 7
    assert direct_peers(plan(expert_parallel=8), False, True) == 0
    assert direct_peers(plan(expert_parallel=4, expert_tensor_parallel=2), True, True) == 3
    assert direct_peers(full(gpus_per_node=8), True, True) == 0


def test_fewer_channels_where_nvlink_does_not_reach() -> None:
    across = direct_peers(plan(nodes=8, expert_parallel=64), True, True)
    assert across == pytest.approx(7 * 4 / NVLINK_CHANNELS)
    assert direct_peers(plan(expert_parallel=8), True, False) == pytest.approx(7 * 2 / NVLINK_CHANNELS)


def test_a_stage_at_the_end_has_one_neighbour() -> None:
    assert direct_peers(plan(pipeline_parallel=4), False, True) == 1
    assert direct_peers(plan(context_parallel=2), False, True) == 1
    assert direct_peers(plan(nodes=8, pipeline_parallel=8), False, True) == 0
