"""Build hook: ship the rules checked and compiled, so that an installed advisor starts without reading YAML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileRules(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        sys.path.insert(0, str(root))
        from tools.compile_rules import compile_rules

        compiled = root / "rules" / "compiled.json"
        compile_rules(root / "rules", compiled)
        build_data["artifacts"].append("rules/compiled.json")
