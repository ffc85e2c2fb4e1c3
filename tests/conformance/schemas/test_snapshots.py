"""The snapshot of each pinned release, against the same source as installed and against the framework's own parser.

Differences that are right stand in `differences.yaml` with their reason; one that is not there fails, and so does
one that no longer shows.
"""

from __future__ import annotations

import fnmatch
import json
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.starters import ROOT, environment
from tools.extract_schemas import SCHEMAS, extract, import_name, listed
from tools.schema_sources import unsloth_source
from tools.schema_sources.archives import Installed
from tools.schema_sources.recipes import (
    LLAMAFACTORY_CLASSES,
    MS_SWIFT_COMMANDS,
    RECIPES,
    TRL_COMMANDS,
    UNSLOTH_COMMAND,
)
from tools.schema_sources.snapshot import as_text

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 900
EXPLAINED = yaml.safe_load((HERE / "differences.yaml").read_text("utf-8"))
PINNED = {name: next(iter(releases)) for name, releases in listed().items()}

pytestmark = pytest.mark.conformance


@cache
def snapshot(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / name / f"{PINNED[name]}.json").read_text("utf-8"))


def keys(name: str, document: str) -> dict[str, dict[str, Any]]:
    content = snapshot(name)
    held = content["documents"][document]
    found: dict[str, dict[str, Any]] = {}
    for section in reversed(held["includes"]):
        found |= content["sections"][section]["keys"]
    plugins = [s for s in held["includes"] if s.startswith("plugin ")]
    found |= {f"plugin:{p.removeprefix('plugin ')}": {"type": "any", "computed": True} for p in plugins}
    return found | held["keys"]


def site_packages(name: str) -> Path:
    return next((environment(name).parent.parent / "lib").glob("python*/site-packages"))


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_installed_source_gives_the_same_snapshot(name: str) -> None:
    content = snapshot(name)
    versions = {name: content["version"], **content["pairs"]}
    for package, version in versions.items():
        assert list(site_packages(name).glob(f"{package.replace('-', '_')}-{version}.dist-info")), package
    sources = {import_name(p): Installed(site_packages(name), p, version) for p, version in versions.items()}
    head = {key: content[key] for key in ("framework", "version", "released", "pairs", "sources")}
    text = (SCHEMAS / name / f"{PINNED[name]}.json").read_text("utf-8")
    assert as_text(head, extract(name, sources)) == text


def _trl(config: str) -> list[str]:
    """The classes as the script of the command imports them; methods without one, as our train.py does."""
    name = config.removesuffix("Config").lower()
    own = f"trl.experimental.{name}:{config}" if name in ("cpo", "orpo", "gkd") else f"trl:{config}"
    scripts = {
        "GRPOConfig": ["trl.scripts.grpo:GRPOScriptArguments"],
        "RLOOConfig": ["trl.scripts.rloo:RLOOScriptArguments"],
    }
    script = scripts.get(config, [] if "experimental" in own else ["trl:ScriptArguments"])
    return [*script, own, "trl:ModelConfig", "trl:DatasetMixtureConfig"]


def _axolotl() -> dict[str, Any]:
    integrations = site_packages("axolotl") / "axolotl" / "integrations"
    plugins = [s.removeprefix("plugin ") for s in snapshot("axolotl")["sections"] if s.startswith("plugin ")]
    return {
        "model": "axolotl.utils.schemas.config:AxolotlInputConfig",
        "plugins": plugins,
        "integrations": sorted(
            f"axolotl.integrations.{path.parent.name}" for path in integrations.glob("*/__init__.py")
        ),
    }


def _unsloth() -> dict[str, Any]:
    experimental = ("ORPOConfig", "CPOConfig", "GKDConfig")
    return {
        "calls": {name: list(call) for name, call in unsloth_source.CALLS.items()},
        "adapter": "peft:LoraConfig",
        "models": {"cli": UNSLOTH_COMMAND},
        "configs": {
            name: f"trl.experimental.{name.removesuffix('Config').lower()}:{name}"
            if name in experimental
            else f"trl:{name}"
            for name in unsloth_source.CONFIGS
        },
    }


