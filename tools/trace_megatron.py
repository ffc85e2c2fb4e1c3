"""Trace the cases of tests/accuracy/traced_megatron.csv: Megatron-Core's own GPTModel on fake tensors.

    PY=$(python tools/framework_env.py ms-swift | cut -f2)   # an environment with torch and megatron-core 0.16.1
    $PY tools/trace_megatron.py                      # all cases that the file lacks
    $PY tools/trace_megatron.py --case ID ...        # these, printed as CSV, nothing written
    $PY tools/trace_megatron.py --again              # all of them anew

One pipeline stage with the embedding and the head, rank 0 of a fake process group; balanced routing. Transformer
Engine's layers are stood in for by what its sources say (tools/megatron_trace/kernels.py), everything else is
Megatron-Core's. The formulas were worked on with the models of FIT in sight; nothing of the others had been traced
when they stood, so those are held out.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.trace_cases import GIB, cut_model, kind_of, plan_of, write_rows  # noqa: E402

ROWS = ROOT / "tests" / "accuracy" / "traced_megatron.csv"
FIT = ("qwen3-8b-4l", "llama-3.1-8b-4l", "qwen3-30b-a3b-4l", "deepseek-v3-4l")
MODELS: dict[str, tuple[str, int]] = {
    "qwen3-8b-4l": ("Qwen/Qwen3-8B", 4),
    "llama-3.1-8b-4l": ("meta-llama/Llama-3.1-8B", 4),
    "qwen3-30b-a3b-4l": ("Qwen/Qwen3-30B-A3B", 4),
    "deepseek-v3-4l": ("deepseek-ai/DeepSeek-V3", 4),
    "qwen2.5-0.5b-12l": ("Qwen/Qwen2.5-0.5B", 12),
    "qwen3-32b-3l": ("Qwen/Qwen3-32B", 3),
    "mistral-7b-5l": ("mistralai/Mistral-7B-v0.3", 5),
    "mixtral-8x7b-3l": ("mistralai/Mixtral-8x7B-v0.1", 3),
    "glm-4.5-air-3l": ("zai-org/GLM-4.5-Air", 3),
    "qwen3-235b-a22b-3l": ("Qwen/Qwen3-235B-A22B", 3),
    "deepseek-v2-lite-4l": ("deepseek-ai/DeepSeek-V2-Lite", 4),
}
"""Name in a case id -> catalog id, layers."""

BASE = {
    "tuning": "full", "backend": "megatron", "precision": "bf16", "master_weights": True, "attention": "flash",
    "loss": "fused", "packing": True, "zero_stage": 1,
}  # fmt: skip


def _spread(
    nodes: int = 1, tensor: int = 1, expert: int = 1, context: int = 1, sliced: int = 1
) -> dict[str, Any]:
    return {
        "gpus_per_node": 8,
        "nodes": nodes,
        "tensor_parallel": tensor,
        "sequence_parallel": tensor > 1,
        "expert_parallel": expert,
        "expert_tensor_parallel": sliced,
        "context_parallel": context,
    }


ONE: dict[str, Any] = {"gpus_per_node": 1}
SPREAD: dict[str, dict[str, Any]] = {
    "one": ONE,
    "dp8": _spread(),
    "tp2": _spread(tensor=2),
    "tp4": _spread(tensor=4),
    "tp8": _spread(tensor=8),
    "cp2": _spread(context=2),
    "ep8": _spread(expert=8),
    "ep4-tp2": _spread(tensor=2, expert=4),
    "ep8-tp4": _spread(tensor=4, expert=8),
    "ep8-tp2": _spread(tensor=2, expert=8),
    "ep4-etp2": _spread(tensor=2, expert=4, sliced=2),
    "ep64": _spread(nodes=8, expert=64),
}
DENSE = (
    "one keep 1x8192",
    "one full 1x8192",
    "tp4 keep 1x8192",
    "tp4 full 2x4096",
    "dp8 full 1x32768",
    "cp2 keep 1x8192",
)
ROUTED = (
    "one full 1x4096", "ep8 keep 1x8192", "ep8 full 1x8192", "ep8-tp4 keep 1x8192", "ep8-tp4 full 1x32768",
    "ep4-tp2 full 2x2048", "ep8-tp2 full 1x4096",
)  # fmt: skip
PLANS: dict[str, tuple[str, ...]] = {
    "qwen3-8b-4l": DENSE,
    "llama-3.1-8b-4l": DENSE,
    "qwen3-30b-a3b-4l": ROUTED,
    "deepseek-v3-4l": ("ep64 keep 1x4096", "ep64 full 1x4096", "ep8-tp2 keep 1x4096", "ep8-tp2 full 1x4096"),
    "qwen2.5-0.5b-12l": (
        "one keep 1x8192",
        "one full 1x8192",
        "tp2 keep 1x8192",
        "dp8 full 1x32768",
        "one keep-stock 4x1024",
    ),
    "qwen3-32b-3l": (*DENSE, "tp8 full 1x8192", "one full-stock 1x1024"),
    "mistral-7b-5l": DENSE,
    "mixtral-8x7b-3l": (*ROUTED, "ep4-etp2 full 1x8192"),
    "glm-4.5-air-3l": (*ROUTED[1:], "ep4-etp2 keep 1x8192"),
    "qwen3-235b-a22b-3l": (*ROUTED[1:], "tp8 full 1x8192", "ep64 full 1x4096"),
    "deepseek-v2-lite-4l": (*ROUTED, "ep64 keep 2x2048"),
}
"""Model -> its cases: how it is spread, whether layers are recomputed (and the loss, if not fused), tokens."""


def fields_of(name: str) -> dict[str, Any]:
    """What a case's plan says beside Plan's defaults."""
    spread, memory, size = name.split()
    recompute, _, loss = memory.partition("-")
    batch, length = size.split("x")
    return {
        **BASE,
        **SPREAD[spread],
        "recompute": "full" if recompute == "full" else "none",
        "loss": loss or BASE["loss"],
        "micro_batch_size": int(batch),
        "seq_len": int(length),
    }


def cases() -> list[tuple[str, str]]:
    return [(model, plan) for model in MODELS for plan in PLANS[model]]


def row_of(model_name: str, plan_name: str) -> dict[str, Any]:
    from tools.megatron_trace.step import trace

    reference, layers = MODELS[model_name]
    model = cut_model(reference, layers)
    fields = fields_of(plan_name)
    traced = trace(model, plan_of(fields))
    moment = max(traced.peaks, key=lambda name: traced.peaks[name])
    peak, known = traced.peaks[moment], traced.weights + traced.gradients + traced.optimizer
    logits = max(peak - known - traced.kept, 0.0) if moment == "loss" else 0.0
    sizes = {
        "peak": peak, "weights": traced.weights, "gradients": traced.gradients, "optimizer": traced.optimizer,
        "working": peak - known - logits, "logits": logits,
    }  # fmt: skip
    name = f"{model_name} {plan_name}"
    print(f"{name}: {peak / GIB:.3f} GiB at the {moment}", file=sys.stderr)
    versions = " ".join(f"{package}=={metadata.version(package)}" for package in ("torch", "megatron-core"))
    return {
        "id": name,
        "split": "fit" if model_name in FIT else "held-out",
        "kind": kind_of(model),
        "model": reference,
        "layers": layers,
        "plan": json.dumps(fields, sort_keys=True),
        "moment": moment,
        **{f"{key}_gib": f"{size / GIB:.4f}" for key, size in sizes.items()},
        "versions": versions,
        "command": f"python tools/trace_megatron.py --case '{name}'",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--case", nargs="+", metavar="ID")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    known: dict[str, Any] = {}
    if ROWS.exists() and not given.again and not given.case:
        with ROWS.open(newline="", encoding="utf-8") as lines:
            known = {row["id"]: row for row in csv.DictReader(lines)}
    chosen = [pair for pair in cases() if not given.case or " ".join(pair) in given.case]
    rows: list[dict[str, Any]] = []
    for pair in chosen:
        rows.append(known.get(" ".join(pair)) or row_of(*pair))
        if not given.case:
            with ROWS.open("w", newline="", encoding="utf-8") as target:
                write_rows(rows, target)
    if given.case:
        write_rows(rows, sys.stdout)
    return 0 if not given.case or len(rows) == len(given.case) else 2


if __name__ == "__main__":
    raise SystemExit(main())
