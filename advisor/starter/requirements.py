"""requirements.txt and requirements-cpu.txt of a starter repo: the pinned sets, or what is known of another release."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from advisor import schemas
from advisor.frameworks.base import Emitted
from advisor.paths import rules_root
from advisor.plan import Plan
from advisor.rules import FrameworkRules

NAME = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[^\]]*\])?")


def requirements(rules: FrameworkRules, plan: Plan, tracker: str | None) -> list[Emitted]:
    pins = rules_root() / "pins" / rules.framework
    sets = json.loads((pins / "gpu.json").read_text("utf-8"))
    groups = [group for group in sets["sets"] if _applies(group, plan)]
    chosen = _chosen(groups)
    if tracker not in (None, "none"):
        chosen.setdefault(str(tracker), str(tracker))
    gpu, cpu = list(chosen.values()), (pins / "cpu.txt").read_text("utf-8")
    head = [
        f"# {rules.framework}, for a CUDA machine. {sets['status']}",
        *(f"# {line}" for notes in (sets, *groups) for line in notes.get("notes", ())),
    ]
    own = [
        line
        for group in groups
        if group.get("cpu")
        for line in group["requires"]
        if line not in cpu.splitlines()
    ]
    cpu += "".join(f"{line}\n" for line in own)
    if not rules.releases[0].proven:
        head, gpu = _other_head(rules, "a CUDA machine"), _repinned(rules, gpu)
        names = [line for line in cpu.splitlines() if not line.startswith("#")]
        cpu = _text([*_other_head(rules, "a CPU"), *_repinned(rules, names)])
    return [
        Emitted("requirements.txt", "requirements", _text([*head, *gpu])),
        Emitted("requirements-cpu.txt", "requirements", cpu),
    ]


def _applies(group: Mapping[str, Any], plan: Plan) -> bool:
    return all(getattr(plan, field) in allowed for field, allowed in group.get("match", {}).items())


def _chosen(groups: list[Mapping[str, Any]]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for group in groups:
        chosen |= {re.split(r"[<>=\[ @]", line, maxsplit=1)[0]: line for line in group["requires"]}
    return chosen


def _other_head(rules: FrameworkRules, machine: str) -> list[str]:
    return [
        f"# {rules.framework} {rules.version}, for {machine}: {rules.proof}.",
        "# It is pinned with the packages its keys were read with; what else it needs is left to pip.",
    ]


def _repinned(rules: FrameworkRules, lines: list[str]) -> list[str]:
    """The same packages, where the release itself and those it inherits keys from are the only pins."""
    pins = {**schemas.load(rules.framework, rules.version).pairs, rules.distribution: rules.version}
    known = {_spelled(name): version for name, version in pins.items()}
    found: list[str] = []
    for line in lines:
        named = NAME.match(line)
        if named is None:
            continue
        version = known.pop(_spelled(named["name"]), None)
        package = f"{named['name']}{named['extras'] or ''}"
        found.append(f"{package}=={version}" if version else package)
    names = {_spelled(name): name for name in pins}
    return [*found, *(f"{names[name]}=={version}" for name, version in known.items())]


def _spelled(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
