"""Writes rules/schemas/<framework>/<version>.json: what a released version accepts, read without importing it.

    python tools/extract_schemas.py trl                 # the releases listed in rules/schemas/releases.yaml
    python tools/extract_schemas.py trl 1.16.0 1.15.0   # these
    python tools/extract_schemas.py --all
    python tools/extract_schemas.py --pairs trl 1.15.0  # the line of releases.yaml for a release
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
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.schema_sources.archives import Archive, Source, download, released_versions  # noqa: E402
from tools.schema_sources.recipes import RECIPES  # noqa: E402
from tools.schema_sources.snapshot import Schema, as_text  # noqa: E402

SCHEMAS = ROOT / "rules" / "schemas"
DISTRIBUTIONS = {"ms-swift": "swift"}
"""Distribution -> import name, where they differ."""
PAIRED = {
    "trl": ("transformers",),
    "llamafactory": ("transformers",),
    "ms-swift": ("transformers",),
    "unsloth": ("trl", "transformers", "peft"),
}
"""Framework -> packages whose keys it inherits."""


def cache() -> Path:
    named = os.environ.get("ADVISOR_ARCHIVE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "posttrain-advisor" / "archives"


def listed() -> dict[str, dict[str, dict[str, str]]]:
    """framework -> version -> the versions of other packages it is read with."""
    return yaml.safe_load((SCHEMAS / "releases.yaml").read_text("utf-8"))


def import_name(distribution: str) -> str:
    return DISTRIBUTIONS.get(distribution, distribution.replace("-", "_"))


def pairs_of(framework: str, version: str) -> dict[str, str]:
    """The newest versions of the packages it inherits keys from that the release allows and that were out."""
    archive = download(framework, version, cache())
    return {package: newest_allowed(archive, package) for package in PAIRED.get(framework, ())}


def newest_allowed(archive: Archive, package: str) -> str:
    """Raises LookupError when the release allows none that was built before it."""
    requirements = [Requirement(text) for text in archive.requires]
    allowed = SpecifierSet()
    for requirement in requirements:
        here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if here and canonicalize_name(requirement.name) == canonicalize_name(package):
            allowed &= requirement.specifier
    for candidate in released_versions(package):
        if candidate in allowed:
            built = download(package, candidate, cache()).built
            if not built or not archive.built or built <= archive.built:
                return candidate
    raise LookupError(f"{archive.path.name} allows {package}{allowed}, and none was out by {archive.built}")


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
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--newer", action="store_true")
    arguments = parser.parse_args()
    releases = listed()
    if arguments.newer:
        return newer(releases)
    if not arguments.framework and not arguments.all:
        parser.error("name a framework, or give --all")
    if arguments.pairs:
        for version in arguments.versions:
            found = pairs_of(arguments.framework, version)
            print(
                f"  {version}: {{{', '.join(f'{name}: {pinned}' for name, pinned in found.items())}}}",
                flush=True,
            )
        return 0
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
