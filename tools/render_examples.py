"""Render the starter repos under examples/ anew, each from its own answers.yaml.

    python tools/render_examples.py            every example, and docs/journeys.md
    python tools/render_examples.py NAME...    these; a new one: make examples/NAME/answers.yaml first

Run from the root of the checkout: the answers name the data by its path here.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.frameworks.base import Emitted

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def names() -> list[str]:
    return sorted(path.parent.name for path in EXAMPLES.glob("*/answers.yaml"))


def files_of(name: str) -> list[Emitted]:
    """Every file that the example's answers give today."""
    from advisor.advise import advise
    from advisor.request import parse_request
    from advisor.starter.answers import read_answers
    from advisor.starter.build import build

    answers = read_answers(EXAMPLES / name / "answers.yaml")
    advice = advise(parse_request(answers))
    if advice.best is None:
        raise SystemExit(f"{name}: nothing fits: {[row.as_dict() for row in advice.rejected]}")
    return build(advice, advice.best, answers)


def render(name: str) -> None:
    from advisor.starter.write import write_starter

    files = files_of(name)
    shutil.rmtree(EXAMPLES / name)
    write_starter(EXAMPLES / name, files, force=False)
    print(f"{name}: {len(files)} files")


def main() -> int:
    sys.path.insert(0, str(ROOT))
    for name in sys.argv[1:] or names():
        render(name)
    if not sys.argv[1:]:
        from tools import journeys_report

        journeys_report.main()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
