"""Advice as text for a terminal. No colour codes: the same text goes into a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from advisor.advise import Advice, Ranked, Rejected
from advisor.planner.search import describe
from advisor.rules import Reason

WIDTH = 100
SHOWN_REASONS = 6


def show(advice: Advice, *, verbose: bool) -> str:
    """The whole advice: what was understood, the ranking, why, why not the others, what would be feasible."""
    blocks = [_asked(advice)]
    if advice.ranking:
        blocks.append(_ranking(advice.ranking))
        blocks.append(_best(advice.ranking[0], verbose))
    else:
        blocks.append("Nothing fits: none of the six frameworks can run this request as it stands.")
    if advice.rejected:
        blocks.append(_rejected(advice.rejected, verbose))
    if advice.alternatives:
        rows = [
            f"- {row.change}: {row.memory.total:.1f} of {row.memory.capacity_gib:.1f} GiB a GPU"
            for row in advice.alternatives
        ]
        blocks.append("Nearest feasible requests\n" + "\n".join(_wrap(row) for row in rows))
    notes = [*advice.warnings, *(advice.ranking[0].warnings if advice.ranking else ())]
    if notes:
        blocks.append("Beware\n" + "\n".join(_wrap(f"- {note}") for note in notes))
    return "\n\n".join(blocks) + "\n"


def _asked(advice: Advice) -> str:
    resolved = advice.resolved
    model, cluster, request = resolved.model, resolved.cluster, resolved.request
    active = model.active_parameters
    size = f"{model.total_parameters / 1e9:.2f}B parameters"
    if active != model.total_parameters:
        size += f", {active / 1e9:.2f}B active"
    lines = [
        f"Model    {model.id} ({size}, {model.model_type})",
        f"Method   {request.method}, tuning {request.tuning}, {request.seq_len} tokens, "
        f"{request.global_batch_size} sequences a step",
        f"Cluster  {cluster.nodes} x {cluster.gpus_per_node} {cluster.gpu.name}, "
        f"{cluster.gpu_memory_gib:.1f} GiB each, {cluster.cpu_memory_gib:.0f} GiB of host memory a node",
    ]
    for dataset in resolved.datasets:
        rows = f"{dataset.rows} rows of {dataset.format}" if dataset.local else "on a hub, not read"
        lines.append(f"Data     {dataset.path} ({rows})")
    defaults = [f"{name} ({origin})" for name, origin in resolved.origins.items()]
    lines.append(_wrap("Assumed  " + "; ".join(defaults), "         "))
    return "\n".join(lines)


def _ranking(rows: Sequence[Ranked]) -> str:
    head = ("", "framework", "score", "plan", "GiB per GPU", "hours")
    body = [
        (
            str(place),
            f"{row.framework} {row.version}",
            f"{row.score:.1f}",
            describe(row.plan),
            f"{row.memory.total:.1f} of {row.memory.capacity_gib:.1f}, {row.memory.fits}",
            "-" if row.time.hours is None else f"{row.time.hours:.2g}",
        )
        for place, row in enumerate(rows, 1)
    ]
    return table([head, *body])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths).rstrip(), *lines[1:]])


def _best(row: Ranked, verbose: bool) -> str:
    count = row.parameters
    share = 100 * count.trainable / count.total
    shown = row.reasons if verbose else row.reasons[:SHOWN_REASONS]
    lines = [
        f"{row.title} {row.version}: trains {count.trainable:,} of {count.total:,} parameters ({share:.2g} %)",
        f"Memory peaks at the {row.memory.moment}: {_terms(row)}",
        *(_wrap(_reason(reason)) for reason in shown),
    ]
    if len(row.reasons) > len(shown):
        lines.append(f"({len(row.reasons) - len(shown)} more reasons with --verbose)")
    return "\n".join(lines)


def _terms(row: Ranked) -> str:
    memory = row.memory
    parts = [f"{name} {size:.1f}" for name, size in memory.terms.items() if size >= 0.05]
    return (
        ", ".join([*parts, f"overhead {memory.overhead:.1f}"])
        + f" GiB; range {memory.low:.1f} to {memory.high:.1f}"
    )


def _rejected(rows: Sequence[Rejected], verbose: bool) -> str:
    lines = ["Not these"]
    for row in rows:
        reasons = row.reasons if verbose else row.reasons[:1]
        lines += [_wrap(f"{row.framework} {row.version}: {_reason(reason)[2:]}") for reason in reasons]
        lines += [_wrap(f"    would do with: {flip}") for flip in row.flips]
    return "\n".join(lines)


def _reason(reason: Reason) -> str:
    return f"- {reason.because} [{reason.rule}; {reason.source}]"


def _wrap(text: str, indent: str = "  ") -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
