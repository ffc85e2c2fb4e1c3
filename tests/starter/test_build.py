"""What is in a starter repo, for every framework and launcher: well-formed, self-contained, named in advice.json."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.advise import advise
from advisor.errors import InputError
from advisor.frameworks import NAMES
from advisor.frameworks.base import Emitted
from advisor.frameworks.table import Derived
from advisor.request import parse_request
from advisor.schemas import NotAccepted
from advisor.starter.build import build

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
ROLES = {
    "config", "script", "accelerate", "deepspeed", "fsdp", "dataset_info", "reward", "data", "launch", "smoke",
    "slurm", "ray", "kubernetes", "skypilot", "docker", "requirements", "report", "readme", "answers",
}  # fmt: skip
SHAPES: list[dict[str, Any]] = [
    {},
    {"nodes": 2, "gpus_per_node": 8},
    {"nodes": 2, "gpus_per_node": 8, "launcher": "kubeflow"},
    {"nodes": 2, "gpus_per_node": 8, "launcher": "skypilot"},
]
POOLS: list[dict[str, Any]] = [
    {"gpus_per_node": 8, "tuning": "full", "rollout_gpus": 2},
    {"nodes": 4, "gpus_per_node": 8, "tuning": "full", "rollout_gpus": 8},
]
"""GPUs that only generate: of one machine, and machines of their own."""


@cache
def _files(name: str, number: int, method: str) -> tuple[Emitted, ...]:
    data = DATA / ("rl.jsonl" if method == "grpo" else "sft.jsonl")
    answers = {
        "model": "Qwen/Qwen3-8B",
        "gpu": "h100",
        "method": method,
        "data": [str(data)],
        "framework": name,
    }
    answers |= [*SHAPES, *POOLS][number]
    advice = advise(parse_request(answers))
    assert advice.best is not None, [row.as_dict() for row in advice.rejected]
    return tuple(build(advice, advice.best, answers))


def cases() -> Iterator[tuple[str, int, str]]:
    for name in NAMES:
        for number in range(len(SHAPES)):
            yield name, number, "sft"
    yield "verl", 1, "grpo"
    yield "trl", 0, "grpo"
    for name in ("trl", "axolotl", "ms-swift", "verl"):
        for number in range(len(POOLS)):
            yield name, len(SHAPES) + number, "grpo"


@pytest.mark.parametrize(("name", "number", "method"), list(cases()))
def test_every_file_is_well_formed(name: str, number: int, method: str, tmp_path: Path) -> None:
    scripts: list[str] = []
    for file in _files(name, number, method):
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, "utf-8")
        assert file.role in ROLES, file
        assert file.text.endswith("\n"), file.path
        assert "{{" not in file.text or path.suffix in (".py", ".json", ".jsonl"), file.path
        if path.suffix in (".yaml", ".yml"):
            assert yaml.safe_load(file.text)
        elif path.suffix == ".json":
            json.loads(file.text)
        elif path.suffix == ".py":
            ast.parse(file.text)
        elif path.suffix in (".sh", ".sbatch"):
            scripts.append(file.path)
    run = subprocess.run(
        [str(Path(sys.executable).parent / "shellcheck"), "-x", "-s", "bash", *scripts],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("name", NAMES)
def test_advice_names_the_files(name: str) -> None:
    files = {file.path: file for file in _files(name, 0, "sft")}
    advice = json.loads(files["advice.json"].text)
    listed = {path for paths in advice["files"].values() for path in paths}
    assert listed == set(files)
    assert set(advice["files"]) <= ROLES
    assert advice["framework"] == name
    assert advice["command"]
    assert advice["files"]["config"]
    for key in (
        "request",
        "model",
        "cluster",
        "ranking",
        "rejected",
        "alternatives",
        "warnings",
        "versions",
        "plan",
    ):
        assert key in advice


@pytest.mark.parametrize("name", NAMES)
def test_nothing_points_outside(name: str) -> None:
    for file in _files(name, 0, "sft"):
        if file.role not in ("answers", "report", "readme", "data"):
            assert str(ROOT) not in file.text, file.path


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_configuration_says_why(name: str) -> None:
    for file in _files(name, 0, "sft"):
        if file.role != "config":
            continue
        silent = [line for line in settings_of(file) if "#" not in line]
        assert not silent, (file.path, silent)


def settings_of(file: Emitted) -> list[str]:
    """The lines that set something: top-level keys of a YAML, entries of the overrides array of a script."""
    lines = file.text.splitlines()
    if file.path.endswith(".yaml"):
        return [line for line in lines if line and not line.startswith((" ", "#"))]
    if file.path.endswith(".sh"):
        inside = lines[lines.index("overrides=(") + 1 :]
        inside = inside[: inside.index(")")]
        return [line for line in inside if line.strip() and not line.strip().startswith("#")]
    return []


def test_a_configuration_beside_the_tables_is_held_to_the_release_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "model": "Qwen/Qwen3-8B",
        "method": "sft",
        "framework": "unsloth",
        "gpu": "h100",
        "data": [str(DATA / "sft.jsonl")],
    }
    advice = advise(parse_request(answers))
    assert advice.best is not None
    assert "unsloth.yaml" in {file.path for file in build(advice, advice.best, answers)}
    planted = Derived("training.no_such_key", lambda plan, job: 1, "planted")
    monkeypatch.setattr("advisor.frameworks.unsloth.cli.ROWS", (planted,))
    with pytest.raises(NotAccepted, match="no_such_key"):
        build(advice, advice.best, answers)


def test_launchers_are_the_ones_asked_for() -> None:
    def paths(number: int, name: str = "trl", method: str = "sft") -> set[str]:
        return {file.path for file in _files(name, number, method)}

    assert not {path for path in paths(0) if path.startswith("launch/") and path != "launch/env.sh"}
    assert "launch/slurm.sbatch" in paths(1)
    assert "launch/trainjob.yaml" in paths(2)
    assert "launch/sky.yaml" in paths(3)
    assert "launch/ray.sh" in paths(1, "verl", "grpo")


RECORDER = """#!/usr/bin/env bash
echo "$1 $CUDA_VISIBLE_DEVICES" >>"$LOG"
if [[ "$1" == "$SERVER" ]]; then exec sleep 60; fi
sleep 0.3
"""


@pytest.mark.parametrize(
    ("name", "program", "server", "trainer"),
    [
        ("trl", "trl", "vllm-serve", "grpo"),
        ("axolotl", "axolotl", "vllm-serve", "train"),
        ("ms-swift", "swift", "rollout", "rlhf"),
    ],
)
def test_the_gpus_of_one_machine_are_divided(
    name: str, program: str, server: str, trainer: str, tmp_path: Path
) -> None:
    """run.sh starts the server on the last GPUs, the trainer on the others, and ends the server with it."""
    for file in _files(name, len(SHAPES), "grpo"):
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, "utf-8")
    stub = tmp_path / "bin" / program
    stub.parent.mkdir()
    stub.write_text(RECORDER, "utf-8")
    stub.chmod(0o755)
    log = tmp_path / "log"
    run = subprocess.run(
        ["bash", "run.sh"],
        cwd=tmp_path,
        env={"PATH": f"{stub.parent}:/usr/bin:/bin", "LOG": str(log), "SERVER": server},
        timeout=30,
        check=False,
    )
    assert run.returncode == 0
    assert set(log.read_text("utf-8").splitlines()) == {f"{server} 6,7", f"{trainer} 0,1,2,3,4,5"}


def test_slurm_gives_machines_to_the_server() -> None:
    texts = {file.path: file.text for file in _files("ms-swift", len(SHAPES) + 1, "grpo")}
    batch = texts["launch/slurm.sbatch"]
    assert "#SBATCH --nodes=4" in batch
    assert "bash launch/rollout.sh &" in batch
    assert "NNODES=3" in batch
    assert '--vllm_server_host "${rollout_hosts[@]}"' in texts["run.sh"]


@pytest.mark.parametrize("launcher", ["kubeflow", "skypilot"])
def test_a_launcher_that_cannot_divide_the_gpus_is_refused(launcher: str) -> None:
    answers = {
        "model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "grpo", "framework": "trl", "launcher": launcher, **POOLS[0],
    }  # fmt: skip
    advice = advise(parse_request(answers))
    assert advice.best is not None
    with pytest.raises(InputError, match=launcher):
        build(advice, advice.best, answers)


def test_an_adapter_is_carried_or_refused() -> None:
    """Starting from an existing LoRA is never dropped in silence."""
    carried, refused = 0, list[str]()
    for name in NAMES:
        answers = {
            "model": "Qwen/Qwen3-8B",
            "gpu": "h100",
            "method": "sft",
            "tuning": "lora",
            "framework": name,
        }
        answers |= {"data": [str(DATA / "sft.jsonl")], "adapter": "my-old-adapter"}
        advice = advise(parse_request(answers))
        assert advice.best is not None
        try:
            files = build(advice, advice.best, answers)
        except InputError as error:
            refused.append(error.field)
            continue
        assert any("my-old-adapter" in file.text for file in files if file.role in ("config", "script"))
        carried += 1
    assert carried
    assert set(refused) <= {"adapter"}
