"""Search time against plans examined: python benchmarks/bench_advice.py [--runs N]

In this process, after the rules are loaded: CPU seconds of planning and judging all six frameworks (the best of
N runs), the same with what a text or JSON answer adds (`flips`, `unseated_by`), and the plans estimated.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    for name in framework_names():
        load_framework(name)
    print(f"{'request':<36}{'search s':>10}{'advice s':>10}{'examined':>10}{'estimated':>11}")
    for title, answers in REQUESTS.items():
        request = parse_request({"gpu": "h100", **answers})
        resolved = resolve(request)
        searcher = _search(resolved)
        search = _best(runs, lambda resolved=resolved: _search(resolved))
        advice = _best(runs, lambda request=request: explain(advise(request)))
        print(f"{title:<36}{search:>10.3f}{advice:>10.3f}{searcher.examined:>10}{searcher.estimated:>11}")


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
    main()
