"""docs/accuracy.md: estimates beside published measurements."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean, median

from advisor.facts.software import TODAY
from tests.accuracy.published import (
    Compared,
    compared,
    known_length,
    mean_error,
    share_inside,
    strict,
)
from tests.accuracy.published_request import software_beneath

WORST = 8


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %"


def _about(rows: list[Compared]) -> str:
    return (
        f"{len(rows)} rows: mean absolute error {100 * mean_error(rows):.1f} %, {100 * share_inside(rows):.0f} % inside "
        f"low..high, half-width of the range {100 * mean(r.half_width for r in rows):.0f} % of the figure on average "
        f"and {100 * max(r.half_width for r in rows):.0f} % at most"
    )


def _name(row: Compared) -> str:
    r = row.row
    spread = r["sharding"] if r["sharding"] != "none" else "1 GPU"
    return f"{r['model']} {r['method']} {r['micro_batch']} x {r['seq_len']}, {spread}"


def _place(row: Compared) -> str:
    return f"{row.row['source_repo']}@{row.row['commit'][:10]}:{row.row['source_path']}"


def _strict_table(rows: list[Compared]) -> list[str]:
    out = [
        "| run | ours | low..high | published | error | where |",
        "|---|---:|---|---:|---:|---|",
    ]
    for row in rows:
        mark = "" if row.inside else " outside"
        star = "*" if software_beneath(row.row) != TODAY else ""
        out.append(
            f"| {_name(row)}{star} | {row.estimate:.1f} | {row.low:.1f}..{row.high:.1f} | {row.published:.1f} | "
            f"{_percent(row.error)}{mark} | {_place(row)} |"
        )
    return out


def _sources(rows: list[Compared]) -> list[str]:
    groups: dict[str, list[Compared]] = defaultdict(list)
    for row in rows:
        packed = row.row["seq_note"].startswith(("packed", "sample packing", "exact", "inputs"))
        groups[f"{row.row['framework']}, {'length known' if packed else 'length a cap'}"].append(row)
    out = ["| source | rows | median error | mean error | bias | inside |", "|---|---:|---:|---:|---:|---:|"]
    for name, found in sorted(groups.items()):
        size = [abs(r.error) for r in found]
        out.append(
            f"| {name} | {len(found)} | {100 * median(size):.0f} % | {100 * mean(size):.0f} % | "
            f"{_percent(mean(r.error for r in found))} | {sum(r.inside for r in found)} |"
        )
    return out


def _worst(rows: list[Compared]) -> list[str]:
    found = sorted(rows, key=lambda r: -abs(r.error))[:WORST]
    return [f"- {_name(r)}: {r.estimate:.0f} against {r.published:.0f} GiB ({_place(r)})" for r in found]


INTRO = """{all} measured rows of others; {said} say enough to be put as a request to `advisor estimate`
(`tests/accuracy/published_request.py` does it by rule). A filter, committed before anything was compared
(`tests/accuracy/published_filter.py`), keeps those with complete settings, an exact length, a unit and a figure from
PyTorch's counters or a log. Allocated memory is compared with `allocated`, reserved memory with the total without
CUDA context and NCCL, the device with the total; all in GiB per GPU."""

REMARKS = """\\* Put with the habits of the libraries that the row's document names
(`rules/catalog/software_habits.json`, with sources): bitsandbytes before 0.43.2 keeps the input of every 4-bit linear;
torchtune and torchtitan compile the layers and leave a stock loss as written; torchtune cuts the head's product with
its chunked loss. `advisor estimate --software bitsandbytes=0.41.1` does the same. What is left of the 4-bit rows:
litgpt pads the update of a joint QKV matrix with zeros to the matrix's width (`zero_pad` of its lora.py), and single
quantization holds four bytes of scale per block of 64."""

CORRECTIONS = """Corrected in the collection, from the documents themselves:

- Llama-3.1-8B LoRA, Llama-3.1-70B LoRA and Llama-3.1-8B QLoRA of torchtune: the README has printed these figures since
  30b8519e8 (2024-09-24). At that commit recipes/configs/llama3_1/8B_lora_single_device.yaml adapts q and v,
  70B_lora.yaml q, k and v, 8B_qlora_single_device.yaml q, v, k, o and the MLP; the collection had the targets of a
  configuration more than a year younger (q, v, o and the MLP).
- Qwen3-14B of ms-swift's examples/megatron/fp8/benchmark.sh: the script holds both moments of Adam in bf16
  (`--exp_avg_dtype bf16 --exp_avg_sq_dtype bf16`), which no plan here says; the collection had AdamW."""

LOOSE = """Headers of ms-swift's scripts state one figure for several variants, were written over two years of versions,
and are rounded to 1 to 10 GiB; a figure of 24 or 80 may be the card's size; scripts with `device_map` split one model
over cards, which no plan here does.

Megatron runs with experts: these headers read {routed} % above the estimate in the median (bare activations and states
do not explain any of it: they agree with the traced model, above). Part of the cause is NCCL, which `nvidia-smi` shows
and PyTorch does not: a Megatron step with experts makes up to eleven communicators, and the first all-to-all of eight
GPUs alone takes 3.3 GB (causes `communicators` and `peer-connections`, from NCCL's source and others' measurements).
The earliest of these headers predate the `memory(GiB)` that ms-swift logs today (`max_memory_reserved`,
swift/megatron/callbacks/print.py:63; first in 2025-07), so they are the card's. What is left is within low..high for
{inside} of {all} rows: blocks that PyTorch reserves and does not use (`megatron-allocator`) and uneven routing
(`expert-imbalance`). Not explained is LoRA on experts with TP1 (8192 tokens a rank): 48 to 49 against 37 GiB; how
mcore-bridge's adapters of grouped experts run has not been traced."""


def _routed(known: list[Compared]) -> dict[str, object]:
    """The Megatron rows with experts whose figure is not the card's own size."""
    rows = [r for r in known if r.row["ep"] and r.row["framework"] == "Megatron-SWIFT" and r.published != 80]
    above = 100 * median(r.published / r.estimate - 1 for r in rows)
    return {"routed": f"{above:.0f}", "inside": sum(r.inside for r in rows), "all": len(rows)}


def lines() -> list[str]:
    rows, left = compared()
    exact = strict()
    loose = [row for row in rows if row.loose]
    lengths = known_length()
    known = [r for r in loose if r.row["seq_note"].startswith(("packed", "exact", "inputs"))]
    return [
        "## Published measurements",
        "",
        INTRO.format(all=len(rows) + len(left), said=len(rows)),
        "",
        f"**Strict: {_about(exact)}.**",
        "",
        *_strict_table(exact),
        "",
        REMARKS,
        "",
        CORRECTIONS,
        "",
        f"Over all {len(lengths)} rows with a known length, strict or not, the median error is "
        f"{100 * median(abs(r.error) for r in lengths):.0f} %: the cause `unexplained`. The half-width is above "
        "20 % only where the CUDA context and NCCL, which the low end leaves out, are much of the figure: below 8 GiB, "
        "and in Megatron runs with many groups of ranks. Without them it is "
        f"{100 * max(r.uncertain for r in lengths):.0f} % at most.",
        "",
        f"Looser rows, tuned to by nothing: {len(loose)}, of which {len(known)} have a known length: {_about(known)}.",
        "",
        *_sources(loose),
        "",
        "The largest errors among those with a known length:",
        "",
        *_worst(known),
        "",
        LOOSE.format(**_routed(known)),
    ]


if __name__ == "__main__":
    print("\n".join(lines()))
