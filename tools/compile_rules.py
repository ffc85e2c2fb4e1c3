"""Writes the checked rules as one JSON file, which a wheel carries so that no run has to read YAML.

    python tools/compile_rules.py [OUT]

A build hook calls `compile_rules(root, out)`; `root` is the folder `rules/`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def compile_rules(root: Path, out: Path) -> None:
    """Checks every file below `root` (a RuleError names file, line and row) and writes the compiled copy."""
    # A build runs before the package is installed: the checkout is where `advisor` is found.
    sys.path.insert(0, str(CHECKOUT))
    from advisor.rules.store import compile_documents, write_atomically

    write_atomically(out, json.dumps(compile_documents(root), separators=(",", ":")) + "\n")


def main(arguments: list[str]) -> int:
    sys.path.insert(0, str(CHECKOUT))
    from advisor.errors import RuleError

    root = CHECKOUT / "rules"
    out = Path(arguments[0]) if arguments else root / "compiled.json"
    try:
        compile_rules(root, out)
    except RuleError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{out}: {out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
