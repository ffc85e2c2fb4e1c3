"""Axolotl's files read back: train.yaml with the DeepSpeed file it names and the server's file beside it."""

from __future__ import annotations

from advisor.frameworks.sources import Given, Reading, Source, read_mapping

SERVED_FILE = "vllm.yaml"


def read(given: Given) -> list[Source]:
    source = read_mapping(given.path, given.text, "train")
    deepspeed = given.other(source.content.get("deepspeed"), "deepspeed")
    rollouts = source.content.get("trl")
    served = isinstance(rollouts, dict) and rollouts.get("vllm_mode") == "server"
    return [source, *deepspeed, *(given.other(SERVED_FILE, "vllm") if served else [])]


READING = Reading(
    signs=r"\baxolotl (train|preprocess)\b|\baxolotl\.cli\b|\bAxolotl \d",
    names=("train.yaml",),
    read=read,
    model=("train:base_model",),
    schemas=lambda documents: {"train": "train", "vllm": "train"},
    schema_names={"train": "train", "vllm": "train"},
    targets=("train:lora_target_modules",),
)
