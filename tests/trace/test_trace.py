"""What a trace needs, covers and returns; no PyTorch here (tests/conformance/trace runs it)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import advisor.trace
from advisor.errors import InputError
from advisor.facts.models import load_model
from advisor.plan import Plan
from advisor.trace import Snapshot, Trace, not_traced, trace_step

ROOT = Path(__file__).resolve().parents[2]
GIB = 2.0**30
PLAN = Plan(tuning="full")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "dpo"}, "method dpo"),
        ({"backend": "megatron"}, "backend megatron"),
        ({"tensor_parallel": 2, "gpus_per_node": 2}, "tensor, pipeline, expert or context parallelism"),
        ({"zero_stage": 3, "gpus_per_node": 8}, "ZeRO-3"),
        ({"gpus_per_node": 8}, "several ranks without --fsdp"),
        ({"offload": "optimizer"}, "offload optimizer"),
        ({"optimizer": "muon"}, "optimizer muon"),
        ({"precision": "fp8"}, "precision fp8"),
        ({"quantization": "8bit", "tuning": "qlora"}, "8-bit quantization"),
        ({"liger": True}, "Liger kernels"),
        ({"compile": True, "lora_dropout": 0.05}, "dropout on adapters of compiled layers"),
    ],
)
def test_what_no_trace_shows_is_named(change: dict[str, object], said: str) -> None:
    model = load_model("Qwen/Qwen3-0.6B")
    assert any(said in text for text in not_traced(model, replace(PLAN, **change)))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tuning": "lora", "param_dtype": "fp32"},
        {"tuning": "qlora", "quantization": "4bit"},
        {"fsdp": True, "zero_stage": 3, "gpus_per_node": 8},
        {"loss": "fused", "attention": "eager", "optimizer": "adamw_foreach"},
    ],
)
def test_what_a_trace_covers(change: dict[str, object]) -> None:
    assert not_traced(load_model("Qwen/Qwen3-0.6B"), replace(PLAN, **change)) == []


def test_a_fused_loss_on_capped_logits_is_not_traced() -> None:
    assert not_traced(load_model("google/gemma-2-9b"), replace(PLAN, loss="fused"))


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisor.trace, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(InputError, match=r"needs torch: pip install 'posttrain-advisor\[trace\]'"):
        trace_step(load_model("Qwen/Qwen3-0.6B"), PLAN)


def test_the_peak_is_the_worst_moment() -> None:
    moments = {
        "loss": Snapshot(GIB, 0.0, 2 * GIB, GIB / 2, 3 * GIB),
        "backward": Snapshot(GIB, GIB, 2 * GIB, GIB, 0.0),
    }
    shown = Trace(moments, {"torch": "2.13.0"}, 3.21).as_dict()
    assert shown["moment"] == "loss"
    assert shown["per_gpu_gib"] == {
        "weights": 1.0, "gradients": 0.0, "optimizer": 2.0, "working": 0.5, "logits": 3.0, "allocated": 6.5,
    }  # fmt: skip
    assert shown["moments"] == {"loss": 6.5, "backward": 5.0}


def test_an_estimate_imports_no_torch() -> None:
    code = (
        "import sys; from advisor.cli.main import main;"
        "main(['estimate', '--model', 'Qwen/Qwen3-0.6B', '--gpu', 'h100', '--quiet']);"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "'advisor.estimate.memory'" in ran.stderr
    for module in ("torch", "transformers", "advisor.trace.fake"):
        assert f"'{module}'" not in ran.stderr
