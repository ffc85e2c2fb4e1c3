"""Write a bf16 copy of a checkpoint whose weights are FP8 in 128 x 128 blocks (DeepSeek-V3 and R1).

    python prepare/dequantize_fp8.py model_fp8 model_bf16

Each FP8 weight W has a W_scale_inv with one float per block; the bf16 weight is W * scale, block by block.
config.json loses `quantization_config`, and the extra prediction layers (num_nextn_predict_layers), which
no trainer here uses, are left out. One shard is in memory at a time.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

BLOCK = 128
COPIED = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")


def dequantize(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    rows, columns = weight.shape
    full = scale.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    return (weight.to(torch.float32) * full).to(torch.bfloat16)


class Checkpoint:
    """A sharded safetensors folder; a scale may lie in another shard than its weight."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        self.shard_of: dict[str, str] = index["weight_map"]

    def tensor(self, name: str) -> torch.Tensor:
        with safe_open(self.folder / self.shard_of[name], framework="pt") as shard:
            return shard.get_tensor(name)


def convert(source: Path, target: Path) -> None:
    checkpoint = Checkpoint(source)
    config = json.loads((source / "config.json").read_text())
    skipped = tuple(
        f"model.layers.{config['num_hidden_layers'] + extra}."
        for extra in range(config.get("num_nextn_predict_layers") or 0)
    )
    target.mkdir(parents=True, exist_ok=True)
    for pattern in COPIED:
        for file in source.glob(pattern):
            shutil.copy(file, target / file.name)
    written: dict[str, str] = {}
    total = 0
    for shard in sorted(set(checkpoint.shard_of.values())):
        tensors: dict[str, torch.Tensor] = {}
        with safe_open(source / shard, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                if name.endswith("_scale_inv") or name.startswith(skipped):
                    continue
                weight = opened.get_tensor(name)
                scale = f"{name}_scale_inv"
                if scale in checkpoint.shard_of:
                    weight = dequantize(weight, checkpoint.tensor(scale))
                tensors[name] = weight
                total += weight.numel() * weight.element_size()
        if tensors:
            save_file(tensors, target / shard, metadata={"format": "pt"})
            written |= dict.fromkeys(tensors, shard)
        print(f"{shard}: {len(tensors)} tensors", flush=True)
    index = {"metadata": {"total_size": total}, "weight_map": written}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config.pop("quantization_config", None)
    config["num_nextn_predict_layers"] = 0
    config["torch_dtype"] = "bfloat16"
    (target / "config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python prepare/dequantize_fp8.py SOURCE_FOLDER TARGET_FOLDER")
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
