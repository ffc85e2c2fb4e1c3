"""Read what a finished run has saved and say whether it trained what the plan says, and nothing else.

    python smoke/checkpoint.py smoke/work/output --base smoke/work/model --adapter q_proj v_proj --rank 16
    python smoke/checkpoint.py smoke/work/output --base smoke/work/model

With --adapter: the saved adapter holds adapter weights alone, and where the base was saved beside it, it is as it
was; every linear module of these names has its adapter and no other module has one; the routed experts of a
mixture have one exactly when --experts is given; there are as many numbers in the file as rank x (in + out) of
those modules says; and the adapters have moved. Without it every weight of the model must differ from the
start, or, with --last-layers N or --layers N..., those of these layers and no others.

    --base DIR         the model the run started from: safetensors, and buffers.json with the names of those
                       tensors that are no weights
    --adapter NAME...  modules that get a low-rank adapter
    --rank N           their rank
    --experts          the routed experts get one too
    --magnitude        DoRA: a magnitude for each output beside every adapter
    --head             a head that is not in the base trains too and is saved whole (a reward model's score)
    --last-layers N    only the last N layers train;   --layers N...  only layers of these numbers
    --log PATH         the run's log: where every gradient was 0 (all answers of every group earned the same
                       reward) nothing can have moved, and nothing moving is fine

The last line says what was found; exit code 0, or 1 and what is wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Tensor(NamedTuple):
    """One saved tensor, read without torch: importing that takes longer than all of this."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes

    @property
    def numbers(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def zero(self) -> bool:
        return not any(self.data)


Weights = Mapping[str, Tensor]
Modules = dict[str, int]
"""Module, named from its layer on -> numbers in its adapter."""

ADAPTER_FILE = "adapter_model.safetensors"
MODEL_FILES = "model*.safetensors"
FIRST_SHARD = "model_world_size_*_rank_0.pt"
SHARD = re.compile(r"model_world_size_\d+_rank_(\d+)\.pt")
LORA = re.compile(r"\.lora_(A|B|magnitude_vector)(\.default)?(\.weight)?$")
HEADS = ("score", "v_head", "classifier", "summary")
TOWER = re.compile(r"(^|\.)(vision|visual|audio|image)|_tower")
EXPERT = re.compile(r"\.experts\.(\d+)\.")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Wrong(Exception):
    """What the run has saved is not what the plan trains."""


# ---------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------


def read(folder: Path, pattern: str) -> dict[str, Tensor]:
    """All tensors of the folder's safetensors files of this name."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob(pattern)):
        content = file.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = (8 + size + offset for offset in entry["data_offsets"])
                found[name] = Tensor(tuple(entry["shape"]), entry["dtype"], content[start:end])
    return found


def newest(files: Iterable[Path]) -> Path | None:
    """The folder that was written last."""
    return max((file.parent for file in files), key=lambda folder: folder.stat().st_mtime, default=None)


def shards(folder: Path) -> list[Path]:
    """FSDP shards of one checkpoint, one file a rank, in order."""
    named = [(int(found[1]), file) for file in folder.iterdir() if (found := SHARD.fullmatch(file.name))]
    return [file for _, file in sorted(named)]


def join_shards(files: list[Path]) -> dict[str, Tensor]:
    """Whole weights from the parts of every rank (DTensors split along one dimension)."""
    import torch

    ranks = [torch.load(file, map_location="cpu", weights_only=False) for file in files]
    return {name: _plain(_join([rank[name] for rank in ranks])) for name in ranks[0]}


def _join(parts: list[Any]) -> Any:
    import torch

    split = [place.dim for place in getattr(parts[0], "placements", ()) if place.is_shard()]
    local = [getattr(part, "_local_tensor", part) for part in parts]
    return torch.cat(local, dim=split[0]) if split and len(local) > 1 else local[0]


def _plain(tensor: Any) -> Tensor:
    return Tensor(tuple(tensor.shape), "F32", tensor.detach().float().contiguous().numpy().tobytes())


def read_distributed(folder: Path) -> dict[str, Tensor]:
    """Whole weights from a folder that torch.distributed.checkpoint has written."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with tempfile.NamedTemporaryFile(suffix=".pt", dir=folder.parent) as file:
        dcp_to_torch_save(folder, file.name)
        content = torch.load(file.name, map_location="cpu", weights_only=False)
    inner = content.get("model", content)
    return {name: _plain(value) for name, value in inner.items() if isinstance(value, torch.Tensor)}


def each_expert(saved: Weights, base: Weights) -> dict[str, Tensor]:
    """Saved weights with routed experts apart, as model files hold them: in memory gate and up are one parameter
    of all experts, down another."""
    found: dict[str, Tensor] = {}
    for name, tensor in saved.items():
        stem, _, last = name.rpartition(".")
        parts = ("gate_proj", "up_proj") if last == "gate_up_proj" else (last,)
        apart = f"{stem}.0.{parts[0]}.weight"
        if stem.endswith(".experts") and len(tensor.shape) == 3 and apart in base:
            found |= _apart(stem, parts, tensor)
        else:
            found[name] = tensor
    return found


def _apart(stem: str, parts: tuple[str, ...], tensor: Tensor) -> dict[str, Tensor]:
    """(experts, parts x rows, columns) -> one (rows, columns) matrix of each expert and part."""
    experts, rows, columns = tensor.shape
    size = len(tensor.data) // (experts * len(parts))
    pieces = [tensor.data[start : start + size] for start in range(0, len(tensor.data), size)]
    names = [f"{stem}.{expert}.{part}.weight" for expert in range(experts) for part in parts]
    shape = (rows // len(parts), columns)
    return {name: Tensor(shape, tensor.dtype, piece) for name, piece in zip(names, pieces, strict=True)}


def saved_whole(output: Path) -> dict[str, Tensor]:
    """The weights of the newest whole model below `output`, in whichever form it was saved."""
    readers = (
        (output.rglob(MODEL_FILES), lambda folder: read(folder, MODEL_FILES)),
        (output.rglob(FIRST_SHARD), lambda folder: join_shards(shards(folder))),
        (output.rglob("pytorch_model_fsdp_0/.metadata"), read_distributed),
    )
    for files, reader in readers:
        folder = newest(files)
        if folder:
            return reader(folder)
    raise Wrong(f"no weights were saved below {output}")


# ---------------------------------------------------------------------------------------------------
# Adapters
# ---------------------------------------------------------------------------------------------------


def module_of(name: str) -> str:
    """`...layers.0.self_attn.q_proj`, from the layer on: what stands before differs between file and memory."""
    found = LAYER.search(name)
    return name[found.start() :].lstrip(".") if found and not TOWER.search(name[: found.start()]) else name


def planned(base: Weights, args: argparse.Namespace) -> Modules:
    """Every module that gets an adapter, with the numbers it holds."""
    modules: Modules = {}
    for name, weight in base.items():
        module = name.removesuffix(".weight")
        of_model = len(weight.shape) == 2 and not EXPERT.search(name) and not TOWER.search(name)
        if of_model and module.rpartition(".")[2] in args.adapter:
            modules[module_of(module)] = adapter_size(weight.shape, args.rank, 1, args.magnitude)
    if args.experts:
        for module, sizes in expert_shapes(base).items():
            modules[module] = sum(adapter_size(shape, args.rank, count, False) for shape, count in sizes)
    return modules


def adapter_size(shape: Iterable[int], rank: int, copies: int, magnitude: bool) -> int:
    out, into = shape
    return copies * rank * (out + into) + (out if magnitude else 0)


def expert_shapes(base: Weights) -> dict[str, list[tuple[tuple[int, int], int]]]:
    """`layers.0.mlp.experts` -> (matrix, number of experts) of each fused parameter.

    Files hold every expert apart; in memory gate and up are one parameter of all experts, down another.
    """
    alone: dict[str, dict[str, tuple[tuple[int, int], int]]] = {}
    for name, weight in base.items():
        if ".experts." not in name or len(weight.shape) not in (2, 3):
            continue
        place = module_of(name[: name.index(".experts.") + len(".experts")]).replace(
            "block_sparse_moe", "mlp"
        )
        last = name.removesuffix(".weight").rpartition(".")[2]
        if len(weight.shape) == 3:
            alone.setdefault(place, {})[last] = ((weight.shape[1], weight.shape[2]), weight.shape[0])
        else:
            known = alone.setdefault(place, {}).get(last, ((0, 0), 0))[1]
            alone[place][last] = ((weight.shape[0], weight.shape[1]), known + 1)
    return {place: _fused(found) for place, found in alone.items()}


def _fused(found: dict[str, tuple[tuple[int, int], int]]) -> list[tuple[tuple[int, int], int]]:
    for gate, up in (("gate_proj", "up_proj"), ("w1", "w3")):
        if gate in found and up in found:
            (one, into), count = found.pop(gate)
            (other, _), _ = found.pop(up)
            found["gate_up"] = ((one + other, into), count)
    return list(found.values())


def adapted(weights: Weights) -> Modules:
    """Every module that has an adapter in the file, with the numbers it holds."""
    modules: Modules = {}
    for name, weight in weights.items():
        found = LORA.search(name)
        if found:
            path = name[: found.start()].replace(".base_layer", "").removeprefix("base_model.model.")
            module = module_of(path)
            modules[module] = modules.get(module, 0) + weight.numbers
    return modules


def saved_adapter(output: Path) -> Weights:
    """The newest adapter below `output`: a file of its own, or a part of the FSDP shards that hold everything."""
    folder = newest(output.rglob(ADAPTER_FILE))
    if folder:
        return read(folder, ADAPTER_FILE)
    folder = newest(output.rglob(FIRST_SHARD))
    if folder is None:
        raise Wrong(f"no {ADAPTER_FILE} was saved below {output}")
    return {name: weight for name, weight in join_shards(shards(folder)).items() if LORA.search(name)}


def check_adapter(output: Path, base: Weights, args: argparse.Namespace) -> str:
    weights = saved_adapter(output)
    others = [name for name in weights if not LORA.search(name) and not (args.head and is_head(name))]
    if others:
        raise Wrong(f"{others[0]} was saved beside the adapters: more than adapters trained")
    wanted, found = planned(base, args), adapted(weights)
    compare_places(wanted, found)
    sizes = [module for module in wanted if wanted[module] != found[module]]
    if sizes:
        module = sizes[0]
        raise Wrong(
            f"the adapter of {module} has {found[module]:,} numbers, the plan says {wanted[module]:,}"
        )
    still = [name for name in weights if ".lora_B" in name and weights[name].zero]
    moved = not still or (args.experts and all(".experts" in name for name in still))
    if not moved and not no_gradient(args.log):
        raise Wrong(f"{still[0]} is still 0: it did not train")
    untouched = check_base(output, base)
    return (
        f"adapters on {len(found)} modules and no others ({kinds(found)}), "
        f"{sum(found.values()):,} numbers as planned, {'moved' if moved else 'no gradient, not moved'}"
        f"{untouched}"
    )


def compare_places(wanted: Modules, found: Modules) -> None:
    """Raises Wrong for a module with an adapter too few or too many; for experts in words."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise Wrong(f"no adapter on {missing[0]} ({len(missing)} such modules), the plan has one")
    if extra:
        what = "routed experts were adapted" if ".experts" in extra[0] else "an adapter too many"
        raise Wrong(f"{what}: {extra[0]} ({len(extra)} such modules), the plan has none")


def check_base(output: Path, base: Weights) -> str:
    """Where the run has saved the base beside the adapter, it must be as it was."""
    shard, whole = newest(output.rglob(FIRST_SHARD)), newest(output.rglob(MODEL_FILES))
    if shard is None and whole is None:
        return ""
    everything = join_shards(shards(shard)) if shard else read(whole or output, MODEL_FILES)
    saved = {
        name.replace(".base_layer", "").replace("base_model.model.", ""): weight
        for name, weight in everything.items()
        if not LORA.search(name)
    }
    same = [name for name in saved if name in base]
    changed = [name for name in same if not equal(saved[name], base[name])]
    if changed:
        raise Wrong(f"{changed[0]} of the base changed: more than adapters trained")
    return f"; the whole model was saved too, {len(same)} weights of the base unchanged"


# ---------------------------------------------------------------------------------------------------
# Whole weights
# ---------------------------------------------------------------------------------------------------


def check_whole(output: Path, base: Weights, args: argparse.Namespace) -> str:
    saved = each_expert(align(saved_whole(output)), base)
    absent = sorted(base.keys() - saved.keys())
    absent = [name for name in absent if not (args.head and is_head(name))]
    if absent:
        raise Wrong(f"{absent[0]} was not saved ({len(absent)} of {len(base)} weights)")
    layers = trained_layers(base, args)
    buffers = buffers_of(Path(args.base))
    trained = {name for name in base if name in saved and trains(name, layers) and name not in buffers}
    changed = {name for name in base if name in saved and not equal(saved[name], base[name])} - buffers
    wrongly = sorted(changed - trained)
    if wrongly:
        raise Wrong(f"{wrongly[0]} changed, the plan trains only layers {sorted(layers or ())}")
    still = sorted(trained - changed)
    if still and not (no_gradient(args.log) and not changed):
        raise Wrong(f"{still[0]} did not change ({len(still)} of {len(trained)} weights that train)")
    numbers = sum(base[name].numbers for name in trained)
    kept = f", {len(base) - len(trained | buffers)} others as they were" if layers is not None else ""
    return f"{len(changed)} of {len(trained)} trained weights changed ({numbers:,} numbers){kept}" + (
        "; every gradient was 0" if still else ""
    )


def align(saved: Weights) -> dict[str, Tensor]:
    """Saved weights under the names of the base: prefixes of wrappers are taken off."""
    return {re.sub(r"^(_orig_mod\.|module\.|pretrained_model\.)+", "", name): t for name, t in saved.items()}


def trained_layers(base: Weights, args: argparse.Namespace) -> set[int] | None:
    """Numbers of the layers that train; None: everything trains."""
    if args.layers is not None:
        return set(args.layers)
    if args.last_layers is None:
        return None
    numbers = [int(found[1]) for name in base if (found := LAYER.search(name)) and not TOWER.search(name)]
    count = max(numbers) + 1
    return set(range(max(0, count - args.last_layers), count))


def buffers_of(base: Path) -> set[str]:
    """Saved tensors of the model that no optimizer moves, as tiny_model.py has written them down."""
    file = base / "buffers.json"
    return set(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else set()


def trains(name: str, layers: set[int] | None) -> bool:
    if layers is None:
        return True
    found = LAYER.search(name)
    return bool(found) and not TOWER.search(name) and int(found[1]) in layers


def equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype == other.dtype:
        return one.shape == other.shape and one.data == other.data
    import torch  # the run saved another type than it started from

    saved, start = (
        torch.frombuffer(bytearray(t.data), dtype=getattr(torch, TORCH_NAMES[t.dtype])) for t in (one, other)
    )
    return torch.equal(saved, start.to(saved.dtype))


def is_head(name: str) -> bool:
    return any(part in HEADS for part in name.split("."))


def kinds(modules: Iterable[str]) -> str:
    """The last names, each once: q_proj, v_proj, experts."""
    return ", ".join(dict.fromkeys(module.rpartition(".")[2] for module in modules))


def no_gradient(log: str | None) -> bool:
    """Whether the log says that every gradient was 0."""
    if log is None:
        return False
    from loss import NotReadable, read_steps

    try:
        gradients = [step.gradient for step in read_steps(Path(log))]
    except NotReadable:
        return False
    return bool(gradients) and all(gradient == 0 for gradient in gradients)


def check(args: argparse.Namespace) -> str:
    """What was found. Raises Wrong when it is not what the plan trains."""
    output, base = Path(args.output), read(Path(args.base), MODEL_FILES)
    if not base:
        raise Wrong(f"no weights in {args.base}")
    return check_whole(output, base, args) if args.adapter is None else check_adapter(output, base, args)


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="Say whether a run trained what its plan says.")
    parser.add_argument("output", help="folder the run has saved to")
    parser.add_argument("--base", required=True, help="folder of the model it started from")
    parser.add_argument("--adapter", nargs="*", metavar="NAME", help="modules that get an adapter")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--experts", action="store_true", help="the routed experts get an adapter")
    parser.add_argument("--magnitude", action="store_true", help="DoRA")
    parser.add_argument("--head", action="store_true", help="a head trains beside")
    parser.add_argument("--last-layers", type=int)
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--log")
    args = parser.parse_args(argv)
    try:
        print(f"checkpoint: {check(args)}")
    except Wrong as error:
        print(f"smoke: FAILED {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
