"""The reverse questions: the answer holds, the next rung does not, and the limits on time and money are kept."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advise import Advice, advise
from advisor.errors import InputError
from advisor.request import parse_request
from advisor.reverse import _steps

BASE = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft"}


def ask(**answers: Any) -> Advice:
    kept = {name: value for name, value in {**BASE, **answers}.items() if value is not None}
    return advise(parse_request(kept))


def test_steps() -> None:
    assert _steps(1) == [1]
    assert _steps(8) == [1, 2, 3, 4, 6, 8]
    assert _steps(40) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40]


def test_fewest_gpus_and_none_smaller_does() -> None:
    advice = ask(model="Qwen/Qwen3-32B", tuning="full", minimize="gpus")
    assert advice.reverse is not None
    assert advice.best is not None
    *smaller, last = advice.reverse.tried
    assert smaller
    assert all(row.best is None for row in smaller)
    assert last.changes == advice.reverse.chosen
    assert advice.best.plan.world_size == last.changes["gpus_per_node"] * last.changes["nodes"]
    again = advise(parse_request(advice.as_dict()["request"]))
    assert again.best is not None
    assert again.best.plan == advice.best.plan


def test_fewest_gpus_keep_the_time_limit() -> None:
    without = ask(minimize="gpus", samples=100_000)
    within = ask(minimize="gpus", samples=100_000, max_hours=1.0)
    assert without.best is not None
    assert within.best is not None
    assert without.best.plan.world_size == 1 < within.best.plan.world_size
    assert within.best.time.hours is not None
    assert within.best.time.hours <= 1.0


@pytest.mark.parametrize("what", ["hours", "cost"])
def test_least_of_what_was_tried(what: str) -> None:
    advice = ask(minimize=what, gpus_per_node=4, samples=50_000)
    assert advice.reverse is not None
    assert advice.best is not None
    spent = [getattr(row.best.time, what) for row in advice.reverse.tried if row.best]
    assert len(spent) >= 3
    assert getattr(advice.best.time, what) == pytest.approx(min(spent), rel=1e-6)


def test_a_card_of_unknown_speed_cannot_be_compared() -> None:
    from advisor.facts.gpus import gpu_summaries

    unknown = [row["id"] for row in gpu_summaries() if not row["tflops_bf16"]]
    assert unknown
    with pytest.raises(InputError, match="cannot be compared"):
        ask(gpu=unknown[0], minimize="hours", gpus_per_node=2)


def test_longest_sequence_and_the_next_does_not_fit() -> None:
    answers = {"model": "Qwen/Qwen3-14B", "gpu": "rtx-4090", "gpu_memory_gib": 14, "tuning": "qlora"}
    advice = ask(**answers, what_fits="seq-len")
    assert advice.reverse is not None
    assert advice.reverse.chosen is not None
    length = advice.reverse.chosen["seq_len"]
    assert advice.best is not None
    assert advice.best.plan.seq_len == length
    longer = next(size for size in _steps(40_960) if size > length)
    assert ask(**answers, seq_len=longer).ranking == ()


def test_a_given_length_is_the_most_tried() -> None:
    advice = ask(what_fits="seq-len", seq_len=3000)
    assert advice.reverse is not None
    assert advice.reverse.chosen == {"seq_len": 3000}


def test_answers_of_rl_are_what_is_made_longer() -> None:
    advice = ask(method="grpo", gpus_per_node=8, prompt_len=512, what_fits="seq-len", response_len=4096)
    assert advice.reverse is not None
    assert advice.reverse.chosen == {"response_len": 4096}
    assert advice.best is not None
    assert advice.best.plan.seq_len == 512 + 4096


def test_largest_model() -> None:
    advice = ask(model=None, what_fits="model", tuning="full", gpu="rtx-4090")
    assert advice.reverse is not None
    assert advice.best is not None
    assert advice.resolved.model.id == advice.reverse.chosen["model"]  # type: ignore[index]
    failed = [row for row in advice.reverse.tried if row.best is None]
    assert failed
    with_limit = ask(what_fits="model", model="Qwen/Qwen3-0.6B", tuning="full", gpu="rtx-4090")
    assert with_limit.resolved.model.total_parameters <= 800_000_000


def test_nothing_fits_leaves_the_largest_cluster_and_says_why() -> None:
    advice = ask(model="deepseek-ai/DeepSeek-V3", tuning="full", nodes=1, gpus_per_node=8, minimize="gpus")
    assert advice.ranking == ()
    assert advice.reverse is not None
    assert advice.reverse.chosen is None
    assert advice.resolved.cluster.world_size == 8
    assert advice.rejected


def test_one_question_at_a_time() -> None:
    with pytest.raises(InputError, match="one reverse question"):
        ask(minimize="gpus", what_fits="seq-len")


def test_a_plan_over_the_limits_is_refused_with_both_numbers() -> None:
    advice = ask(samples=100_000, max_hours=0.5, max_cost=1.0)
    assert advice.ranking == ()
    texts = [reason.because for row in advice.rejected for reason in row.reasons]
    assert any("hours, --max-hours allows 0.5" in text for text in texts)
    assert any("USD, --max-cost allows 1:" in text for text in texts)


def test_an_unknown_time_is_a_warning() -> None:
    advice = ask(max_hours=0.5)
    assert advice.ranking
    (warning,) = [text for text in advice.warnings if "--max-hours" in text]
    assert "was not checked" in warning
    assert "--samples" in warning
