"""`advisor new`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from advisor.cli.common import OUTPUTS, interactive, print_data, read_request, say
from advisor.cli.options import request_options
from advisor.errors import InputError, NothingFeasible
from advisor.request import Request, parse_request


@click.command()
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--answers", metavar="FILE", help="Answers in YAML or JSON; flags win over them.")
@click.option("--output", type=OUTPUTS, default="text", show_default=True, help="Form of the advice.")
@click.option("--quiet", is_flag=True, help="No talk on stderr.")
@click.option("--verbose", is_flag=True, help="Every reason.")
@click.option("--yes", is_flag=True, help="Do not ask before writing.")
@click.option("--dry-run", is_flag=True, help="Print the tree and the diff; write nothing.")
@click.option("--force", is_flag=True, help="Overwrite files in a folder that is not empty.")
@request_options
def new(
    directory: str | None,
    answers: str | None,
    output: str,
    quiet: bool,
    verbose: bool,
    yes: bool,
    dry_run: bool,
    force: bool,
    **flags: Any,
) -> int:
    """Ask what is missing, advise, and write a starter repo into DIR.

    Without a terminal nothing is asked: what is missing is listed as flags, exit code 2.
    """
    request, raw = read_request(answers, flags)
    asks = interactive() and not yes
    if asks:
        from advisor.cli.wizard import ask

        raw = ask(raw, required_only=answers is not None)
        request = parse_request(raw)
    _complete(request)
    target = _target(directory, request)

    from advisor.advise import advise, explain
    from advisor.starter.write import refuse_non_empty

    if not dry_run:
        refuse_non_empty(target, force)
    advice = advise(request)
    if advice.best is None:
        advice = explain(advice)
    _show(advice, output, verbose)
    if advice.best is None:
        raise NothingFeasible("nothing was written: no framework can run this request")
    return _emit(advice, raw, target, asks=asks, dry_run=dry_run, force=force, quiet=quiet)


def _complete(request: Request) -> None:
    from advisor.resolve import missing

    if request.what_fits == "model" and request.model is None:
        raise InputError("model", "a starter repo needs one: ask advisor recommend --what-fits model first")
    gone = missing(request)
    if gone:
        flags = " ".join(f"--{name.replace('_', '-')} ..." for name in gone)
        raise InputError(gone[0], f"not given; there is no terminal to ask on, so pass: {flags}")


def _target(directory: str | None, request: Request) -> Path:
    if directory:
        return Path(directory)
    from advisor.starter.build import slug

    return Path(slug(f"{str(request.model).rstrip('/').split('/')[-1]}-{request.method or 'train'}"))


def _show(advice: Any, output: str, verbose: bool) -> None:
    if output != "text":
        print_data(advice.as_dict(), output)
        return
    from advisor.report.terminal import show

    click.echo(show(advice, verbose=verbose), nl=False)


def _emit(
    advice: Any, raw: dict[str, Any], target: Path, *, asks: bool, dry_run: bool, force: bool, quiet: bool
) -> int:
    from advisor.starter.build import build
    from advisor.starter.write import tree_and_diff, write_starter

    files = build(advice, advice.best, raw)
    if dry_run:
        click.echo(tree_and_diff(target, files))
        return 0
    if asks and not _agrees(len(files), target):
        say("nothing was written", quiet=quiet)
        return 0
    write_starter(target, files, force=force)
    say(f"\nWrote {len(files)} files to {target}. Next:", quiet=quiet)
    say(f"  cd {target} && pip install -r requirements.txt && ./smoke.sh && ./run.sh", quiet=quiet)
    click.echo(str(target))
    return 0


def _agrees(count: int, target: Path) -> bool:
    from advisor.cli.wizard import confirm_write

    return confirm_write(count, target)
