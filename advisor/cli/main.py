"""The `advisor` command. Commands are imported when they run; errors become exit codes here, once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from advisor import __version__
from advisor.errors import AdvisorError

COMMANDS = {
    "new": ("Ask, advise, and write a starter repo.", "advisor.cli.new"),
    "recommend": ("The advice alone: ranking, reasons, rejections, alternatives.", "advisor.cli.recommend"),
    "estimate": ("Memory, time and cost of one explicit plan.", "advisor.cli.estimate"),
    "check": ("Is a configuration valid, does it fit, what will bite.", "advisor.cli.check"),
    "calibrate": ("Finished runs against the estimates; keeps a correction.", "advisor.cli.calibrate"),
    "explain": ("What a term, plan field, method or rule means.", "advisor.cli.explain"),
    "models": ("The models of the catalog.", "advisor.cli.catalog"),
    "gpus": ("The GPUs of the catalog.", "advisor.cli.catalog"),
    "frameworks": ("The six frameworks and what they can do.", "advisor.cli.catalog"),
    "rules": ("The rules of the selection policy.", "advisor.cli.catalog"),
    "schema": ("JSON Schema of the interface.", "advisor.cli.schema"),
}


class Lazy(click.Group):
    """Lists every command without importing one: start-up is paid for the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(COMMANDS[cmd_name][1]), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (text, _) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="advisor")
def cli() -> None:
    """Which framework to post-train your LLM with, whether it fits, and a repository that runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 2 bad input, 3 nothing feasible, 5 refused, 130 interrupt."""
    try:
        result: Any = cli.main(
            args=None if argv is None else list(argv), prog_name="advisor", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return 130
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except AdvisorError as error:
        click.echo(f"advisor: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        return _our_fault(error)


def _our_fault(error: Exception) -> int:
    import platform
    import traceback

    traceback.print_exc()
    click.echo(
        f"advisor: a fault of ours: {type(error).__name__}: {error}\n"
        f"Please report it with the lines above and: advisor {__version__}, "
        f"Python {platform.python_version()}, {platform.platform()}, command: {' '.join(sys.argv[1:])}",
        err=True,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
