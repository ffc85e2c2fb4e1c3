"""Finds a model by hub id, folder or config.json and reads its facts.

The catalog (rules/catalog/models.json) is searched first; nothing is downloaded unless asked for.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, cast

from advisor.errors import InputError
from advisor.facts.architectures import Decoder, decoder_of, weights_of
from advisor.facts.architectures.decoder import sparse_layers
from advisor.facts.architectures.hybrids import layer_count
from advisor.facts.lora import (
    expert_parameter_names,
    linear_module_names,
    lora_modules,
    lora_parameters,
    names_peft_redirects,
)
from advisor.facts.types import ModelFacts, Moe
from advisor.paths import rules_root

__all__ = [
    "ModelSummary",
    "expert_parameter_names",
    "facts_of_config",
    "linear_module_names",
    "load_model",
    "lora_modules",
    "lora_parameters",
    "model_summaries",
    "names_peft_redirects",
]

Row = dict[str, Any]
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "half": "fp16"}


class ModelSummary(TypedDict):
    """One line of `advisor models`."""

    id: str
    model_type: str
    total: int | None
    """Parameters; None where they cannot be counted."""
    active: int | None
    """Parameters a token passes."""
    context: int | None
    native_dtype: str | None
    license: str | None
    chat_template: str | None
    note: str
    """Why the model cannot be used by name, or what to know about its numbers; often empty."""


def _read_catalog(name: str) -> dict[str, Any]:
    return json.loads((rules_root() / "catalog" / name).read_text(encoding="utf-8"))


@cache
def _rows() -> dict[str, Row]:
    """Catalog rows by lower-case id."""
    read = _read_catalog("models.json")
    return {row["id"].lower(): row for row in read["models"]}


@cache
def _aliases() -> dict[str, tuple[str, str]]:
    """Lower-case hub id -> (id as written, id of the catalog row with the same architecture)."""
    read = _read_catalog("aliases.json")
    return {name.lower(): (name, target) for name, target in read["same_architecture"].items()}


def load_model(reference: str, *, offline: bool = True) -> ModelFacts:
    """Facts of a hub id, a folder with config.json, or a config.json file."""
    reference = reference.strip().removeprefix("https://huggingface.co/")
    path = Path(reference).expanduser()
    if path.exists() or _is_path(reference):
        return _from_disk(path)
    found = _find(reference)
    if found is not None:
        return _from_row(*found)
    if not offline:
        return _from_hub(reference)
    raise _not_found(reference)


def _is_path(reference: str) -> bool:
    return reference.startswith((".", "/", "~")) or reference.endswith(".json") or reference.count("/") > 1


def _spelled(reference: str) -> str:
    return reference.lower().replace(" ", "-").strip("/")


def _find(reference: str) -> tuple[str, Row] | None:
    """(id to use, catalog row); a name without organisation counts when it is unique."""
    wanted = _spelled(reference)
    named = {key: (row["id"], key) for key, row in _rows().items()}
    named |= {key: (written, target.lower()) for key, (written, target) in _aliases().items()}
    if wanted in named:
        written, key = named[wanted]
        return written, _rows()[key]
    same_name = [pair for key, pair in named.items() if key.rsplit("/", 1)[-1] == wanted]
    if len(same_name) > 1:
        raise InputError(
            "model", f"'{reference}' names several models: {', '.join(pair[0] for pair in same_name)}"
        )
    return (same_name[0][0], _rows()[same_name[0][1]]) if same_name else None


def _not_found(reference: str) -> InputError:
    wanted = _spelled(reference)
    written = {key: row["id"] for key, row in _rows().items()}
    written |= {key: name for key, (name, _) in _aliases().items()}
    short = {key.rsplit("/", 1)[-1]: name for key, name in written.items()}
    close = [written[key] for key in difflib.get_close_matches(wanted, written, n=3, cutoff=0.6)]
    last = wanted.rsplit("/", 1)[-1]
    close += [short[key] for key in difflib.get_close_matches(last, short, n=3, cutoff=0.6)]
    hint = f"close: {', '.join(list(dict.fromkeys(close))[:4])}; " if close else ""
    return InputError(
        "model",
        f"'{reference}' is not in the catalog ({hint}or give the model's own config: "
        "--model path/to/config.json or its folder; with pip install 'posttrain-advisor[hub]' "
        "and no --offline it is read from the hub)",
    )


def _refusal(row: Row) -> InputError:
    return InputError(
        "model",
        f"{row['id']} is listed but cannot be sized: {row['partial']}; "
        "give its own config: --model path/to/config.json",
    )


def _config_of(row: Row) -> Mapping[str, Any]:
    return row["config"] if "config" in row else _rows()[row["config_of"].lower()]["config"]


def _from_row(name: str, row: Row) -> ModelFacts:
    if "partial" in row:
        raise _refusal(row)
    notes = [row.get("note", "")]
    if name != row["id"]:
        notes.append(f"sized as {row['id']}, which has the same architecture")
    if row["confidence"] != "config as published in source":
        notes.append(f"dimensions: {row['confidence']}")
    return facts_of_config(
        _config_of(row),
        name=name,
        source=row["source"],
        native_dtype=row.get("native_dtype", "bf16"),
        note="; ".join(note for note in notes if note),
    )


def _from_disk(path: Path) -> ModelFacts:
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        what = "holds no config.json" if path.is_dir() else "does not exist"
        raise InputError("model", f"{path} {what}; give a hub id, a folder with config.json or a config.json")
    folder = file.parent.resolve()
    config = _read_config(file)
    # A folder counts as the user's checkpoint; a bare config.json only describes an architecture.
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    is_checkpoint = path.is_dir() or has_weights
    return facts_of_config(
        config,
        name=folder.name if is_checkpoint else str(path),
        source=str(file),
        native_dtype=_native_dtype(config),
        local_path=str(folder) if is_checkpoint else None,
    )


def _read_config(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("model", f"{file} is not readable JSON: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError("model", f"{file} is no transformers config.json: it has no model_type")
    return cast("Mapping[str, Any]", config)


def _from_hub(reference: str) -> ModelFacts:
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _not_found(reference) from error
    try:
        file = huggingface_hub.hf_hub_download(reference, "config.json")  # pyright: ignore
    except Exception as error:  # any network, access or name problem ends the same way for the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError("model", f"{_not_found(reference)}; the hub said: {reason}") from error
    config = _read_config(Path(str(file)))  # pyright: ignore[reportUnknownArgumentType]
    return facts_of_config(
        config, name=reference, source=f"hub: {reference}", native_dtype=_native_dtype(config)
    )


def _native_dtype(config: Mapping[str, Any]) -> str:
    """dtype of the checkpoint a config.json belongs to."""
    quantized = config.get("quantization_config")
    if isinstance(quantized, Mapping):
        method = str(cast("Mapping[str, Any]", quantized).get("quant_method", "quantized"))
        return {"fp8": "fp8", "mxfp4": "mxfp4"}.get(method, method)
    text = config.get("text_config")
    inner = cast("Mapping[str, Any]", text) if isinstance(text, Mapping) else {}
    for key in ("dtype", "torch_dtype"):
        value = config.get(key) or inner.get(key)
        if value:
            return DTYPES.get(str(value), str(value))
    return "bf16"


def facts_of_config(
    config: Mapping[str, Any],
    *,
    name: str,
    source: str,
    native_dtype: str,
    local_path: str | None = None,
    note: str = "",
) -> ModelFacts:
    """Everything derived from one config.json."""
    decoder = decoder_of(config)
    text = decoder.text
    moe = _moe_of(decoder)
    ffn = text.get("intermediate_size") or (moe.expert_ffn if moe else 0)
    return ModelFacts(
        id=name,
        model_type=decoder.model_type,
        architecture=decoder.architecture,
        hidden=text.hidden,
        layers=layer_count(text),
        heads=text.heads,
        kv_heads=text.kv_heads,
        head_dim=_head_dim(decoder),
        ffn=int(ffn),
        vocab=text.size("vocab_size"),
        max_positions=text.size_or("max_position_embeddings", 0),
        tied_embeddings=decoder.tied,
        moe=moe,
        mla=decoder.family.attention == "latent",
        vision=decoder.multimodal is not None,
        native_dtype=native_dtype,
        decoder_layer=decoder.family.decoder_layer,
        weights=weights_of(config),
        config=config,
        source=source,
        local_path=local_path,
        context_note=note,
    )


def _head_dim(decoder: Decoder) -> int:
    """Width of one query head (latent attention: its non-rotary and rotary parts)."""
    if decoder.family.attention == "latent":
        return decoder.text.size("qk_nope_head_dim") + decoder.text.size("qk_rope_head_dim")
    return decoder.text.head_dim


def _moe_of(decoder: Decoder) -> Moe | None:
    family, text = decoder.family.moe, decoder.text
    routed = sparse_layers(decoder.family, text)
    if family is None or not routed:
        return None
    return Moe(
        experts=text.size(family.experts),
        experts_per_token=text.size(family.per_token),
        expert_ffn=text.size(family.ffn),
        shared_ffn=family.shared_ffn(text),
        moe_layers=routed,
    )


def _summary(row: Row) -> ModelSummary:
    note, facts = str(row.get("partial", "")), None
    if not note:
        try:
            facts = _from_row(row["id"], row)
            note = facts.context_note
        except InputError:
            config = _config_of(row)
            note = f"its architecture ({config['architectures'][0]}) cannot be counted yet"
    return ModelSummary(
        id=row["id"],
        model_type=facts.model_type if facts else str(row.get("model_type", "")),
        total=facts.total_parameters if facts else None,
        active=facts.active_parameters if facts else None,
        context=facts.max_positions if facts else row.get("dims", {}).get("max_position_embeddings"),
        native_dtype=row.get("native_dtype"),
        license=row.get("license"),
        chat_template=row.get("chat_template"),
        note=note,
    )


def model_summaries() -> list[ModelSummary]:
    """Every catalog row, in catalog order."""
    return [_summary(row) for row in _rows().values()]
