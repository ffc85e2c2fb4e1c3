"""Write rules/catalog/config_defaults.json from the installed transformers (run in the trl environment).

For every model type that advisor.facts.architectures can count: the config class's own defaults that
decide sizes (whole numbers, switches, lists of whole numbers) and its accepted alternative key names.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, cast

from transformers import CONFIG_MAPPING  # pyright: ignore

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from advisor.facts.architectures.build import MULTIMODAL, known_types  # noqa: E402

SAME_AS = {
    "kimi_k2": "deepseek_v3",
    "internlm2": "llama",
    "internlm3": "llama",
    "baichuan": "llama",
    "mimo": "qwen2",
}
UNUSED = (
    *("token_id", "token_index", "output_router", "output_hidden", "output_att"),
    *("is_", "return_", "use_cache", "chunk_size", "pretraining", "_coef"),
)


def sized(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, int) for item in cast("list[Any]", value))
    return isinstance(value, (int, bool))


def defaults(config_class: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if value is dataclasses.MISSING or any(word in field.name for word in UNUSED):
            continue
        if sized(value):
            found[field.name] = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
    return found


def main() -> None:
    types = {*known_types(), *(kind.vision for kind in MULTIMODAL.values()), "gemma4_audio"}
    table: dict[str, Any] = {}
    for name in sorted(types):
        config_class: Any = CONFIG_MAPPING[SAME_AS.get(name, name)]
        aliases = {key: value for key, value in config_class.attribute_map.items() if "token" not in key}
        table[name] = {"defaults": defaults(config_class), "aliases": aliases}
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    (ROOT / "rules/catalog/config_defaults.json").write_text("{\n" + text + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
