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


def live_prices_option(command: Any) -> Any:
    return click.option(
        "--live-prices",
        is_flag=True,
        help="Ask price lists on the network for the card's price (extra: prices). Nothing else asks the network.",
    )(command)


def with_live_price(request: Request) -> Request:
    """The request at today's price of its card, which then stands in its answers."""
    from advisor.errors import InputError
    from advisor.facts.gpus import load_gpu
    from advisor.prices import live_price

    if request.gpu is None:
        raise InputError("gpu", "not given; pass --gpu")
    if request.price_per_gpu_hour is not None:
        raise InputError("live_prices", "contradicts --price-per-gpu-hour; pass one of them")
    gpu = load_gpu(request.gpu)
    found = live_price(gpu, request.gpus_per_node or gpu.gpus_per_node)
    price = {"price_per_gpu_hour": found.usd_per_gpu_hour, "price_source": found.source}
    return parse_request({**request.given(), **price})


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
