"""Search time against plans examined: python benchmarks/bench_advice.py [--runs N] [--check]

In this process, after the rules are loaded: CPU seconds of planning and judging all six frameworks (the best of
N runs), the same with what a text or JSON answer adds (`flips`, `unseated_by`), the plans examined and estimated,
and the microseconds a plan examined costs. Then CPU seconds of the whole command in a process of its own for the
smallest and the largest request. `--check`: exit code 1 when a limit is passed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from advisor.advise import advise, explain
from advisor.judging import search_all
from advisor.planner.search import Searcher
from advisor.request import parse_request
from advisor.resolve import Resolved, resolve
from advisor.rules import framework_names, load_framework, load_policy

ROOT = Path(__file__).resolve().parent.parent

REQUESTS: dict[str, dict[str, Any]] = {
    "Qwen3-8B, sft, 8 GPUs": {"model": "Qwen/Qwen3-8B", "method": "sft", "gpus_per_node": 8},
    "Qwen3-235B, full sft, 128 GPUs": {
        "model": "Qwen/Qwen3-235B-A22B", "method": "sft", "tuning": "full", "gpus_per_node": 8, "nodes": 16,
    },
    "Qwen3-235B, full grpo, 128 GPUs": {
        "model": "Qwen/Qwen3-235B-A22B", "method": "grpo", "tuning": "full", "gpus_per_node": 8, "nodes": 16,
    },
    "DeepSeek-V3, full sft, 16384 GPUs": {
        "model": "deepseek-ai/DeepSeek-V3", "method": "sft", "tuning": "full", "gpus_per_node": 8, "nodes": 2048,
    },
}  # fmt: skip

LIMITS = {"Qwen3-235B, full sft, 128 GPUs": 0.25,
          "Qwen3-235B, full grpo, 128 GPUs": 0.25,
          "DeepSeek-V3, full sft, 16384 GPUs": 0.50}  # fmt: skip
"""CPU seconds of the search."""
SMALLEST, LARGEST = "Qwen3-8B, sft, 8 GPUs", "DeepSeek-V3, full sft, 16384 GPUs"
MOST_TIMES = 3.0
"""The whole command for the largest over the one for the smallest."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    runs, passed = given.runs, True
    for name in framework_names():
        load_framework(name)
    head = ("search s", "limit s", "advice s", "examined", "estimated", "us a plan")
    print(f"{'request':<36}" + "".join(f"{name:>11}" for name in head))
    for title, answers in REQUESTS.items():
        request = parse_request({"gpu": "h100", **answers})
        resolved = resolve(request)
        searcher = _search(resolved)
        search = _best(runs, lambda resolved=resolved: _search(resolved))
        advice = _best(runs, lambda request=request: explain(advise(request)))
        limit = LIMITS.get(title)
        passed &= limit is None or search <= limit
        cells = (f"{search:.3f}", f"{limit:.2f}" if limit else "-", f"{advice:.3f}", str(searcher.examined),
                 str(searcher.estimated), f"{1e6 * search / searcher.examined:.0f}")  # fmt: skip
        print(f"{title:<36}" + "".join(f"{cell:>11}" for cell in cells))
    small, large = (min(_command(REQUESTS[title]) for _ in range(runs)) for title in (SMALLEST, LARGEST))
    print(f"whole command: {small:.2f} s for {SMALLEST}; {large:.2f} s for {LARGEST}: "
          f"{large / small:.2f} times (limit {MOST_TIMES:g})")  # fmt: skip
    passed &= large <= MOST_TIMES * small
    return 0 if passed or not given.check else 1


def _command(answers: dict[str, Any]) -> float:
    """CPU seconds of `advisor recommend` in a process of its own."""
    flags = [part for name, value in answers.items() for part in ("--" + name.replace("_", "-"), str(value))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "advisor", "recommend", "--gpu", "h100", *flags],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _search(resolved: Resolved) -> Searcher:
    searcher = Searcher(resolved)
    search_all(resolved, load_policy(), searcher)
    return searcher


def _best(runs: int, work: Callable[[], object]) -> float:
    seconds: list[float] = []
    for _ in range(runs):
        before = time.process_time()
        work()
        seconds.append(time.process_time() - before)
    return min(seconds)


if __name__ == "__main__":
    raise SystemExit(main())
