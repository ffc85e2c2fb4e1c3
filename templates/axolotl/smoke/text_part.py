"""Write the language model's part of a config.json that also describes an image tower.

    python smoke/text_part.py smoke/model_config/config.json smoke/work/text_config

Axolotl loads an image processor for every model that sees; a tiny one cannot be made without downloads.
"""

import json
import sys
from pathlib import Path

# Language models that exist only inside a model that sees: the one of the same build that stands alone.
ALONE = {
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "glm4v_text": "glm4",
    "glm4v_moe_text": "glm4_moe",
}


def main() -> int:
    source, target = map(Path, sys.argv[1:])
    whole = json.loads(source.read_text(encoding="utf-8"))
    part = dict(whole["text_config"])
    part["model_type"] = ALONE.get(part["model_type"], part["model_type"])
    part.pop("architectures", None)
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(part, indent=2), encoding="utf-8")
    print(f"override: the model: {whole['model_type']} -> {part['model_type']}, without its image tower")
    return 0


if __name__ == "__main__":
    sys.exit(main())
