"""Every parameter tensor that the counter names, against the transformers classes on the meta device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from advisor.facts.architectures import decoder_of, known_types, weights_of
from advisor.facts.models import (
    expert_parameter_names,
    facts_of_config,
    linear_module_names,
    lora_parameters,
)
from advisor.paths import rules_root
from tests.conformance.parameters.variants import variants

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LIMIT_S = 600

pytestmark = pytest.mark.conformance


def catalog_configs() -> dict[str, dict[str, Any]]:
    rows = json.loads((rules_root() / "catalog" / "models.json").read_text(encoding="utf-8"))["models"]
    return {row["id"]: row["config"] for row in rows if "config" in row}


CATALOG = catalog_configs()
VARIANTS = variants(CATALOG)
CONFIGS = {key: config for key, config in CATALOG.items() if config["model_type"] in known_types()} | VARIANTS


def ask(script: str, requests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Answers by key of a script beside this file, from one process in the trl environment."""
    told = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "framework_env.py"), "trl"],
        capture_output=True,
        text=True,
        check=True,
    )
    python = told.stdout.strip().split("\t")[1]
    ran = subprocess.run(
        [python, str(HERE / script)],
        input="\n".join(json.dumps(request) for request in requests),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    return {answer["key"]: answer for answer in map(json.loads, ran.stdout.splitlines())}


@pytest.fixture(scope="module")
def built() -> dict[str, dict[str, Any]]:
    return ask("build_models.py", [{"key": key, "config": config} for key, config in CONFIGS.items()])


def tensors(config: dict[str, Any]) -> Counter:
    """(name, sizes, is an nn.Linear) -> how many. Sizes sorted: fused experts may be stored transposed."""
    found: Counter = Counter()
    for weight in weights_of(config):
        found[weight.name, tuple(sorted(weight.shape)), weight.linear] += weight.count
    return found


@pytest.mark.parametrize("key", CONFIGS)
def test_every_tensor_is_named_and_sized(built, key):
    answer = built[key]
    assert "error" not in answer, answer["error"]
    real: Counter = Counter()
    for name, shape, count, linear in answer["groups"]:
        real[name, tuple(sorted(shape)), linear] += count
    assert tensors(CONFIGS[key]) == real
    if answer["layer"]:
        assert decoder_of(CONFIGS[key]).family.decoder_layer == answer["layer"]


def test_enough_variants():
    assert len(VARIANTS) >= 60


ADAPTED = {
    f"{key} / {word}": (config, word)
    for key, config in VARIANTS.items()
    if key.endswith(": small") and "vision_config" not in config
    for word in ("all-linear", "experts")
}
RANK = 4


def facts(config: dict[str, Any]):
    return facts_of_config(config, name="tiny", source="variant", native_dtype="bf16")


@pytest.fixture(scope="module")
def adapted() -> dict[str, dict[str, Any]]:
    requests = []
    for key, (config, word) in ADAPTED.items():
        model = facts(config)
        parameters = expert_parameter_names(model) if word == "experts" else []
        modules = linear_module_names(model, (word,))
        request = {"key": key, "config": config, "rank": RANK, "modules": modules, "parameters": parameters}
        requests.append(request)
    return ask("build_adapters.py", requests)


@pytest.mark.parametrize("key", ADAPTED)
def test_adapter_parameters_as_peft_counts_them(adapted, key):
    config, word = ADAPTED[key]
    assert "error" not in adapted[key], adapted[key]["error"]
    assert lora_parameters(facts(config), (word,), RANK) == adapted[key]["trainable"]
