"""The list of real runs (runs.yaml), each from a starter repo made as a user makes it.

    python -m tests.conformance.run_list                      every run of every framework
    python -m tests.conformance.run_list trl verl:sft-full    one framework, one run
    python -m tests.conformance.run_list --ci                 those that `make conformance` has
    --parse      train nothing: only let the framework judge what is emitted for them
    --record     write what was proven into rules/evidence
    --keep DIR   keep the starter repos there

Prints a line a run, then what each framework took. Exit code 1 when a run did not end as the list says.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from advisor.advise import Advice
from advisor.estimate.parameters import count_parameters
from advisor.facts.models import load_model
from advisor.frameworks import framework
from advisor.frameworks.digest import job_of
from advisor.plan import Plan
from advisor.rules import load_framework
from advisor.rules.evidence import Proof, unsharded
from advisor.rules.implied import implied_values
from advisor.starter.build import smoke_of
from tests.conformance.record import keep, keep_parsed, proof_of_parsing, proof_of_run
from tests.conformance.starters import (
    answers_for,
    clean_environment,
    environment,
    judge_all,
    smoke,
    starter,
)

LIST = Path(__file__).with_name("runs.yaml")
OURS = ("processes", "outcome", "then", "ci", "line")
"""Keys of a run that are not part of the request."""
CODES = {"ok": 0, "partial": 6}
LAST = re.compile(r"^smoke: (OK|PARTIAL|FAILED) ?(.*)$")
AFTERWARDS_TIMEOUT_S = 600


@dataclass(frozen=True)
class Run:
    framework: str
    name: str
    request: Mapping[str, Any]
    processes: int = 1
    outcome: str = "ok"
    """`ok`, `partial`, or `cannot`: the framework's own traceback ends with `line` on a CPU."""
    line: str = ""
    then: str = ""
    ci: bool = False

    @property
    def id(self) -> str:
        return f"{self.framework}:{self.name}"


@dataclass(frozen=True)
class Result:
    run: Run
    good: bool
    said: str
    """smoke.sh's last line, or why the run is none."""
    found: str = ""
    seconds: float = 0.0
    output: str = ""
    proofs: tuple[Proof, ...] = ()


def read_runs(path: Path = LIST) -> list[Run]:
    listed = yaml.safe_load(path.read_text("utf-8"))
    return [
        Run(
            name,
            run,
            {k: v for k, v in row.items() if k not in OURS},
            **{k: row[k] for k in OURS if k in row},
        )
        for name, runs in listed.items()
        for run, row in runs.items()
    ]


def chosen(runs: Sequence[Run], names: Sequence[str], ci: bool) -> Iterator[Run]:
    for run in runs:
        if (not names or run.framework in names or run.id in names) and (run.ci or not ci):
            yield run


def execute(run: Run, folder: Path) -> Result:
    """Makes the starter repo, runs its smoke.sh, and says whether it ended as the list has it."""
    advice = starter(folder, answers_for(run.framework, **run.request))
    if advice.best is None:
        reasons = [
            r.because for row in advice.rejected if row.framework == run.framework for r in row.reasons
        ]
        return Result(run, False, f"refused by the advisor: {'; '.join(reasons)}")
    before = set(folder.parent.rglob("*"))
    started = time.monotonic()
    code, output = smoke(folder, run.framework, run.processes)
    seconds = time.monotonic() - started
    outside = [p for p in folder.parent.rglob("*") if p not in before and folder not in p.parents]
    if outside:
        return Result(run, False, f"smoke.sh wrote outside its repo: {outside[0]}", output=output)
    if run.outcome == "cannot":
        good = code not in CODES.values() and run.line in output
        return Result(run, good, f"cannot: {run.line}" if good else last_line(output), "", seconds, output)
    if code != CODES[run.outcome]:
        return Result(run, False, f"exit {code}: {last_line(output)}", "", seconds, output)
    found = _line(output, "checkpoint: ")
    trained, left_out = trained_plan(run, advice)
    problem = count_differs(folder, trained, found) or not_sharded(folder, trained, run.processes)
    if problem:
        return Result(run, False, problem, found, seconds, output)
    if run.then:
        problem = AFTERWARDS[run.then](folder, run)
        if problem:
            return Result(run, False, f"{run.then}: {problem}", found, seconds, output)
    proofs = proofs_of(run, advice, trained, left_out, found, seconds)
    return Result(run, True, last_line(output), found, seconds, output, proofs)


