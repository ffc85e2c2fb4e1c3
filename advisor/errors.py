"""Every error a person can see. Each class owns its exit code; `advisor.cli.main` converts in one place.

A message says what was given, why it will not do and what would work; a field error names the field.
"""

from __future__ import annotations


class AdvisorError(Exception):
    """Base of all errors that are shown as one line instead of a traceback."""

    exit_code = 1


class InputError(AdvisorError):
    """Bad usage or bad input: `field` is the request field (or file) at fault."""

    exit_code = 2

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class NothingFeasible(AdvisorError):
    """No plan fits, or the pinned framework cannot do what was asked. The advice is printed first."""

    exit_code = 3


class CheckFailed(AdvisorError):
    """`advisor check` found problems."""

    exit_code = 4


class RefusedOverwrite(AdvisorError):
    """The target folder holds something that was not written by this run."""

    exit_code = 5


class RuleError(AdvisorError):
    """A rules or facts file is wrong: says which file, line and row."""

    exit_code = 2


class CannotExpress(AdvisorError):
    """A framework has no key for a value of the plan; all such values at once.

    `reasons` is a list of (plan field, reason).
    """

    exit_code = 3

    def __init__(self, framework: str, reasons: list[tuple[str, str]]) -> None:
        super().__init__(
            f"{framework} cannot express: " + "; ".join(f"{field}: {why}" for field, why in reasons)
        )
        self.framework = framework
        self.reasons = reasons
