"""advisor/rules/evidence.py: the rows, the cell of a plan, and what is said of a plan that was not run."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.facts.models import load_model
from advisor.frameworks import NAMES
from advisor.plan import METHODS, OFFLOADS, QUANTIZATIONS, ROLLOUT_ENGINES, ROLLOUT_PLACEMENTS, TUNINGS, Plan
from advisor.rules import evidence, load_framework
from advisor.rules.evidence import KINDS, Proof, as_run, cell_of, load_proofs, proof_of, proven, unsharded
from tests.conformance.record import write

DENSE = load_model("Qwen/Qwen3-8B")
MIXTURE = load_model("Qwen/Qwen3-30B-A3B")
LATENT = load_model("deepseek-ai/DeepSeek-R1-0528")
ROOT = Path(__file__).resolve().parents[2]
ONE_GPU = Plan(method="sft", tuning="lora")
ZERO = Plan(method="sft", tuning="full", zero_stage=2, gpus_per_node=8)


def proof(kind: str, plan: Plan, **changes: Any) -> Proof:
    row = Proof(
        kind=kind,
        cell=cell_of(plan, DENSE),
        digests=("abc",),
        model=DENSE.id,
        plan={},
        versions={"demo": "1.0"},
        date="2026-11-01",
    )
    return replace(row, **changes)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the rows that there are."""

    def put(*proofs: Proof) -> None:
        monkeypatch.setattr(evidence, "load_proofs", lambda framework, about: proofs)

    return put


def ask(plan: Plan, digest: str = "abc") -> dict[str, Any]:
    return proven("demo", "1.0", plan, DENSE, lambda: digest)


@pytest.mark.parametrize(
    ("plan", "model", "expected"),
    [
        (ONE_GPU, DENSE, {"adapters": "all-linear", "family": "dense", "sharding": "none"}),
        (replace(ONE_GPU, lora_targets=("experts",)), MIXTURE, {"adapters": "experts", "family": "moe"}),
        (replace(ONE_GPU, lora_targets=("q_proj", "v_proj")), DENSE, {"adapters": "named"}),
        (ZERO, LATENT, {"adapters": "none", "family": "moe+mla", "sharding": "zero-2"}),
        (replace(ZERO, zero_stage=0), DENSE, {"sharding": "ddp"}),
        (replace(ZERO, fsdp=True, context_parallel=2), DENSE, {"sharding": "fsdp2+cp"}),
        (replace(ONE_GPU, fsdp=True), DENSE, {"sharding": "none"}),
        (
            replace(ZERO, backend="megatron", tensor_parallel=4, expert_parallel=8),
            MIXTURE,
            {"sharding": "megatron+tp+ep"},
        ),
    ],
)
def test_the_cell_of_a_plan(plan: Plan, model: Any, expected: dict[str, str]) -> None:
    cell = cell_of(plan, model).as_dict()
    assert {name: cell[name] for name in expected} == expected


def test_nothing_is_proven_without_rows(rows: Callable[..., None]) -> None:
    rows()
    assert ask(ONE_GPU) == {"parsed": None, "ran_cpu": None, "ran_gpu": None}


def test_rows_of_exactly_this_combination(rows: Callable[..., None]) -> None:
    run = proof("ran_cpu", ONE_GPU, run="sft-lora", seconds=25)
    rows(run, proof("parsed", ONE_GPU, cases=3), proof("ran_gpu", ZERO))
    assert ask(ONE_GPU) == {
        "parsed": {"version": "1.0", "date": "2026-11-01", "stale": False, "cases": 3},
        "ran_cpu": {
            "version": "1.0",
            "date": "2026-11-01",
            "stale": False,
            "run": "sft-lora",
            "processes": 1,
            "seconds": 25,
        },
        "ran_gpu": None,
    }


def no_habits(plan: Plan) -> dict[str, Any]:
    return {}


def test_other_values_are_stale(rows: Callable[..., None]) -> None:
    rows(proof("ran_cpu", ONE_GPU, run="sft-lora"))
    assert ask(ONE_GPU, "another")["ran_cpu"]["stale"] is True
    rows(proof("ran_cpu", ONE_GPU, run="old"), proof("ran_cpu", ONE_GPU, run="new", digests=("x", "another")))
    found = ask(ONE_GPU, "another")["ran_cpu"]
    assert (found["run"], found["stale"]) == ("new", False)


def test_rows_of_another_release_say_nothing(rows: Callable[..., None]) -> None:
    rows(proof("ran_cpu", ONE_GPU, versions={"demo": "0.9"}))
    assert ask(ONE_GPU)["ran_cpu"] is None


def test_the_nearest_run_says_how_it_differs(rows: Callable[..., None]) -> None:
    alone = as_run(ZERO, 1, no_habits)
    rows(proof("ran_cpu", alone, run="sft-full"), proof("ran_cpu", ONE_GPU, run="sft-lora"))
    found = ask(ZERO)
    assert found["ran_cpu"] is None
    assert found["nearest"]["run"] == "sft-full"
    assert found["nearest"]["differs"] == {"sharding": {"plan": "zero-2", "run": "none"}}


