"""Advice as text for a terminal. No colour codes: the same text goes into a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor.advise import Advice, Ranked, Rejected
from advisor.alternatives import gpus_text
from advisor.estimate.types import CORRECTED, TERMS
from advisor.facts.types import GpuFacts
from advisor.pareto import Point
from advisor.plan import Plan
from advisor.planner.order import describe
from advisor.reverse import Answer
from advisor.rules import Reason

WIDTH = 100
SHOWN_REASONS = 6


def show(advice: Advice, *, verbose: bool) -> str:
    """The whole advice: what was understood, the ranking, why, why not the others, what would be feasible."""
    blocks = [_asked(advice, verbose)]
    if advice.reverse:
        blocks.append(_reverse(advice.reverse))
    if advice.pareto is not None:
        blocks.append(_pareto(advice.pareto))
    if advice.ranking:
        blocks.append(_ranking(advice.ranking))
        blocks.append(_best(advice.ranking[0], verbose))
    else:
        who = advice.resolved.request.framework or "none of the six frameworks"
        blocks.append(f"Nothing fits: {who} can{'not' if advice.resolved.request.framework else ''} run this "
                      "request as it stands.")  # fmt: skip
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


def _asked(advice: Advice, verbose: bool) -> str:
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
    if cluster.gpu.usd_per_gpu_hour is not None:
        lines.append(
            _wrap(
                f"Price    {cluster.gpu.usd_per_gpu_hour:.2f} USD a GPU hour ({_short(cluster.gpu)})", " " * 9
            )
        )
    for dataset in resolved.datasets:
        rows = f"{dataset.rows} rows of {dataset.format}" if dataset.local else "on a hub, not read"
        lines.append(f"Data     {dataset.path} ({rows})")
    values = request.given()
    defaults = [
        f"{name} {values.get(name)}{_origin(origin, verbose)}" for name, origin in resolved.origins.items()
    ]
    lines.append(_wrap("Assumed  " + "; ".join(defaults), "         "))
    return "\n".join(lines)


def _short(gpu: GpuFacts) -> str:
    """Where the price is from and when; the catalog's document stands in JSON."""
    return (gpu.price_source or "").split(";")[0]


def _pareto(points: Sequence[Point]) -> str:
    """Every way that was planned, fastest first; those that no other beats in time and cost are starred."""
    head = ("", "GPUs", "framework", "plan", "time", "USD", "beaten by")
    body = [
        (
            "*" if point.dominated_by is None else "",
            point.name,
            point.framework,
            point.plan,
            duration(point.hours),
            f"{point.cost:,.2f}" if point.cost < 100 else f"{point.cost:,.0f}",
            "" if point.dominated_by is None else point.dominated_by.name,
        )
        for point in points
    ]
    title = "Cost against time (prices are indicative; * nothing here is both as fast and as cheap)"
    return f"{title}\n{table([head, *body])}" if body else "Cost against time: nothing fits"


def _reverse(answer: Answer) -> str:
    """What was chosen, and every request that was tried."""
    asked = f"--{answer.question.replace('_', '-')} {answer.what}"
    chosen = _named(answer.chosen) if answer.chosen else "none of these fits"
    head = ("tried", "framework", "GiB per GPU", "time", "USD")
    body = [
        (
            _named(row.changes),
            "no plan" if row.best is None else row.best.framework,
            "-" if row.best is None else f"{row.best.memory.total:.1f}",
            "-" if row.best is None or row.best.time.hours is None else duration(row.best.time.hours),
            "-" if row.best is None or row.best.time.cost is None else f"{row.best.time.cost:,.0f}",
        )
        for row in answer.tried
    ]
    return f"{asked}: {chosen}\n{table([head, *body])}"


def _named(changes: Mapping[str, Any]) -> str:
    if "nodes" in changes:
        return gpus_text(changes["nodes"], changes["gpus_per_node"])
    return ", ".join(
        f"{value} tokens" if isinstance(value, int) else str(value) for value in changes.values()
    )


def _origin(origin: str, verbose: bool) -> str:
    """Where a default came from; in short, only where it is more than "a default"."""
    if verbose:
        return f" ({origin})"
    kind, _, text = origin.partition(":")
    short = text.strip() if kind in ("default", "catalog") else origin
    if (kind in ("default", "assumed") and not short) or origin == "assumed" or len(short) > 48:
        return ""
    return f" ({short})"


def _ranking(rows: Sequence[Ranked]) -> str:
    head = ("", "framework", "score", "plan", "GiB per GPU", "time")
    body = [
        (
            str(place),
            f"{row.framework} {row.version}",
            f"{row.score:.1f}",
            describe(row.plan),
            f"{row.memory.total:.1f} of {row.memory.capacity_gib:.1f}, {row.memory.fits}",
            "-" if row.time.hours is None else duration(row.time.hours),
        )
        for place, row in enumerate(rows, 1)
    ]
    return table([head, *body])


