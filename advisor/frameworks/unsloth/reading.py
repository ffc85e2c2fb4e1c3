"""Unsloth's script read back: the keywords of its calls, written as dictionaries on top or in the calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from advisor.frameworks.sources import (
    Documents,
    Given,
    Reading,
    Source,
    Unresolved,
    keywords_of,
    python_tree,
    shell_words,
)

CALLS = {"from_pretrained": "load", "get_peft_model": "adapter", "load_dataset": "data"}
"""Function -> the document that its keywords are."""
SECTIONS = {"LOAD": "load", "ADAPTER": "adapter", "TRAIN": "train", "DATA": "data", "PROMPT": "prompt"}
"""The dictionaries of a starter's script."""
CONFIG = re.compile(r"([A-Z]\w*)Config")
LOADER = re.compile(r"Fast\w*Model")


def read(given: Given) -> list[Source]:
    tree = python_tree(given.path, given.text)
    found: dict[str, Source] = {}
    script: dict[str, Any] = {}
    for document, call in _calls(tree):
        source = keywords_of(given.path, document, call)
        if source.content:
            found.setdefault(document, source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            script |= _script(node)
    sources = [_plain(source) for source in found.values()]
    return [*sources, Source(given.path, "script", script), *_environment(given)]


def _calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id in SECTIONS and _name(node.value) == "dict":
                yield SECTIONS[target.id], node.value
        elif isinstance(node, ast.Call) and node.keywords:
            if _name(node) in CALLS:
                yield CALLS[_name(node)], node
            elif CONFIG.fullmatch(_name(node)):
                yield "train", node


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _script(call: ast.Call) -> dict[str, Any]:
    found = CONFIG.fullmatch(_name(call))
    if found:
        return {"trainer": found[1]}
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if isinstance(owner, ast.Name) and LOADER.fullmatch(owner.id) and _name(call) == "from_pretrained":
        return {"loader": owner.id}
    return {}


def _plain(source: Source) -> Source:
    """`torch.bfloat16` is the value bfloat16."""
    content = {
        key: value.text.removeprefix("torch.")
        if isinstance(value, Unresolved) and value.text.startswith("torch.")
        else value
        for key, value in source.content.items()
    }
    return Source(source.path, source.document, content, source.lines, source.twice)


def _environment(given: Given) -> list[Source]:
    text = given.look("launch/env.sh")
    if text is None:
        return []
    path = given.beside("launch/env.sh")
    content: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for word in shell_words(path, text):
        name, equals, value = word.text.partition("=")
        if equals and name.startswith("UNSLOTH_"):
            content[name], lines[name] = value, word.line
    return [Source(path, "environment", content, lines)]


def schemas(documents: Documents) -> Mapping[str, str]:
    script = documents.get("script", {})
    loader = script.get("loader", "FastLanguageModel")
    return {
        "load": f"{loader}.from_pretrained",
        "adapter": f"{loader}.get_peft_model",
        "train": f"{script.get('trainer', 'SFT')}Config",
    }


READING = Reading(
    signs=r"\b(from|import) unsloth\b",
    names=("train.py",),
    read=read,
    model=("load:model_name",),
    schemas=schemas,
    schema_names={"load": r".*\.from_pretrained", "adapter": r".*\.get_peft_model", "train": r"\w+Config"},
    targets=("adapter:target_modules",),
)
