"""The section of docs/accuracy.md on traced training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from statistics import median

from tests.accuracy import traced_earlier, traced_megatron
from tests.accuracy.traced_rows import Compared, compared, median_error, of_split, worst

WORST_SHOWN = 6
SPLITS = ("fit", "held-out")

INTRODUCTION = """## Against traced training steps

One steady training step of the real transformers class, with real peft adapters and real FSDP2, run on fake tensors: no
weights, no GPU. Compared is the peak of allocated memory (what `max_memory_allocated` would say), which the estimate
calls `allocated`. `advisor estimate --trace` does the same for your own plan. Not real on fake tensors are the kernels of
FlashAttention, Liger's fused loss and bitsandbytes' 4-bit linears; those keep and allocate what their sources say
(`advisor/trace/fake/`). The rows, with versions and the command that makes each again: `tests/accuracy/traced_rows.csv`;
four of them are traced anew in every full test run.

Which half a case belongs to comes from a hash of its name, decided before any comparison. Formulas were worked on with
the fit half in sight (from why the bytes are there, never a constant for a case). When the held-out half was first
counted, it showed formulas that missed something: the 7 cases looked at for that count as fit since, and 31 new ones,
compared only after those formulas stood, were added to the held-out half (`LOOKED_AT` and `FRESH` in
`tools/trace_cases.py`).
Compiled layers are AOTAutograd's joint graph of the real layer, split by the partitioner that Inductor uses; their memory
is that of the buffers Inductor makes, elementwise operations inlined (`advisor/trace/fake/compiled.py`). Their formulas
were worked on with cases of other lengths in sight, of models named in `tools/trace_cases.py`; nothing of GLM-4.5,
DeepSeek-V3, Mixtral, Mistral, Qwen3-0.6B and Qwen2.5-0.5B had been traced compiled before they stood.
Layer inputs on the host are traced with a function that keeps what Unsloth's keeps
(`advisor/trace/fake/offloaded.py`): its first 13 cases showed two hidden states that the formula lacked (median 2.0 %,
worst -4.9 %) and count as fit since; the 10 held-out ones, of other models, were traced when it stood.
Limits that a test holds: median 3 %, worst 8 %.
"""


def lines() -> Iterator[str]:
    """Markdown lines."""
    yield from INTRODUCTION.splitlines()
    yield ""
    yield from _summary()
    for split in SPLITS:
        yield f"\nBy architecture and tuning, {split}:\n"
        yield from _by(of_split(split), _group)
    yield "\nThe worst held-out cases:\n"
    yield "| case | estimate GiB | traced GiB | at (estimate, traced) | error |"
    yield "|---|---|---|---|---|"
    for row in sorted(of_split("held-out"), key=lambda r: -abs(r.error))[:WORST_SHOWN]:
        moments = f"{row.moment}, {row.traced_moment}"
        yield f"| {row.id} | {row.estimate:.2f} | {row.traced:.2f} | {moments} | {_percent(row.error)} |"
    yield ""
    yield from _changed()
    yield from _earlier()
    yield from _megatron()


def _percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


CHANGED = {
    "compiled": "torch.compile",
    "chunked": "the chunked loss",
    "galore": "GaLore",
    "apollo": "APOLLO",
    "away": "layer inputs on the host",
}
"""How the name of a case begins that has one -> what it has."""


def _changed() -> Iterator[str]:
    for word, what in CHANGED.items():
        parts: list[str] = []
        for split in SPLITS:
            rows = [row for row in of_split(split) if row.id.split(" ")[1].startswith(word)]
            far = worst(rows)
            size = f"median {100 * median_error(rows):.2f} %, worst {_percent(far.error)} ({far.id})"
            parts.append(f"{split} {len(rows)} cases, {size}")
        yield f"With {what}: {'; '.join(parts)}."
        yield ""


def _summary() -> Iterator[str]:
    yield "| half | cases | median of the absolute error | worst |"
    yield "|---|---|---|---|"
    for split in SPLITS:
        rows = of_split(split)
        far = worst(rows)
        yield f"| {split} | {len(rows)} | {100 * median_error(rows):.2f} % | {_percent(far.error)} ({far.id}) |"


def _group(row: Compared) -> str:
    return f"{row.kind}, {row.tuning}{', FSDP2 over 8 ranks' if row.sharded else ''}"


def _by(rows: list[Compared], group: Callable[[Compared], str]) -> Iterator[str]:
    yield "| | cases | median | worst |"
    yield "|---|---|---|---|"
    for name, members in groupby(sorted(rows, key=group), key=group):
        found = list(members)
        yield f"| {name} | {len(found)} | {100 * median_error(found):.2f} % | {_percent(worst(found).error)} |"


def _earlier() -> Iterator[str]:
    found = traced_earlier.errors()
    far = max(found, key=lambda row: abs(row[4]))
    yield (
        f"A third set, {len(found)} steps traced by an earlier tool of another make "
        f"(`tests/accuracy/traced_earlier.py`): "
        f"median {100 * median(abs(row[4]) for row in found):.2f} %, worst {_percent(far[4])} ({far[0]})."
    )


MEGATRON = """
### Megatron-Core

One micro batch of Megatron-Core 0.16.1's own GPTModel with its router, all-to-all dispatcher, vocabulary-parallel loss
and DistributedDataParallel, on fake tensors and rank 0 of a fake process group (`tools/trace_megatron.py`, in an
environment with torch and megatron-core; rows: `tests/accuracy/traced_megatron.csv`). Transformer Engine cannot be
installed without CUDA: its layers keep and allocate what the source of v2.16.1 says (`tools/megatron_trace/kernels.py`,
file and line with each). Routing is balanced; adapters, pipeline stages and CP's ring are not traced. The formulas were
worked on with Qwen3-8B, Llama-3.1-8B, Qwen3-30B-A3B and DeepSeek-V3 in sight; nothing of the other models had been
traced when they stood. What the trace showed wrong before: an output per routed row that nothing keeps (+25 % of what
an MoE layer keeps), send and receive buffers that are gone by the loss, a stock loss counted at 10 instead of 6 bytes,
and nothing for the weights' gradients before they are added, nor for what the dispatchers hold between steps. Limits
that a test holds: median 1 %, worst 3 %.
"""


def _megatron() -> Iterator[str]:
    yield from MEGATRON.splitlines()
    yield ""
    yield "| half | architecture | cases | median of the absolute error | worst |"
    yield "|---|---|---|---|---|"
    for split in SPLITS:
        rows = sorted(traced_megatron.of_split(split), key=lambda row: row.kind)
        for kind, members in groupby(rows, key=lambda row: row.kind):
            found = list(members)
            far = worst(found)
            yield (
                f"| {split} | {kind} | {len(found)} | {100 * median_error(found):.2f} % | "
                f"{_percent(far.error)} ({far.id}) |"
            )
        yield f"| {split} | all | {len(rows)} | {100 * median_error(rows):.2f} % | {_percent(worst(rows).error)} |"


if __name__ == "__main__":
    print("\n".join(lines()))
    print(len(compared()), "rows")
