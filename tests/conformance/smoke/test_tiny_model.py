"""templates/starter/smoke/tiny_model.py in the environments of the frameworks.

Set ADVISOR_FRAMEWORKS to a comma-separated list to choose environments (all six by default).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SCRIPT = ROOT / "templates/starter/smoke/tiny_model.py"
ROWS = HERE / "rows.jsonl"
CONFIGS = sorted((HERE / "configs").glob("*.json"))
FRAMEWORKS = os.environ.get("ADVISOR_FRAMEWORKS", "trl,axolotl,llamafactory,ms-swift,unsloth,verl").split(",")
RENAMED = {"kimi_k2": "deepseek_v3", "llama2": "llama"}
ALTERNATING = {"gemma2", "gemma3", "gemma3_text", "gpt_oss"}


@cache
def python_of(framework: str) -> str:
    """The Python of a framework's environment, built on first use."""
    command = [sys.executable, str(ROOT / "tools/framework_env.py"), framework]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1].split("\t")[-1]


@cache
def probed(framework: str) -> dict[str, dict[str, Any]]:
    """One process builds and tries all models: importing transformers takes longer than the rest."""
    out = mkdtemp(prefix="tiny-models-")
    command = [python_of(framework), str(HERE / "probe.py"), str(SCRIPT), str(ROWS), out, *map(str, CONFIGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    assert rows, done.stderr[-2000:]
    return {row["name"]: row for row in rows}


def run(framework: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The script itself."""
    command = [python_of(framework), str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", [path.stem for path in CONFIGS])
def test_trains_and_generates(framework: str, name: str) -> None:
    """The same architecture, small, reloadable, with a loss near that of guessing and a gradient."""
    row = probed(framework)[name]
    assert "error" not in row, row["error"]
    assert row["model_type"] == RENAMED.get(name, name)
    assert 50_000 < row["parameters"] < 400_000
    assert 4 < row["loss"] < 9
    assert row["grad_norm_finite"]
    assert row["generated"] == 4
    assert not row["quantized"]
    assert row["layers"] <= 4
    if name in ALTERNATING:
        assert row["kinds"] == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", [path.stem for path in CONFIGS])
def test_tokenizer(framework: str, name: str) -> None:
    """Nothing is unknown, markers are single tokens, and the assistant's words can be told apart."""
    row = probed(framework)[name]
    assert "error" not in row, row["error"]
    assert row["round_trip"]
    assert row["whole_tokens"]
    assert row["prefix"]
    assert row["assistant"] == "3 plus 4 is 7."
    assert not row["pad_is_eos"]
    assert row["model_vocab"] == row["vocab"] <= 600


def test_same_weights_each_time(tmp_path: Path) -> None:
    """Two runs write the same files."""
    for folder in ("a", "b"):
        done = run("trl", "--config", HERE / "configs/qwen3.json", "--rows", ROWS, "--out", tmp_path / folder)
        assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_reward_model_with_given_tokenizer(tmp_path: Path) -> None:
    """One score as output, and a tokenizer that is copied, not trained."""
    first, second = tmp_path / "first", tmp_path / "second"
    config = HERE / "configs/llama.json"
    assert run("trl", "--config", config, "--rows", ROWS, "--out", first).returncode == 0
    done = run("trl", "--config", config, "--tokenizer-from", first, "--out", second, "--seq-class")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["class"] == "LlamaForSequenceClassification"
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()
    assert len(json.loads((second / "config.json").read_text())["id2label"]) == 1


def test_no_reward_model(tmp_path: Path) -> None:
    """Some architectures have no class with one score in transformers."""
    options = ("--config", HERE / "configs/granite.json", "--rows", ROWS, "--out", tmp_path / "out")
    done = run("trl", *options, "--seq-class")
    assert done.returncode == 3
    assert "no reward model of the kind 'granite'" in done.stderr


def test_layers_are_chosen_by_kind() -> None:
    """Two layers of one kind; the first of each kind; four where kinds alternate."""
    sys.path.insert(0, str(SCRIPT.parent))
    from tiny_model import pick_layers  # pyright: ignore[reportMissingImports]

    slide, full, dense = ("sliding",), ("full",), ("dense",)
    assert pick_layers([full] * 9) == [0, 1]
    assert pick_layers([dense] * 3 + [full] * 6) == [0, 3]
    assert pick_layers([slide, full] * 6) == [0, 1, 2, 3]
    assert pick_layers([slide] * 5 + [full] + [slide] * 5) == [0, 1, 2, 5]


def test_family_can_be_named(tmp_path: Path) -> None:
    """A distilled model has another family's words than its config.json suggests."""
    options = ("--config", HERE / "configs/llama.json", "--rows", ROWS, "--out", tmp_path / "out")
    assert run("trl", *options, "--family", "deepseek").returncode == 0
    assert "<｜Assistant｜>" in (tmp_path / "out/chat_template.jinja").read_text()


def test_unknown_architecture(tmp_path: Path) -> None:
    """It says so, writes nothing and has its own exit code."""
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "none_such", "architectures": ["NoneSuchForCausalLM"]}')
    done = run("trl", "--config", config, "--rows", ROWS, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "does not know the architecture 'none_such'" in done.stderr
    assert not (tmp_path / "out").exists()
