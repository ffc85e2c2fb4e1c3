"""Puts text decoder, towers and head together; refuses what is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from advisor.errors import InputError
from advisor.facts.architectures import gemma4_towers, mllama, vision
from advisor.facts.architectures.decoder import lm_head, text_decoder
from advisor.facts.architectures.family import Family
from advisor.facts.architectures.fields import Fields
from advisor.facts.architectures.hybrids import HYBRIDS
from advisor.facts.architectures.inventory import Inventory
from advisor.facts.architectures.table import TEXT
from advisor.facts.types import Weight

Tower = Callable[[Fields, Fields, Fields, Inventory], None]


@dataclass(frozen=True, slots=True)
class Multimodal:
    """A model whose config nests text_config and vision_config."""

    architecture: str
    text: str
    """Text model type when text_config does not say."""
    vision: str
    tower: Tower
    tower_root: str = "model"
    text_root: str = "model.language_model"
    head_root: str = ""


MULTIMODAL: dict[str, Multimodal] = {
    "qwen2_5_vl": Multimodal(
        "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl_text", "qwen2_5_vl_vision", vision.qwen2_5_vision
    ),
    "qwen3_vl": Multimodal(
        "Qwen3VLForConditionalGeneration", "qwen3_vl_text", "qwen3_vl_vision", vision.qwen_vision
    ),
    "qwen3_vl_moe": Multimodal(
        "Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe_text", "qwen3_vl_moe_vision", vision.qwen_vision
    ),
    "qwen3_5": Multimodal(
        "Qwen3_5ForConditionalGeneration", "qwen3_5_text", "qwen3_5_vision", vision.qwen_vision
    ),
    "qwen3_5_moe": Multimodal(
        "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text", "qwen3_5_moe_vision", vision.qwen_vision
    ),
    "glm4v": Multimodal("Glm4vForConditionalGeneration", "glm4v_text", "glm4v_vision", vision.glm4v_vision),
    "glm4v_moe": Multimodal(
        "Glm4vMoeForConditionalGeneration", "glm4v_moe_text", "glm4v_moe_vision", vision.glm4v_vision
    ),
    "mllama": Multimodal(
        "MllamaForConditionalGeneration", "mllama_text_model", "mllama_vision_model", mllama.mllama_vision
    ),
    "gemma3": Multimodal(
        "Gemma3ForConditionalGeneration", "gemma3_text", "siglip_vision_model", vision.siglip_gemma3
    ),
    "gemma4": Multimodal(
        "Gemma4ForConditionalGeneration", "gemma4_text", "gemma4_vision", gemma4_towers.gemma4_vision
    ),
    "mistral3": Multimodal("Mistral3ForConditionalGeneration", "mistral", "pixtral", vision.pixtral),
    "llama4": Multimodal(
        "Llama4ForConditionalGeneration",
        "llama4_text",
        "llama4_vision_model",
        vision.llama4_vision,
        tower_root="",
        text_root="language_model.model",
        head_root="language_model",
    ),
    "internvl": Multimodal(
        "InternVLForConditionalGeneration", "qwen2", "internvl_vision", vision.internvl_vision
    ),
    "kimi_k25": Multimodal(
        "Kimi_K25ForConditionalGeneration", "deepseek_v3", "kimi_k25_vision", vision.kimi_vision
    ),
}


@dataclass(frozen=True, slots=True)
class Decoder:
    """What a config describes: its text part and whether a tower sits beside it."""

    model_type: str
    family: Family
    text: Fields
    multimodal: Multimodal | None
    architecture: str
    tied: bool


def known_types() -> list[str]:
    """Model types whose weights can be counted."""
    return sorted({*TEXT, *HYBRIDS, *MULTIMODAL})


def _unknown(config: Mapping[str, Any], model_type: str) -> InputError:
    named = config.get("architectures") or ["?"]
    return InputError(
        "model",
        f"architecture '{named[0]}' (model type '{model_type}') is not known; "
        f"known: {', '.join(known_types())}",
    )


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = config.get(name)
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def decoder_of(config: Mapping[str, Any]) -> Decoder:
    """Recognises the architecture; InputError when it is not known."""
    model_type = str(config.get("model_type", ""))
    multimodal = MULTIMODAL.get(model_type)
    text_config, text_type = config, model_type
    if multimodal is not None:
        text_config = _part(config, "text_config") or config
        text_type = str(text_config.get("model_type", multimodal.text))
        text_type = multimodal.text if text_type == model_type else text_type
    family = HYBRIDS[text_type][0] if text_type in HYBRIDS else TEXT.get(text_type)
    if family is None:
        raise _unknown(config, model_type if multimodal is None else f"{model_type}/{text_type}")
    text = Fields(text_type, text_config)
    top = Fields(model_type, config) if multimodal else text
    architecture = multimodal.architecture if multimodal else family.architecture
    return Decoder(model_type, family, text, multimodal, architecture, top.flag("tie_word_embeddings"))


def weights_of(config: Mapping[str, Any]) -> tuple[Weight, ...]:
    """Every parameter of the transformers class that `config` (a config.json) describes."""
    decoder = decoder_of(config)
    top = Inventory()
    if decoder.multimodal is not None:
        _towers(decoder, decoder.multimodal, config, top)
    root = decoder.multimodal.text_root if decoder.multimodal else "model"
    text_type = decoder.text.model_type
    write = HYBRIDS[text_type][1] if text_type in HYBRIDS else text_decoder
    write(decoder.family, decoder.text, top.under(root))
    head_root = decoder.multimodal.head_root if decoder.multimodal else ""
    head = top.under(head_root) if head_root else top
    lm_head(decoder.family, decoder.text, head, tied=decoder.tied)
    return tuple(top.weights)


def _towers(decoder: Decoder, kind: Multimodal, config: Mapping[str, Any], top: Inventory) -> None:
    vision_config = _part(config, "vision_config")
    root = top.under(kind.tower_root) if kind.tower_root else top
    fields = Fields(decoder.model_type, config)
    optional = decoder.model_type == "gemma4"
    if vision_config is not None or not optional:
        seen = Fields(kind.vision, vision_config or {})
        kind.tower(fields, seen, decoder.text, root)
    audio = _part(config, "audio_config")
    if audio is not None and optional:
        gemma4_towers.gemma4_audio(Fields("gemma4_audio", audio), decoder.text, root)
