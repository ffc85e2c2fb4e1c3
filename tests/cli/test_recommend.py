"""`recommend`: the JSON of the contract, its exit codes, and one clear line for every bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import BASE, DATA, TRL, Advisor

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
TOP = ["request", "model", "cluster", "ranking", "rejected", "alternatives", "warnings", "versions"]
ROW = {"framework", "version", "score", "plan", "memory", "time", "reasons", "evidence"}
PLAN = {
    "method", "tuning", "world_size", "data_parallel", "tensor_parallel", "pipeline_parallel", "expert_parallel",
    "context_parallel", "zero_stage", "micro_batch_size", "gradient_accumulation_steps", "seq_len", "backend",
}  # fmt: skip
TERMS = {
    "weights", "gradients", "optimizer", "activations", "logits", "reference", "rollout", "buffers", "overhead",
    "allocated", "total", "low", "high",
}  # fmt: skip
IMPOSSIBLE = ("--model", "Qwen/Qwen3-235B-A22B", "--gpu", "4090", "--method", "sft", "--tuning", "full")


def without_versions(advice: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in advice.items() if key != "versions"}


def test_json_has_the_contract_keys(run: Advisor) -> None:
    ran = run("recommend", *BASE, "--gpus-per-node", "8", "--output", "json")
    assert ran.code == 0
    advice = ran.json()
    assert list(advice)[: len(TOP)] == TOP
    assert advice["ranking"]
    for row in advice["ranking"]:
        assert set(row) >= ROW
        assert set(row["plan"]) >= PLAN
        assert set(row["memory"]["per_gpu_gib"]) == TERMS
        assert {"moment", "host_gib", "nvme_gib", "capacity_gib", "fits"} <= set(row["memory"])
        assert all(set(reason) == {"rule", "effect", "because", "source"} for reason in row["reasons"])
        assert {"parsed", "ran_cpu", "ran_gpu"} <= set(row["evidence"])
    assert {"gpu", "gpus_per_node", "nodes", "world_size"} <= set(advice["cluster"])
    assert advice["request"]["origins"]["nodes"]


def test_terms_add_up(run: Advisor) -> None:
    per_gpu = run("recommend", *TRL, "--output", "json").json()["ranking"][0]["memory"]["per_gpu_gib"]
    named = TERMS - {"overhead", "allocated", "total", "low", "high"}
    assert sum(per_gpu[name] for name in named) == pytest.approx(per_gpu["allocated"], abs=0.05)
    assert per_gpu["allocated"] + per_gpu["overhead"] == pytest.approx(per_gpu["total"], abs=0.02)
    assert per_gpu["low"] <= per_gpu["total"] <= per_gpu["high"]


def test_byte_identical_twice(run: Advisor) -> None:
    argv = ("recommend", *BASE, "--output", "json")
    assert run(*argv).out == run(*argv).out


def test_yaml_says_the_same_as_json(run: Advisor) -> None:
    as_json = run("recommend", *TRL, "--output", "json").json()
    assert yaml.safe_load(run("recommend", *TRL, "--output", "yaml").out) == as_json


def test_flags_and_answers_give_the_same_advice(run: Advisor, tmp_path: Path) -> None:
    answers = tmp_path / "answers.yaml"
    answers.write_text("model: Qwen/Qwen3-8B\ngpu: h100\nmethod: sft\nframework: trl\nseq_len: 4096\n")
    by_file = run("recommend", "--answers", str(answers), "--output", "json")
    by_flags = run("recommend", *TRL, "--seq-len", "4096", "--output", "json")
    assert by_file.out == by_flags.out


def test_a_resolved_request_is_an_answers_file(run: Advisor, tmp_path: Path) -> None:
    first = run("recommend", *TRL, "--output", "json").json()
    answers = tmp_path / "request.yaml"
    answers.write_text(yaml.safe_dump(first["request"]))
    again = run("recommend", "--answers", str(answers), "--output", "json").json()
    assert again["ranking"][0]["plan"] == first["ranking"][0]["plan"]


def test_flags_win_over_answers(run: Advisor, tmp_path: Path) -> None:
    answers = tmp_path / "answers.yaml"
    answers.write_text("model: Qwen/Qwen3-8B\ngpu: 4090\nmethod: sft\nframework: trl\n")
    ran = run("recommend", "--answers", str(answers), "--gpu", "h100", "--output", "json")
    assert ran.json()["cluster"]["gpu"] == "h100-sxm"


def test_text_reads(run: Advisor) -> None:
    ran = run("recommend", *BASE)
    assert ran.code == 0
    assert "Qwen/Qwen3-8B" in ran.out
    assert "GiB per GPU" in ran.out
    assert all(len(line) <= 120 for line in ran.out.splitlines())
    assert "\x1b" not in ran.out


def test_data_alone_decides_the_method(run: Advisor) -> None:
    cases = {
        "sft.jsonl": "sft",
        "preference.jsonl": "dpo",
        "kto.jsonl": "kto",
        "cpt.jsonl": "cpt",
        "rl.jsonl": "grpo",
    }
    for file, method in cases.items():
        argv = (
            "--model",
            "Qwen/Qwen3-0.6B",
            "--gpu",
            "h100",
            "--framework",
            "trl",
            "--data",
            str(DATA / file),
        )
        assert run("recommend", *argv, "--output", "json").json()["request"]["method"] == method


def test_nothing_feasible_is_3_with_alternatives_that_run(run: Advisor, tmp_path: Path) -> None:
    ran = run("recommend", *IMPOSSIBLE, "--output", "json")
    assert ran.code == 3
    advice = ran.json()
    assert advice["ranking"] == []
    assert advice["rejected"]
    assert all(row["reasons"] for row in advice["rejected"])
    nearest = advice["alternatives"][0]
    assert {"change", "request", "framework", "memory"} <= set(nearest)
    answers = tmp_path / "nearest.yaml"
    answers.write_text(yaml.safe_dump(nearest["request"]))
    assert run("recommend", "--answers", str(answers)).code == 0


def test_a_pinned_framework_that_cannot_is_3(run: Advisor) -> None:
    ran = run("recommend", *BASE[:4], "--method", "ppo", "--framework", "trl", "--output", "json")
    assert ran.code == 3
    row = next(row for row in ran.json()["rejected"] if row["framework"] == "trl")
    assert "ppo" in row["reasons"][0]["because"].lower()


def test_missing_flags_are_listed(run: Advisor) -> None:
    ran = run("recommend", "--gpu", "h100")
    assert ran.code == 2
    assert ran.out == ""
    assert "--model" in ran.err
    assert "--method" in ran.err


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_bad_input_gets_one_clear_line(run: Advisor, file: Path) -> None:
    expected = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# expect: ")
    ran = run("recommend", "--answers", str(file))
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert len(ran.err.strip().splitlines()) == 1
    assert expected in ran.err


def test_there_are_bad_inputs() -> None:
    assert len(BAD) >= 20


def test_reverse_questions_are_shown(run: Advisor) -> None:
    text = run("recommend", *BASE, "--what-fits", "seq-len")
    assert text.code == 0
    assert "--what-fits seq-len: " in text.out
    shown = run("recommend", *BASE, "--minimize", "gpus", "--output", "json").json()
    assert shown["minimize"]["chosen"] == {"nodes": 1, "gpus_per_node": 1}
    assert shown["minimize"]["tried"][0]["feasible"] is True


def test_a_reverse_question_is_none_of_an_estimate(run: Advisor) -> None:
    ran = run("estimate", *BASE, "--minimize", "gpus")
    assert ran.code == 2
    assert "advisor recommend" in ran.err


def test_the_largest_model_needs_no_model(run: Advisor) -> None:
    argv = ("--gpu", "t4", "--method", "sft", "--what-fits", "model")
    assert run("recommend", *argv, "--output", "json").json()["what_fits"]["chosen"]["model"]
    ran = run("new", *argv, "--yes")
    assert ran.code == 2
    assert "--what-fits model" in ran.err


def test_what_would_unseat_the_first_is_said(run: Advisor) -> None:
    assert "What would unseat it" in run("recommend", *BASE, "--verbose").out
    rows = run("recommend", *BASE, "--output", "json").json()["ranking"]
    assert rows[0]["unseated_by"]
    assert all("unseated_by" not in row for row in rows[1:])


def test_cost_against_time_is_shown(run: Advisor) -> None:
    asked = ["recommend", *BASE, "--gpus-per-node", "2", "--samples", "20000", "--pareto"]
    text = run(*asked)
    assert text.code == 0
    assert "Cost against time" in text.out
    assert "indicative" in text.out
    points = json.loads(run(*asked, "--output", "json").out)["pareto"]
    assert {point["gpus_per_node"] for point in points if point["gpu"] == "h100-sxm"} == {1, 2}


def test_live_prices_need_the_extra(run: Advisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    told = run("recommend", *BASE, "--live-prices")
    assert told.code == 2
    assert told.err.startswith("advisor: live_prices: needs the extra")
    assert len(told.err.strip().splitlines()) == 1
    both = run("recommend", *BASE, "--live-prices", "--price-per-gpu-hour", "2")
    assert both.code == 2
    assert "contradicts" in both.err
