"""The rules engine: loads `rules/`, answers with reasons, and keeps the trace that becomes the explanation.

`capabilities` asks what a framework can do, `selection` which one to take. Both are read through `store`,
which checks the files once (`source`, `schema`) and keeps them compiled. Conditions are `expressions` over
the `names` declared for them.
"""

from advisor.rules.capabilities import (
    allowed_values,
    capability_refusals,
    cell_evidence,
    cheap_refusals,
    framework_names,
    habit_values,
    habits,
    limit_refusals,
    limit_verdicts,
    load_framework,
    refusals,
    traps,
    unchecked_limits,
)
from advisor.rules.expressions import APPLIES, PASSES, UNDECIDED, Scope, Verdict
from advisor.rules.names import describe_cluster, describe_model, describe_plan
from advisor.rules.selection import (
    Judgement,
    evaluate,
    load_policy,
    reasons,
    rejections,
    score,
    warnings,
)
from advisor.rules.types import Capability, Evidence, FrameworkRules, Limit, Policy, Reason, Rule

__all__ = [
    "APPLIES",
    "PASSES",
    "UNDECIDED",
    "Capability",
    "Evidence",
    "FrameworkRules",
    "Judgement",
    "Limit",
    "Policy",
    "Reason",
    "Rule",
    "Scope",
    "Verdict",
    "allowed_values",
    "capability_refusals",
    "cell_evidence",
    "cheap_refusals",
    "describe_cluster",
    "describe_model",
    "describe_plan",
    "evaluate",
    "framework_names",
    "habit_values",
    "habits",
    "limit_refusals",
    "limit_verdicts",
    "load_framework",
    "load_policy",
    "reasons",
    "refusals",
    "rejections",
    "score",
    "traps",
    "unchecked_limits",
    "warnings",
]