def duration(hours: float) -> str:
    """In the unit that people would say."""
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else "< 1 min"


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
        f"{row.title} {row.version}: trains {count.trainable:,} of {count.total:,} parameters "
        f"({share:.3g} %)",
        _wrap(f"Memory peaks at the {row.memory.moment}: {_terms(row)}"),
        *(_wrap(note) for note in row.memory.notes if note.startswith(CORRECTED)),
        *(_wrap(_reason(reason, verbose)) for reason in shown),
        _wrap(f"Proven for this combination: {proven_text(row.evidence)}"),
    ]
    if verbose and row.memory.causes:
        lines.append(_causes([cause.as_dict() for cause in row.memory.causes]))
    if verbose and row.time.extra:
        lines.append(_time_parts(row.time.extra["parts"], row.time.extra["causes"]))
    if verbose and row.unseated_by:
        lines.append("What would unseat it")
        lines += [_wrap(f"- {change}") for change in row.unseated_by]
    if not verbose:
        more = len(row.reasons) - len(shown)
        lines.append(f"({f'{more} more reasons and the' if more else 'The'} sources: --verbose)")
    return "\n".join(lines)


def proven_text(evidence: Mapping[str, Any]) -> str:
    """What was proven, with release and date, or that nothing was."""
    words = {"parsed": "its parser accepts it", "ran_cpu": "trained on a CPU", "ran_gpu": "trained on a GPU"}
    said = [
        f"{text} ({proof['version']}, {proof['date']}{', some values have changed since' if proof['stale'] else ''})"
        for kind, text in words.items()
        if (proof := evidence.get(kind))
    ]
    nearest = evidence.get("nearest")
    if nearest:
        changed = ", ".join(f"{name} {v['run']} for {v['plan']}" for name, v in nearest["differs"].items())
        said.append(f"the nearest run had {changed} ({nearest['version']}, {nearest['date']})")
    return "; ".join(said) or "nothing yet"


def _terms(row: Ranked) -> str:
    memory = row.memory
    parts = [f"{name} {size:.1f}" for name, size in memory.terms.items() if size >= 0.05]
    return (
        ", ".join([*parts, f"overhead {memory.overhead:.1f}"])
        + f" GiB; range {memory.low:.1f} to {memory.high:.1f}"
    )


def _rejected(rows: Sequence[Rejected], verbose: bool) -> str:
    """Frameworks refused for the same reasons share a line."""
    groups: dict[tuple[tuple[Reason, ...], tuple[str, ...]], list[str]] = {}
    for row in rows:
        reasons = row.reasons if verbose else row.reasons[:1]
        groups.setdefault((reasons, row.flips), []).append(f"{row.framework} {row.version}")
    lines = ["Not these"]
    for (reasons, flips), names in groups.items():
        lines += [_wrap(f"{', '.join(names)}: {_reason(reason, verbose)[2:]}") for reason in reasons]
        lines += [_wrap(f"    would do with: {flip}", "      ") for flip in flips]
    return "\n".join(lines)


def _reason(reason: Reason, verbose: bool) -> str:
    source = f"; {reason.source}" if verbose else ""
    return f"- {reason.because} [{reason.rule}{source}]"


def _wrap(text: str, indent: str = "  ") -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def show_estimate(result: Mapping[str, Any], *, verbose: bool = False) -> str:
    """One explicit plan: what it is, memory by term, stages, time."""
    memory, plan, count = result["memory"], result["plan"], result["parameters"]
    per_gpu = memory["per_gpu_gib"]
    request = result["request"]
    share = 100 * count["trainable"] / count["total"]
    blocks = [
        f"Model    {result['model']['id']}, trains {count['trainable']:,} of {count['total']:,} parameters "
        f"({share:.3g} %)\n"
        f"Plan     {_explicit(plan)}\n"
        f"Batch    {plan['micro_batch_size']} x {plan['gradient_accumulation_steps']} x "
        f"{plan['data_parallel']} = {plan['global_batch_size']} samples of {plan['seq_len']} tokens a step\n"
        f"GPUs     {plan['nodes']} x {plan['gpus_per_node']} {request['gpu']}",
        f"GiB per GPU at the {memory['moment']}\n" + table(_term_rows(per_gpu)),
        _verdict(memory),
    ]
    if memory.get("stages"):
        blocks.append("GiB per GPU by pipeline stage\n" + table(_stage_rows(memory["stages"])))
    if verbose and memory.get("causes"):
        blocks.append(_causes(memory["causes"]))
    blocks.append(_time_text(result["time"]))
    if verbose and result["time"] and result["time"].get("parts"):
        blocks.append(_time_parts(result["time"]["parts"], result["time"]["causes"]))
    if memory.get("notes"):
        blocks.append("\n".join(_wrap(f"- {note}") for note in memory["notes"]))
    return "\n\n".join(blocks) + "\n"


def _explicit(plan: Mapping[str, Any]) -> str:
    """The plan in the words of its flags."""
    known = {name: plan[name] for name in Plan.__dataclass_fields__ if name in plan}
    spread = describe(replace(Plan(), **known))
    extra = [plan["precision"], f"{plan['param_dtype']} trainables", plan["optimizer"], plan["attention"]]
    extra += [word for word in ("liger", "compile", "packing") if plan[word]]
    if plan["master_weights"]:
        extra.append("fp32 masters")
    if plan["loss"] != "stock":
        extra.append(f"{plan['loss']} loss")
    return f"{plan['method']}, {spread}; {', '.join(extra)}"


