"""Every snapshotted release: what is written for it is in its snapshot, or the plan is refused with what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from advisor import schemas
from advisor.advise import Advice, advise
from advisor.errors import CannotExpress
from advisor.frameworks import NAMES, framework
from advisor.release_keys import release_problems
from advisor.request import parse_request
from advisor.rules import cheap_refusals, load_framework
from advisor.rules.implied import implied_values
from advisor.starter.build import build
from tests.frameworks.helpers import job_for, plan_for

PLANS: dict[str, dict[str, Any]] = {
    "sft lora": {"method": "sft", "tuning": "lora"},
    "sft qlora": {"method": "sft", "tuning": "qlora", "quantization": "4bit"},
    "sft full": {"method": "sft", "tuning": "full", "gpus_per_node": 8, "zero_stage": 3},
    "cpt full": {"method": "cpt", "tuning": "full", "gpus_per_node": 8, "zero_stage": 3},
    "dpo lora": {"method": "dpo", "tuning": "lora"},
    "grpo lora": {"method": "grpo", "tuning": "lora", "gpus_per_node": 8},
}
REFUSED = {
    ("axolotl", "0.17.0"): {"dpo lora"},
    ("axolotl", "0.16.1"): {"dpo lora"},
    ("verl", "0.7.0"): {"sft lora", "grpo lora"},
    ("verl", "0.6.1"): {"sft lora", "sft full", "grpo lora"},
}
"""Of the five releases before the pinned one: where something that is written today did not exist, or was of
another type, in a way that no row carries. Of older ones any plan may be refused, with its reasons."""


def older() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        for version in schemas.versions(name)[1:]:
            yield name, version


@pytest.mark.parametrize(("name", "version"), list(older()))
def test_a_release_gets_only_keys_that_it_has(name: str, version: str) -> None:
    rules = load_framework(name, version=version)
    table, reading = framework(name).TABLE, framework(name).READING
    refused: dict[str, list[str]] = {}
    written = 0
    for label, changes in PLANS.items():
        if name in ("verl", "unsloth") and changes["tuning"] == "full":
            changes = {**changes, "fsdp": True}
        plan = plan_for(name, **changes)
        if cheap_refusals(rules, plan):
            continue
        job = job_for(plan, version=version)
        wrong = release_problems(rules, plan, job)
        if wrong:
            refused[label] = wrong
            continue
        written += 1
        habits = partial(implied_values, rules)
        rendered = table.render(plan, job, habits)
        for document, content in reading.by_schema(rendered).items():
            assert not [key for key in content if not schemas.accepts(name, version, document, key)]
        assert table.parse(rendered.flat(), habits, version) == (plan, {})
    print(f"{name} {version}: {written} plans written, {len(refused)} refused: {refused}")
    if version in schemas.versions(name)[1:6]:
        assert set(refused) == REFUSED.get((name, version), set())
    for lines in refused.values():
        assert all(": " in line or line.startswith("it has no") for line in lines)


@pytest.mark.parametrize(
    ("name", "version", "changes", "written", "absent"),
    [
        ("trl", "0.24.0", {}, ("warmup_ratio", 0.03), "warmup_steps"),
        ("trl", "1.0.0", {}, ("warmup_steps", 0.03), "warmup_ratio"),
        ("llamafactory", "0.9.4", {}, ("warmup_ratio", 0.03), "warmup_steps"),
        ("llamafactory", "0.9.2", {"tuning": "qlora", "quantization": "4bit"},
         ("quantization_method", "bitsandbytes"), ""),
        ("ms-swift", "3.12.6", {}, ("train_type", "lora"), "tuner_type"),
        ("ms-swift", "4.0.4", {}, ("tuner_type", "lora"), "train_type"),
        ("verl", "0.7.0", {"method": "grpo", "tuning": "full", "gpus_per_node": 8, "fsdp": True, "zero_stage": 3},
         ("custom_reward_function.path", "reward_verl.py"), "reward.custom_reward_function.path"),
    ],
)  # fmt: skip
def test_renamed_keys_are_written_as_the_release_calls_them(
    name: str, version: str, changes: dict[str, Any], written: tuple[str, Any], absent: str
) -> None:
    rules = load_framework(name, version=version)
    plan = plan_for(name, **changes)
    rendered = framework(name).TABLE.render(
        plan, job_for(plan, version=version), partial(implied_values, rules)
    )
    content = rendered["train"].flat()
    assert content[written[0]] == written[1]
    assert absent not in content


def test_a_value_that_the_release_has_no_case_for_is_refused() -> None:
    plan = plan_for("llamafactory", optimizer="muon")
    job = job_for(plan, version="0.9.2")
    found = release_problems(load_framework("llamafactory", version="0.9.2"), plan, job)
    assert found == ["use_muon: new in 0.9.3"]
    lora = plan_for("verl")
    refused = release_problems(load_framework("verl", version="0.7.0"), lora, job_for(lora, version="0.7.0"))
    assert len(refused) == 1
    assert refused[0].startswith("model.target_modules: ")
    assert refused[0].endswith("it takes text (0.7.1 takes it)")
    with pytest.raises(CannotExpress):
        release_problems(
            load_framework("llamafactory", version="0.9.2"), plan_for("llamafactory", precision="fp8"), job
        )


def advice(**more: Any) -> Advice:
    answers = {"model": "Qwen/Qwen3-8B", "gpu": "h100", "method": "sft", "seq_len": 1024, **more}
    return advise(parse_request(answers))


def test_the_advice_and_the_starter_say_how_far_the_proof_goes() -> None:
    found = advice(framework="trl", framework_version="1.13.0")
    row = found.best
    assert row is not None
    assert (row.version, found.versions["trl"]) == ("1.13.0", "1.13.0")
    note = "schema only: keys checked against the release's source, never parsed or run"
    assert row.evidence == {
        "parsed": None,
        "ran_cpu": None,
        "ran_gpu": None,
        "schema": {"version": "1.13.0", "note": note},
    }
    assert any(note in warning for warning in row.warnings)
    answers = {"framework": "trl", "framework_version": "1.13.0"}
    files = {file.path: file.text for file in build(found, row, answers)}
    advised = json.loads(files["advice.json"])
    assert (advised["version"], advised["ranking"][0]["evidence"]["schema"]["note"]) == ("1.13.0", note)
    pins = files["requirements.txt"].splitlines()
    pair = schemas.load("trl", "1.13.0").pairs["transformers"]
    assert {"trl[peft]==1.13.0", f"transformers=={pair}", "torch"} <= set(pins)
    assert [line for line in pins if "==" in line] == ["trl[peft]==1.13.0", f"transformers=={pair}"]
    assert note in pins[0]
    assert "trl==1.13.0" in files["requirements-cpu.txt"].splitlines()
    assert note in files["README.md"]
    assert "TRL 1.13.0" in files["train.yaml"]


def test_a_release_that_cannot_is_rejected_with_what_changed() -> None:
    found = advice(framework="llamafactory", framework_version="0.9.2", optimizer="muon")
    assert found.best is None
    row = next(row for row in found.rejected if row.framework == "llamafactory")
    reasons = [reason for reason in row.reasons if reason.rule == "llamafactory.release"]
    assert [reason.because for reason in reasons] == [
        "LLaMA-Factory 0.9.2 does not take what this plan needs: use_muon: new in 0.9.3"
    ]
    assert row.version == "0.9.2"


def test_a_row_of_the_rules_holds_for_its_releases() -> None:
    moe = {"model": "Qwen/Qwen3-30B-A3B", "gpus_per_node": 8, "tuning": "lora", "framework": "llamafactory"}
    old = advice(**moe, framework_version="0.9.4")
    assert old.best is None
    rules = {reason.rule for row in old.rejected for reason in row.reasons}
    assert "llamafactory.expert-adapters-before-transformers-5" in rules
    assert advice(**moe, framework_version="0.9.5").best is not None


def test_the_pinned_release_may_be_named() -> None:
    pinned = advice(framework="trl", framework_version=schemas.versions("trl")[0])
    assert pinned.best is not None
    assert pinned.best.as_dict() == advice(framework="trl").ranking[0].as_dict()


def test_a_check_of_an_older_release_is_of_its_keys(tmp_path: Path) -> None:
    from advisor.check import check_path

    path = tmp_path / "train.yaml"
    path.write_text("# swift sft\nmodel: Qwen/Qwen3-8B\ntrain_type: lora\n", "utf-8")
    old = check_path(path, parse_request({"framework_version": "3.12.6"}))
    assert ([finding.key for finding in old.problems], old.plan["tuning"]) == ([], "lora")
    assert old.evidence.startswith("schema only")
    new = check_path(path, parse_request({}))
    assert [finding.key for finding in new.problems] == ["train_type"]
