"""Starter repos for the conformance tests: made as a user makes them, judged and run in the framework's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from advisor.advise import Advice, advise
from advisor.frameworks import framework
from advisor.request import parse_request
from advisor.starter.build import build
from advisor.starter.write import write_starter

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
JUDGE_TIMEOUT_S = 1800
SMOKE_TIMEOUT_S = 900

DATA_OF = {
    "cpt": "cpt.jsonl",
    "sft": "sft.jsonl",
    "gkd": "sft.jsonl",
    "kto": "kto.jsonl",
    "rm": "preference.jsonl",
}
PREFERENCE = ("dpo", "ipo", "orpo", "simpo", "cpo")


def data_for(method: str) -> str:
    name = DATA_OF.get(method) or ("preference.jsonl" if method in PREFERENCE else "rl.jsonl")
    return str(DATA / name)


@cache
def environment(name: str) -> Path:
    """Python of a framework's environment, built when it is not there yet."""
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "framework_env.py"), name],
        capture_output=True,
        text=True,
        check=True,
        timeout=3600,
    )
    return Path(run.stdout.split("\t")[1].strip())


def beside(name: str, repo: Path) -> str:
    """Folder with the packages of a repo's CPU requirements that the framework's environment lacks; "": none."""
    has = set((ROOT / "rules" / "pins" / name / "cpu.txt").read_text("utf-8").splitlines())
    wanted = [
        line for line in (repo / "requirements-cpu.txt").read_text("utf-8").splitlines() if line not in has
    ]
    return _folder_of(tuple(sorted(line for line in wanted if not line.startswith("#"))))


@cache
def _folder_of(pins: tuple[str, ...]) -> str:
    if not pins:
        return ""
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "framework_env.py"), "--beside", *pins],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    return run.stdout.strip()


def answers_for(name: str, **changes: Any) -> dict[str, Any]:
    """A request for one framework: Qwen3-8B on H100s, with example data of the method."""
    answers: dict[str, Any] = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "framework": name, **changes}
    answers.setdefault("data", [data_for(answers["method"])])
    if answers["method"] == "gkd":
        answers.setdefault("teacher", "Qwen/Qwen3-14B")
    if answers["method"] == "ppo":
        answers.setdefault("reward_model", "Skywork/Skywork-Reward-V2-Qwen3-8B")
    return {name: value for name, value in answers.items() if value is not None}


def starter(folder: Path, answers: Mapping[str, Any]) -> Advice:
    """Writes the starter repo; the advice tells what was chosen. An empty ranking writes nothing."""
    advice = advise(parse_request(answers))
    if advice.best is not None:
        write_starter(folder, build(advice, advice.best, dict(answers)), force=False)
    return advice


def judge_all(name: str, repos: Sequence[Path]) -> dict[str, list[str]]:
    """Problems of every judged file of these starter repos, by path: one process of the framework for repos that need
    the same packages."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for repo in repos:
        advice = json.loads((repo / "advice.json").read_text("utf-8"))
        files = [
            path
            for role in ("config", "accelerate", "deepspeed", "fsdp")
            for path in advice["files"].get(role, [])
        ]
        groups.setdefault(beside(name, repo), []).extend(
            {
                "path": str(repo / path),
                "world_size": advice["plan"]["world_size"],
                "model_dir": str(repo / "smoke" / "model_config"),
            }
            for path in files
        )
    found: dict[str, list[str]] = {}
    for packages, work in groups.items():
        found |= _judge(name, work, packages)
    return found


def judge_files(name: str, files: Sequence[Path]) -> dict[str, list[str]]:
    """Problems of configurations that stand by themselves, by path: one process of the framework."""
    return _judge(name, [{"path": str(file), "world_size": 1, "model_dir": None} for file in files])


def _judge(name: str, work: Sequence[Mapping[str, Any]], packages: str = "") -> dict[str, list[str]]:
    driver = Path(__file__).with_name("judge_many.py")
    judge = ROOT / "advisor" / "judges" / framework(name).JUDGE
    run = subprocess.run(
        [str(environment(name)), str(driver), str(judge)],
        input=json.dumps(list(work)),
        capture_output=True,
        text=True,
        timeout=JUDGE_TIMEOUT_S,
        env=clean_environment(environment(name).parent, packages),
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def smoke(repo: Path, name: str, processes: int = 1) -> tuple[int, str]:
    """Runs ./smoke.sh in this many processes, the framework's environment first on PATH.

    Returns the exit code and all output.
    """
    run = subprocess.run(
        ["bash", "./smoke.sh"],
        cwd=repo,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SMOKE_TIMEOUT_S,
        env=clean_environment(environment(name).parent, beside(name, repo))
        | {"SMOKE_PROCESSES": str(processes)},
        check=False,
    )
    return run.returncode, run.stdout


def clean_environment(bin_folder: Path, packages: str = "") -> dict[str, str]:
    """The caller's environment, with this framework's programs first and no Python settings of ours; `packages`: a
    folder of more of them."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    kept |= {"PYTHONPATH": packages} if packages else {}
    return {**kept, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