def test_what_trains_unsharded_has_the_types_of_the_framework() -> None:
    sharded = replace(ZERO, tuning="full", zero_stage=3, fsdp=True, param_dtype="bf16", master_weights=True)
    habits = {"param_dtype": "fp32", "lora_dropout": 0.5}
    plain = unsharded(sharded, lambda plan: {} if plan.fsdp or plan.master_weights else habits)
    assert (plain.fsdp, plain.zero_stage, plain.param_dtype, plain.master_weights) == (
        False,
        0,
        "fp32",
        False,
    )
    assert plain.lora_dropout == sharded.lora_dropout


def test_one_process_holds_no_copies_of_deepspeeds_optimizer() -> None:
    sharded = replace(ZERO, tuning="full", master_weights=True)
    assert not as_run(sharded, 1, no_habits).master_weights
    assert as_run(sharded, 2, no_habits).master_weights
    assert as_run(replace(sharded, backend="megatron"), 1, no_habits).master_weights


def test_another_method_or_tuning_is_not_near(rows: Callable[..., None]) -> None:
    rows(proof("ran_cpu", replace(ONE_GPU, method="dpo")), proof("ran_cpu", replace(ONE_GPU, tuning="full")))
    assert "nearest" not in ask(ONE_GPU)


def test_the_digest_is_asked_for_only_where_there_is_a_row(rows: Callable[..., None]) -> None:
    rows(proof("ran_cpu", ONE_GPU))

    def never() -> str:
        raise AssertionError("asked")

    assert proven("demo", "1.0", replace(ONE_GPU, method="kto"), DENSE, never)["ran_cpu"] is None


@pytest.mark.parametrize(("processes", "expected"), [(1, "none"), (2, "fsdp2"), (4, "hsdp")])
def test_what_a_cpu_runs_of_copies(processes: int, expected: str) -> None:
    plan = Plan(tuning="full", zero_stage=3, fsdp=True, fsdp_replicas=4, nodes=4, gpus_per_node=8)
    ran = as_run(plan, processes, no_habits)
    assert cell_of(ran, DENSE).sharding == expected
    assert ran.shard_group * ran.fsdp_replicas == processes


@pytest.mark.parametrize(
    ("processes", "expected"),
    [(1, ("none", "none", "hf")), (2, ("zero-3+cp", "optimizer", "hf"))],
)
def test_what_a_cpu_runs_of_a_plan(processes: int, expected: tuple[str, str, str]) -> None:
    plan = Plan(
        method="grpo", tuning="full", zero_stage=3, offload="optimizer", context_parallel=2, nodes=2,
        gpus_per_node=8, prompt_len=8, response_len=8, generations=4, rollout_engine="vllm",
    )  # fmt: skip
    cell = cell_of(as_run(plan, processes, no_habits), DENSE)
    assert (cell.sharding, cell.offload, cell.rollout) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_rows(name: str) -> None:
    releases = [release.version for release in load_framework(name).releases]
    listed = yaml.safe_load((ROOT / "tests/conformance/runs.yaml").read_text("utf-8"))[name]
    for row in load_proofs(name):
        assert row.kind in KINDS
        assert next(iter(row.versions)) == name
        assert row.version in releases
        assert datetime.date.fromisoformat(row.date)
        assert row.digests
        assert all(re.fullmatch(r"[0-9a-f]{12}", digest) for digest in row.digests), row
        cell = row.cell
        assert row in load_proofs(name, about=(cell.method, cell.tuning))
        assert cell.method in METHODS
        assert cell.tuning in TUNINGS
        assert cell.quantization in QUANTIZATIONS
        assert cell.offload in OFFLOADS
        engine, _, placement = cell.rollout.partition("+")
        assert engine in ROLLOUT_ENGINES
        assert placement in ("", *ROLLOUT_PLACEMENTS)
        assert cell_of(row.as_plan(), load_model(row.model)) == cell, "the row's plan is of another cell"
        assert row.kind not in ("ran_cpu", "ran_gpu") or row.run in listed


def test_a_file_reads_back(tmp_path: Path) -> None:
    row = {
        "kind": "parsed",
        "cell": cell_of(ONE_GPU, DENSE).as_dict(),
        "digests": ["0" * 12],
        "model": DENSE.id,
        "plan": {"lora_targets": ["attention"]},
        "versions": {"demo": "1.0"},
        "date": "2026-11-01",
    }
    write("demo", [proof_of(row)], tmp_path)
    (found,) = load_proofs("demo", tmp_path)
    assert found.as_plan().lora_targets == ("attention",)
    assert found.cell == cell_of(ONE_GPU, DENSE)
    assert json.loads((tmp_path / "evidence" / "demo.jsonl").read_text("utf-8")) == row, (
        "defaults are left out"
    )
