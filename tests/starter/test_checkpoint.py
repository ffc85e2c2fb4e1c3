"""templates/starter/smoke/checkpoint.py on small hand-made checkpoints: what it accepts, and that each check can fail."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "templates/starter/smoke/checkpoint.py"
HIDDEN, WIDE, RANK, EXPERTS = 4, 6, 2, 3

Shapes = Mapping[str, tuple[int, ...]]

DENSE: Shapes = {
    "model.embed_tokens.weight": (8, HIDDEN),
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in (0, 1)
        for name, shape in {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "mlp.up_proj": (WIDE, HIDDEN),
            "input_layernorm": (HIDDEN,),
        }.items()
    },
}
MIXTURE: Shapes = {
    "model.layers.0.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.0.mlp.gate.weight": (EXPERTS, HIDDEN),
    **{
        f"model.layers.0.mlp.experts.{number}.{name}.weight": shape
        for number in range(EXPERTS)
        for name, shape in {
            "gate_proj": (WIDE, HIDDEN),
            "up_proj": (WIDE, HIDDEN),
            "down_proj": (HIDDEN, WIDE),
        }.items()
    },
}


def save(path: Path, shapes: Shapes, value: float | Mapping[str, float] = 1.0) -> None:
    """A safetensors file whose tensors hold one number each."""
    header: dict[str, object] = {}
    data = b""
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        number = value if isinstance(value, float) else value.get(name, 1.0)
        part = struct.pack("<f", number) * count
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def lora(module: str, into: int, out: int, rank: int = RANK) -> dict[str, tuple[int, ...]]:
    stem = f"base_model.model.model.{module}"
    return {f"{stem}.lora_A.weight": (rank, into), f"{stem}.lora_B.weight": (out, rank)}


def adapters(rank: int = RANK) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for layer in (0, 1):
        found |= lora(f"layers.{layer}.self_attn.q_proj", HIDDEN, HIDDEN, rank)
    return found


ROUTED = {
    **lora("layers.0.self_attn.q_proj", HIDDEN, HIDDEN),
    **lora("layers.0.mlp.experts.base_layer", HIDDEN, 2 * WIDE, RANK * EXPERTS),
    **lora("layers.0.mlp.experts", WIDE, HIDDEN, RANK * EXPERTS),
}


def run(folder: Path, *options: str) -> tuple[str, int]:
    command = [sys.executable, str(SCRIPT), str(folder / "output"), "--base", str(folder / "base"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout.strip(), done.returncode


def adapter_run(folder: Path, base: Shapes, saved: Shapes, *options: str) -> tuple[str, int]:
    save(folder / "base" / "model.safetensors", base)
    save(folder / "output" / "checkpoint-3" / "adapter_model.safetensors", saved)
    return run(folder, "--adapter", "q_proj", "--rank", str(RANK), *options)


def test_adapters_where_the_plan_says(tmp_path: Path) -> None:
    line, code = adapter_run(tmp_path, DENSE, adapters())
    numbers = 2 * RANK * (HIDDEN + HIDDEN)
    assert code == 0
    assert line.startswith(f"checkpoint: adapters on 2 modules and no others (q_proj), {numbers} numbers")


def test_adapters_on_routed_experts(tmp_path: Path) -> None:
    line, code = adapter_run(tmp_path, MIXTURE, ROUTED, "--experts")
    routed = RANK * EXPERTS * (HIDDEN + 2 * WIDE + WIDE + HIDDEN)
    assert code == 0
    assert f"{routed + RANK * 2 * HIDDEN} numbers as planned" in line


@pytest.mark.parametrize(
    ("base", "saved", "options", "message"),
    [
        (MIXTURE, ROUTED, (), "routed experts were adapted: layers.0.mlp.experts"),
        (
            MIXTURE,
            lora("layers.0.self_attn.q_proj", HIDDEN, HIDDEN),
            ("--experts",),
            "no adapter on layers.0.mlp.experts",
        ),
        (
            DENSE,
            lora("layers.0.self_attn.q_proj", HIDDEN, HIDDEN),
            (),
            "no adapter on layers.1.self_attn.q_proj",
        ),
        (
            DENSE,
            {**adapters(), **lora("layers.0.mlp.up_proj", HIDDEN, WIDE)},
            (),
            "an adapter too many: layers.0.mlp.up_proj",
        ),
        (DENSE, adapters(rank=2 * RANK), (), "has 32 numbers, the plan says 16"),
        (
            DENSE,
            {**adapters(), "base_model.model.model.embed_tokens.weight": (8, HIDDEN)},
            (),
            "more than adapters trained",
        ),
        (
            DENSE,
            {**adapters(), "base_model.model.score.weight": (1, HIDDEN)},
            (),
            "more than adapters trained",
        ),
    ],
    ids=[
        "experts-not-planned",
        "experts-missing",
        "layer-missing",
        "module-too-many",
        "rank",
        "base-weight-saved",
        "head-not-planned",
    ],
)
def test_adapters_elsewhere_are_found(
    tmp_path: Path, base: Shapes, saved: Shapes, options: tuple[str, ...], message: str
) -> None:
    line, code = adapter_run(tmp_path, base, saved, *options)
    assert code == 1
    assert line.startswith("smoke: FAILED")
    assert message in line


def test_a_planned_head_is_accepted(tmp_path: Path) -> None:
    saved = {**adapters(), "base_model.model.score.weight": (1, HIDDEN)}
    assert adapter_run(tmp_path, DENSE, saved, "--head")[1] == 0


def test_dora_has_a_magnitude_for_each_output(tmp_path: Path) -> None:
    magnitudes = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_magnitude_vector": (HIDDEN,)
        for layer in (0, 1)
    }
    assert adapter_run(tmp_path, DENSE, {**adapters(), **magnitudes}, "--magnitude")[1] == 0
    assert "the plan says" in adapter_run(tmp_path, DENSE, adapters(), "--magnitude")[0]


def test_nothing_saved(tmp_path: Path) -> None:
    save(tmp_path / "base" / "model.safetensors", DENSE)
    assert "no adapter_model.safetensors was saved" in run(tmp_path, "--adapter", "q_proj", "--rank", "2")[0]
    assert "no weights were saved" in run(tmp_path)[0]


def test_the_whole_model_beside_an_adapter(tmp_path: Path) -> None:
    wrapped = {name.replace("q_proj", "q_proj.base_layer"): shape for name, shape in DENSE.items()}
    save(tmp_path / "output" / "checkpoint-3" / "model.safetensors", wrapped)
    line, code = adapter_run(tmp_path, DENSE, adapters())
    assert (code, "the whole model was saved too, 7 weights of the base unchanged" in line) == (0, True)
    changed = {"model.layers.0.self_attn.q_proj.base_layer.weight": 2.0}
    save(tmp_path / "output" / "checkpoint-3" / "model.safetensors", wrapped, changed)
    line, code = adapter_run(tmp_path, DENSE, adapters())
    assert (code, "layers.0.self_attn.q_proj.weight of the base changed" in line) == (1, True)


def test_an_adapter_that_did_not_move(tmp_path: Path) -> None:
    save(tmp_path / "base" / "model.safetensors", DENSE)
    saved = adapters()
    still = {name: 0.0 for name in saved if "layers.1" in name and "lora_B" in name}
    save(tmp_path / "output" / "adapter_model.safetensors", saved, still)
    options = ("--adapter", "q_proj", "--rank", str(RANK))
    assert "is still 0: it did not train" in run(tmp_path, *options)[0]
    log = tmp_path / "log.txt"
    log.write_text("{'loss': '0.1', 'grad_norm': '0.5'}\n{'loss': '0.2', 'grad_norm': '0.0'}\n")
    assert run(tmp_path, *options, "--log", str(log))[1] == 1
    log.write_text("{'loss': '0.0', 'grad_norm': '0.0'}\n{'loss': '0.0', 'grad_norm': '0.0'}\n")
    line, code = run(tmp_path, *options, "--log", str(log))
    assert (code, "no gradient" in line) == (0, True)


def whole_run(folder: Path, changed: set[str], *options: str, left_out: str = "") -> tuple[str, int]:
    save(folder / "base" / "model.safetensors", DENSE)
    saved = {name: shape for name, shape in DENSE.items() if name != left_out}
    save(folder / "output" / "model.safetensors", saved, dict.fromkeys(changed, 2.0))
    return run(folder, *options)


LAST = {name for name in DENSE if "layers.1" in name}


def test_every_weight_changed(tmp_path: Path) -> None:
    line, code = whole_run(tmp_path, set(DENSE))
    assert (line, code) == (f"checkpoint: 7 of 7 trained weights changed ({32 + 2 * 44} numbers)", 0)


@pytest.mark.parametrize("options", [("--last-layers", "1"), ("--layers", "1")])
def test_only_the_planned_layers_changed(tmp_path: Path, options: tuple[str, ...]) -> None:
    line, code = whole_run(tmp_path, LAST, *options)
    assert (code, "4 others as they were" in line) == (0, True)
    line, code = whole_run(tmp_path, LAST | {"model.embed_tokens.weight"}, *options)
    assert (code, "model.embed_tokens.weight changed" in line) == (1, True)


def test_a_weight_that_did_not_change(tmp_path: Path) -> None:
    line, code = whole_run(tmp_path, LAST)
    assert (code, "did not change (4 of 7 weights that train)" in line) == (1, True)


def test_a_weight_that_was_not_saved(tmp_path: Path) -> None:
    line, code = whole_run(tmp_path, set(DENSE), left_out="model.embed_tokens.weight")
    assert (code, "model.embed_tokens.weight was not saved" in line) == (1, True)


def test_a_buffer_that_did_not_change_is_no_weight(tmp_path: Path) -> None:
    still = "model.layers.0.input_layernorm.weight"
    line, code = whole_run(tmp_path, set(DENSE) - {still})
    assert (code, f"{still} did not change" in line) == (1, True)
    (tmp_path / "base" / "buffers.json").write_text(json.dumps([still]))
    line, code = whole_run(tmp_path, set(DENSE) - {still})
    assert (line, code) == (f"checkpoint: 6 of 6 trained weights changed ({32 + 2 * 44 - HIDDEN} numbers)", 0)


def test_fused_experts_are_read_apart(tmp_path: Path) -> None:
    """As FSDP shards hold them: gate and up of all experts in one parameter."""
    save(tmp_path / "base" / "model.safetensors", MIXTURE)
    stem = "model.layers.0.mlp.experts"
    fused = {name: shape for name, shape in MIXTURE.items() if ".experts." not in name} | {
        f"{stem}.gate_up_proj": (EXPERTS, 2 * WIDE, HIDDEN),
        f"{stem}.down_proj": (EXPERTS, HIDDEN, WIDE),
    }
    whole = tmp_path / "output" / "model.safetensors"
    save(whole, fused, dict.fromkeys(fused, 2.0))
    line, code = run(tmp_path)
    numbers = HIDDEN * HIDDEN + EXPERTS * HIDDEN + 3 * EXPERTS * HIDDEN * WIDE
    assert (line, code) == (
        f"checkpoint: {len(MIXTURE)} of {len(MIXTURE)} trained weights changed ({numbers} numbers)",
        0,
    )
    save(whole, fused, dict.fromkeys([name for name in fused if "down" not in name], 2.0))
    line, code = run(tmp_path)
    assert (code, f"{stem}.0.down_proj.weight did not change ({EXPERTS} of" in line) == (1, True)
