"""`advisor calibrate`: finished runs against the estimates, and a local correction that later estimates use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from advisor.cli.common import OUTPUTS, print_data, say
from advisor.errors import InputError


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--into", metavar="FILE", type=click.Path(path_type=Path), help="Keep the correction here instead."
)
@click.option("--forget", "forget_all", is_flag=True, help="Remove what was kept.")
@click.option("--dry-run", is_flag=True, help="Compare, keep nothing.")
@click.option("--output", type=OUTPUTS, default="text", show_default=True, help="Form of the comparison.")
@click.option("--quiet", is_flag=True, help="No talk on stderr.")
def calibrate(
    runs: tuple[Path, ...], into: Path | None, forget_all: bool, dry_run: bool, output: str, quiet: bool
) -> int:
    """Read the peaks and step times of finished RUNs (a folder or a log inside the starter repo that started them),
    print predicted against measured, and keep a correction for their GPU and framework.

    Later `estimate`, `recommend` and `new` use it and say so; --no-calibration leaves it out.
    """
    from advisor.facts.corrections import default_path, forget

    path = into or default_path()
    if forget_all:
        if runs:
            raise InputError("forget", "takes no runs; it removes every correction that was kept")
        say(f"{path}: {'forgotten' if forget(path) else 'nothing was kept'}", quiet=quiet)
        return 0
    if not runs:
        raise InputError("run", "give one or more finished runs: a folder or a log inside a starter repo")
    data = _compare_and_keep(runs, path, keep=not dry_run)
    if output == "text":
        click.echo(_text(data), nl=False)
    else:
        print_data(data, output)
    say(f"{path}: {'not written (--dry-run)' if dry_run else 'kept'}", quiet=quiet)
    return 0


def _compare_and_keep(runs: tuple[Path, ...], path: Path, *, keep: bool) -> dict[str, Any]:
    """All runs are read before anything is written."""
    from datetime import UTC, datetime

    from advisor.calibrate import compare
    from advisor.facts.corrections import read_corrections, write_corrections

    compared = [compare(run) for run in runs]
    kept = read_corrections(path)
    touched = sorted({(row.gpu, row.framework) for row in compared})
    for gpu, framework in touched:
        new = tuple(row.measurement() for row in compared if (row.gpu, row.framework) == (gpu, framework))
        kept = kept.with_runs(gpu, framework, new, datetime.now(UTC).date())
    if keep:
        write_corrections(kept, path)
    corrections = [c for c in kept.corrections if (c.gpu, c.framework) in touched]
    return {
        "runs": [
            {
                "run": row.run, "gpu": row.gpu, "framework": row.framework, "files": list(row.measured.files),
                "rows": [dict(zip(("what", "predicted", "measured"), line, strict=True)) for line in row.rows()],
            }
            for row in compared
        ],
        "corrections": [
            {
                "gpu": c.gpu, "framework": c.framework, "memory": round(c.memory, 4), "runs": len(c.runs),
                "seconds": None if c.seconds is None else round(c.seconds, 4), "text": c.text,
            }
            for c in corrections
        ],
    }  # fmt: skip


def _text(data: dict[str, Any]) -> str:
    from advisor.report.terminal import table

    blocks: list[str] = []
    for run in data["runs"]:
        rows = [["GiB per GPU", "predicted", "measured", "ratio"]]
        for row in run["rows"]:
            both = row["predicted"] and row["measured"]
            rows.append(
                [
                    row["what"],
                    "-" if row["predicted"] is None else f"{row['predicted']:.2f}",
                    "-" if row["measured"] is None else f"{row['measured']:.2f}",
                    f"x{row['measured'] / row['predicted']:.2f}" if both else "",
                ]
            )
        blocks.append(f"{run['run']} ({run['framework']} on {run['gpu']})\n{table(rows)}")
    blocks += [f"{c['framework']} on {c['gpu']}: {c['text']}" for c in data["corrections"]]
    return "\n\n".join(blocks) + "\n"
