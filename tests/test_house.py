"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from advisor.frameworks import MODULES, NAMES, framework
from advisor.frameworks.base import KINDS
from advisor.plan import METHODS, ONLINE_RL

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "advisor"
ROOMS = (
    "errors", "paths", "releases", "schemas", "history", "plan", "facts", "request", "rendering", "frameworks",
    "estimate", "trace", "rules", "resolve",
    "planner", "alternatives", "advise", "starter", "check", "report", "cli",
)  # fmt: skip
"""From the bottom up; a room may import the ones before it."""


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if "judges" not in path.parts]


def test_frameworks_are_named_in_their_own_rooms_only() -> None:
    quoted = re.compile(r"[\"'](" + "|".join(map(re.escape, NAMES)) + r")[\"']")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in modules()
        if PACKAGE / "frameworks" not in path.parents
        for line in path.read_text("utf-8").splitlines()
        if quoted.search(line)
    ]
    assert not found


def test_a_framework_module_knows_no_other_framework() -> None:
    for name, module in MODULES.items():
        folder = ROOT / module.replace(".", "/")
        source = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
        others = [m for other, m in MODULES.items() if other != name]
        assert not [m for m in others if m in source], name


@pytest.mark.parametrize("name", NAMES)
def test_a_framework_satisfies_the_protocol(name: str) -> None:
    module = framework(name)
    for member in ("TABLE", "READING", "JUDGE", "data_need", "files", "command", "smoke", "context"):
        assert hasattr(module, member), member
    assert name == module.NAME
    assert (PACKAGE / "judges" / module.JUDGE).is_file()


def test_every_method_has_a_kind_of_data() -> None:
    assert set(METHODS) == set(KINDS) | set(ONLINE_RL)


def test_no_template_switches_quoting_off() -> None:
    found = [
        p for p in (ROOT / "templates").rglob("*.jinja") if re.search(r"\|\s*safe\b", p.read_text("utf-8"))
    ]
    assert not found


def test_nothing_heavy_is_imported_by_the_package() -> None:
    heavy = {
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "axolotl",
        "llamafactory",
        "swift",
        "unsloth",
        "verl",
    }
    for path in modules():
        if PACKAGE / "trace" / "fake" in path.parents:
            continue  # imported by `estimate --trace` alone
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.append(node.module)
            assert not heavy & {name.split(".")[0] for name in names}, path


def test_rooms_import_downwards_only() -> None:
    wrong: list[str] = []
    for path in modules():
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ROOMS:
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("advisor."):
                other = node.module.split(".")[1]
                if other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
                    wrong.append(f"{path.relative_to(ROOT)} imports {node.module}")
    assert not wrong


def test_help_starts_light() -> None:
    code = "import sys; from advisor.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = run.stderr
    for module in ("jinja2", "yaml", "questionary", "advisor.frameworks.trl.table", "advisor.rules"):
        assert f"'{module}'" not in loaded, module
