"""ms-swift's files read back: train.yaml, or a script with `swift sft --key value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.frameworks.sources import (
    Documents,
    Given,
    Reading,
    Source,
    argv_of,
    command_words,
    read_arguments,
    read_mapping,
    shell_words,
)

PROGRAMS = ("swift", "megatron")


def read(given: Given) -> list[Source]:
    if given.path.endswith(".sh"):
        words = command_words(shell_words(given.path, given.text), PROGRAMS)
        source, argv = read_arguments(given.path, "train", words[2:]), [word.text for word in words]
    else:
        source = read_mapping(given.path, given.text, "train")
        argv = list(given.argv) or argv_of(given.text, PROGRAMS)
    return [source, *_command(given.path, argv)]


def _command(path: str, argv: Sequence[str]) -> list[Source]:
    return [Source(path, "command", {"program": argv[0], "subcommand": argv[1]})] if len(argv) > 1 else []


def schemas(documents: Documents) -> Mapping[str, str]:
    command = documents.get("command", {})
    return {"train": f"{command.get('program', 'swift')} {command.get('subcommand', 'sft')}"}


READING = Reading(
    signs=r"\b(swift|megatron) (pt|sft|rlhf)\b|\bms-swift \d",
    names=("train.yaml",),
    read=read,
    model=("train:model",),
    schemas=schemas,
    schema_names={"train": r"(swift|megatron) \w+"},
    targets=("train:target_modules",),
)
