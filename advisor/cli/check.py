"""`advisor check`: is a configuration valid for its release, does it fit, what will bite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from advisor.cli.common import OUTPUTS, print_data, say
from advisor.cli.options import given, request_options


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--output", type=OUTPUTS, default="text", show_default=True, help="Form of the findings.")
@click.option("--quiet", is_flag=True, help="Problems only.")
@request_options
def check(paths: tuple[str, ...], output: str, quiet: bool, **flags: Any) -> int:
    """Is a configuration valid for its release, does it fit, what will bite.

    PATH is a framework's configuration (YAML, JSON, TOML, a script of ms-swift, verl or Unsloth) or a starter
    repo. The framework is recognised, or given by --framework; its release is that of the repo, or
    --framework-version, or the pinned one. --model and --gpu say what to estimate the memory for.
    Nothing is imported or downloaded. Exit code: 0 clean, 4 problems, 2 cannot be read.
    """
    from advisor.check import check_path
    from advisor.report.checked import show_checked
    from advisor.request import parse_request

    request = parse_request(given(flags))
    checked = [check_path(Path(path), request) for path in paths]
    problems = sum(len(each.problems) for each in checked)
    if output == "text":
        for each in checked:
            click.echo(show_checked(each, problems_only=quiet), nl=False)
    else:
        print_data({"checked": [each.as_dict() for each in checked], "problems": problems}, output)
    say(f"advisor: {problems} problem{'s' * (problems != 1)} found", quiet=quiet or not problems)
    return 4 if problems else 0
