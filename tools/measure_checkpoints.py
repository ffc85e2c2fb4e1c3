"""Measures what a checkpoint really is: bytes on disk by kind, and what stands on each process's host for it.

    torchrun --nproc_per_node 2 tools/measure_checkpoints.py WAY TUNING MODEL

WAY: one-process, zero1, zero2, zero3 (transformers' Trainer, two steps on random tokens), fsdp-whole or fsdp-sharded
(FSDP2 on gloo, saved by the functions of accelerate that the Trainer calls). TUNING: full or lora. MODEL: dense, moe, or
tied (a head that is the embedding). Runs in an environment with torch, transformers, accelerate, peft and DeepSpeed, on a
CPU; prints one row of tests/accuracy/checkpoints.csv. A state dict's bytes are those of its storages, each counted once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
import torch.distributed as dist

COMMON: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1536,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 256, "num_experts": 8, "num_experts_per_tok": 2}
RANK = 64
LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed", "peft")


def build(tuning: str, kind: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig

    shape = COMMON | {"tie_word_embeddings": kind == "tied"}
    config = Qwen3MoeConfig(**shape, **EXPERTS) if kind == "moe" else Qwen3Config(**shape)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if tuning == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear"))
    return model


def state_bytes(value: Any, seen: dict[int, int] | None = None) -> int:
    """Of all storages below `value`, each once."""
    seen = {} if seen is None else seen
    if isinstance(value, torch.Tensor):
        local: torch.Tensor = value.to_local() if hasattr(value, "to_local") else value  # type: ignore[operator]
        storage = local.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    elif isinstance(value, dict):
        for item in value.values():
            state_bytes(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            state_bytes(item, seen)
    return sum(seen.values())


class Watch:
    """The largest state dict that functions have handed out in this process."""

    def __init__(self) -> None:
        self.most = 0

    def over(self, owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            found = inner(*args, **kwargs)
            self.most = max(self.most, state_bytes(found))
            return found

        setattr(owner, name, watched)


def with_trainer(way: str, tuning: str, kind: str, out: str, watch: Watch) -> tuple[int, int]:
    """Trains with transformers' Trainer, which saves at its last step. Returns (parameters, trained)."""
    from accelerate import Accelerator
    from transformers import Trainer, TrainingArguments

    watch.over(Accelerator, "get_state_dict")
    more: dict[str, Any] = {}
    if way.startswith("zero"):
        import deepspeed

        watch.over(deepspeed.DeepSpeedEngine, "_zero3_consolidated_16bit_state_dict")
        zero: dict[str, Any] = {"stage": int(way[-1])}
        if way == "zero3":
            deepspeed.init_distributed("gloo")
            zero["stage3_gather_16bit_weights_on_model_save"] = True
        processes = int(os.environ["WORLD_SIZE"])
        more["deepspeed"] = {
            "zero_optimization": zero, "bf16": {"enabled": True}, "train_batch_size": processes,
            "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1,
        }  # fmt: skip
    arguments = TrainingArguments(
        out, per_device_train_batch_size=1, max_steps=2, save_steps=2, bf16=True, report_to=[], use_cpu=True,
        optim="adamw_torch", **more,
    )  # fmt: skip
    model = build(tuning, kind, torch.bfloat16)
    ids = torch.randint(0, COMMON["vocab_size"], (8, 16))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    Trainer(model, arguments, train_dataset=rows).train()
    return sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)


def with_fsdp(way: str, tuning: str, kind: str, out: str, watch: Watch) -> tuple[int, int]:
    """Two steps under fully_shard, then what the Trainer calls to save. fp32 weights, as accelerate makes them, or
    fp32 adapters on a 16-bit base. Returns (parameters, trained)."""
    import torch.distributed.checkpoint.state_dict as states
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, fsdp_utils
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullStateDictConfig, ShardedStateDictConfig, StateDictType, fully_shard

    dist.init_process_group("gloo")
    model = build(tuning, kind, torch.float32 if tuning == "full" else torch.bfloat16)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    inner = model.base_model.model.model if tuning == "lora" else model.model
    for layer in inner.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(0, COMMON["vocab_size"], (1, 16))
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    whole = way == "fsdp-whole"
    plugin = types.SimpleNamespace(
        fsdp_version=2,
        state_dict_type=StateDictType.FULL_STATE_DICT if whole else StateDictType.SHARDED_STATE_DICT,
        state_dict_config=FullStateDictConfig(offload_to_cpu=True, rank0_only=True)
        if whole
        else ShardedStateDictConfig(offload_to_cpu=True),
        optim_state_dict_config=None,
    )
    accelerator = types.SimpleNamespace(
        num_processes=dist.get_world_size(), process_index=dist.get_rank(), is_fsdp2=True,
        distributed_type=DistributedType.FSDP,
    )  # fmt: skip
    watch.over(fsdp_utils, "_get_model_state_dict")
    watch.over(states, "get_optimizer_state_dict")
    fsdp_utils.logger = __import__("logging").getLogger(__name__)
    if whole:
        found = Accelerator.get_state_dict(accelerator, model)
        watch.most = max(watch.most, state_bytes(found))
        if dist.get_rank() == 0:
            model.save_pretrained(out, state_dict=found)
        del found
    fsdp_utils.save_fsdp_model(plugin, accelerator, model, out, adapter_only=True)
    fsdp_utils.save_fsdp_optimizer(plugin, accelerator, optimizer, model, out)
    dist.barrier()
    return sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)


def part_of(name: str) -> str:
    """Which part of a checkpoint a file is."""
    if "optim" in name:
        return "optimizer"
    if name.endswith(".safetensors"):
        return "model"
    return "resume" if name.endswith((".pt", ".bin", ".distcp")) else "rest"


def main(arguments: list[str]) -> int:
    way, tuning, kind = arguments
    torch.manual_seed(0)
    # One folder for all processes, which torchrun names.
    out = Path(tempfile.gettempdir()) / f"checkpoint-{os.environ['TORCHELASTIC_RUN_ID']}-{os.getppid()}"
    watch = Watch()
    measure = with_fsdp if way.startswith("fsdp") else with_trainer
    total, trained = measure(way, tuning, kind, str(out), watch)
    most: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(most, watch.most)
    if dist.get_rank() == 0:
        sizes = dict.fromkeys(("model", "resume", "optimizer", "rest"), 0)
        for path in out.rglob("*"):
            if path.is_file():
                sizes[part_of(str(path.relative_to(out)))] += path.stat().st_size
        libraries = " ".join(f"{name}=={version(name)}" for name in LIBRARIES)
        row = (way, tuning, kind, len(most), total, trained, sizes["model"], sizes["resume"],
               sizes["optimizer"], max(most), min(most), libraries)  # fmt: skip
        print("ROW", ",".join(str(value) for value in row), flush=True)
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
