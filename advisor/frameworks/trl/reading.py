"""TRL's files read back: train.yaml with the accelerate file it names, or a script with `trl <method>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.frameworks.sources import (
    Documents,
    Given,
    Reading,
    Source,
    argv_of,
    command_words,
    merged,
    read_arguments,
    read_mapping,
    shell_words,
)

PROGRAMS = ("trl", "accelerate")
LAUNCH = "distributed_type"
"""A key that only accelerate's file has."""


def read(given: Given) -> list[Source]:
    if given.path.endswith(".sh"):
        return _script(given)
    source = read_mapping(given.path, given.text, "train")
    if LAUNCH in source.content:
        return [Source(source.path, "accelerate", source.content, source.lines, source.twice)]
    return _with_launch(given, source, given.argv or argv_of(given.text, PROGRAMS))


def _script(given: Given) -> list[Source]:
    words = command_words(shell_words(given.path, given.text), ("trl",))
    argv = [word.text for word in words]
    source = read_arguments(given.path, "train", words[2:])
    content = dict(source.content)
    named = given.other(content.pop("config", None), "train")
    own = Source(given.path, "train", content, source.lines, source.twice)
    return _with_launch(given, merged(named[0], own) if named else own, argv)


def _with_launch(given: Given, source: Source, argv: Sequence[str]) -> list[Source]:
    launch = source.content.get("accelerate_config")
    if launch is None and "--config_file" in argv[:-1]:
        launch = argv[argv.index("--config_file") + 1]
    return [source, *given.other(launch, "accelerate"), *_command(given.path, argv)]


def _command(path: str, argv: Sequence[str]) -> list[Source]:
    if argv[:1] == ("trl",) or list(argv[:1]) == ["trl"]:
        return [Source(path, "command", {"subcommand": argv[1]})]
    return []


def schemas(documents: Documents) -> Mapping[str, str]:
    command = documents.get("command", {})
    return {"train": str(command.get("trainer") or command.get("subcommand") or "sft")}


READING = Reading(
    signs=r"\btrl (sft|dpo|kto|reward|grpo|rloo|distillation)\b|\btrl\.experimental\b|\bTRL \d",
    names=("train.yaml",),
    read=read,
    model=("train:model_name_or_path",),
    schemas=schemas,
    schema_names={"train": r"\w+"},
    targets=("train:lora_target_modules",),
)
