"""Stands in for the reward model in the smoke run: longer answers score higher."""

from typing import Any


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> float:
    return float(len(solution_str))
