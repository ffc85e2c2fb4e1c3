"""A second reward for the smoke run: a little more for a longer answer.

Answers of a random model all earn the same from your function; then none is better than the others of its
group, every gradient is 0, and it would not be seen whether anything trains.
"""

import sys
from pathlib import Path


def reward(completions, **columns):
    """As TRL asks: one score per completion."""
    texts = [c if isinstance(c, str) else "".join(m["content"] or "" for m in c) for c in completions]
    return [len(text) / 1000 for text in texts]


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **more):
    """As verl asks, which takes one function alone: yours and a little more."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from reward_verl import compute_score as yours

    return yours(data_source, solution_str, ground_truth, extra_info, **more) + len(solution_str) / 1000
