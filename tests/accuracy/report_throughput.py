"""The section of docs/accuracy.md on speed: rows, error per source, the worst by name, the ranking of plans."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from advisor.estimate.time import TIME_HIGH, TIME_LOW
from tests.accuracy.throughput import TIE, Pair, Row, pairs, rows

WORST = 12
SPLITS = ("fit", "held-out")
PARTS = {
    "tokens_per_second": "tokens/s",
    "tokens_per_second_per_gpu": "tokens/s a GPU",
    "seconds_per_step": "s a step",
    "update_seconds": "s of updates",
    "log_prob_seconds": "s of log-probabilities",
    "generation_seconds": "s of generation",
}

OPENING = """## Speed

`tests/accuracy/throughput_rows.csv` holds published speeds with the plan they were measured with and their
source. Before any constant was chosen the rows were split by series (source, model and card): the last bit of
its SHA-256 decides. Constants marked `fitted` in `rules/catalog/speed.json` were chosen on the fit half alone;
no constant belongs to a row. What changed in the model after the held-out half had been seen: micro batches no
longer add processor time that runs beside the card; a routed layer's stop adds to the work instead of hiding
behind it; adapters cost in proportion to the linears they sit on; routing that a benchmark forces even is said so;
the exchange of expert parallelism tells links inside a node from the network between nodes.
The rows of xtuner, Pai-Megatron-Patch and torchtitan's pull request were found after a first choice of constants;
xtuner's gave one constant by hand (`alltoall_share`) and count as fit rows.
The error is estimated over published duration minus one: plus is too slow. Left out: rows whose card is not named;
two torchtune rows that would need more FLOP/s than the card has; a pack of 512,000 tokens whose samples' lengths,
which attention depends on, are not published; GPTQ fine-tuning, which no plan expresses."""


def lines() -> list[str]:
    found = list(rows())
    ranked = pairs(found)
    return [
        *OPENING.splitlines(), "", *_summary(found, ranked), "", *_by_source(found), "",
        *_worst(found), "", *_ranking(ranked), "", *_limits(found),
    ]  # fmt: skip


def half(found: Sequence[Row], split: str) -> list[Row]:
    return [row for row in found if row.split == split]


def median_error(found: Sequence[Row]) -> float:
    return median(abs(row.error) for row in found)


def inside(found: Sequence[Row]) -> float:
    """Share of rows whose true duration lies in the stated range."""
    return sum(TIME_LOW <= 1 / (1 + row.error) <= TIME_HIGH for row in found) / len(found)


def right(ranked: Sequence[Pair]) -> float:
    return sum(pair.right for pair in ranked) / len(ranked)


def _summary(found: list[Row], ranked: list[Pair]) -> list[str]:
    table = ["| half | rows | median error | bias | within 25 % | in the range | pairs ranked right |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for split in SPLITS:
        part = half(found, split)
        those = [pair for pair in ranked if pair.first.split == split]
        bias = median(row.error for row in part)
        near = sum(abs(row.error) <= 0.25 for row in part)
        table.append(
            f"| {split} | {len(part)} | {median_error(part):.1%} | {bias:+.1%} | {near} | {inside(part):.0%} "
            f"| {sum(p.right for p in those)} of {len(those)} |"
        )
    table.append(f"| both | {len(found)} | {median_error(found):.1%} | | | | "
                 f"{sum(p.right for p in ranked)} of {len(ranked)} ({right(ranked):.0%}) |")  # fmt: skip
    return table


def _by_source(found: list[Row]) -> list[str]:
    table = ["| source | fit rows | median error | held-out rows | median error |", "|---|---|---|---|---|"]
    for source in sorted({row.source for row in found}):
        cells: list[str] = []
        for split in SPLITS:
            part = [row for row in half(found, split) if row.source == source]
            cells += [str(len(part)), f"{median_error(part):.1%}" if part else "-"]
        table.append(f"| {source} | {' | '.join(cells)} |")
    return table


def _worst(found: list[Row]) -> list[str]:
    table = ["The worst rows:", "", "| row | source | plan | published | estimated | error | half |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    far = sorted(found, key=lambda row: -max(row.error, 1 / (1 + row.error) - 1))
    for row in far[:WORST]:
        unit = PARTS[row.measure]
        table.append(
            f"| {row.id} | {row.source} | {_plan(row)} | {row.published:g} {unit} | {row.estimate:.4g} "
            f"| {row.error:+.0%} | {row.split} |"
        )
    return table


def _plan(row: Row) -> str:
    plan = row.plan
    degrees = " ".join(
        f"{name}{degree}"
        for name, degree in (
            ("TP", plan.tensor_parallel), ("PP", plan.pipeline_parallel),
            ("EP", plan.expert_parallel), ("CP", plan.context_parallel),
        )
        if degree > 1
    )  # fmt: skip
    backend = "Megatron" if plan.backend == "megatron" else "FSDP" if plan.fsdp else f"ZeRO-{plan.zero_stage}"
    model = row.model.rsplit("/", 1)[-1]
    return f"{model} {plan.tuning}, {plan.world_size} x {row.gpu}, {backend} {degrees}".rstrip()


def _ranking(ranked: list[Pair]) -> list[str]:
    wrong = [pair for pair in ranked if not pair.right]
    text = [
        f"A pair is two rows with the same model, card, number of cards, sequence length and part measured whose plans "
        f"differ in what that part depends on and whose published speeds differ by more than {TIE:.0%}.",
        "Ranked wrong:",
        "",
        "| faster as published | slower as published | part | by |",
        "|---|---|---|---|",
    ]
    for pair in wrong:
        gain = _speed(pair.first) / _speed(pair.second)
        text.append(f"| {pair.first.id}: {_plan(pair.first)} | {pair.second.id}: {_plan(pair.second)} "
                    f"| {PARTS[pair.first.measure]} | {gain:.2f} x |")  # fmt: skip
    return text


def _speed(row: Row) -> float:
    from tests.accuracy.throughput import speed

    return speed(row, row.published)


def _limits(found: list[Row]) -> list[str]:
    rollouts = [row for row in found if row.measure == "generation_seconds"]
    return [
        f"Known limits: generation in online RL ({len(rollouts)} rows, median error {median_error(rollouts):.0%}) "
        "depends on engine settings that the rows do not state: rows that state the same ones differ by 3 times; "
        "no published figure was found for transformers' grouped expert product in training, so its speed is assumed.",
    ]
