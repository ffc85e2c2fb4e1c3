"""`estimate`: one explicit plan, nothing searched."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.cli.conftest import BASE, DATA, Advisor

QWEN = ("--model", "Qwen/Qwen3-8B", "--gpu", "h100")
MOE = (
    "--model",
    "Qwen/Qwen3-235B-A22B",
    "--gpu",
    "h100",
    "--nodes",
    "4",
    "--gpus-per-node",
    "8",
    "--tuning",
    "full",
)


def plan_of(run: Advisor, *argv: str) -> dict[str, Any]:
    ran = run("estimate", *argv, "--output", "json")
    assert ran.code == 0, ran.err
    return ran.json()["plan"]


def memory_of(run: Advisor, *argv: str) -> dict[str, float]:
    ran = run("estimate", *argv, "--output", "json")
    assert ran.code == 0, ran.err
    return ran.json()["memory"]["per_gpu_gib"]


def test_keys(run: Advisor) -> None:
    shown = run("estimate", *QWEN, "--output", "json").json()
    assert list(shown) == ["request", "model", "plan", "parameters", "memory", "time", "versions"]
    assert set(shown["parameters"]) == {"total", "active", "trainable"}
    assert shown["request"]["origins"]["method"] == "default"


def test_text_is_a_table_by_term(run: Advisor) -> None:
    ran = run("estimate", *QWEN, "--tuning", "full")
    assert ran.code == 0
    for term in ("weights", "gradients", "optimizer", "overhead", "total"):
        assert f"\n{term}" in ran.out
    assert "(100 %)" in ran.out


def test_a_plan_that_does_not_fit_is_no_error(run: Advisor) -> None:
    ran = run("estimate", "--model", "Qwen/Qwen3-8B", "--gpu", "t4", "--tuning", "full", "--output", "json")
    assert ran.code == 0
    assert ran.json()["memory"]["fits"] == "no"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"backend": "hf", "zero_stage": 0, "fsdp": False, "tuning": "lora", "param_dtype": "fp32"}),
        (
            ("--tuning", "full"),
            {"param_dtype": "bf16", "attention": "sdpa", "loss": "stock", "packing": False},
        ),
        (("--zero", "3", "--gpus-per-node", "8"), {"zero_stage": 3, "fsdp": False, "data_parallel": 8}),
        (("--fsdp", "--gpus-per-node", "8"), {"zero_stage": 3, "fsdp": True}),
        (("--tuning", "qlora"), {"quantization": "4bit", "tuning": "qlora"}),
        (("--tuning", "dora", "--quantization", "8bit"), {"quantization": "8bit", "tuning": "dora"}),
        (
            ("--lora-rank", "64", "--lora-targets", "attention"),
            {"lora_rank": 64, "lora_targets": ["attention"]},
        ),
        (("--optimizer", "paged_adamw_8bit", "--precision", "bf16-pure"), {"optimizer": "paged_adamw_8bit"}),
        (
            ("--optimizer", "galore_adamw", "--optimizer-rank", "64"),
            {"optimizer": "galore_adamw", "optimizer_rank": 64, "tuning": "full"},
        ),
        (("--global-batch-size", "32", "--micro-batch-size", "4"), {"gradient_accumulation_steps": 8}),
        (("--no-gradient-checkpointing",), {"gradient_checkpointing": False}),
        (
            ("--method", "grpo", "--generations", "8"),
            {"generations": 8, "seq_len": 2048, "rollout_engine": "vllm"},
        ),
    ],
)
def test_open_values(run: Advisor, flags: tuple[str, ...], expected: dict[str, Any]) -> None:
    plan = plan_of(run, *QWEN, *flags)
    assert {name: plan[name] for name in expected} == expected


def test_megatron_implies_its_optimizer(run: Advisor) -> None:
    flags = (
        "--backend",
        "megatron",
        "--tensor-parallel",
        "4",
        "--pipeline-parallel",
        "8",
        "--expert-parallel",
        "4",
    )
    ran = run("estimate", *MOE, *flags, "--output", "json").json()
    plan = ran["plan"]
    assert (plan["backend"], plan["zero_stage"], plan["sequence_parallel"]) == ("megatron", 1, True)
    stages = ran["memory"]["stages"]
    assert len(stages) == 8
    worst = max(stages, key=lambda stage: stage["total"])
    assert worst["gradients"] == pytest.approx(2 * worst["weights"], rel=0.01)  # fp32 beside bf16


def test_stages_without_a_backend_mean_megatron(run: Advisor) -> None:
    assert plan_of(run, *QWEN, "--gpus-per-node", "2", "--pipeline-parallel", "2")["backend"] == "megatron"


def test_an_uneven_split(run: Advisor) -> None:
    flags = ("--gpus-per-node", "8", "--tuning", "full", "--backend", "megatron", "--pipeline-parallel", "8")
    plan = plan_of(run, *QWEN, *flags)
    first, last = plan["pipeline_first_layers"], plan["pipeline_last_layers"]
    assert (36 - first - last) % 6 == 0
    assert first > 0


def test_sharding_saves(run: Advisor) -> None:
    full = (*QWEN, "--tuning", "full", "--gpus-per-node", "8")
    totals = [memory_of(run, *full, "--zero", str(stage))["total"] for stage in (1, 2, 3)]
    assert totals == sorted(totals, reverse=True)


def test_a_framework_adds_its_habits_and_says_what_it_refuses(run: Advisor) -> None:
    ran = run("estimate", *QWEN, "--framework", "trl", "--backend", "megatron", "--output", "json")
    assert ran.code == 0
    assert set(ran.json()["versions"]) == {"advisor", "trl"}
    assert "refuses this plan" in ran.err


def test_a_pin_wins_over_a_habit(run: Advisor) -> None:
    flags = ("--framework", "llamafactory", "--param-dtype", "bf16")
    assert plan_of(run, *QWEN, *flags)["param_dtype"] == "bf16"


def test_the_teacher_is_counted(run: Advisor) -> None:
    shown = memory_of(run, *QWEN, "--method", "gkd", "--teacher", "Qwen/Qwen3-32B")
    assert shown["reference"] > 50


def test_hours_need_samples(run: Advisor) -> None:
    assert run("estimate", *QWEN, "--output", "json").json()["time"]["hours"] is None
    time = run("estimate", *QWEN, "--samples", "10000", "--output", "json").json()["time"]
    assert time["hours"] > 0
    assert time["cost"] > 0
    by_data = run("estimate", *QWEN, "--data", str(DATA / "sft.jsonl"), "--output", "json").json()
    assert by_data["request"]["samples"] == 325


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--gpus-per-node 8 --tensor-parallel 3", "tensor_parallel: 8 GPUs do not split into groups of TP x PP x CP = 3"),
        ("--gpus-per-node 64 --tensor-parallel 64", "tensor_parallel: 32 attention heads do not split over TP = 64"),
        ("--gpus-per-node 5 --pipeline-parallel 5 --pipeline-first-layers 9", "27 of 36 layers do not split over 4"),
        ("--gpus-per-node 2 --expert-parallel 2", "expert_parallel: EP = 2, but the model has no experts"),
        ("--seq-len 50000", "seq_len: 50000 is more than the 40960 positions"),
        ("--gpus-per-node 2 --context-parallel 2 --seq-len 1001", "context_parallel: 1001 tokens do not split"),
        ("--zero 2 --fsdp", "zero: 2 contradicts --fsdp"),
        (
            "--activation-offload --no-gradient-checkpointing",
            "activation_offload: contradicts --no-gradient-checkpointing",
        ),
        ("--backend megatron --fsdp", "fsdp: is not for backend megatron"),
        ("--backend megatron --zero 3", "zero: 3 is not for backend megatron"),
        ("--backend hf --recompute full", "recompute: is Megatron's"),
        ("--tuning full --quantization 4bit", "quantization: 4bit stores a frozen base"),
        ("--tuning full --lora-rank 8", "lora_rank: 8 given, but full tuning has no adapters"),
        ("--optimizer-rank 8", "optimizer_rank: 8 given, but adamw projects no gradients"),
        ("--tuning lora --optimizer galore_adamw", "optimizer: galore_adamw projects the gradients of full tuning"),
        (
            "--optimizer apollo_adamw_layerwise --global-batch-size 4",
            "gradient_accumulation_steps: apollo_adamw_layerwise steps at every backward, so 4 of them",
        ),
        ("--global-batch-size 7 --micro-batch-size 2", "global_batch_size: 7 does not split into passes"),
        ("--global-batch-size 8 --gradient-accumulation-steps 3", "global_batch_size: 8 is not micro batch 1 x"),
    ],
)  # fmt: skip
def test_an_illegal_plan_names_field_and_numbers(run: Advisor, flags: str, message: str) -> None:
    ran = run("estimate", *QWEN, *flags.split())
    assert ran.code == 2
    assert ran.out == ""
    assert message in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_its_request_gives_the_same_estimate_again(run: Advisor, tmp_path: Any) -> None:
    import yaml

    first = run("estimate", *QWEN, "--tuning", "full", "--micro-batch-size", "2", "--output", "json").json()
    answers = tmp_path / "request.yaml"
    answers.write_text(yaml.safe_dump(first["request"]))
    again = run("estimate", "--answers", str(answers), "--output", "json").json()
    assert again["memory"] == first["memory"]


def test_time_says_where_a_step_goes_and_what_its_range_stands_for(run: Advisor) -> None:
    asked = ("estimate", *QWEN, "--gpus-per-node", "8", "--zero", "3", "--samples", "10000")
    time = run(*asked, "--output", "json").json()["time"]
    assert sum(time["parts"].values()) == pytest.approx(time["seconds_per_step"], rel=0.02)
    assert any("seq_len" in cause for cause in time["causes"])
    text = run(*asked, "--verbose").out
    assert "A step is compute" in text
    assert "The range of the time stands for" in text


def test_verbose_names_the_causes_of_the_range(run: Advisor) -> None:
    plain, told = (
        run("estimate", *BASE, "--tuning", "lora"),
        run("estimate", *BASE, "--tuning", "lora", "--verbose"),
    )
    assert "cause of the range" not in plain.out
    for cause in ("cuda-context", "kernels", "fragmentation", "unexplained", "sample-lengths"):
        assert f"- {cause}: " in told.out
    for tag in ("measured", "derived", "assumed"):
        assert tag in told.out


def test_a_trace_without_its_packages_names_the_extra(run: Advisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advisor.trace.find_spec", lambda name: None)
    ran = run("estimate", *QWEN, "--trace")
    assert ran.code == 2
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 1
    assert "pip install 'posttrain-advisor[trace]'" in ran.err


def test_a_plan_that_no_trace_shows_is_refused(run: Advisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advisor.trace.find_spec", lambda name: object())
    ran = run("estimate", *QWEN, "--method", "dpo", "--trace")
    assert ran.code == 2
    assert "trace: does not cover method dpo" in ran.err


def test_the_trace_stands_beside_the_memory(run: Advisor, monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.trace import Snapshot, Trace

    traced = Trace({"loss": Snapshot(1e9, 0.0, 2e9, 3e9, 4e9)}, {"torch": "2.13.0"}, 1.0)
    monkeypatch.setattr("advisor.trace.trace_step", lambda model, plan: traced)
    shown = run("estimate", *QWEN, "--trace", "--output", "json").json()
    keys = list(shown)
    assert keys[keys.index("memory") + 1] == "trace"
    assert shown["trace"]["moment"] == "loss"
    jsonschema.validate(shown, run("schema", "estimate").json())
    assert "Traced: a real step" in run("estimate", *QWEN, "--trace").out
