"""Write rules/catalog/ms_swift_models.json from the model registry of the installed ms-swift.

    $(python tools/framework_env.py ms-swift | cut -f2) tools/extract_ms_swift_models.py

`models`: lower-cased last part of a hub id -> [model_type, template], as ms-swift itself looks names up
(swift/model/model_meta.py, get_matched_model_meta: first registered match wins). `by_config`: for ids
that are not registered, the `model_type` of config.json -> the same pair, chosen among the text
generation entries whose architectures the transformers class of that type has.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "rules" / "catalog" / "ms_swift_models.json"
# ms-swift names several types for these architectures; the one of the plain chat models is meant, with
# the template of the newest plain release.
PREFERRED = {
    "llama": ("llama", "llama3_2"),
    "qwen2": ("qwen2", "qwen2_5"),
    "qwen3": ("qwen3", "qwen3"),
    "qwen3_moe": ("qwen3_moe", "qwen3"),
    "deepseek_v3": ("deepseek_v3", "deepseek_r1"),
}


def pair(meta: Any, group: Any) -> list[str] | None:
    template = group.template or meta.template
    return [meta.model_type, template] if template else None


def registered(mapping: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for meta in mapping.values():
        for group in meta.model_groups:
            for model in group.models:
                for name in (model.ms_model_id, model.hf_model_id, model.model_path):
                    entry = pair(meta, group)
                    if isinstance(name, str) and entry:
                        found.setdefault(name.rsplit("/", 1)[-1].lower(), entry)
    return found


def generates_text(meta: Any) -> bool:
    return meta.task_type in (None, "causal_lm") and not meta.is_reward and bool(meta.candidate_templates)


def by_config(mapping: dict[str, Any], templates: set[str]) -> dict[str, list[str]]:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    sources = (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    found: dict[str, list[str]] = {}
    for config_type in sorted({key for source in sources for key in source}):
        names = [source[config_type] for source in sources if config_type in source]
        preferred = PREFERRED.get(config_type)
        if preferred and preferred[0] in mapping and preferred[1] in templates:
            found[config_type] = list(preferred)
            continue
        fitting = [m for m in mapping.values() if set(names) & set(m.architectures) and generates_text(m)]
        same = [m for m in fitting if m.model_type == config_type] or (fitting if len(fitting) == 1 else [])
        if same:
            found[config_type] = [same[0].model_type, same[0].candidate_templates[0]]
    return found


def main() -> int:
    from swift.model import MODEL_MAPPING
    from swift.template import TEMPLATE_MAPPING

    templates = set(TEMPLATE_MAPPING)
    missing = {
        key: value
        for key, value in PREFERRED.items()
        if value[0] not in MODEL_MAPPING or value[1] not in templates
    }
    if missing:
        print(f"preferred entries that ms-swift no longer has: {missing}", file=sys.stderr)
        return 1
    models = registered(MODEL_MAPPING)
    content = {
        "source": f"ms-swift=={importlib.metadata.version('ms-swift')}:swift/model/register.py",
        "models": models,
        "by_config": by_config(MODEL_MAPPING, templates),
    }
    body = json.dumps(content, indent=None, ensure_ascii=False)
    # One entry per line: a new release then shows as a readable diff.
    body = body.replace("], ", "],\n").replace("}, ", "},\n").replace(": {", ": {\n")
    TARGET.write_text(body + "\n", encoding="utf-8")
    print(f"{len(models)} ids, {len(content['by_config'])} config types")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
