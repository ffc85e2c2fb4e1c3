"""Build (once) the environment of one framework from its pinned set, and print its Python.

    python tools/framework_env.py trl            # prints <cache>/trl-<key>/bin/python
    python tools/framework_env.py --all
    python tools/framework_env.py --beside galore-torch==1.0 ...   # prints a folder for PYTHONPATH that holds these

An environment is keyed by the text of its pins and by this recipe, lives outside the checkout
(``ADVISOR_ENV_CACHE`` or ``~/.cache/posttrain-advisor/envs``) and counts as built only when its
marker file exists: a half-built one is thrown away. Only the standard library is used, because
this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "rules" / "pins"
FRAMEWORKS = ("trl", "axolotl", "llamafactory", "ms-swift", "unsloth", "verl")
TORCH = "torch==2.13.0"
RECIPE = "2"  # raise when the steps below change, so that cached environments are rebuilt
ATTEMPTS = 4
STEP_TIMEOUT_S = 1500
DEEPSPEED = re.compile(r"^#.*\bdeepspeed==(?P<version>[0-9.]+\d)")


def pins_file(framework: str) -> Path:
    return PINS / framework / "cpu.txt"


def deepspeed_version(pins: str) -> str | None:
    """DeepSpeed is built apart: its set-up needs torch in the environment already."""
    found = DEEPSPEED.match(pins.splitlines()[0])
    return found["version"] if found else None


def environment_dir(framework: str) -> Path:
    key = hashlib.sha256(
        "\n".join([RECIPE, TORCH, sys.version.split()[0], pins_file(framework).read_text()]).encode()
    ).hexdigest()[:12]
    root = os.environ.get("ADVISOR_ENV_CACHE")
    base = Path(root) if root else Path.home() / ".cache" / "posttrain-advisor" / "envs"
    return base / f"{framework}-{key}"


def _run(command: Sequence[str | Path], *, env: dict[str, str] | None = None) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            subprocess.run(
                [str(part) for part in command],
                check=True,
                timeout=STEP_TIMEOUT_S,
                env={**os.environ, **(env or {})},
                stdout=sys.stderr,
                stdin=subprocess.DEVNULL,
            )
            return
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            if attempt == ATTEMPTS:
                raise
            time.sleep(5 * attempt)


def build(framework: str) -> Path:
    """Return the Python of the framework's environment, building it when it is not there yet.

    Raises subprocess.CalledProcessError or TimeoutExpired when a step fails four times.
    """
    target = environment_dir(framework)
    python = target / "bin" / "python"
    marker = target / ".complete"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f"{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists():
            return python
        if target.exists():
            shutil.rmtree(target)
        started = time.monotonic()
        _run([sys.executable, "-m", "venv", target])
        pip = [python, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "8"]
        _run([*pip, TORCH])
        # No resolver: the set is complete, and a resolver would drag in a CUDA build of torch.
        _run([*pip, "--no-deps", "--ignore-requires-python", "-r", pins_file(framework)])
        deepspeed = deepspeed_version(pins_file(framework).read_text())
        if deepspeed:
            _run(
                [*pip, "--no-deps", "--no-build-isolation", f"deepspeed=={deepspeed}"],
                env={"DS_BUILD_OPS": "0"},
            )
        # torchaudio's libraries are linked against CUDA; only its Python modules are imported here.
        for library in target.glob("lib/python*/site-packages/torchaudio/lib/*.so"):
            library.unlink()
        marker.write_text(f"{time.monotonic() - started:.0f} s\n")
    return python


def beside(lines: Sequence[str]) -> Path:
    """A folder with packages that only some plans need, beside an environment that stays as it is."""
    key = hashlib.sha256("\n".join([sys.version.split()[0], *sorted(lines)]).encode()).hexdigest()[:12]
    target = environment_dir(FRAMEWORKS[0]).parent / f"beside-{key}"
    marker = target / ".complete"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f"{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists():
            if target.exists():
                shutil.rmtree(target)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "8"]
            _run([*pip, "--no-deps", "--target", target, *sorted(lines)])
            marker.touch()
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("frameworks", nargs="*", choices=[*FRAMEWORKS, []])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--beside", nargs="+", metavar="PIN")
    arguments = parser.parse_args()
    if arguments.beside:
        print(beside(arguments.beside))
        return 0
    for framework in FRAMEWORKS if arguments.all else arguments.frameworks:
        print(f"{framework}\t{build(framework)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
