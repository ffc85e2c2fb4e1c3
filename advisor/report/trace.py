"""A traced training step beside the estimate, term by term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.report.terminal import table

ROWS = {
    "weights": ("weights",),
    "gradients": ("gradients",),
    "optimizer": ("optimizer",),
    "activations, logits, buffers": ("activations", "logits", "buffers"),
    "allocated": ("allocated",),
}
"""What is shown -> the estimate's terms that it sums."""
TRACED = {"activations, logits, buffers": ("working", "logits")}


def show_trace(result: Mapping[str, Any]) -> str:
    """The traced peak beside the estimated one; where their moments differ, each is shown at its own."""
    memory, trace = result["memory"], result["trace"]
    estimated, traced = memory["per_gpu_gib"], trace["per_gpu_gib"]
    rows: list[list[str]] = []
    for name, terms in ROWS.items():
        ours = sum(estimated[term] for term in terms)
        real = sum(traced[term] for term in TRACED.get(name, terms))
        rows.append([name, f"{ours:8.2f}", f"{real:8.2f}", _difference(ours, real)])
    versions = ", ".join(f"{name} {version}" for name, version in trace["versions"].items())
    moments = ", ".join(f"{name} {size:.2f}" for name, size in trace["moments"].items())
    head = ["GiB per GPU", f"estimate, {memory['moment']}", f"traced, {trace['moment']}", "difference"]
    return (
        f"Traced: a real step of the real model on fake tensors ({versions}; {trace['seconds']:.0f} s)\n"
        + table([head, *rows])
        + f"\nPeak of each traced moment: {moments} GiB\n"
    )


def _difference(estimate: float, traced: float) -> str:
    """In percent; nothing below 0.01 GiB, to which the estimate is rounded."""
    if abs(estimate - traced) < 0.01:
        return "0"
    return f"{estimate - traced:+.2f} GiB" if traced < 0.01 else f"{100 * (estimate / traced - 1):+.1f} %"
