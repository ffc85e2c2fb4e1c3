"""Texts of a released package: out of a wheel or sdist, or out of an installed folder. Nothing is run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from email.parser import HeaderParser
from functools import cached_property
from pathlib import Path
from typing import Protocol

DOWNLOAD_TIMEOUT_S = 600
ATTEMPTS = 4
SUFFIXES = (".py", ".yaml", "/METADATA", "/PKG-INFO")
# Timestamps that a reproducible build writes in place of a date.
STAND_IN_DATES = ("1980-", "2016-01-01", "2020-02-02")


class Source(Protocol):
    """One package of one version. Paths are relative to what stands in site-packages, with `/`."""

    package: str
    version: str

    def read(self, path: str) -> str | None: ...

    def names(self, folder: str) -> list[str]:
        """What stands directly in a folder, in order."""
        ...


class Archive:
    """A downloaded wheel or sdist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        name = path.name.removesuffix(".whl").removesuffix(".tar.gz")
        if path.suffix == ".whl":
            self.package, self.version = name.split("-")[:2]
        else:
            self.package, _, self.version = name.rpartition("-")

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def _texts(self) -> dict[str, bytes]:
        if self.path.suffix == ".whl":
            with zipfile.ZipFile(self.path) as wheel:
                return {name: wheel.read(name) for name in wheel.namelist() if name.endswith(SUFFIXES)}
        texts: dict[str, bytes] = {}
        with tarfile.open(self.path) as sdist:
            for member in sdist:
                # An sdist has one folder on top, and often `src/` below it.
                name = member.name.partition("/")[2].removeprefix("src/")
                content = sdist.extractfile(member) if name.endswith(SUFFIXES) else None
                if content:
                    texts[name] = content.read()
        return texts

    def read(self, path: str) -> str | None:
        content = self._texts.get(path)
        return None if content is None else content.decode("utf-8")

    def names(self, folder: str) -> list[str]:
        below = (name.removeprefix(f"{folder}/") for name in self._texts if name.startswith(f"{folder}/"))
        return sorted({name.partition("/")[0] for name in below})

    @cached_property
    def requires(self) -> list[str]:
        """Requirements as the metadata lists them."""
        found = sorted((n for n in self._texts if n.endswith(("/METADATA", "PKG-INFO"))), key=len)
        return HeaderParser().parsestr(self.read(found[0]) or "").get_all("Requires-Dist") or []

    @cached_property
    def built(self) -> str | None:
        """Date of the newest file in the archive; None where the build wrote a stand-in."""
        if self.path.suffix == ".whl":
            with zipfile.ZipFile(self.path) as wheel:
                newest = max(info.date_time for info in wheel.infolist())
            date = "{:04}-{:02}-{:02}".format(*newest[:3])
        else:
            with tarfile.open(self.path) as sdist:
                seconds = max(member.mtime for member in sdist)
            date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
        return None if date.startswith(STAND_IN_DATES) else date


class Installed:
    """A package in a site-packages folder."""

    def __init__(self, folder: Path, package: str, version: str) -> None:
        self.folder, self.package, self.version = folder, package, version

    def read(self, path: str) -> str | None:
        file = self.folder / path
        return file.read_text("utf-8") if file.is_file() else None

    def names(self, folder: str) -> list[str]:
        path = self.folder / folder
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


def _pip(*arguments: str) -> str:
    """Output of pip. Raises subprocess.CalledProcessError or TimeoutExpired after four failures."""
    command = [sys.executable, "-m", "pip", *arguments]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            done = subprocess.run(
                command, check=True, timeout=DOWNLOAD_TIMEOUT_S, capture_output=True, text=True
            )
            return done.stdout
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            if attempt == ATTEMPTS:
                raise
            time.sleep(3 * attempt)
    raise AssertionError


def download(package: str, version: str, cache: Path) -> Archive:
    """The wheel of a release, from the cache or through pip; the sdist where there is no wheel.

    Raises subprocess.CalledProcessError or TimeoutExpired when neither can be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"{package.replace('-', '_')}-{version}"
    cached = [*cache.glob(f"{stem}-*.whl"), *cache.glob(f"{stem}.tar.gz")]
    if cached:
        return Archive(cached[0])
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        common = ("download", "--quiet", "--no-deps", "--ignore-requires-python", "--dest", folder)
        try:
            _pip(*common, "--only-binary", ":all:", f"{package}=={version}")
        except subprocess.CalledProcessError:
            _pip(*common, "--no-binary", ":all:", f"{package}=={version}")
        found = next(file for file in Path(folder).iterdir() if file.name.endswith((".whl", ".tar.gz")))
        return Archive(found.rename(cache / found.name))


def released_versions(package: str) -> list[str]:
    """Every release that pip can install here, newest first."""
    listing = _pip("index", "versions", "--ignore-requires-python", package)
    line = next(line for line in listing.splitlines() if line.startswith("Available versions:"))
    return [version.strip() for version in line.partition(":")[2].split(",")]
