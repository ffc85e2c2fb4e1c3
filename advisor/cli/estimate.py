"""`advisor estimate`: memory, time and cost of one explicit plan."""

from __future__ import annotations

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
@request_options
def estimate(answers: str | None, output: str, quiet: bool, verbose: bool, trace: bool, **flags: Any) -> int:
    """Memory, time and cost of one explicit plan: nothing is searched, and it need not fit.

    Without --framework it is plain PyTorch (DeepSpeed for --zero, FSDP2 for --fsdp, Megatron-LM for
    --backend megatron); with it, that framework's habits fill what the flags leave open. --trace needs
    `pip install 'posttrain-advisor[trace]'`, no GPU and no weights, and takes seconds to a minute.
    """
    request, _ = read_request(answers, flags)
    result, refused = estimate_request(request, traced=trace)
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


def estimate_request(request: Request, *, traced: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The contract's object, and what the named framework would refuse about the plan. Raises InputError; with
    `traced` also when the plan or this environment cannot be traced."""
    from advisor import __version__
    from advisor.advise import check_names, model_dict, parameters_dict, time_dict
    from advisor.errors import InputError
    from advisor.estimate.memory import estimate_memory
    from advisor.estimate.parameters import count_parameters
    from advisor.estimate.time import estimate_time
    from advisor.explicit import explicit_plan
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
    memory = estimate_memory(resolved.model, plan, cluster, _teacher(request))
    time = estimate_time(resolved.model, plan, cluster, resolved.request.samples, _tokens(resolved))
    if cluster.correction:
        time = time.corrected(cluster.correction.seconds)
    versions = {"advisor": __version__} | ({rules.framework: rules.version} if rules else {})
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
