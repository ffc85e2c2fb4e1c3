"""The snapshots of what a release accepts, and what is said of a file that it would refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor import schemas
from advisor.frameworks import NAMES
from advisor.paths import rules_root
from advisor.rules import load_framework

PINNED = {name: load_framework(name).releases[0].version for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_release_in_the_rules_has_a_snapshot(name: str) -> None:
    missing = [r.version for r in load_framework(name).releases if r.version not in schemas.versions(name)]
    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_every_snapshot_says_where_it_was_read(name: str) -> None:
    for version in schemas.versions(name):
        text = (rules_root() / "schemas" / name / f"{version}.json").read_text("utf-8")
        content = json.loads(text)
        assert (content["framework"], content["version"]) == (name, version)
        assert [s["package"] for s in content["sources"]] == [name, *content["pairs"]]
        assert all(len(source["sha256"]) == 64 for source in content["sources"])
        snapshot = schemas.load(name, version)
        assert snapshot.documents
        assert all(len(keys) > 5 for keys in snapshot.documents.values())


def test_the_snapshots_stay_small() -> None:
    size = sum(path.stat().st_size for path in (rules_root() / "schemas").rglob("*.json"))
    assert size < 4 * 2**20


@pytest.mark.parametrize(
    ("name", "document", "key", "taken"),
    [
        ("trl", "sft", "max_length", True),
        ("trl", "sft", "max_seq_length", False),
        ("trl", "sft", "learning_rate", True),
        ("trl", "grpo", "num_generations", True),
        ("trl", "sft", "num_generations", False),
        ("axolotl", "train", "trl.beta", True),
        ("axolotl", "train", "trl", True),
        ("axolotl", "train", "trl.betta", False),
        ("axolotl", "train", "datasets[].type", True),
        ("axolotl", "train", "lora_rank", False),
        ("llamafactory", "train", "lora_rank", True),
        ("llamafactory", "train", "evaluation_strategy", False),
        ("ms-swift", "swift sft", "tuner_type", True),
        ("ms-swift", "swift sft", "train_type", False),
        ("ms-swift", "megatron sft", "tensor_model_parallel_size", True),
        ("ms-swift", "swift sft", "tensor_model_parallel_size", False),
        ("unsloth", "FastLanguageModel.from_pretrained", "load_in_4bit", True),
        ("unsloth", "FastLanguageModel.from_pretrained", "load_in_4_bit", False),
        ("unsloth", "FastLanguageModel.get_peft_model", "use_dora", True),
        ("unsloth", "SFTConfig", "max_seq_length", True),
        ("verl", "main_ppo", "actor_rollout_ref.actor.optim.lr", True),
        ("verl", "main_ppo", "actor_rollout_ref.actor.optim", True),
        ("verl", "main_ppo", "actor_rollout_ref.actor.fsdp_config.grad_offload", False),
        ("verl", "main_ppo", "ray_kwargs.ray_init.anything", False),
        (
            "verl",
            "main_ppo megatron",
            "actor_rollout_ref.actor.megatron.override_transformer_config.any",
            True,
        ),
    ],
)
def test_accepts(name: str, document: str, key: str, taken: bool) -> None:
    assert schemas.accepts(name, PINNED[name], document, key) is taken


@pytest.mark.parametrize(
    ("name", "document", "mapping", "expected"),
    [
        ("trl", "sft", {"max_length": 1024, "learning_rate": 1, "report_to": "none", "env": {"A": "b"}}, []),
        ("trl", "sft", {"max_seq_length": 9}, ["max_seq_length: no such key; the nearest is max_length"]),
        ("trl", "sft", {"packing": 1}, ["packing: 1 given; it takes true or false"]),
        ("trl", "sft", {"lora_r": "16"}, ["lora_r: '16' given; it takes an integer (a number in quotes"]),
        ("trl", "sft", {"learning_rate": "1e-5"}, ["one like 1e-5 that YAML takes for text: write 1.0e-5"]),
        ("trl", "sft", {"seed": None}, ["seed: null given; it takes an integer"]),
        ("trl", "sft", {"seed": True}, ["seed: True given; it takes an integer"]),
        ("trl", "sft", {"dtype": "bf16"}, ["'bf16' given; it takes auto, bfloat16, float16, float32"]),
        ("trl", "sft", {"datasets": [{"path": "x", "splitt": "y"}]}, ["datasets[].splitt: no such key; "]),
        ("trl", "dpo", {"loss_type": [1]}, ["loss_type: 1 in the list; each element is text"]),
        ("axolotl", "train", {"bf16": "auto", "trl": {"beta": 0.1}, "fsdp_config": None}, []),
        ("axolotl", "train", {"rl": "dpoo"}, ["rl: 'dpoo' given; it takes ", "the nearest is dpo"]),
        (
            "axolotl",
            "train",
            {"liger_rope": True},
            ["is read only where plugins names axolotl.integrations.lig"],
        ),
        ("axolotl", "train", {"liger_rope": True, "plugins": ["axolotl.integrations.liger.LigerPlugin"]}, []),
        (
            "axolotl",
            "train",
            {"trl": {"use_vlm": True}},
            ["trl.use_vlm: no such key; the nearest is trl.use_vllm"],
        ),
        ("ms-swift", "swift rlhf", {"loss_type": "sigmoid", "fsdp": {"fsdp": "x"}}, []),
        ("ms-swift", "swift sft", {"learning_rate": "1e-5", "ENV": {"A": "b"}}, []),
        ("axolotl", "train", {"expert_parallel_size": 4}, []),
        ("ms-swift", "swift sft", {"lora_rank": None}, ["null given, which arrives as the text None"]),
        (
            "verl",
            "main_ppo",
            {"actor_rollout_ref": {"rollout": {"n": "8"}}},
            ["actor_rollout_ref.rollout.n: '8'"],
        ),
        ("verl", "main_ppo", {"data.batch_size": 8}, ["data.batch_size: no such key; the nearest is data."]),
        ("verl", "sft_trainer megatron", {"engine": "megatron", "optim": "megatron"}, []),
        (
            "verl",
            "sft_trainer",
            {"engine": "megatorn"},
            ["engine: 'megatorn' given; it takes", "is megatron"],
        ),
    ],
)
def test_problems(name: str, document: str, mapping: dict[str, Any], expected: list[str]) -> None:
    found = schemas.problems(name, PINNED[name], document, mapping)
    assert len(found) == (1 if expected else 0), found
    assert all(part in found[0] for part in expected)


def test_a_release_or_document_that_was_not_read_is_named() -> None:
    with pytest.raises(schemas.NoSnapshot, match=r"no snapshot of trl 0\.0\.1; there are 1\."):
        schemas.load("trl", "0.0.1")
    with pytest.raises(schemas.NoSnapshot, match="has no document 'stf'; it has"):
        schemas.accepts("trl", PINNED["trl"], "stf", "seed")


def test_what_we_render_and_a_release_refuses_is_a_fault_of_ours() -> None:
    with pytest.raises(schemas.NotAccepted, match=r"nothing: no such key.*; seed: 'x' given"):
        schemas.demand("trl", PINNED["trl"], {"sft": {"nothing": 1, "seed": "x"}})


@pytest.mark.parametrize(
    "path", sorted(Path(rules_root() / "schemas").glob("*/*.json")), ids=lambda p: p.stem
)
def test_a_snapshot_has_one_key_a_line(path: Path) -> None:
    rows = [line for line in path.read_text("utf-8").splitlines() if '{"type": ' in line]
    content = json.loads(path.read_text("utf-8"))
    held = [*content["sections"].values(), *content["documents"].values()]
    assert len(rows) == sum(len(each["keys"]) for each in held)


@pytest.mark.parametrize("name", NAMES)
def test_the_five_releases_before_the_newest_are_there(name: str) -> None:
    assert len(schemas.versions(name)) >= 6
    assert schemas.versions(name)[0] == PINNED[name]


@pytest.mark.parametrize(
    ("name", "document", "key", "has", "lacks"),
    [
        ("trl", "sft", "max_seq_length", "0.19.1", "0.24.0"),
        ("trl", "grpo", "max_prompt_length", "0.24.0", "1.16.0"),
        ("ms-swift", "swift sft", "train_type", "4.0.4", "4.4.2"),
        ("ms-swift", "megatron sft", "load", "3.12.6", "4.0.4"),
        ("ms-swift", "megatron sft", "mcore_model", "4.0.4", "3.12.6"),
        ("llamafactory", "train", "evaluation_strategy", "0.9.0", "0.9.5"),
        ("llamafactory", "train", "group_by_length", "0.9.4", "0.9.5"),
        ("verl", "main_ppo megatron", "actor_rollout_ref.actor.megatron.grad_offload", "0.9.0", "0.9.1"),
        ("verl", "main_ppo", "trainer.use_legacy_worker_impl", "0.7.0", "0.9.1"),
    ],
)
def test_renames_show_between_releases(name: str, document: str, key: str, has: str, lacks: str) -> None:
    assert schemas.accepts(name, has, document, key)
    assert not schemas.accepts(name, lacks, document, key)


def test_a_plugin_that_became_built_in() -> None:
    mapping = {"expert_parallel_size": 4}
    assert not schemas.problems("axolotl", "0.21.0", "train", mapping)
    (line,) = schemas.problems("axolotl", "0.20.0", "train", mapping)
    assert (
        "is read only where plugins names axolotl.integrations.expert_parallel.ExpertParallelPlugin" in line
    )


JUDGED = Path(__file__).resolve().parent / "conformance" / "judges"
COMMAND = re.compile(r"^#\s*(?:trl )?((?:swift |megatron )?\w+)\s*$")


def accepted_files() -> Iterator[tuple[str, str, Path]]:
    """(framework, document, file) of the real configurations that a judge accepts in the framework's own environment."""
    for name, folder, default in (
        ("trl", "trl", "sft"),
        ("llamafactory", "llamafactory", "train"),
        ("ms-swift", "ms_swift", "swift sft"),
        ("axolotl", "axolotl", "train"),
    ):
        for path in sorted((JUDGED / folder / "accepted").glob("*.yaml")):
            text = path.read_text("utf-8")
            if "compute_environment" in text:  # accelerate's
                continue
            found = COMMAND.match(text.partition("\n")[0])
            yield name, found[1] if found and default != "train" else default, path


@pytest.mark.parametrize(
    ("name", "document", "path"), list(accepted_files()), ids=lambda value: getattr(value, "name", "")
)
def test_what_a_judge_accepts_a_snapshot_accepts(name: str, document: str, path: Path) -> None:
    content = yaml.safe_load(path.read_text("utf-8"))
    assert not schemas.problems(name, PINNED[name], document, content)
