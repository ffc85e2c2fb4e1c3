"""`advisor rules --for ANSWERS`: what each rule of the policy and each limit of a framework says of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.catalog import row_ids, unknown_rule
from advisor.cli.common import print_data, read_request

if TYPE_CHECKING:
    from advisor.judging import Trace

SAYS = {"applies": "applies", "passes": "does not apply", "undecided": "not decidable"}


def show_trace(answers: str, rule_id: str | None, output: str) -> int:
    """Prints the trace, or its one rule or limit. Raises InputError for bad answers or an unknown id."""
    from advisor.advise import check_names
    from advisor.judging import trace
    from advisor.resolve import resolve
    from advisor.rules import load_policy

    request, _ = read_request(answers, {})
    check_names(request)
    policy = load_policy([Path(path) for path in request.rules or ()])
    if rule_id and rule_id not in {*row_ids(), *(rule.id for rule in policy.rules)}:
        raise unknown_rule(rule_id)
    resolved = resolve(request)
    rows = [_framework(found, rule_id) for found in trace(resolved, policy)]
    if output == "text":
        click.echo(_text(rows, whole=rule_id is None), nl=False)
    else:
        print_data({"request": resolved.as_dict(), "frameworks": rows}, output)
    return 0


def _framework(found: Trace, rule_id: str | None) -> dict[str, Any]:
    from advisor.planner.order import describe

    rules = [
        {
            "rule": judgement.rule.id,
            "effect": judgement.rule.effect,
            "outcome": judgement.outcome,
            "points": judgement.points,
            "rejects": judgement.rejects,
            "why": judgement.why,
            "because": judgement.rule.because,
        }
        for judgement in found.judged
        if rule_id in (None, judgement.rule.id)
    ]
    limits = [
        {"rule": limit.id, "outcome": verdict.outcome, "why": verdict.why, "because": limit.because}
        for limit, verdict in found.limits
        if rule_id in (None, limit.id)
    ]
    return {
        "framework": found.framework,
        "feasible": found.feasible,
        "plan": None if found.plan is None else found.plan.as_dict(),
        "summary": "" if found.plan is None else describe(found.plan),
        "refusals": [reason.as_dict() for reason in found.refusals],
        "rules": rules,
        "limits": limits,
    }


def _text(rows: Sequence[Mapping[str, Any]], *, whole: bool) -> str:
    blocks: list[str] = []
    for row in rows:
        if not whole and not row["rules"] and not row["limits"]:
            continue
        blocks.append("\n".join([_head(row), *_rules(row["rules"]), *_limits(row["limits"])]))
    return "\n\n".join(blocks) + "\n"


def _head(row: Mapping[str, Any]) -> str:
    if row["plan"] is None:
        because = row["refusals"][0]["because"] if row["refusals"] else "no plan"
        return f"{row['framework']}: no plan ({because})"
    return f"{row['framework']}: {row['summary']}{'' if row['feasible'] else ' (rejected)'}"


def _rules(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    from advisor.report.terminal import table

    if not rules:
        return []
    body = [[rule["rule"], rule["effect"], SAYS[rule["outcome"]], _consequence(rule)] for rule in rules]
    return [table([["rule", "effect", "here", ""], *body])]


def _consequence(rule: Mapping[str, Any]) -> str:
    if rule["rejects"]:
        return "rejects"
    if rule["points"]:
        return f"{rule['points']:+g}"
    return str(rule["why"])


def _limits(limits: Sequence[Mapping[str, Any]]) -> list[str]:
    from advisor.report.terminal import table

    if not limits:
        return []
    body = [[limit["rule"], SAYS[limit["outcome"]], limit["why"]] for limit in limits]
    return [table([["limit", "here", ""], *body])]
