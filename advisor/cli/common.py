"""What several commands share: reading the request, printing data on stdout and talk on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from advisor.cli.options import given
from advisor.request import Request, parse_request
from advisor.starter.answers import read_answers

OUTPUTS = click.Choice(["text", "json", "yaml"])


def read_request(answers: str | None, flags: dict[str, Any]) -> tuple[Request, dict[str, Any]]:
    """Answers file first, flags over it. Returns the request and the raw answers for answers.yaml."""
    values = read_answers(Path(answers)) if answers else {}
    values = {name: value for name, value in values.items() if name != "origins"}
    merged = {**values, **given(flags)}
    request = parse_request(merged)
    return request, request.given()


def interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def print_data(data: Mapping[str, Any], output: str) -> None:
    """JSON or YAML on stdout, keys in the contract's order."""
    if output == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True), nl=False)


def say(text: str, *, quiet: bool = False) -> None:
    """Talk for people, on stderr."""
    if not quiet:
        click.echo(text, err=True)
