"""Write docs/accuracy.md anew: what the estimates are compared with, and how far off they are.

    python tools/accuracy_report.py

The page is put together from the `lines()` of tests/accuracy/report_*.py in the order of SECTIONS. A section
whose module does not exist is left out; a quick test fails when the page is stale.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "accuracy.md"

SECTIONS = (
    "report_traced",
    "report_published",
    "report_peers",
    "report_fits",
    "report_throughput",
    "report_placements",
    "report_checkpoints",
)

HEAD = """# How accurate the estimates are

Written by `python tools/accuracy_report.py`; a test fails when this page is stale. GiB = 2^30 bytes, GB = 10^9.
Every figure that ours is compared with stands in `tests/accuracy/` with the document it comes from.
"""


def page() -> str:
    """The whole page as it should be today."""
    blocks = [HEAD.rstrip()]
    for name in SECTIONS:
        module = f"tests.accuracy.{name}"
        if importlib.util.find_spec(module) is not None:
            blocks.append("\n".join(importlib.import_module(module).lines()).rstrip())
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    sys.path.insert(0, str(ROOT))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