def _term_rows(per_gpu: Mapping[str, float]) -> list[list[str]]:
    kept = [name for name in (*TERMS, "overhead") if per_gpu[name] >= 0.005]
    rows = [[name, f"{per_gpu[name]:8.2f}", MEANINGS[name]] for name in kept]
    total = [
        "total",
        f"{per_gpu['total']:8.2f}",
        f"likely between {per_gpu['low']:.1f} and {per_gpu['high']:.1f}",
    ]
    return [["term", "     GiB", "what"], *rows, total]


MEANINGS = {
    "weights": "what the model is held in",
    "gradients": "of what trains",
    "optimizer": "states and fp32 masters",
    "activations": "kept for backward",
    "logits": "output head and loss",
    "reference": "frozen copies: reference, critic, teacher",
    "rollout": "generation engine",
    "buffers": "gathered layers, reductions",
    "overhead": "CUDA context, NCCL, fragmentation",
}


def _verdict(memory: Mapping[str, Any]) -> str:
    total, capacity = memory["per_gpu_gib"]["total"], memory["capacity_gib"]
    words = {"fits": "it fits", "tight": "tight: the high end is above that", "no": "it does not fit"}
    lines = [f"{total:.1f} of {capacity:.1f} GiB a GPU: {words[memory['fits']]}"]
    if memory["host_gib"]:
        lines.append(
            f"{memory['host_gib']:.0f} GiB of host memory a node{_while_saving(memory['host_parts_gib'])}"
        )
    if memory["nvme_gib"]:
        lines.append(f"{memory['nvme_gib']:.0f} GiB of NVMe a node")
    lines.append(
        f"{memory['checkpoint_gib']:.3g} GiB of disk for each checkpoint that can be resumed{_on_disk(memory)}"
    )
    return "\n".join(lines)


def _while_saving(parts: Mapping[str, float]) -> str:
    saves = parts["offloading"] + parts["saving"] > max(parts["loading"], parts["computing"])
    return f", of which saving takes {parts['saving']:.0f}" if saves and parts["saving"] >= 1 else ""


def _on_disk(memory: Mapping[str, Any]) -> str:
    """What a checkpoint is made of, and how large the trained model is in the end."""
    words = {"model": "model files", "resume": "weights to resume from", "optimizer": "optimizer states"}
    parts = memory["checkpoint_parts_gib"]
    made_of = ", ".join(f"{parts[name]:.3g} {what}" for name, what in words.items() if parts[name])
    return f" ({made_of}); {memory['model_gib']:.3g} for the trained model"


def _causes(causes: Sequence[Mapping[str, Any]]) -> str:
    """What makes low, likely and high differ, the largest first."""
    rows = [
        [
            cause["name"],
            *(f"{cause[key]:+.2f}" for key in ("likely_gib", "low_gib", "high_gib")),
            cause["tag"],
        ]
        for cause in causes
    ]
    lines = [_wrap(f"- {cause['name']}: {cause['what']}; {cause['source']}") for cause in causes]
    head = ["cause of the range", "adds", "down", "up", "known by"]
    return table([head, *rows]) + "\n" + "\n".join(lines)


def _stage_rows(stages: Sequence[Mapping[str, float]]) -> list[list[str]]:
    names = ("state", "activations", "logits", "buffers", "overhead", "total")
    rows = [[str(index), *(f"{stage[name]:.1f}" for name in names)] for index, stage in enumerate(stages)]
    return [["stage", *names], *rows]


def _time_parts(parts: Mapping[str, float], causes: Sequence[str]) -> str:
    """Where the seconds of a step go, and what the range stands for."""
    total = sum(parts.values()) or 1.0
    shares = [
        f"{name.replace('_', ' ')} {100 * seconds / total:.0f} %"
        for name, seconds in parts.items()
        if seconds
    ]
    lines = [_wrap("A step is " + ", ".join(shares)), "The range of the time stands for"]
    return "\n".join([*lines, *(_wrap(f"- {cause}") for cause in causes)])


def _time_text(time: Mapping[str, Any] | None) -> str:
    if not time or time.get("tokens_per_second") is None:
        return f"Time     not estimated: {(time or {}).get('reason', 'unknown')}"
    lines = [f"Time     {time['tokens_per_second']:,.0f} tokens a second over all GPUs"]
    if time["hours"] is not None:
        cost = "" if time["cost"] is None else f", {time['cost']:,.2f} USD"
        lines.append(
            f"{time['hours']:.3g} hours ({time['low']:.2g} to {time['high']:.2g}), "
            f"{time['gpu_hours']:.3g} GPU hours{cost}"
        )
    if time.get("reason"):
        lines.append(time["reason"] + ("; --samples N gives hours" if time["hours"] is None else ""))
    return "\n         ".join(lines)
