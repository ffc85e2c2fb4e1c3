"""Writes rules/schemas/<framework>/<version>.json: what a released version accepts, read without importing it.

    python tools/extract_schemas.py trl                 # the releases listed in rules/schemas/releases.yaml
    python tools/extract_schemas.py trl 1.16.0 1.15.0   # these
    python tools/extract_schemas.py --all
    python tools/extract_schemas.py --newer             # releases on the package index that are not listed yet

Archives are downloaded with pip, by name and version, into ADVISOR_ARCHIVE_CACHE or
~/.cache/posttrain-advisor/archives. A snapshot is the same text whenever the same archives are read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.schema_sources.archives import Archive, Source, download, released_versions  # noqa: E402
from tools.schema_sources.recipes import RECIPES  # noqa: E402
from tools.schema_sources.snapshot import Schema, as_text  # noqa: E402

SCHEMAS = ROOT / "rules" / "schemas"
DISTRIBUTIONS = {"ms-swift": "swift"}
"""Distribution -> import name, where they differ."""


def cache() -> Path:
    named = os.environ.get("ADVISOR_ARCHIVE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "posttrain-advisor" / "archives"


def listed() -> dict[str, dict[str, dict[str, str]]]:
    """framework -> version -> the versions of other packages it is read with."""
    return yaml.safe_load((SCHEMAS / "releases.yaml").read_text("utf-8"))


def import_name(distribution: str) -> str:
    return DISTRIBUTIONS.get(distribution, distribution.replace("-", "_"))


def extract(framework: str, packages: Mapping[str, Source]) -> Schema:
    """The schema of a framework from its package and those it inherits keys from, by import name."""
    return RECIPES[framework](packages)


def write(framework: str, version: str, pairs: Mapping[str, str]) -> Path:
    """Downloads, reads and writes one snapshot."""
    archives: dict[str, Archive] = {framework: download(framework, version, cache())}
    archives |= {package: download(package, pinned, cache()) for package, pinned in pairs.items()}
    schema = extract(framework, {import_name(name): archive for name, archive in archives.items()})
    if not schema.documents:
        raise RuntimeError(f"{framework} {version}: no document was found; tools/schema_sources/recipes.py")
    head: dict[str, Any] = {
        "framework": framework,
        "version": version,
        "released": archives[framework].built,
        "pairs": dict(pairs),
        "sources": [
            {"package": name, "version": a.version, "file": a.path.name, "sha256": a.sha256}
            for name, a in archives.items()
        ],
    }
    target = SCHEMAS / framework / f"{version}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(as_text(head, schema), encoding="utf-8")
    return target


def newer(releases: Mapping[str, Mapping[str, Any]]) -> int:
    """Prints what was released since; 1 when there is something."""
    found = False
    for framework, known in releases.items():
        latest = next(iter(known))
        versions = released_versions(framework)
        fresh = versions[: versions.index(latest)] if latest in versions else versions[:1]
        print(f"{framework}: {', '.join(fresh) or 'nothing newer than ' + latest}")
        found = found or bool(fresh)
    return int(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("framework", nargs="?", choices=list(RECIPES))
    parser.add_argument("versions", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--newer", action="store_true")
    arguments = parser.parse_args()
    releases = listed()
    if arguments.newer:
        return newer(releases)
    if not arguments.framework and not arguments.all:
        parser.error("name a framework, or give --all")
    for framework in RECIPES if arguments.all else [arguments.framework]:
        for version in arguments.versions or releases[framework]:
            if version not in releases[framework]:
                parser.error(
                    f"{framework} {version} is not in rules/schemas/releases.yaml: add it, with its pairs"
                )
            written = write(framework, version, releases[framework][version] or {})
            print(f"{written.relative_to(ROOT)}\t{written.stat().st_size} bytes", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
