"""The selection policy: gates, preferences and the rules a house adds, asked about one candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from advisor.paths import rules_root
from advisor.rules.capabilities import documents
from advisor.rules.expressions import APPLIES, PASSES, UNDECIDED, Scope, decide
from advisor.rules.types import Policy, Reason, Rule


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one rule said of one candidate."""

    rule: Rule
    outcome: str
    """APPLIES, PASSES or UNDECIDED: whether the rule's condition holds."""
    why: str = ""
    """Why it could not be decided."""

    @property
    def rejects(self) -> bool:
        """A gate that could not be decided does not reject: it is reported."""
        effect = self.rule.effect
        return (effect == "forbid" and self.outcome == APPLIES) or (
            effect == "require" and self.outcome == PASSES
        )

    @property
    def points(self) -> float:
        """What it adds to the score."""
        if self.outcome != APPLIES:
            return 0.0
        return {"prefer": self.rule.weight, "avoid": -self.rule.weight}.get(self.rule.effect, 0.0)

    @property
    def reason(self) -> Reason:
        rule = self.rule
        because = rule.because if not self.why else f"not decided, {self.why}: {rule.because}"
        return Reason(rule.id, rule.effect, because, rule.source)


@lru_cache(maxsize=8)
def _shipped(root: Path) -> tuple[Rule, ...]:
    files = documents(root)["selection"]
    return tuple(Rule(**row) for name in files for row in files[name]["rules"])


def load_policy(extra: Sequence[Path] = (), root: Path | None = None) -> Policy:
    """The shipped policy and the house's own files, in order; `without` in a house file leaves rules out."""
    root = root or rules_root()
    rules = _shipped(root)
    seen = {rule.id: rule.file for rule in rules}
    for path in extra:
        document = _house_document(path, seen)
        left_out = set(document["without"])
        rules = (*(r for r in rules if r.id not in left_out), *(Rule(**row) for row in document["rules"]))
    return Policy(rules)


def _house_document(path: Path, seen: dict[str, str]) -> Mapping[str, Any]:
    # Imported here: a run without house rules needs neither YAML nor the checks.
    from advisor.rules.schema import selection_document
    from advisor.rules.source import read_yaml

    return selection_document(read_yaml(path, str(path)), seen)


def evaluate(policy: Policy, scope: Scope) -> list[Judgement]:
    """What every rule says of the candidate that the scope describes, in the policy's order."""
    judged: list[Judgement] = []
    for rule in policy.rules:
        verdict = decide(rule.when, scope)
        judged.append(Judgement(rule, verdict.outcome, verdict.why))
    return judged


def score(judgements: Iterable[Judgement]) -> float:
    """The sum of what preferences add and take."""
    return sum(judgement.points for judgement in judgements)


def rejections(judgements: Iterable[Judgement]) -> list[Reason]:
    """Why gates reject the candidate; none: they let it pass."""
    return [judgement.reason for judgement in judgements if judgement.rejects]


def reasons(judgements: Iterable[Judgement]) -> list[Reason]:
    """What spoke for and against, the weightiest first."""
    moved = [judgement for judgement in judgements if judgement.points]
    return [j.reason for j in sorted(moved, key=lambda j: -abs(j.points))]


def warnings(judgements: Iterable[Judgement]) -> list[Reason]:
    """What people should know: warnings, and gates that could not be decided."""
    return [
        judgement.reason
        for judgement in judgements
        if (judgement.rule.effect == "warn" and judgement.outcome == APPLIES)
        or (judgement.rule.effect in ("require", "forbid") and judgement.outcome == UNDECIDED)
    ]
