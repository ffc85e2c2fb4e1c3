"""Hydra trees: YAML files with a defaults list, composed as Hydra does, without Hydra.

Supported is what released trees use: `group@package: option`, `group: option`, `config`, `config@package`, `_self_`,
relative and absolute groups, `override`, `# @package _global_`, and `${name}` of a group chosen before. Values
keep their interpolations.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tools.schema_sources.archives import Source
from tools.schema_sources.code import Unknown
from tools.schema_sources.rows import Row

Tree = dict[str, Any]
PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)
TARGET = "_target_"


class _Loader(yaml.SafeLoader):
    """Numbers as OmegaConf reads them: `1e-6` is one, which YAML 1.1 takes for text."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


@dataclass(frozen=True, slots=True)
class Leaf:
    value: Any
    file: str


@dataclass(frozen=True, slots=True)
class Hydra:
    source: Source
    root: str
    """Folder of the configurations, without a `/` at its end."""

    def compose(self, name: str, chosen: Mapping[str, str] | None = None) -> Tree:
        """The tree of `name`: nested mappings with a Leaf (value, file) at each end.

        `chosen`: group -> option, in place of the defaults. Raises Unknown for a file that is not there.
        """
        tree: Tree = {}
        self._add(tree, name, "", {**self._overrides(name), **(chosen or {})})
        return tree

    def groups(self, name: str) -> dict[str, tuple[list[str], str | None]]:
        """Override key of each group that the configuration itself names -> its options and its default."""
        content, _, _ = self._read(name)
        found: dict[str, tuple[list[str], str | None]] = {}
        for entry in content.get("defaults", []):
            for label, default in entry.items() if isinstance(entry, dict) else ():
                group, _, package = label.partition("@")
                files = self.source.names(f"{self.root}/{group}")
                options = [file.removesuffix(".yaml") for file in files if file.endswith(".yaml")]
                if options:
                    found[group if package in ("", group) else label] = (options, default)
        return found

    def _read(self, name: str) -> tuple[Any, str, str]:
        path = f"{self.root}/{name}.yaml"
        text = self.source.read(path)
        if text is None:
            raise Unknown(path)
        package = PACKAGE.search(text)
        return yaml.load(text, _Loader) or {}, package[1] if package else "", path

    def _overrides(self, name: str) -> dict[str, str]:
        """`override group: option` in the defaults of a configuration and of those it starts from."""
        content, _, _ = self._read(name)
        found: dict[str, str] = {}
        for entry in content.get("defaults", []):
            if isinstance(entry, str) and entry != "_self_":
                found = self._overrides(entry.partition("@")[0]) | found
            elif isinstance(entry, dict):
                for group, option in entry.items():
                    if group.startswith("override "):
                        found[group.removeprefix("override ").strip("/")] = option
        return found

    def _add(self, tree: Tree, name: str, package: str, chosen: dict[str, str]) -> None:
        content, header, path = self._read(name)
        here = "" if header == "_global_" else package
        entries = content.pop("defaults", [])
        if "_self_" not in entries:
            entries = [*entries, "_self_"]
        for entry in entries:
            if entry == "_self_":
                _merge(_at(tree, here), content, path)
            elif isinstance(entry, str):
                file, _, package = entry.partition("@")
                inner = ".".join(filter(None, [here, package]))
                self._add(tree, posixpath.join(posixpath.dirname(name), file), inner, chosen)
            else:
                self._group(tree, name, here, entry, chosen)

    def _group(
        self, tree: Tree, name: str, here: str, entry: Mapping[str, Any], chosen: dict[str, str]
    ) -> None:
        for key, default in entry.items():
            if key.startswith("override "):
                continue
            label = key.removeprefix("optional ")
            group, _, package = label.partition("@")
            option = chosen.get(label, chosen.get(group, default))
            if option is None:
                continue
            option = re.sub(r"\$\{(\w+)\}", lambda match: chosen[match[1]], str(option))
            chosen.setdefault(group, option)
            folder = group[1:] if group.startswith("/") else _joined(posixpath.dirname(name), group)
            inner = package or folder.replace("/", ".")
            target = ".".join(filter(None, [here, inner]))
            self._add(tree, f"{folder}/{option}", target, chosen)


def _joined(folder: str, group: str) -> str:
    return posixpath.normpath(posixpath.join(folder, group))


def _at(tree: Tree, package: str) -> Tree:
    for part in filter(None, package.split(".")):
        inner = tree.get(part)
        tree[part] = inner if isinstance(inner, dict) else {}
        tree = tree[part]
    return tree


def _merge(tree: Tree, content: Mapping[str, Any], path: str) -> None:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            inner = tree.get(key)
            tree[key] = inner if isinstance(inner, dict) else {}
            _merge(tree[key], value, path)
        elif isinstance(value, dict) and isinstance(tree.get(key), dict):
            continue  # merging nothing into a mapping changes nothing
        else:
            tree[key] = Leaf(value, path)


def flat(tree: Tree, prefix: str = "") -> dict[str, Leaf]:
    """Dotted key -> leaf."""
    found: dict[str, Leaf] = {}
    for key, value in tree.items():
        if isinstance(value, Leaf):
            found[f"{prefix}{key}"] = value
        else:
            found |= flat(value, f"{prefix}{key}.")
    return found


def targets(tree: Tree) -> dict[str, str]:
    """Dotted prefix -> the class (`module.Class`) that the mapping there is handed to."""
    found = {key: leaf.value for key, leaf in flat(tree).items() if key.rpartition(".")[2] == TARGET}
    return {key.removesuffix(TARGET): value for key, value in found.items() if isinstance(value, str)}


def row(leaf: Leaf) -> Row:
    """A key whose only type is that of its default. Nothing checks it, so texts and nulls bind nobody."""
    value = leaf.value
    row: Row = {"type": "any", "default": value}
    if isinstance(value, (bool, int, float, list, dict)):
        row = {"type": type(value).__name__, "optional": True, "default": value}
    if value == {}:
        row["open"] = True
    return row
