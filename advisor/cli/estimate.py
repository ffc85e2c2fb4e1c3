"""`advisor estimate`: memory, time and cost of one explicit plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from advisor.cli.common import OUTPUTS, print_data, read_request, say
from advisor.cli.options import request_options
from advisor.request import Request


@click.command()
@click.option("--answers", metavar="FILE", help="Answers in YAML or JSON; flags win over them.")
@click.option("--output", type=OUTPUTS, default="text", show_default=True, help="Form of the estimate.")
@click.option("--quiet", is_flag=True, help="No talk on stderr.")
@click.option("--verbose", is_flag=True, help="Why low and high differ, cause by cause.")
@click.option("--trace", is_flag=True, help="Trace a real training step on fake tensors and print it beside.")
@click.option(
    "--software",
    multiple=True,
    metavar="NAME=VERSION",
    help="A library whose release works otherwise than today's.",
)
@request_options
def estimate(
    answers: str | None, output: str, quiet: bool, verbose: bool, trace: bool, software: tuple[str, ...],
    **flags: Any,
) -> int:  # fmt: skip
    """Memory, time and cost of one explicit plan: nothing is searched, and it need not fit.

    Without --framework it is plain PyTorch (DeepSpeed for --zero, FSDP2 for --fsdp, Megatron-LM for
    --backend megatron); with it, that framework's habits fill what the flags leave open. --trace needs
    `pip install 'posttrain-advisor[trace]'`, no GPU and no weights, and takes seconds to a minute.
    --software bitsandbytes=0.41.1 counts what that release keeps and today's does not.
    """
    request, _ = read_request(answers, flags)
    result, refused = estimate_request(request, traced=trace, software=_releases(software))
    for line in refused:
        say(f"advisor: {line}", quiet=quiet)
    if output == "text":
        from advisor.report.terminal import show_estimate

        click.echo(show_estimate(result, verbose=verbose), nl=False)
        if trace:
            from advisor.report.trace import show_trace

            click.echo("\n" + show_trace(result), nl=False)
    else:
        print_data(result, output)
    return 0


def _releases(given: tuple[str, ...]) -> dict[str, str]:
    """NAME=VERSION, several times."""
    from advisor.errors import InputError

    found: dict[str, str] = {}
    for text in given:
        name, _, version = text.partition("=")
        if not name or not version:
            raise InputError(
                "software", f"'{text}' will not do: give NAME=VERSION, such as bitsandbytes=0.41.1"
            )
        found[name] = version
    return found


def estimate_request(
    request: Request, *, traced: bool = False, software: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The contract's object, and what the named framework would refuse about the plan. Raises InputError; with
    `traced` also when the plan or this environment cannot be traced. `software`: library -> release, where it is
    not today's."""
    from advisor import __version__
    from advisor.advise import check_names, model_dict, parameters_dict, time_dict
    from advisor.errors import InputError
    from advisor.estimate.memory import estimate_memory
    from advisor.estimate.parameters import count_parameters
    from advisor.estimate.time import estimate_time
    from advisor.explicit import explicit_plan
    from advisor.facts.software import software_of
    from advisor.rules import load_framework
    from advisor.trace import trace_step

    check_names(request)
    for field in ("minimize", "what_fits", "pareto"):
        if getattr(request, field):
            raise InputError(field, "an estimate is of one plan and searches nothing; use advisor recommend")
    release = request.framework_version
    rules = load_framework(request.framework, version=release) if request.framework else None
    spelled_out = explicit_plan(request, rules)
    resolved, plan = spelled_out.resolved, spelled_out.plan
    cluster = resolved.cluster.under(request.framework)
    beneath = software or {}
    memory = estimate_memory(
        resolved.model,
        plan,
        cluster,
        _teacher(request),
        software=software_of(beneath),
        framework=request.framework,
    )
    memory = replace(memory, notes=(*memory.notes, *_habits(beneath)))
    time = estimate_time(resolved.model, plan, cluster, resolved.request.samples, _tokens(resolved))
    if cluster.correction:
        time = time.corrected(cluster.correction.seconds)
    versions = {"advisor": __version__} | ({rules.framework: rules.version} if rules else {}) | dict(beneath)
    result = {
        "request": spelled_out.request_dict(),
        "model": model_dict(resolved),
        "plan": plan.as_dict(),
        "parameters": parameters_dict(count_parameters(resolved.model, plan)),
        "memory": memory.as_dict(),
        **({"trace": trace_step(resolved.model, plan).as_dict()} if traced else {}),
        "time": time_dict(time),
        "versions": versions,
    }
    return result, _refused(rules, plan, resolved)


def _habits(releases: Mapping[str, str]) -> list[str]:
    """What these releases do otherwise than today's, in words."""
    from advisor.facts.software import habits_of

    found = {name: [row.what for row in habits_of({name: version})] for name, version in releases.items()}
    return [
        f"{name} {releases[name]}: {'; '.join(what) or 'works as today'}." for name, what in found.items()
    ]


def _teacher(request: Request) -> Any:
    """Facts of the teacher where it can be sized; the estimate says so where not."""
    from advisor.errors import InputError
    from advisor.facts.models import load_model

    if request.method != "gkd" or not request.teacher:
        return None
    try:
        return load_model(request.teacher, offline=request.offline is not False)
    except InputError:
        return None


def _tokens(resolved: Any) -> float | None:
    """Mean tokens of a row, where the data was read."""
    from advisor.resolve import default

    rate, _ = default("tokens_per_character", {})
    return resolved.dataset.mean_chars * rate or None if resolved.dataset else None


def _refused(rules: Any, plan: Any, resolved: Any) -> list[str]:
    from advisor.rules import describe_cluster, describe_model, refusals

    if rules is None:
        return []
    facts = {"model": describe_model(resolved.model), "cluster": describe_cluster(resolved.cluster)}
    found = refusals(rules, plan, facts)
    return [f"{rules.framework} {rules.version} refuses this plan: {r.because} [{r.rule}]" for r in found]
