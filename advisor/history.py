"""What became of a key that a release does not take: from the snapshots and rules/renames.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from advisor import schemas
from advisor.paths import rules_root
from advisor.releases import release_key


@dataclass(frozen=True, slots=True)
class Rename:
    """A key that a release no longer takes."""

    package: str
    old: str
    until: str
    """The first release without it."""
    source: str
    new: str = ""
    """What to write now; empty: nothing takes its place."""
    note: str = ""
    document: str = ""
    """How the names of its documents start; empty: it holds in every document."""

    def text(self) -> str:
        where = f"{self.package} {self.until}"
        head = f"gone since {where}, it is {self.new} now" if self.new else f"gone since {where}"
        return f"{head} ({self.note})" if self.note else head


@cache
def renames() -> tuple[Rename, ...]:
    # Imported here: only a key that is not known asks.
    import yaml

    content = yaml.safe_load((rules_root() / "renames.yaml").read_text("utf-8"))
    return tuple(Rename(package, **row) for package, rows in content.items() for row in rows)


def renames_of(framework: str, version: str) -> Iterator[Rename]:
    """Those that have come to pass in a release, or in a package that it inherits keys from."""
    packages = {framework: version, **schemas.load(framework, version).pairs}
    for row in renames():
        if row.package in packages and release_key(row.until) <= release_key(packages[row.package]):
            yield row


def told(framework: str, version: str, document: str, problem: schemas.Problem) -> str:
    """Why a release does not take a key that another takes or took; empty: nothing is known of it."""
    return became(framework, version, document, problem.key) if problem.kind == "unknown" else ""


def taken_since(framework: str, version: str, document: str, key: str, value: Any) -> str:
    """The first later release read that takes this value of a top-level key; empty: none does."""
    for later in reversed(schemas.versions(framework)):
        newer = release_key(later) > release_key(version) and takes(framework, later, document, key)
        if newer and not schemas.problems(framework, later, document, {key: value}):
            return later
    return ""


def became(framework: str, version: str, document: str, key: str) -> str:
    """The same of a key."""
    for row in renames_of(framework, version):
        if row.old == key and document.startswith(row.document):
            return row.text()
    for row in renames():
        before = row.package == framework and release_key(version) < release_key(row.until)
        if before and row.new == key and takes(framework, version, document, row.old):
            return f"called {row.old} before {row.until}"
    there = [v for v in schemas.versions(framework) if takes(framework, v, document, key)]
    newer = [v for v in there if release_key(v) > release_key(version)]
    older = [v for v in there if release_key(v) < release_key(version)]
    if newer:
        return f"new in {newer[-1]}"
    if older:
        without = [v for v in schemas.versions(framework) if release_key(v) > release_key(older[0])]
        return f"gone since {without[-1]}"
    return ""


def takes(framework: str, version: str, document: str, key: str) -> bool:
    """Whether a release takes the key there; not, where it has no such document."""
    try:
        return schemas.accepts(framework, version, document, key)
    except schemas.NoSnapshot:
        return False
