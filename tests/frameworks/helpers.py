"""One plan, one framework, what is written: the shape of every test in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from advisor import schemas
from advisor.errors import CannotExpress
from advisor.facts.models import load_model
from advisor.frameworks import framework
from advisor.frameworks.table import Job, Rendered
from advisor.plan import ONLINE_RL, Plan
from advisor.rules import load_framework
from advisor.rules.implied import implied_values

load_model = lru_cache(maxsize=None)(load_model)


def plan_for(name: str, **changes: Any) -> Plan:
    """A complete plan of this framework: the changes, sensible RL sizes, and what the framework implies."""
    plan = Plan(**changes)
    if plan.method in (*ONLINE_RL, "gkd") and not plan.response_len:
        plan = replace(plan, prompt_len=512, response_len=512)
    if plan.method in ONLINE_RL and not plan.generations:
        plan = replace(plan, generations=8, micro_batch_size=8)
    if plan.backend == "megatron":
        plan = replace(
            plan, zero_stage=1, recompute=changes.get("recompute", "full"), gradient_checkpointing=True
        )
    implied = {k: v for k, v in implied_values(load_framework(name), plan).items() if k not in changes}
    return replace(plan, **implied).normalised()


def job_for(plan: Plan, model: str = "Qwen/Qwen3-8B", **changes: Any) -> Job:
    needs = {
        "reward": "rewards.py:score" if plan.online else None,
        "teacher": "Qwen/Qwen3-14B" if plan.method == "gkd" else None,
    }
    defaults = {
        "model": load_model(model),
        "model_path": model,
        "data_path": "data/train.jsonl",
        "data_local": True,
        "data_format": "messages",
        "rows": 100,
    }
    return Job(**{**defaults, **needs, **changes})


def rendered(name: str, plan: Plan, job: Job | None = None) -> Rendered:
    """What the framework's table writes. Every render of these tests is one that the release takes."""
    rules, module, job = load_framework(name), framework(name), job or job_for(plan)
    result = module.TABLE.render(plan, job, lambda p: implied_values(rules, p))
    schemas.demand(name, schemas.versions(name)[0], module.READING.by_schema(result))
    return result


def written(name: str, plan: Plan, job: Job | None = None) -> dict[str, Any]:
    """Every key of every document, as `key` (main document) or `document:key`."""
    return {
        (key if document == "train" else f"{document}:{key}"): value
        for document, content in rendered(name, plan, job).flat().items()
        for key, value in content.items()
    }


def assert_writes(name: str, changes: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The plan with these changes writes at least these keys; None: the key must not be there."""
    found = written(name, plan_for(name, **changes))
    wrong = {key: found.get(key) for key, value in expected.items() if found.get(key) != value}
    assert not wrong, f"wanted {dict(expected)}, got {wrong}"


def assert_refuses(name: str, changes: Mapping[str, Any], fields: set[str]) -> None:
    """Rendering refuses the plan, naming at least these fields, all at once."""
    plan = plan_for(name, **changes)
    try:
        rendered(name, plan, job_for(plan))
    except CannotExpress as error:
        named = {field for field, _ in error.reasons}
        assert fields <= named, f"wanted {fields}, refused {named}"
        return
    raise AssertionError(f"{changes} was rendered")


def assert_round_trip(name: str, plan: Plan, job: Job | None = None) -> None:
    """parse(render(plan)) == plan, and nothing is left over."""
    rules = load_framework(name)
    documents = rendered(name, plan, job).flat()
    parsed, leftovers = framework(name).TABLE.parse(documents, lambda p: implied_values(rules, p))
    assert parsed == plan
    assert leftovers == {}
