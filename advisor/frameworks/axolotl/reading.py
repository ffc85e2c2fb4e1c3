"""Axolotl's files read back: train.yaml with the DeepSpeed file it names."""

from __future__ import annotations

from advisor.frameworks.sources import Given, Reading, Source, read_mapping


def read(given: Given) -> list[Source]:
    source = read_mapping(given.path, given.text, "train")
    return [source, *given.other(source.content.get("deepspeed"), "deepspeed")]


READING = Reading(
    signs=r"\baxolotl (train|preprocess)\b|\baxolotl\.cli\b|\bAxolotl \d",
    names=("train.yaml",),
    read=read,
    model=("train:base_model",),
    schemas=lambda documents: {"train": "train"},
    schema_names={"train": "train"},
    targets=("train:lora_target_modules",),
)