def requests() -> dict[str, tuple[str, dict[str, Any]]]:
    """Framework -> how its parser is asked, and for what."""
    llamafactory = [c if isinstance(c, str) else c[0] for c in LLAMAFACTORY_CLASSES]
    return {
        "trl": (
            "parser",
            {
                "parser": "trl:TrlParser",
                "documents": {name: _trl(config) for name, config in TRL_COMMANDS.items()},
            },
        ),
        "llamafactory": (
            "parser",
            {"parser": "transformers:HfArgumentParser", "documents": {"train": llamafactory}},
        ),
        "ms-swift": (
            "parser",
            {
                "judge": str(ROOT / "advisor" / "judges" / "ms_swift.py"),
                "parser": "transformers:HfArgumentParser",
                "documents": {command: [classes[0]] for command, classes in MS_SWIFT_COMMANDS.items()},
            },
        ),
        "axolotl": ("models", _axolotl()),
        "unsloth": ("calls", _unsloth()),
        "verl": (
            "hydra",
            {
                "root": "verl.trainer.config",
                "documents": {
                    "main_ppo": ["ppo_trainer", []],
                    "main_ppo megatron": ["ppo_trainer", ["model_engine=megatron"]],
                    "sft_trainer": ["sft_trainer_engine", []],
                    "sft_trainer megatron": ["sft_trainer_engine", ["engine=megatron", "optim=megatron"]],
                },
            },
        ),
    }


@cache
def real(name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """What the framework's own parser takes, by document."""
    kind, request = requests()[name]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(request, file)
        file.flush()
        run = subprocess.run(
            [environment(name), HERE / "parsers.py", kind, file.name],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def differences(
    ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], Any]:
    """(key, what differs) -> (ours, theirs)."""
    found: dict[tuple[str, str], Any] = {(key, "missing"): None for key in theirs.keys() - ours.keys()}
    found |= {(key, "extra"): None for key in ours.keys() - theirs.keys()}
    for key in ours.keys() & theirs.keys():
        mine, other = ours[key], theirs[key]
        types = sorted(mine["type"].split("|"))
        known = other.get("types", ["any"])
        if types != known and "any" not in known:
            found[key, "type"] = (types, other["types"])
        choices = sorted(mine.get("choices", ()), key=str)
        if "choices" in other and choices != other["choices"] and types != ["any"]:
            found[key, "choices"] = (choices, other["choices"])
        if bool(mine.get("required")) != bool(other.get("required")):
            found[key, "required"] = (mine.get("required"), other.get("required"))
        # A default marked `computed` claims nothing: only a running program knows it.
        if not mine.get("computed") and other.get("default") != mine.get("default"):
            found[key, "default"] = (mine.get("default"), other.get("default"))
    return found


def explained(name: str, document: str, key: str, what: str) -> int | None:
    """Number of the row in differences.yaml that this difference falls under."""
    for number, row in enumerate(EXPLAINED[name]):
        fits = fnmatch.fnmatchcase(document, row.get("document", "*")) and what in row["what"]
        if fits and any(fnmatch.fnmatchcase(key, pattern) for pattern in row["keys"]):
            return number
    return None


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_parser_itself_takes_what_the_snapshot_says(name: str) -> None:
    used: set[int] = set()
    wrong: list[str] = []
    compared = 0
    assert {*real(name)} - {"failed"} == {*snapshot(name)["documents"]}
    for document, theirs in real(name).items():
        if document == "failed":  # integrations that cannot be imported here: said in differences.yaml
            wrong += [
                f"not imported: {line}"
                for line in theirs
                if explained(name, "failed", line, "missing") is None
            ]
            used |= {n for line in theirs if (n := explained(name, "failed", line, "missing")) is not None}
            continue
        ours = keys(name, document)
        compared += len(theirs)
        for (key, what), values in sorted(differences(ours, theirs).items()):
            row = explained(name, document, key, what)
            if row is None:
                wrong.append(f"{document}: {key}: {what} {values or ''}")
            else:
                used.add(row)
    print(f"{name}: {compared} keys of {len(real(name))} documents compared")
    assert not wrong, "\n".join(wrong)
    stale = [row for number, row in enumerate(EXPLAINED[name]) if number not in used]
    assert not stale, f"explained, but not there: {stale}"


def test_a_planted_error_is_seen() -> None:
    theirs = {
        "kept": {"types": ["int"], "choices": [], "default": 1},
        "lost": {"types": ["int"], "choices": [], "default": 1},
        "word": {"types": ["str"], "choices": ["a", "b"], "default": "a"},
    }
    ours = {
        "kept": {"type": "float", "default": 2},
        "word": {"type": "str", "choices": ["a"], "required": True},
        "more": {"type": "int", "default": 1},
    }
    assert set(differences(ours, theirs)) == {
        ("lost", "missing"), ("more", "extra"), ("kept", "type"), ("kept", "default"), ("word", "choices"),
        ("word", "required"), ("word", "default"),
    }  # fmt: skip
