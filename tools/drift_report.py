"""Write docs/drift.md anew: each key that is emitted, in which releases it exists and what changed about it.

    python tools/drift_report.py

From the tables of advisor/frameworks, the snapshots in rules/schemas and rules/renames.yaml; a quick test fails
when the page is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from advisor import schemas  # noqa: E402
from advisor.drift import EmittedKey, emitted_keys  # noqa: E402
from advisor.frameworks import NAMES  # noqa: E402
from advisor.rules import load_framework  # noqa: E402

PAGE = ROOT / "docs" / "drift.md"
HEAD = """# Keys and releases

Written by `python tools/drift_report.py`; a test fails when this page is stale. For each framework: the releases whose
source was read (`rules/schemas/`), the keys that are written for one release or another, and what changed about them
between two releases read. "new" and "gone" are of the releases read: it may have come in one between. Files of other
programs (accelerate, DeepSpeed) and what only a starter's scripts hold are not in it. The same for one framework:
`advisor frameworks NAME --keys`.

Releases other than the first are known by their keys alone, never parsed or run. `--framework-version` writes for any
of them, or refuses with what is missing.
"""


def page() -> str:
    """The whole page as it should be today."""
    blocks = [HEAD.rstrip()]
    for name in NAMES:
        blocks.append("\n".join(_framework(name)))
    return "\n\n".join(blocks) + "\n"


def _framework(name: str) -> Iterator[str]:
    keys, known = emitted_keys(name), schemas.versions(name)
    changed = [key for key in keys if key.changes or key.renamed]
    yield f"## {load_framework(name).title}"
    yield ""
    yield "| release | published | keys read with it |"
    yield "|---|---|---|"
    for version in known:
        snapshot = schemas.load(name, version)
        pairs = ", ".join(f"{package} {pair}" for package, pair in snapshot.pairs.items())
        yield f"| {version} | {snapshot.released or '-'} | {pairs or '-'} |"
    yield ""
    yield f"{len(keys)} keys are written, {len(keys) - len(changed)} of them unchanged in all {len(known)} releases."
    yield ""
    yield "| key | in | changed | earlier name |"
    yield "|---|---|---|---|"
    yield from (_row(key, known) for key in changed)
    yield ""
    rest = [f"`{key.key}`" for key in keys if key not in changed]
    yield f"In all releases, unchanged: {', '.join(rest)}."


def _row(key: EmittedKey, known: Sequence[str]) -> str:
    cells = (f"`{key.key}`", key.since(known), "; ".join(key.changes), key.renamed)
    return "| " + " | ".join(cell.replace("|", "\\|") or "-" for cell in cells) + " |"


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