def last_line(output: str) -> str:
    return (output.strip().splitlines() or [""])[-1]


def _line(output: str, start: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith(start)]
    return lines[-1].removeprefix(start) if lines else ""


def count_differs(folder: Path, trained: Plan, found: str) -> str:
    """Whether the saved file holds another number of trained parameters than the advisor counts for this plan.

    A DoRA's magnitudes are left out of the advisor's count, so nothing is said about them.
    """
    if trained.tuning == "dora":
        return ""
    config = folder / "smoke" / "work" / "model" / "config.json"
    layers = json.loads(config.read_text("utf-8")).get("num_hidden_layers", trained.freeze_trainable_layers)
    asked = re.search(r"--layers ([\d ]+)", (folder / "smoke.sh").read_text("utf-8"))
    layers = len(asked[1].split()) if asked else min(layers, trained.freeze_trainable_layers)
    counted = count_parameters(
        load_model(str(config)), replace(trained, freeze_trainable_layers=layers)
    ).trainable
    saved = re.search(r"([\d,]+) numbers", found)
    if saved is None or int(saved[1].replace(",", "")) != counted:
        return f"the advisor counts {counted:,} trained parameters, the checkpoint says: {found}"
    return ""


def not_sharded(folder: Path, trained: Plan, processes: int) -> str:
    """Whether the run left no trace of the sharding it is said to have had: a framework that takes the settings
    may still train data parallel.

    DeepSpeed writes `latest` beside its states; verl a file of each rank's shard; Unsloth says what it sharded.
    """
    if processes == 1 or trained.backend != "hf" or not trained.zero_stage:
        return ""
    work = folder / "smoke" / "work"
    if trained.fsdp:
        log = work / "log.txt"
        said = log.exists() and "FSDP2 sharded" in log.read_text("utf-8", errors="replace")
        there = said or any(work.rglob("model_world_size_*_rank_1.pt"))
    else:
        there = any(work.rglob("latest"))
    return "" if there else "nothing of the run says that it was sharded"


def proofs_of(
    run: Run, advice: Advice, trained: Plan, left_out: str, found: str, seconds: float
) -> tuple[Proof, ...]:
    """The judge has accepted the emitted files, and the trained plan has trained."""
    assert advice.best is not None
    plan, model = advice.best.plan, advice.resolved.model
    return (
        proof_of_parsing(run.framework, plan, model),
        proof_of_run(
            run.framework,
            trained,
            model,
            run=run.name,
            processes=run.processes,
            seconds=seconds,
            left_out=left_out,
            found=found,
        ),
    )


def trained_plan(run: Run, advice: Advice) -> tuple[Plan, str]:
    """What smoke.sh trains of this advice, and what it leaves out."""
    assert advice.best is not None
    module, plan = framework(run.framework), advice.best.plan
    smoked = smoke_of(module, plan, job_of(module, plan, advice.resolved.model, advice.best.version))
    trained = smoked.trained or plan
    if not smoked.spread_left_out:
        return trained, smoked.partial
    spread = smoked.spread_left_out if run.processes > 1 else ""
    plain = unsharded(trained, partial(implied_values, load_framework(run.framework))).normalised()
    return plain, ", ".join(part for part in (smoked.partial, spread) if part)


def export_adapter(folder: Path, run: Run) -> str:
    """LLaMA-Factory's own export: base and adapter merged. Returns a problem, or nothing."""
    work = folder / "smoke" / "work"
    config = {
        "model_name_or_path": str(work / "model"),
        "adapter_name_or_path": str(work / "output"),
        "template": yaml.safe_load((folder / "train.yaml").read_text("utf-8"))["template"],
        "finetuning_type": "lora",
        "export_dir": str(work / "merged"),
        "export_device": "cpu",
    }
    (work / "export.yaml").write_text(yaml.safe_dump(config), "utf-8")
    done = subprocess.run(
        ["llamafactory-cli", "export", str(work / "export.yaml")],
        cwd=folder,
        env=clean_environment(environment(run.framework).parent) | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=AFTERWARDS_TIMEOUT_S,
        check=False,
    )
    if done.returncode or not list((work / "merged").glob("model*.safetensors")):
        return (done.stdout + done.stderr)[-500:]
    return ""


