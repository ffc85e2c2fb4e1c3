"""`advisor recommend`: the advice alone."""

from __future__ import annotations

from typing import Any

import click

from advisor.cli.common import OUTPUTS, live_prices_option, print_data, read_request, with_live_price
from advisor.cli.options import request_options


@click.command()
@click.option("--answers", metavar="FILE", help="Answers in YAML or JSON; flags win over them.")
@click.option("--output", type=OUTPUTS, default="text", show_default=True, help="Form of the advice.")
@click.option("--quiet", is_flag=True, help="No talk on stderr.")
@click.option("--verbose", is_flag=True, help="Every reason.")
@live_prices_option
@request_options
def recommend(
    answers: str | None, output: str, quiet: bool, verbose: bool, live_prices: bool, **flags: Any
) -> int:
    """Rank the six frameworks for a request, with the plan each would run, and say why not the others.

    Exit code 3: nothing fits, or the pinned framework cannot do it; the nearest feasible requests follow.
    """
    from advisor.advise import advise, explain

    request, _ = read_request(answers, flags)
    if live_prices:
        request = with_live_price(request)
    advice = explain(advise(request))
    if output == "text":
        from advisor.report.terminal import show

        click.echo(show(advice, verbose=verbose), nl=False)
    else:
        print_data(advice.as_dict(), output)
    return 0 if advice.ranking else 3
