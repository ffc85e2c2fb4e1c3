"""What the rules files hold, as plain frozen data, and what asking them returns.

No slots: they would double the time that making these classes takes at every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Match = Mapping[str, tuple[Any, ...]]
"""Plan field -> values it may have; empty: every plan."""


PROVEN = "the rules of this release were read in its source; each row names what was parsed and run"
SCHEMA_ONLY = "schema only: keys checked against the release's source, never parsed or run"


@dataclass(frozen=True)
class Reason:
    """Why something was refused, preferred, set or warned of: the contract's object."""

    rule: str
    effect: str
    because: str
    source: str

    def as_dict(self) -> dict[str, str]:
        return {"rule": self.rule, "effect": self.effect, "because": self.because, "source": self.source}


@dataclass(frozen=True)
class Evidence:
    kind: str
    ref: str
    checked: str
    """ISO date on which somebody looked."""


@dataclass(frozen=True)
class Proof:
    """What a machine looks up in the framework's environment to see that an absence is real."""

    kind: str
    """`absent`: the pattern (a regular expression) occurs nowhere under the place. `contains`: the text that
    refuses, or that names all there is, stands in the file. `refused`: the framework's judge refuses the
    configuration, saying the pattern. `withheld`: the framework has it (the text stands in the file) and the
    advisor does not offer it, for the reason that the row gives."""
    place: str
    """File or folder of an installed package; of `refused` a configuration of tests/conformance/judges."""
    pattern: str


@dataclass(frozen=True)
class Release:
    version: str
    python: str
    evidence: tuple[Evidence, ...]
    proven: bool = True
    """Whether the rules were proven on it; if not, its keys alone are known."""


@dataclass(frozen=True)
class Capability:
    """A set of plans that the framework can (`value`) or cannot do.

    Like every row it holds for releases from `since` on and before `until`; empty: all of them.
    """

    id: str
    title: str
    match: Match
    value: bool
    because: str
    partial: bool
    note: str
    evidence: tuple[Evidence, ...]
    proof: tuple[Proof, ...] = ()
    since: str = ""
    until: str = ""


@dataclass(frozen=True)
class Only:
    """A plan field that is restricted to `values` where `match` fits."""

    id: str
    title: str
    field: str
    values: tuple[Any, ...]
    match: Match
    because: str
    evidence: tuple[Evidence, ...]
    proof: tuple[Proof, ...] = ()
    since: str = ""
    until: str = ""


@dataclass(frozen=True)
class Limit:
    """A combination that the framework refuses: `when` holds."""

    id: str
    title: str
    when: str
    because: str
    evidence: tuple[Evidence, ...]
    since: str = ""
    until: str = ""


@dataclass(frozen=True)
class Habit:
    """What the framework does with plan fields unless told otherwise, where `match` fits."""

    id: str
    title: str
    match: Match
    set: Mapping[str, Any]
    because: str
    evidence: tuple[Evidence, ...]
    since: str = ""
    until: str = ""


@dataclass(frozen=True)
class Trap:
    """A warning for whoever runs such a plan."""

    id: str
    title: str
    match: Match
    text: str
    evidence: tuple[Evidence, ...]
    since: str = ""
    until: str = ""


@dataclass(frozen=True, eq=False)
class FrameworkRules:
    """One framework's file. Compared by identity, so that answers about it can be remembered."""

    framework: str
    title: str
    distribution: str
    role: str
    docs: str
    releases: tuple[Release, ...]
    capabilities: tuple[Capability, ...]
    only: tuple[Only, ...]
    limits: tuple[Limit, ...]
    habits: tuple[Habit, ...]
    traps: tuple[Trap, ...]

    @property
    def version(self) -> str:
        """The release that these rules are of."""
        return self.releases[0].version

    @property
    def proof(self) -> str:
        """How far the rules were proven on this release."""
        return PROVEN if self.releases[0].proven else SCHEMA_ONLY

    @property
    def rows(self) -> tuple[Capability | Only | Limit | Habit | Trap, ...]:
        return (*self.capabilities, *self.only, *self.limits, *self.habits, *self.traps)


@dataclass(frozen=True)
class Rule:
    """One row of the selection policy."""

    id: str
    title: str
    when: str
    effect: str
    """`require` rejects where `when` fails, `forbid` where it holds; `prefer` and `avoid` move the score by
    `weight`; `warn` only speaks."""
    weight: float
    because: str
    source: str
    file: str


@dataclass(frozen=True)
class Policy:
    rules: tuple[Rule, ...]