def dry_run(folder: Path, run: Run) -> str:
    """Unsloth's own command on the YAML beside the script: what it resolves is what the file says."""
    file = folder / "unsloth.yaml"
    done = subprocess.run(
        [environment(run.framework), "-m", "unsloth_cli", "train", "--config", file.name, "--dry-run"],
        cwd=folder,
        env=clean_environment(environment(run.framework).parent) | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=AFTERWARDS_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        return (done.stdout + done.stderr)[-500:]
    written, resolved = yaml.safe_load(file.read_text("utf-8")), yaml.safe_load(done.stdout)
    other = _unlike(written, resolved)
    return f"--dry-run resolves {other} otherwise" if other else ""


def _unlike(written: Mapping[str, Any], resolved: Mapping[str, Any]) -> list[str]:
    """Keys of the file whose resolved value is another one."""
    return [
        key
        for key, value in written.items()
        if (_unlike(value, resolved[key]) if isinstance(value, Mapping) else value != resolved[key])
    ]


AFTERWARDS = {"export": export_adapter, "dry-run": dry_run}
"""What a run may go on to do with what it has saved."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--ci", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--parse", action="store_true")
    given = parser.parse_args()
    if given.parse:
        with tempfile.TemporaryDirectory() as folder:
            runs = list(chosen(read_runs(), given.names, given.ci))
            return 0 if parse_only(runs, Path(folder), given.record) else 1
    results: list[Result] = []
    for run in chosen(read_runs(), given.names, given.ci):
        folder = (given.keep or Path(tempfile.mkdtemp())) / run.framework / run.name
        shutil.rmtree(folder, ignore_errors=True)
        try:
            result = execute(run, folder)
        except subprocess.TimeoutExpired as error:
            result = Result(run, False, f"timed out after {error.timeout:.0f} s")
        results.append(result)
        print(f"{'ok  ' if result.good else 'FAIL'} {run.id}: {result.said}  {result.found}", flush=True)
        if not result.good:
            print(result.output[-3000:], flush=True)
        if given.record and result.proofs:
            keep(run.framework, result.proofs)
        if not given.keep:
            shutil.rmtree(folder.parents[1], ignore_errors=True)
    print_summary(results)
    return 0 if all(result.good for result in results) else 1


def parse_only(runs: Sequence[Run], folder: Path, record: bool) -> bool:
    """Makes every starter repo and has the framework judge its files. Returns whether all were accepted."""
    good = True
    for name in dict.fromkeys(run.framework for run in runs):
        repos = [folder / name / run.name for run in runs if run.framework == name]
        for run, repo in zip((r for r in runs if r.framework == name), repos, strict=True):
            starter(repo, answers_for(name, **run.request))
        problems = {path: found for path, found in judge_all(name, repos).items() if found}
        print(
            f"{name}: {len(repos)} starter repos, {len(problems)} files refused {problems or ''}", flush=True
        )
        good = good and not problems
        if record and not problems:
            print(f"{name}: {keep_parsed(name, repos)} kinds of plan recorded as parsed", flush=True)
    return good


def print_summary(results: Sequence[Result]) -> None:
    for name in dict.fromkeys(result.run.framework for result in results):
        mine = [result for result in results if result.run.framework == name]
        counts = {
            word: sum(r.good and r.run.outcome == word for r in mine) for word in ("ok", "partial", "cannot")
        }
        failed = sum(not r.good for r in mine)
        seconds = sum(r.seconds for r in mine)
        print(
            f"{name}: {counts['ok']} OK, {counts['partial']} PARTIAL, {counts['cannot']} that no CPU can run, "
            f"{failed} FAILED, {seconds:.0f} s: " + ", ".join(f"{r.run.name} {r.seconds:.0f}" for r in mine)
        )


if __name__ == "__main__":
    sys.exit(main())
