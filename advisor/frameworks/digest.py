"""A digest of the keys and values a framework is given for one kind of plan: evidence is keyed by it.

Two plans share it when their configurations have the same keys and the same enumerated values. Numbers (rates,
lengths, sizes, seeds) and what names the model, its parts, the data or a path do not count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from advisor.errors import CannotExpress
from advisor.facts.types import ModelFacts
from advisor.frameworks.base import Framework
from advisor.frameworks.table import REPO, Habits, Job
from advisor.plan import Plan

ROWS = "data/train.jsonl"
NUMBER, NAME = "#", "@"


def config_digest(module: Framework, plan: Plan, model: ModelFacts, version: str, habits: Habits) -> str:
    """Twelve hexadecimal digits, for a release; empty where the table cannot express the plan."""
    kept = {name: value for name, value in habits(plan).items() if name not in module.TABLE.held}
    plan = replace(plan, **kept)  # what the framework decides by itself writes no key
    try:
        rendered = module.TABLE.render(plan, job_of(module, plan, model, version), habits)
    except CannotExpress:
        # Answers by the model itself are what a smoke run makes of a framework that knows engines alone.
        if plan.rollout_engine != "hf":
            return ""
        return config_digest(module, replace(plan, rollout_engine="vllm"), model, version, habits)
    tokens = specific(model)
    lines = sorted(
        f"{document}:{key}={masked(value, tokens)!r}"
        for document, content in rendered.flat().items()
        if document != REPO
        for key, value in content.items()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def job_of(module: Framework, plan: Plan, model: ModelFacts, version: str) -> Job:
    """The same wiring for every plan, so that only the plan's own keys and values make a difference."""
    return Job(
        model=model,
        model_path=model.id,
        data_path=ROWS,
        data_local=True,
        data_format=module.data_need(plan).reads[0],
        rows=1000,
        reward="rewards.py:reward" if plan.online else None,
        reward_model=model.id if plan.method == "ppo" else None,
        teacher=model.id if plan.method == "gkd" else None,
        version=version,
    )


def specific(model: ModelFacts) -> tuple[str, ...]:
    """What in a value names this model or a part of it: the family's name and the names of its weights."""
    family = re.match(r"[a-z]+", model.model_type.lower())
    parts = {part for weight in model.weights for part in weight.name.split(".") if len(part) > 2}
    names = {family[0] if family else "", plain(model.id.rpartition("/")[2]), plain(model.architecture)}
    return tuple(sorted(name for name in {*map(plain, parts - {"weight", "bias"}), *names} if name))


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def masked(value: Any, tokens: tuple[str, ...]) -> Any:
    """The value with everything taken out that does not count."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return NUMBER
    if isinstance(value, Mapping):
        return {str(key): masked(inner, tokens) for key, inner in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return sorted({repr(masked(inner, tokens)) for inner in value})
    text = str(value)
    names_it = any(token in plain(text) for token in tokens)
    return NAME if names_it or ROWS in text or text.startswith("rewards") else text
