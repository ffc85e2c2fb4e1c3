"""What a check found, as text for a terminal: one line a finding, as compilers have it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from advisor.check.findings import NOTE, PROBLEM, WARNING, Checked

WIDTH = 100


def show_checked(checked: Checked, *, problems_only: bool = False) -> str:
    lines = list(_problems(checked))
    if not problems_only:
        lines = [_head(checked), *lines, *_rest(checked)]
    return "".join(f"{line}\n" for line in lines)


def _head(checked: Checked) -> str:
    return f"{checked.path}: {checked.title} {checked.version}: {checked.described}"


def _problems(checked: Checked) -> Iterator[str]:
    """Not wrapped: a line is what editors and CI jump to."""
    yield from (finding.as_text() for finding in checked.of(PROBLEM))


def _rest(checked: Checked) -> Iterator[str]:
    if checked.memory:
        sizes = checked.memory["per_gpu_gib"]
        yield (
            f"  memory: {sizes['total']:.1f} of {checked.memory['capacity_gib']:.1f} GiB a GPU on {checked.gpu} "
            f"with {checked.model}, range {sizes['low']:.1f} to {sizes['high']:.1f}: {checked.memory['fits']}"
        )
    for severity in (WARNING, NOTE):
        for finding in checked.of(severity):
            if finding.kind == "memory":  # the line above says it
                continue
            yield _wrapped(f"{severity}: {finding.as_text()}")
    if checked.unread:
        yield _wrapped(f"note: not part of the plan, so not estimated: {', '.join(checked.unread)}")
    yield _wrapped(f"evidence: {checked.evidence}")
    if not checked.problems:
        yield "  clean"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
