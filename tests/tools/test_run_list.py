"""tests/conformance/run_list.py: what the list holds, and that a wrong count or a wrong end is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.frameworks import NAMES
from advisor.plan import Plan
from tests.conformance.run_list import CODES, Result, Run, chosen, count_differs, print_summary, read_runs

TINY = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128,
    "vocab_size": 512, "tie_word_embeddings": False, "max_position_embeddings": 64,
}  # fmt: skip
NEEDED = {
    "trl": {"sft", "cpt", "dpo", "kto", "rm", "grpo", "rloo", "orpo", "simpo", "gkd"},
    "axolotl": {"sft", "cpt", "dpo", "kto", "orpo", "simpo", "rm", "grpo"},
    "llamafactory": {"sft", "cpt", "dpo", "orpo", "simpo", "kto", "rm"},
    "ms-swift": {"sft", "cpt", "dpo", "kto", "orpo", "simpo", "rm", "grpo", "gspo", "dapo", "gkd"},
    "unsloth": {"sft", "dpo", "grpo"},
    "verl": {"sft", "grpo", "gspo"},
}


def test_the_list_holds_each_method_of_each_framework() -> None:
    runs = read_runs()
    for name in NAMES:
        mine = [run for run in runs if run.framework == name]
        assert {run.request["method"] for run in mine} >= NEEDED[name], name
        assert any(run.processes == 2 for run in mine), name
        assert {"full", "lora"} <= {run.request["tuning"] for run in mine}, name


def test_the_named_runs_touch_each_framework_and_each_family() -> None:
    named = list(chosen(read_runs(), [], ci=True))
    assert {run.framework for run in named} == set(NAMES)
    assert {"sft", "cpt", "dpo", "kto", "simpo", "rm", "grpo", "gkd"} <= {r.request["method"] for r in named}
    assert len(named) <= 16


def test_what_no_cpu_can_run_has_its_line() -> None:
    for run in read_runs():
        assert run.outcome in (*CODES, "cannot")
        assert bool(run.line) == (run.outcome == "cannot"), run.id


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "smoke" / "work" / "model").mkdir(parents=True)
    (tmp_path / "smoke" / "work" / "model" / "config.json").write_text(json.dumps(TINY), "utf-8")
    (tmp_path / "smoke.sh").write_text('python smoke/checkpoint.py "$work/output" --layers 1\n', "utf-8")
    return tmp_path


def test_the_saved_count_is_held_against_the_advisors(repo: Path) -> None:
    attention = 2 * 16 * ((64 + 64) + 2 * (64 + 32) + (64 + 64))
    plan = Plan(tuning="lora", lora_targets=("attention",))
    assert count_differs(repo, plan, f"adapters on 8 modules, {attention:,} numbers as planned") == ""
    assert "the advisor counts 14,336" in count_differs(repo, plan, "adapters, 14,337 numbers as planned")
    assert count_differs(repo, plan, "") != ""


def test_of_a_freeze_plan_the_trained_layers_count(repo: Path) -> None:
    layer = 2 * 64 + 2 * 16 + 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128
    plan = Plan(tuning="freeze", freeze_trainable_layers=2)
    assert count_differs(repo, plan, f"11 of 11 trained weights changed ({layer:,} numbers)") == ""
    assert count_differs(repo, plan, f"22 of 22 trained weights changed ({2 * layer:,} numbers)") != ""


def test_the_summary_counts_by_framework(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = Run("trl", "a", {}), Run("trl", "b", {}, outcome="partial")
    print_summary([Result(one, True, "", seconds=3), Result(two, False, "", seconds=4)])
    assert capsys.readouterr().out == (
        "trl: 1 OK, 0 PARTIAL, 0 that no CPU can run, 1 FAILED, 7 s: a 3, b 4\n"
    )
