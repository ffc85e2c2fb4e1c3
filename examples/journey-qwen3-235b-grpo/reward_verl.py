"""verl's reward function: hands each answer to your function in rewards.py."""

import json
import sys
from pathlib import Path
from typing import Any

# Ray workers start in folders of their own.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from rewards import score as reward  # noqa: E402


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> float:
    columns = json.loads((extra_info or {}).get("columns") or "{}")
    return float(reward(solution_str, ground_truth, **columns))
