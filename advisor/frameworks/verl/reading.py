"""verl's script read back: hydra overrides and the module that they are for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from advisor.frameworks.sources import Documents, Given, Reading, Source, read_overrides, shell_words

GROUPS = ("engine", "optim", "model_engine")
"""Options of a whole group of settings."""
ACTOR = "actor_rollout_ref.actor"
MODULE = re.compile(r"verl\.trainer\.\w+")


def read(given: Given) -> list[Source]:
    words = shell_words(given.path, given.text)
    source = read_overrides(given.path, "train", words, GROUPS)
    module = next((word.text for word in words if MODULE.fullmatch(word.text)), None)
    return [source, *([Source(given.path, "command", {"module": module})] if module else [])]


def schemas(documents: Documents) -> Mapping[str, str]:
    module = str(documents.get("command", {}).get("module", ""))
    train = documents.get("train", {})
    megatron = "megatron" in (train.get("model_engine"), train.get("engine"), train.get(f"{ACTOR}.strategy"))
    return {"train": module.removeprefix("verl.trainer.") + (" megatron" if megatron else "")}


def outside(documents: Documents) -> Mapping[str, Any]:
    """The copies under hybrid sharding: all GPUs over those that shard one copy."""
    train = documents.get("train", {})
    size = train.get(f"{ACTOR}.fsdp_config.fsdp_size", train.get("engine.fsdp_size"))
    gpus = [train.get(f"trainer.{name}", 1) for name in ("nnodes", "n_gpus_per_node")]
    if not all(isinstance(number, int) and number > 0 for number in (size, *gpus)):
        return {}
    world = gpus[0] * gpus[1]
    return {"fsdp_replicas": world // size} if size < world and world % size == 0 else {}


READING = Reading(
    signs=r"\bverl\.trainer\.",
    names=("train.sh",),
    read=read,
    model=("train:actor_rollout_ref.model.path", "train:model.path"),
    schemas=schemas,
    dotted=True,
    schema_names={"train": r"(main_ppo|sft_trainer|fsdp_sft_trainer)( megatron)?"},
    targets=("train:actor_rollout_ref.model.target_modules", "train:model.target_modules"),
    outside=outside,
)
