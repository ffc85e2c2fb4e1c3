"""The whole advice: the seed's policy, the seed's journeys, preferences, refusals and alternatives."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from advisor.advise import Advice, advise
from advisor.errors import InputError
from advisor.frameworks import NAMES
from advisor.request import parse_request


@cache
def _advice(answers: tuple[tuple[str, Any], ...]) -> Advice:
    return advise(parse_request(dict(answers)))


def ask(**answers: Any) -> Advice:
    return _advice(tuple({"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", **answers}.items()))


def order(advice: Advice) -> list[str]:
    return [row.framework for row in advice.ranking]


def test_every_framework_is_ranked_or_rejected_with_a_reason() -> None:
    for answers in ({}, {"method": "grpo", "gpus_per_node": 8}, {"method": "ppo"}, {"tuning": "full"}):
        advice = ask(**answers)
        names = [row.framework for row in (*advice.ranking, *advice.rejected)]
        assert sorted(names) == sorted(NAMES)
        for row in (*advice.ranking, *advice.rejected):
            assert row.reasons, (answers, row.framework)
            assert all(reason.rule and reason.source for reason in row.reasons)


def test_the_seed_starts_with_the_documented_two() -> None:
    assert set(order(ask())[:2]) == {"axolotl", "llamafactory"}


def test_rl_goes_to_verl_and_llamafactory_says_why_not() -> None:
    advice = ask(method="grpo", gpus_per_node=8)
    assert order(advice)[0] == "verl"
    (refused,) = [row for row in advice.rejected if row.framework == "llamafactory"]
    assert refused.reasons[0].rule.startswith("llamafactory.")
    assert "llamafactory==0.9.5" in refused.reasons[0].source


def test_memory_to_squeeze_goes_to_unsloth() -> None:
    assert order(ask(model="Qwen/Qwen3-14B", gpu="rtx-4090", tuning="qlora"))[0] == "unsloth"


def test_journey_qwen_full_sft_is_megatron_with_experts_spread() -> None:
    advice = ask(
        model="Qwen/Qwen3-235B-A22B-Thinking-2507", nodes=8, gpus_per_node=8, tuning="full", seq_len=8192
    )
    best = advice.best
    assert best is not None
    assert (best.framework, best.plan.backend) == ("ms-swift", "megatron")
    assert best.plan.expert_parallel > 1
    assert best.memory.fits in ("fits", "tight")


@pytest.mark.parametrize("tuning", ["auto", "full"])
def test_journey_qwen_grpo_goes_to_verl(tuning: str) -> None:
    advice = ask(model="Qwen/Qwen3-235B-A22B", method="grpo", nodes=16, gpus_per_node=8, tuning=tuning)
    assert order(advice)[0] == "verl"


def test_journey_deepseek_on_one_node_says_what_it_takes() -> None:
    answers = {"model": "deepseek-ai/DeepSeek-R1-0528", "gpu": "h100", "gpus_per_node": 8, "nodes": 1,
               "method": "sft", "tuning": "full"}  # fmt: skip
    advice = advise(parse_request(answers))
    assert advice.ranking == ()
    assert all(any("GiB" in reason.because for reason in row.reasons) for row in advice.rejected)
    assert advice.alternatives
    for alternative in advice.alternatives:
        assert advise(parse_request(alternative.request)).ranking, alternative.change


def test_removing_the_seed_rule_changes_the_winner(tmp_path: Path) -> None:
    house = tmp_path / "house.yaml"
    house.write_text(HOUSE_WITHOUT_SEED, "utf-8")
    assert order(ask())[0] in ("axolotl", "llamafactory")
    assert order(ask(rules=(str(house),)))[0] not in ("axolotl", "llamafactory")


HOUSE_WITHOUT_SEED = """\
title: Our house does not follow the documented-first rule
without: [seed.start-documented]
rules:
  - id: house.trl
    title: TRL for everything
    when: framework.name == "trl"
    effect: prefer
    weight: 8
    because: The team knows it.
    source: team decision of 2026-11
    cases:
      applies: [{framework.name: trl}]
      passes: [{framework.name: verl}]
"""


def test_a_pin_and_an_avoid_list_are_gates() -> None:
    assert order(ask(framework="trl")) == ["trl"]
    assert "axolotl" not in order(ask(avoid=("axolotl",)))


def test_a_pinned_framework_that_cannot_do_it_leaves_nothing_but_alternatives() -> None:
    advice = ask(framework="llamafactory", method="grpo")
    assert advice.ranking == ()
    assert any(
        row.framework == "llamafactory" and "gate" not in row.reasons[0].rule for row in advice.rejected
    )
    assert advice.alternatives


def test_the_same_request_gives_the_same_advice() -> None:
    answers = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", "gpus_per_node": 8}
    assert advise(parse_request(answers)).as_dict() == advise(parse_request(answers)).as_dict()


@pytest.mark.parametrize(
    ("answers", "field", "text"),
    [
        ({"gpu": "a100"}, "gpu", "a100"),
        ({"gpu": "gpu9000"}, "gpu", "gpu9000"),
        ({"model": "nobody/nothing"}, "model", "nobody/nothing"),
        ({"framework": "megatron"}, "framework", "there are axolotl"),
        ({"framework": "trl", "framework_version": "0.1.0"}, "framework_version", "1.16.0"),
        ({"seq_len": 10_000_000}, "seq_len", "positions"),
        ({"method": "gkd"}, "teacher", "--teacher"),
        ({"data": ("no/such/file.jsonl",)}, "data", "no/such/file.jsonl"),
    ],
)
def test_bad_input_names_the_field(answers: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(**answers)
    assert caught.value.field == field
    assert text in str(caught.value)
