"""Whether another release of a framework takes what a plan would write: its snapshot tells, nothing was run."""

from __future__ import annotations

from functools import partial

from advisor import schemas
from advisor.errors import CannotExpress, InputError
from advisor.frameworks import framework
from advisor.frameworks.table import Job
from advisor.history import taken_since, told
from advisor.plan import Plan
from advisor.resolve import Resolved
from advisor.rules import FrameworkRules, Reason
from advisor.rules.implied import implied_values


def refused_keys(rules: FrameworkRules, plan: Plan, resolved: Resolved) -> list[Reason]:
    """Why this release cannot run the plan, each key with what changed; nothing for a release that was proven."""
    release = rules.releases[0]
    if release.proven:
        return []
    try:
        wrong = release_problems(rules, plan, _job(rules, plan, resolved))
    except CannotExpress as error:
        wrong = [f"{field}: {why}" for field, why in error.reasons]
    except InputError:  # said when the files are made, whatever the release
        return []
    if not wrong:
        return []
    because = f"{rules.title} {rules.version} does not take what this plan needs: {'; '.join(wrong)}"
    return [Reason(f"{rules.framework}.release", "refuse", because, release.evidence[0].ref)]


def release_problems(rules: FrameworkRules, plan: Plan, job: Job) -> list[str]:
    """What the release would refuse of the rendered plan, each key with what became of it."""
    module = framework(rules.framework)
    rendered = module.TABLE.render(plan, job, partial(implied_values, rules))
    found: list[str] = []
    known = schemas.load(rules.framework, rules.version).documents
    for name, content in module.READING.by_schema(rendered).items():
        if name not in known:
            found.append(f"it has no {name}, only {', '.join(sorted(known))}")
            continue
        for problem in schemas.find_problems(rules.framework, rules.version, name, content):
            became = told(rules.framework, rules.version, name, problem)
            if problem.kind == "value" and problem.key in content:
                value = content[problem.key]
                later = taken_since(rules.framework, rules.version, name, problem.key, value)
                became = f"{problem.message} ({later} takes it)" if later else became
            found.append(f"{problem.key}: {became or problem.message}")
    return found


def _job(rules: FrameworkRules, plan: Plan, resolved: Resolved) -> Job:
    request, model = resolved.request, resolved.model
    return Job(
        model=model,
        model_path=model.local_path or model.id,
        data_path="data/train.jsonl",
        data_local=True,
        data_format=framework(rules.framework).data_need(plan).reads[0],
        tracker=request.tracker or "none",
        hub=request.hub or "hf",
        reward="rewards.py:score" if request.reward else None,
        reward_model=request.reward_model,
        teacher=request.teacher,
        adapter=request.adapter,
        version=rules.version,
    )
