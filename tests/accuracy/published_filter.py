"""Which published rows the estimates are held to. Written and committed before any of these rows was compared.

A row of `published.csv` is *strict* when all of this holds; `why_loose` names the first that does not.

1. **A training step of a whole model**, measured (not a bench of one operation, not inference, not a forecast).
2. **The figure is an allocator's or a log's**: PyTorch's `max_memory_allocated` or `max_memory_reserved`, or the
   trainer's own log of either (torchtune, torchtitan, Axolotl's `device_mem_reserved`). Headers of example scripts
   ("8 * 60GiB") and numbers in running text are left out: they are rounded to 1 to 10 GiB, read off nvidia-smi
   at an unknown moment or quoted as a requirement, and several equal the size of a card.
3. **Its unit is stated**: GiB, or GB meaning 1e9 bytes.
4. **Its length is exact**: every sample packed to the length, or cut to exactly it, or the longest sample's length
   is stated and the run trains on that sample. A cap on samples of unknown length is not a length.
5. **Its settings are complete**: method, micro batch, length, precision, optimizer, checkpointing, attention,
   cross-entropy, number of GPUs, sharding; for adapters rank and targets.
6. **Nobody doubts it**: the collection does not mark it as a likely duplicate, as an assumption, or as weak.
7. **A plan can say it**: every setting is one that `advisor estimate` has a flag for, and the model's dimensions
   are public (`published_request.py` does the translation, by rule and never row by row).

The looser rows that a plan can still say (7) are compared too and reported per source; nothing is tuned to them.
"""

from __future__ import annotations

from collections.abc import Mapping

ALLOCATOR = (
    "torch max_memory_allocated",
    "max reserved (log)",
    "max allocated",
    "peak memory active",
    "peak memory (README table)",  # torchtune's README prints its own peak-memory log
    "README statement (device_mem_reserved)",
    "max memory reserved over the run",
    "peak max allocated",
)
UNITS = ("GiB", "GB", "GB (1e9)")
EXACT = ("packed", "sample packing", "exact", "inputs of exactly this length", "longest")
NEEDED = (
    "method", "micro_batch", "seq_len", "precision", "optimizer", "grad_ckpt", "attn", "fused_ce", "n_gpus",
    "sharding",
)  # fmt: skip
DOUBTS = (
    "same figure as", "assum", "weak", "unclear", "may be a requirement", "not stated", "multimodal", "check)",
)  # fmt: skip

Row = Mapping[str, str]


def why_loose(row: Row) -> str:
    """Why a row is not strict; empty when it is. Point 7 is `published_request.request_of`'s to judge."""
    if not row["what_measured"].startswith(ALLOCATOR):
        return "not from an allocator's counter or a log"
    if row["unit"] not in UNITS:
        return "no unit"
    if not row["seq_note"].startswith(EXACT) or not row["seq_len"].isdigit():
        return "the length is a cap, or not stated"
    missing = [name for name in NEEDED if not row[name]]
    if row["method"] in ("lora", "qlora") and not (row["lora_rank"] and row["lora_targets"]):
        missing.append("lora_rank or lora_targets")
    if missing:
        return f"not stated: {', '.join(missing)}"
    if not row["micro_batch"].isdigit():
        return "the micro batch is not a number"
    doubted = [word for word in DOUBTS if word in row["notes"]]
    return f"doubted in the collection: {doubted[0]}" if doubted else ""


def published_gib(row: Row) -> float:
    """GB is 1e9 bytes wherever a source says GB."""
    return float(row["peak_per_gpu"]) * (1.0 if row["unit"] == "GiB" else 1e9 / 2**30)


def shows(row: Row) -> str:
    """What a figure includes: `allocated` (PyTorch's counter, "active" being the same at a peak), `reserved`
    (blocks it keeps, still without the CUDA context), or the whole `device`."""
    text = row["what_measured"]
    if any(word in text for word in ("allocated", "active", "peak memory")):
        return "allocated"
    return "reserved" if "reserved" in text else "device"
