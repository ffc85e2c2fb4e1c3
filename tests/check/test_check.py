"""What a check says of broken configurations, each a file with the line expected of it, and of starter repos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.check import Checked, check_path
from advisor.errors import InputError
from advisor.frameworks import NAMES
from advisor.request import Request, parse_request

ROOT = Path(__file__).resolve().parents[2]
BAD = sorted((Path(__file__).parent / "bad").iterdir())
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/advice.json"))
NOTHING = Request()


def texts(checked: Checked) -> list[str]:
    return [finding.as_text() for finding in checked.problems]


def framework_of(path: Path) -> str:
    return next(name for name in NAMES if path.name.startswith(name))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_a_broken_configuration_is_told_line_by_line(path: Path) -> None:
    first = path.read_text("utf-8").splitlines()[0]
    wanted = f"{path}:{first.removeprefix('# expect: ')}"
    checked = check_path(path, NOTHING)
    assert checked.framework == framework_of(path)
    assert [text for text in texts(checked) if text.startswith(wanted)], texts(checked)


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_a_fresh_starter_is_clean(folder: Path) -> None:
    checked = check_path(folder, NOTHING)
    advice = json.loads((folder / "advice.json").read_text("utf-8"))
    assert texts(checked) == []
    assert (checked.framework, checked.version) == (advice["framework"], advice["version"])
    assert checked.plan == advice["plan"]
    assert checked.unread == ()
    assert checked.memory is not None
    # The same plan is estimated as when it was advised.
    assert checked.memory["per_gpu_gib"] == advice["ranking"][0]["memory"]["per_gpu_gib"]


def test_there_is_a_fresh_starter_of_each_framework() -> None:
    found = {json.loads((folder / "advice.json").read_text("utf-8"))["framework"] for folder in EXAMPLES}
    assert found == set(NAMES)


Copied = Callable[[str], Path]


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(ROOT / "examples" / name, tmp_path / "repo"))

    return copy


@pytest.mark.parametrize(
    ("example", "file", "before", "after", "expected"),
    [
        ("trl-sft-lora-qwen3-8b", "train.yaml", "max_length: 512", "max_lenght: 512", "max_lenght: no such key"),
        ("trl-sft-lora-qwen3-8b", "train.yaml", "max_length: 512", "max_seq_length: 512",
         "max_seq_length: gone since trl 0.20.0, it is max_length now"),
        ("axolotl-sft-full-qwen3-8b", "train.yaml", "num_epochs: 3.0", "num_epochs: three",
         "num_epochs: 'three' given; it takes a number"),
        ("llamafactory-dpo-lora-qwen3-8b", "train.yaml", "pref_loss: sigmoid", "pref_loss: sigmiod",
         "pref_loss: 'sigmiod' given; it takes"),
        ("ms-swift-sft-lora-qwen3-8b", "train.yaml", "tuner_type: lora", "train_type: lora",
         "train_type: gone since ms-swift 4.1.0, it is tuner_type now"),
        ("unsloth-sft-qlora-qwen3-14b", "train.py", "load_in_4bit=True", "load_in_4bits=True",
         "load_in_4bits: no such key; the nearest is load_in_4bit"),
        ("verl-grpo-lora-qwen3-8b", "train.sh", "trainer.total_epochs=1", "trainer.total_epoch=1",
         "trainer.total_epoch: no such key; the nearest is trainer.total_epochs"),
    ],
)  # fmt: skip
def test_an_edit_is_found(
    copied: Copied, example: str, file: str, before: str, after: str, expected: str
) -> None:
    path = copied(example) / file
    text = path.read_text("utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), "utf-8")
    line = text[: text.index(before)].count("\n") + 1
    found = [finding for finding in check_path(path.parent, NOTHING).problems if finding.kind != "memory"]
    assert len(found) == 1
    assert found[0].as_text().startswith(f"{path}:{line}: {expected}")


def test_a_larger_batch_does_not_fit(copied: Copied) -> None:
    path = copied("trl-sft-lora-qwen3-8b") / "train.yaml"
    text = path.read_text("utf-8").replace(
        "per_device_train_batch_size: 8", "per_device_train_batch_size: 64"
    )
    path.write_text(text, "utf-8")
    checked = check_path(path.parent, NOTHING)
    assert checked.plan["micro_batch_size"] == 64
    assert [finding.kind for finding in checked.problems] == ["memory"]
    assert checked.problems[0].message.startswith("does not fit: ")


def test_a_file_that_the_advice_lists_is_missed(copied: Copied) -> None:
    folder = copied("trl-sft-lora-qwen3-8b")
    (folder / "data" / "train.jsonl").unlink()
    assert texts(check_path(folder, NOTHING)) == [
        f"{folder}/data/train.jsonl: the advice lists it and it is not there"
    ]


def test_a_repo_without_its_advice_is_read_by_its_answers(copied: Copied) -> None:
    folder = copied("ms-swift-sft-lora-qwen3-8b")
    (folder / "advice.json").unlink()
    checked = check_path(folder, NOTHING)
    assert (checked.framework, checked.model, texts(checked)) == ("ms-swift", "Qwen/Qwen3-8B", [])
    assert checked.memory is not None


def test_a_file_alone_is_estimated_for_the_cluster_that_is_given(copied: Copied) -> None:
    path = copied("axolotl-sft-full-qwen3-8b") / "train.yaml"
    alone = check_path(path, NOTHING)
    assert alone.memory is None
    assert [note.message for note in alone.of("note")] == [
        "memory was not checked: gpu: not given; pass --gpu",
    ]
    given = check_path(path, parse_request({"gpu": "h100", "gpus_per_node": 8}))
    assert given.memory is not None
    advised = json.loads((path.parent / "advice.json").read_text("utf-8"))["plan"]
    assert given.plan["zero_stage"] == advised["zero_stage"] > 0
    assert (given.plan["tuning"], given.model) == ("full", "Qwen/Qwen3-8B")


@pytest.mark.parametrize(
    ("name", "text", "method"),
    [
        ("trl", "model_name_or_path: Qwen/Qwen3-8B\nuse_peft: true\nmax_length: 512\n", "sft"),
        ("trl", "model_name_or_path: Qwen/Qwen3-8B\nnum_generations: 8\nloss_type: dapo\n", "grpo"),
        ("trl", "model_name_or_path: Qwen/Qwen3-8B\nnum_generations: 8\nloss_type: dapo\nepsilon_high: 0.28\n"
         "mask_truncated_completions: true\n", "dapo"),
        ("ms-swift", "model: Qwen/Qwen3-8B\nrlhf_type: kto\ntuner_type: lora\n", "kto"),
        ("llamafactory", "model_name_or_path: Qwen/Qwen3-8B\nstage: dpo\npref_loss: orpo\n", "orpo"),
    ],
)  # fmt: skip
def test_the_method_is_read_from_the_keys(name: str, text: str, method: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text, "utf-8")
    checked = check_path(path, parse_request({"framework": name}))
    assert (checked.plan["method"], texts(checked)) == (method, [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "model: [", "a.yaml:1: not YAML"),
        ("a.yaml", "- 1\n", "a.yaml:1: `key: value` lines are wanted"),
        ("a.yaml", "a: 1\nb: 2\n", "its keys are of none of the six; pass --framework"),
        ("a.json", '{"stage": }', "a.json:1: not JSON"),
        ("a.toml", "a = \n", "a.toml:1: not TOML"),
        ("a.py", "import torch\n", "it calls none of the six; pass --framework"),
        ("a.py", "from unsloth import (\n", "a.py:1: not Python"),
        ("a.sh", "swift sft --model 'x\n", "a.sh:1: a quote is never closed"),
        ("a.txt", "from unsloth import FastModel\ntrl sft\n", "it names trl and unsloth; pass --framework"),
        ("a.bin", b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        check_path(path, NOTHING)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there_and_a_folder_without_a_starter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        check_path(tmp_path / "nowhere", NOTHING)
    with pytest.raises(InputError, match=r"neither advice\.json nor answers\.yaml"):
        check_path(tmp_path, NOTHING)


@pytest.mark.parametrize("value", ["0", "-4"])
def test_a_size_that_is_none_is_a_problem(value: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(f"# megatron sft\nmodel: Qwen/Qwen3-8B\nexpert_model_parallel_size: {value}\n", "utf-8")
    checked = check_path(path, parse_request({"gpu": "h100"}))
    assert f"expert_parallel is {value}; it is at least 1" in texts(checked)


@pytest.mark.parametrize("value", ["3.5", "{a: 1}", "[1, 2]", "null", "''"])
def test_a_value_of_any_kind_is_reported_and_never_a_fault(value: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        f"# trl sft --config train.yaml\nmodel_name_or_path: Qwen/Qwen3-8B\nuse_peft: true\n"
        f"lora_target_modules: {value}\nmax_length: {value}\nlearning_rate: {value}\n",
        "utf-8",
    )
    checked = check_path(path, parse_request({"gpu": "h100"}))
    assert "learning_rate" in {finding.key for finding in checked.problems} or value == "3.5"
    assert checked.plan["method"] == "sft"


@pytest.mark.parametrize(
    ("gpus", "copies"),
    [({"trainer.nnodes": 4}, 4), ({"trainer.nnodes": 1}, 1), ({"trainer.nnodes": "$NNODES"}, 1)],
)
def test_copies_of_what_is_sharded_follow_from_the_group(
    tmp_path: Path, gpus: dict[str, Any], copies: int
) -> None:
    keys = {"trainer.n_gpus_per_node": 8, **gpus, "engine.strategy": "fsdp2", "engine.fsdp_size": 8}
    script = tmp_path / "train.sh"
    script.write_text("python -m verl.trainer.sft_trainer " + " ".join(f"{k}={v}" for k, v in keys.items()))
    assert check_path(script, NOTHING).plan["fsdp_replicas"] == copies
