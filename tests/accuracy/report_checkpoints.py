"""docs/accuracy.md: what saving was measured to take, beside the estimate."""

from __future__ import annotations

from advisor.estimate.saving import checkpoint, host_bytes
from tests.accuracy.checkpoints import Row, measured_host, rows, setting

INTRO = """Tiny random models saved by the real libraries on a CPU, two processes (`tests/accuracy/checkpoints.csv`,
written by `tools/measure_checkpoints.py`): bytes of the files for each trained parameter, and bytes on the
hosts of all processes at once for each parameter of the model. A GPU's part was traced on fake tensors
(`gathered.csv`, `tools/trace_gathered.py`): PyTorch's full state dict gathers one parameter at a time, in
four of four models to the byte. No run measured the host of a GPU machine; the one report of a node's size
while saving (a model of 744 billion parameters, Megatron-LM's distributed checkpoint, 16 nodes: about 650 GB
each) is met within 3 %."""


def _row(row: Row) -> str:
    way, s = setting(row)
    found, trained = checkpoint(s, way), int(row["trained"])
    parts = ("model", "resume", "optimizer")
    files = [int(row[f"{part}_bytes"]) / trained for part in parts]
    ours = [getattr(found, part) / trained for part in parts]
    host = "not measured"
    if measured_host(row):
        plain = way.model_copy(update={"splits_experts": False})
        total = int(row["parameters"])
        host = f"{host_bytes(s, plain) / total:.2f} / {measured_host(row) / total:.2f}"
    sizes = " | ".join(f"{our:.2f} / {file:.2f}" for our, file in zip(ours, files, strict=True))
    what = f"{row['way']}, {row['tuning']}, {row['model']}"
    return f"| {what} | {sizes} | {100 * (sum(ours) / sum(files) - 1):+.1f} % | {host} |"


def lines() -> list[str]:
    return [
        "## Checkpoints",
        "",
        INTRO,
        "",
        "Estimate / measured:",
        "",
        "| saved by | model files | to resume | optimizer | all files | hosts |",
        "|---|---:|---:|---:|---:|---:|",
        *(_row(row) for row in rows("checkpoints.csv")),
    ]
