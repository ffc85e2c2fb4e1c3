"""Which releases something holds for."""

from __future__ import annotations


def in_release(since: str, until: str, version: str) -> bool:
    """Whether `since <= version < until`; an empty bound is open, an empty version is the newest."""
    if not version:
        return not until
    here = release_key(version)
    return (not since or release_key(since) <= here) and (not until or here < release_key(until))


def release_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
