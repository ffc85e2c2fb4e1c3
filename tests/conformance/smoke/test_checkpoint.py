"""templates/starter/smoke/checkpoint.py on FSDP shards, which hold the base and the adapters: with torch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conformance.starters import environment

pytestmark = pytest.mark.conformance

SCRIPT = Path(__file__).resolve().parents[3] / "templates/starter/smoke/checkpoint.py"
MAKE = """
import sys
import torch
from safetensors.torch import save_file

name, stem = "model.layers.0.self_attn.q_proj", "base_model.model.model.layers.0.self_attn.q_proj"
base = torch.ones(4, 4)
save_file({f"{name}.weight": base}, "base/model.safetensors")
moved = {"base": base + (sys.argv[1] == "base"), "B": torch.full((4, 2), float(sys.argv[1] != "still"))}
torch.save(
    {
        f"{stem}.base_layer.weight": moved["base"],
        f"{stem}.lora_A.default.weight": torch.ones(2, 4),
        f"{stem}.lora_B.default.weight": moved["B"],
    },
    "output/model_world_size_1_rank_0.pt",
)
"""


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        (
            "fine",
            0,
            "16 numbers as planned, moved; the whole model was saved too, 1 weights of the base unchanged",
        ),
        ("base", 1, "q_proj.weight of the base changed"),
        ("still", 1, "is still 0: it did not train"),
    ],
)
def test_shards_of_base_and_adapter(what: str, code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "output").mkdir()
    python = str(environment("trl"))
    subprocess.run([python, "-c", MAKE, what], cwd=tmp_path, check=True, timeout=300)
    done = subprocess.run(
        [python, str(SCRIPT), "output", "--base", "base", "--adapter", "q_proj", "--rank", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, message in done.stdout) == (code, True), done.stdout + done.stderr
