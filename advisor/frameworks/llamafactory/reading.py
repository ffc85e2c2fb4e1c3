"""LLaMA-Factory's files read back: train.yaml with the DeepSpeed file it names and accelerate's file."""

from __future__ import annotations

from advisor.frameworks.sources import (
    Given,
    Reading,
    Source,
    argv_of,
    command_words,
    read_arguments,
    read_mapping,
    shell_words,
)


def read(given: Given) -> list[Source]:
    if given.path.endswith(".sh"):
        words = command_words(shell_words(given.path, given.text), ("llamafactory-cli", "lmf"))
        source, argv = read_arguments(given.path, "train", words[2:]), tuple(word.text for word in words)
    else:
        source = read_mapping(given.path, given.text, "train")
        argv = given.argv or argv_of(given.text, ("accelerate", "llamafactory-cli"))
    found = [source, *given.other(source.content.get("deepspeed"), "deepspeed")]
    if "--config_file" in argv[:-1]:
        found += given.other(argv[argv.index("--config_file") + 1], "accelerate")
    return found


READING = Reading(
    signs=r"\bllamafactory(-cli|\.launcher)\b|\bLLaMA-Factory \d",
    names=("train.yaml",),
    read=read,
    model=("train:model_name_or_path",),
    schemas=lambda documents: {"train": "train"},
    schema_names={"train": "train"},
    targets=("train:lora_target",),
)
