"""The traced step beside the estimate, as text."""

from __future__ import annotations

from advisor.report.trace import show_trace

RESULT = {
    "memory": {
        "moment": "loss",
        "per_gpu_gib": {
            "weights": 1.0, "gradients": 0.0, "optimizer": 2.0, "activations": 0.5, "logits": 3.0,
            "buffers": 0.25, "allocated": 6.75,
        },
    },
    "trace": {
        "moment": "backward",
        "per_gpu_gib": {
            "weights": 1.0, "gradients": 1.0, "optimizer": 2.0, "working": 2.5, "logits": 0.0, "allocated": 6.5,
        },
        "moments": {"loss": 6.4, "backward": 6.5},
        "versions": {"torch": "2.13.0"},
        "seconds": 4.2,
    },
}  # fmt: skip


def test_terms_stand_side_by_side() -> None:
    lines = [line.split() for line in show_trace(RESULT).splitlines()]
    assert ["weights", "1.00", "1.00", "0"] in lines
    assert ["gradients", "0.00", "1.00", "-100.0", "%"] in lines
    assert ["activations,", "logits,", "buffers", "3.75", "2.50", "+50.0", "%"] in lines
    assert ["allocated", "6.75", "6.50", "+3.8", "%"] in lines


def test_moments_are_named() -> None:
    shown = show_trace(RESULT)
    assert "estimate, loss" in shown
    assert "traced, backward" in shown
    assert "loss 6.40, backward 6.50 GiB" in shown
