"""What a check found: each finding with its place, and everything it was found in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
"""A problem makes the command exit 4; a warning is what will bite; a note says what was not looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: str
    kind: str
    """unknown-key, type, choice, twice, rule, legality, memory, trap, file, or unchecked."""
    message: str
    path: str = ""
    line: int = 0
    key: str = ""
    source: str = ""
    """Where the rule behind it stands."""

    def as_dict(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in ("severity", "kind", "path", "line", "key", "message")}
        return shown | ({"source": self.source} if self.source else {})

    def as_text(self) -> str:
        """`path:line: key: message`, as compilers have it."""
        place = f"{self.path}:{self.line}: " if self.line else f"{self.path}: " if self.path else ""
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


@dataclass(frozen=True, slots=True)
class Checked:
    """One PATH, checked."""

    path: str
    framework: str
    title: str
    version: str
    plan: Mapping[str, Any]
    described: str
    findings: tuple[Finding, ...]
    evidence: str
    """How far a check of this release goes."""
    memory: Mapping[str, Any] | None = None
    model: str = ""
    gpu: str = ""
    unread: tuple[str, ...] = field(default=())
    """Keys that the framework knows and the plan does not hold: nothing here looks at them."""

    @property
    def problems(self) -> list[Finding]:
        return self.of(PROBLEM)

    def of(self, severity: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "framework": self.framework,
            "version": self.version,
            "clean": not self.problems,
            "findings": [finding.as_dict() for finding in self.findings],
            "plan": dict(self.plan),
            "model": self.model or None,
            "gpu": self.gpu or None,
            "memory": None if self.memory is None else dict(self.memory),
            "unread": list(self.unread),
            "evidence": self.evidence,
        }
