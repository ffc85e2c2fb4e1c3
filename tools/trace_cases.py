"""Trace the cases of tests/accuracy/traced_rows.csv (needs the packages of the `trace` extra).

    python tools/trace_cases.py                  # all cases that the file lacks
    python tools/trace_cases.py --case ID ...    # these, printed as CSV, nothing written
    python tools/trace_cases.py --again          # all of them anew

A case is a model, cut to a number of layers where the whole one adds nothing but time, and a plan. Its `split`
comes from a hash of its id and was decided before any comparison: half of the cases may be looked at when a formula
is worked on (`fit`), the other half only counts (`held-out`). LOOKED_AT and FRESH name the exceptions.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from advisor.facts.models import facts_of_config, load_model  # noqa: E402
from advisor.facts.types import ModelFacts  # noqa: E402
from advisor.plan import Plan  # noqa: E402

ROWS = ROOT / "tests" / "accuracy" / "traced_rows.csv"
GIB = 1024.0**3
COLUMNS: tuple[str, ...] = (
    "id", "split", "kind", "model", "layers", "plan", "peak_gib", "moment",
    "weights_gib", "gradients_gib", "optimizer_gib", "working_gib", "logits_gib", "versions", "command",
)  # fmt: skip

MODELS: dict[str, tuple[str, int]] = {
    "qwen3-0.6b": ("Qwen/Qwen3-0.6B", 28),
    "qwen2.5-0.5b-12l": ("Qwen/Qwen2.5-0.5B", 12),
    "llama-3.2-1b-8l": ("meta-llama/Llama-3.2-1B", 8),
    "gemma-3-1b-8l": ("google/gemma-3-1b-it", 8),
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B", 32),
    "llama-3.1-8b-6l": ("meta-llama/Llama-3.1-8B", 6),
    "qwen3-8b-5l": ("Qwen/Qwen3-8B", 5),
    "qwen2.5-14b-4l": ("Qwen/Qwen2.5-14B", 4),
    "mistral-7b-5l": ("mistralai/Mistral-7B-v0.3", 5),
    "phi-4-4l": ("microsoft/phi-4", 4),
    "gemma-2-9b-4l": ("google/gemma-2-9b", 4),
    "qwen3-30b-a3b-4l": ("Qwen/Qwen3-30B-A3B", 4),
    "mixtral-8x7b-3l": ("mistralai/Mixtral-8x7B-v0.1", 3),
    "glm-4.5-air-3l": ("zai-org/GLM-4.5-Air", 3),
    "deepseek-v2-lite-4l": ("deepseek-ai/DeepSeek-V2-Lite", 4),
    "deepseek-v3-4l": ("deepseek-ai/DeepSeek-V3", 4),
}
"""Name in a case id -> catalog id, layers."""

FULL = {"tuning": "full", "precision": "bf16-pure", "attention": "flash"}
LORA = {"tuning": "lora", "precision": "bf16", "param_dtype": "fp32", "attention": "flash"}
QLORA = {**LORA, "tuning": "qlora", "quantization": "4bit"}
SHARDED = {"fsdp": True, "zero_stage": 3, "gpus_per_node": 8, "precision": "bf16"}
FSDP = {"tuning": "full", "attention": "flash", **SHARDED, "param_dtype": "fp32"}
GALORE, APOLLO = {"optimizer": "galore_adamw"}, {"optimizer": "apollo_adamw"}
LAYERWISE_GALORE, LAYERWISE_APOLLO = (
    {"optimizer": f"{name}_adamw_layerwise"} for name in ("galore", "apollo")
)
HYBRID = {"fsdp_replicas": 2}
KEEP = {"gradient_checkpointing": False}
FP32 = {"precision": "bf16", "param_dtype": "fp32"}
PURE = {"precision": "bf16-pure", "param_dtype": "bf16"}
AWAY = {"activation_offload": True}
COMPILED, CHUNKED = {"compile": True}, {"loss": "chunked"}
SDPA, EAGER, FUSED = {"attention": "sdpa"}, {"attention": "eager"}, {"loss": "fused"}


def _size(batch: int, length: int) -> dict[str, Any]:
    return {"micro_batch_size": batch, "seq_len": length}


PLANS: dict[str, dict[str, Any]] = {
    "full-1x2048": FULL | _size(1, 2048),
    "full-keep-sdpa-2x1024": FULL | KEEP | SDPA | _size(2, 1024),
    "full-autocast-1x4096": FULL | {"precision": "bf16"} | _size(1, 4096),
    "full-fp32-1x2048": FULL | {"precision": "bf16", "param_dtype": "fp32"} | _size(1, 2048),
    "full-fp32-keep-1x1024": FULL | {"precision": "bf16", "param_dtype": "fp32"} | KEEP | _size(1, 1024),
    "full-foreach-1x512": FULL | {"optimizer": "adamw_foreach"} | _size(1, 512),
    "full-fused-4x2048": FULL | FUSED | _size(4, 2048),
    "full-keep-eager-1x1024": FULL | KEEP | EAGER | _size(1, 1024),
    "full-eager-1x4096": FULL | EAGER | _size(1, 4096),
    "full-fused-1x32768": FULL | FUSED | _size(1, 32768),
    "full-1x16384": FULL | _size(1, 16384),
    "full-keep-fused-2x4096": FULL | KEEP | FUSED | _size(2, 4096),
    "full-accumulate-1x2048": FULL | {"gradient_accumulation_steps": 4} | _size(1, 2048),
    "freeze-keep-1x2048": FULL | {"tuning": "freeze"} | KEEP | _size(1, 2048),
    "lora-1x2048": LORA | _size(1, 2048),
    "lora-keep-sdpa-2x1024": LORA | KEEP | SDPA | _size(2, 1024),
    "lora-keep-attention-r64-1x4096": LORA | KEEP | {"lora_rank": 64, "lora_targets": ["attention"]} | _size(1, 4096),
    "lora-pure-fused-4x2048": LORA | FUSED | {"precision": "bf16-pure", "param_dtype": "bf16"} | _size(4, 2048),
    "lora-keep-fused-1x8192": LORA | KEEP | FUSED | _size(1, 8192),
    "lora-fused-1x32768": LORA | FUSED | _size(1, 32768),
    "lora-experts-1x2048": LORA | {"lora_targets": ["experts"]} | _size(1, 2048),
    "lora-keep-eager-1x1024": LORA | KEEP | EAGER | _size(1, 1024),
    "lora-keep-dropout-1x2048": LORA | KEEP | {"lora_dropout": 0.05} | _size(1, 2048),
    "qlora-1x2048": QLORA | _size(1, 2048),
    "qlora-fused-2x8192": QLORA | FUSED | _size(2, 8192),
    "qlora-keep-1x1024": QLORA | KEEP | _size(1, 1024),
    "qlora-pure-r64-1x4096": QLORA | {"precision": "bf16-pure", "param_dtype": "bf16", "lora_rank": 64} | _size(1, 4096),
    "fsdp8-full-1x2048": FSDP | _size(1, 2048),
    "fsdp8-full-fused-1x16384": FSDP | FUSED | _size(1, 16384),
    "fsdp8-full-keep-2x2048": FSDP | KEEP | _size(2, 2048),
    "fsdp8-full-bf16-1x8192": FSDP | {"param_dtype": "bf16"} | _size(1, 8192),
    "fsdp8-full-accumulate-1x2048": FSDP | {"gradient_accumulation_steps": 4} | _size(1, 2048),
    "fsdp8-lora-2x4096": LORA | SHARDED | _size(2, 4096),
    "fsdp8-lora-keep-fused-1x4096": LORA | SHARDED | KEEP | FUSED | _size(1, 4096),
    "hsdp2x4-full-1x2048": FSDP | HYBRID | _size(1, 2048),
    "hsdp2x4-full-bf16-1x8192": FSDP | HYBRID | {"param_dtype": "bf16"} | _size(1, 8192),
    "hsdp2x4-full-accumulate-1x2048": FSDP | HYBRID | {"gradient_accumulation_steps": 4} | _size(1, 2048),
    "hsdp2x4-lora-2x4096": LORA | SHARDED | HYBRID | _size(2, 4096),
    "compiled-full-1x4096": FULL | COMPILED | _size(1, 4096),
    "compiled-full-keep-2x2048": FULL | COMPILED | KEEP | _size(2, 2048),
    "compiled-full-fused-1x24576": FULL | COMPILED | FUSED | _size(1, 24576),
    "compiled-full-fp32-keep-1x3072": FULL | COMPILED | KEEP | FP32 | _size(1, 3072),
    "compiled-lora-2x2048": LORA | COMPILED | _size(2, 2048),
    "compiled-lora-keep-fused-1x6144": LORA | COMPILED | KEEP | FUSED | _size(1, 6144),
    "compiled-lora-pure-fused-1x16384": LORA | COMPILED | FUSED | PURE | _size(1, 16384),
    "chunked-full-1x6144": FULL | CHUNKED | _size(1, 6144),
    "chunked-lora-keep-2x1536": LORA | CHUNKED | KEEP | _size(2, 1536),
    "compiled-qlora-fused-1x12288": QLORA | COMPILED | FUSED | _size(1, 12288),
    "galore-1x512": FULL | GALORE | _size(1, 512),
    "galore-1x2048": FULL | GALORE | _size(1, 2048),
    "galore-r512-1x512": FULL | GALORE | {"optimizer_rank": 512} | _size(1, 512),
    "galore-fp32-1x512": FULL | GALORE | FP32 | _size(1, 512),
    "galore-fp32-r32-1x512": FULL | GALORE | FP32 | {"optimizer_rank": 32} | _size(1, 512),
    "apollo-1x512": FULL | APOLLO | _size(1, 512),
    "apollo-1x2048": FULL | APOLLO | _size(1, 2048),
    "apollo-r512-1x512": FULL | APOLLO | {"optimizer_rank": 512} | _size(1, 512),
    "apollo-fp32-1x512": FULL | APOLLO | FP32 | _size(1, 512),
    "galore-layerwise-1x512": FULL | LAYERWISE_GALORE | _size(1, 512),
    "galore-layerwise-1x2048": FULL | LAYERWISE_GALORE | _size(1, 2048),
    "galore-layerwise-keep-1x1024": FULL | LAYERWISE_GALORE | KEEP | _size(1, 1024),
    "apollo-layerwise-1x512": FULL | LAYERWISE_APOLLO | _size(1, 512),
    "apollo-layerwise-1x2048": FULL | LAYERWISE_APOLLO | _size(1, 2048),
    "galore-layerwise-fp32-1x1024": FULL | LAYERWISE_GALORE | FP32 | _size(1, 1024),
    "apollo-layerwise-fp32-1x512": FULL | LAYERWISE_APOLLO | FP32 | _size(1, 512),
    "away-full-fused-1x16384": FULL | AWAY | FUSED | _size(1, 16384),
    "away-lora-fused-1x8192": LORA | AWAY | FUSED | _size(1, 8192),
    "away-lora-fused-2x12288": LORA | AWAY | FUSED | _size(2, 12288),
    "away-lora-fused-1x24576": LORA | AWAY | FUSED | _size(1, 24576),
    "away-lora-fused-1x32768": LORA | AWAY | FUSED | _size(1, 32768),
    "away-qlora-fused-1x20480": QLORA | AWAY | FUSED | _size(1, 20480),
    "away-lora-1x8192": LORA | AWAY | _size(1, 8192),
}  # fmt: skip
"""What the plan says in a case id -> fields that differ from Plan's defaults."""

EVERY_MODEL = (
    "full-1x2048", "full-keep-sdpa-2x1024", "lora-1x2048", "lora-keep-fused-1x8192", "qlora-1x2048",
    "fsdp8-full-fused-1x16384",
)  # fmt: skip
EXTRA: dict[str, tuple[str, ...]] = {
    "qwen3-0.6b": (
        "full-autocast-1x4096", "full-fp32-keep-1x1024", "full-accumulate-1x2048", "freeze-keep-1x2048",
        "lora-keep-eager-1x1024", "lora-keep-dropout-1x2048", "qlora-keep-1x1024", "fsdp8-full-keep-2x2048",
        "hsdp2x4-full-1x2048",
    ),
    "qwen2.5-0.5b-12l": ("full-fp32-1x2048", "full-foreach-1x512", "lora-pure-fused-4x2048", "fsdp8-full-1x2048"),
    "llama-3.2-1b-8l": (
        "full-fused-1x32768",
        "full-keep-eager-1x1024", "full-1x16384", "lora-keep-sdpa-2x1024", "qlora-fused-2x8192",
        "fsdp8-full-accumulate-1x2048", "fsdp8-lora-2x4096", "hsdp2x4-full-accumulate-1x2048",
    ),
    "gemma-3-1b-8l": ("full-fp32-1x2048", "full-keep-fused-2x4096", "fsdp8-lora-keep-fused-1x4096"),
    "llama-3.1-8b-6l": (
        "full-fused-1x32768",
        "full-fp32-1x2048", "full-eager-1x4096", "full-keep-fused-2x4096", "lora-fused-1x32768",
        "qlora-pure-r64-1x4096", "fsdp8-full-keep-2x2048",
    ),
    "qwen3-8b-5l": (
        "full-fused-4x2048", "lora-keep-attention-r64-1x4096", "lora-pure-fused-4x2048", "qlora-keep-1x1024",
        "fsdp8-full-bf16-1x8192", "fsdp8-lora-2x4096", "hsdp2x4-full-bf16-1x8192", "hsdp2x4-lora-2x4096",
    ),
    "qwen2.5-14b-4l": (
        "full-fused-1x32768", "full-1x16384", "lora-keep-sdpa-2x1024", "qlora-fused-2x8192", "fsdp8-full-1x2048",
    ),
    "mistral-7b-5l": ("full-fp32-keep-1x1024", "lora-keep-dropout-1x2048", "fsdp8-full-accumulate-1x2048"),
    "phi-4-4l": ("full-autocast-1x4096", "lora-fused-1x32768", "qlora-pure-r64-1x4096"),
    "qwen3-30b-a3b-4l": (
        "full-fused-1x32768",
        "full-fp32-1x2048", "full-fused-4x2048", "full-1x16384", "lora-experts-1x2048",
        "lora-keep-attention-r64-1x4096", "fsdp8-full-1x2048", "fsdp8-lora-2x4096", "hsdp2x4-full-1x2048",
        "hsdp2x4-full-bf16-1x8192", "hsdp2x4-full-accumulate-1x2048",
    ),
    "mixtral-8x7b-3l": ("full-keep-fused-2x4096", "lora-experts-1x2048", "fsdp8-full-keep-2x2048"),
    "glm-4.5-air-3l": ("full-fused-4x2048", "lora-keep-sdpa-2x1024", "fsdp8-full-bf16-1x8192"),
    "deepseek-v2-lite-4l": (
        "full-fused-1x32768",
        "full-fp32-1x2048", "full-keep-eager-1x1024", "full-keep-fused-2x4096", "lora-experts-1x2048",
        "qlora-fused-2x8192", "fsdp8-full-keep-2x2048", "fsdp8-lora-2x4096",
    ),
    "deepseek-v3-4l": ("full-fused-4x2048", "lora-keep-attention-r64-1x4096", "fsdp8-full-1x2048"),
}  # fmt: skip
ONLY: dict[str, tuple[str, ...]] = {
    "llama-3.1-8b": (
        "full-foreach-1x512", "lora-keep-attention-r64-1x4096", "qlora-fused-2x8192", "fsdp8-full-bf16-1x8192",
    ),
    "gemma-2-9b-4l": (
        "full-1x2048", "full-keep-eager-1x1024", "full-1x16384", "lora-1x2048", "qlora-1x2048", "fsdp8-full-1x2048",
    ),
}  # fmt: skip
"""Whole Llama-3.1-8B takes a minute a case; Gemma-2 caps its logits, which no fused loss here covers."""

_COMPILED_MOE = (
    "compiled-full-1x4096", "compiled-full-keep-2x2048", "compiled-full-fused-1x24576", "compiled-lora-2x2048",
    "compiled-lora-keep-fused-1x6144",
)  # fmt: skip
_COMPILED_DENSE = (
    *_COMPILED_MOE, "compiled-full-fp32-keep-1x3072", "compiled-lora-pure-fused-1x16384", "compiled-qlora-fused-1x12288",
)  # fmt: skip
COMPILED_CASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "qwen3-0.6b", "qwen2.5-0.5b-12l", "llama-3.1-8b-6l", "gemma-3-1b-8l", "qwen3-8b-5l", "mistral-7b-5l",
            "phi-4-4l",
        ),
        _COMPILED_DENSE,
    ),
    **dict.fromkeys(
        ("qwen3-30b-a3b-4l", "mixtral-8x7b-3l", "glm-4.5-air-3l", "deepseek-v2-lite-4l", "deepseek-v3-4l"), _COMPILED_MOE
    ),
    "gemma-2-9b-4l": ("compiled-full-1x4096", "compiled-lora-2x2048"),
}  # fmt: skip
"""torch.compile over the layers. Its formulas were worked on with other lengths in sight, of Llama, Qwen2.5-14B,
Qwen3-8B, Gemma, Phi-4, Qwen3-30B-A3B and DeepSeek-V2-Lite; the others had not been traced before the formulas stood."""

AWAY_CASES: dict[str, tuple[str, ...]] = {
    "qwen3-0.6b": (
        "away-full-fused-1x16384",
        "away-lora-fused-2x12288",
        "away-lora-1x8192",
        "away-lora-fused-1x32768",
    ),
    "llama-3.1-8b": ("away-lora-fused-1x8192", "away-lora-fused-1x32768"),
    "qwen3-8b-5l": ("away-lora-fused-1x32768", "away-qlora-fused-1x20480", "away-full-fused-1x16384"),
    "qwen3-30b-a3b-4l": ("away-lora-fused-1x8192", "away-lora-fused-1x32768", "away-qlora-fused-1x20480"),
    "mixtral-8x7b-3l": ("away-lora-fused-2x12288",),
}
"""Layer inputs on the host: looked at when they showed that two more hidden states are alive, so they count as `fit`."""
AWAY_FRESH: dict[str, tuple[str, ...]] = {
    "llama-3.2-1b-8l": ("away-lora-fused-1x24576", "away-full-fused-1x16384"),
    "mistral-7b-5l": ("away-qlora-fused-1x20480", "away-lora-fused-1x24576"),
    "qwen2.5-14b-4l": ("away-full-fused-1x16384", "away-lora-fused-1x8192"),
    "phi-4-4l": ("away-lora-fused-1x32768",),
    "glm-4.5-air-3l": ("away-lora-fused-1x24576",),
    "deepseek-v2-lite-4l": ("away-lora-fused-1x32768", "away-full-fused-1x16384"),
}
"""Held out whatever their hash, and traced when the formula stood."""

CHUNKED_CASES = ("qwen3-0.6b", "llama-3.2-1b-8l", "llama-3.1-8b-6l", "qwen3-8b-5l", "qwen3-30b-a3b-4l")

_LOW_RANK = (
    "galore-1x512", "galore-1x2048", "galore-r512-1x512", "galore-fp32-1x512", "galore-fp32-r32-1x512", "apollo-1x512",
    "apollo-1x2048", "apollo-r512-1x512", "apollo-fp32-1x512",
)  # fmt: skip
_LAYERWISE = (
    "galore-layerwise-1x512", "galore-layerwise-1x2048", "galore-layerwise-keep-1x1024", "apollo-layerwise-1x512",
    "apollo-layerwise-1x2048", "apollo-layerwise-fp32-1x512",
)  # fmt: skip
LOW_RANK_CASES = ("qwen3-0.6b", "qwen2.5-0.5b-12l", "llama-3.2-1b-8l", "llama-3.1-8b-6l", "qwen3-8b-5l", "gemma-3-1b-8l",
                  "mistral-7b-5l", "qwen3-30b-a3b-4l", "deepseek-v2-lite-4l")  # fmt: skip

LOOKED_AT = (
    "phi-4-4l lora-fused-1x32768", "llama-3.1-8b-6l lora-fused-1x32768", "gemma-2-9b-4l full-keep-eager-1x1024",
    "glm-4.5-air-3l fsdp8-full-bf16-1x8192", "glm-4.5-air-3l fsdp8-full-fused-1x16384",
    "deepseek-v3-4l fsdp8-full-fused-1x16384", "qwen2.5-14b-4l fsdp8-full-1x2048",
    "mistral-7b-5l apollo-layerwise-fp32-1x512", "qwen3-0.6b apollo-layerwise-fp32-1x512",
)  # fmt: skip
"""Held out by their hash, but looked at when they showed that a formula missed something: they count as `fit`."""
FRESH: dict[str, tuple[str, ...]] = {
    "qwen2.5-0.5b-12l": (
        "lora-fused-1x32768",
        "full-keep-eager-1x1024",
        "fsdp8-lora-keep-fused-1x4096",
        "galore-layerwise-fp32-1x1024",
    ),
    "llama-3.2-1b-8l": ("lora-fused-1x32768", "full-fused-4x2048", "fsdp8-full-keep-2x2048"),
    "gemma-3-1b-8l": ("full-keep-eager-1x1024", "full-fused-1x32768", "galore-layerwise-fp32-1x1024"),
    "gemma-2-9b-4l": ("full-eager-1x4096", "fsdp8-full-keep-2x2048"),
    "qwen3-8b-5l": (
        "lora-fused-1x32768",
        "full-1x16384",
        "fsdp8-full-1x2048",
        "galore-layerwise-fp32-1x1024",
    ),
    "mistral-7b-5l": (
        "lora-fused-1x32768",
        "qlora-fused-2x8192",
        "fsdp8-lora-2x4096",
        "galore-layerwise-fp32-1x1024",
    ),
    "phi-4-4l": (
        "qlora-fused-2x8192",
        "full-keep-fused-2x4096",
        "fsdp8-full-1x2048",
        "galore-1x512",
        "apollo-fp32-1x512",
        "galore-layerwise-fp32-1x1024",
        "apollo-layerwise-fp32-1x512",
    ),
    "qwen3-30b-a3b-4l": ("lora-fused-1x32768", "qlora-fused-2x8192", "fsdp8-full-keep-2x2048"),
    "mixtral-8x7b-3l": ("lora-fused-1x32768", "fsdp8-full-1x2048"),
    "glm-4.5-air-3l": (
        "lora-fused-1x32768",
        "fsdp8-full-1x2048",
        "fsdp8-lora-2x4096",
        "galore-1x512",
        "apollo-layerwise-1x512",
        "galore-layerwise-fp32-1x1024",
    ),
    "deepseek-v2-lite-4l": ("lora-fused-1x32768", "fsdp8-full-1x2048"),
    "qwen2.5-14b-4l": ("galore-1x512", "apollo-layerwise-1x512", "galore-layerwise-fp32-1x1024"),
    "deepseek-v3-4l": ("fsdp8-full-bf16-1x8192", "fsdp8-full-accumulate-1x2048", "apollo-1x512"),
}
"""Held out whatever their hash: added after those formulas, and compared first when all of them stood."""


@dataclass(frozen=True, slots=True)
class Case:
    model: str
    plan_name: str

    @property
    def id(self) -> str:
        return f"{self.model} {self.plan_name}"

    @property
    def split(self) -> str:
        if self.plan_name in (*FRESH.get(self.model, ()), *AWAY_FRESH.get(self.model, ())):
            return "held-out"
        if self.plan_name in AWAY_CASES.get(self.model, ()):
            return "fit"
        odd = hashlib.sha256(self.id.encode()).digest()[0] % 2
        return "fit" if odd or self.id in LOOKED_AT else "held-out"

    @property
    def plan(self) -> Plan:
        return plan_of(PLANS[self.plan_name])


def plan_of(fields: dict[str, Any]) -> Plan:
    plan = Plan(**fields)
    return replace(plan, lora_targets=tuple(plan.lora_targets)).normalised()


def cases() -> list[Case]:
    found: list[Case] = []
    for name in MODELS:
        plans = (*ONLY.get(name, (*EVERY_MODEL, *EXTRA.get(name, ()))), *FRESH.get(name, ()))
        plans += (*COMPILED_CASES.get(name, ()), *AWAY_CASES.get(name, ()), *AWAY_FRESH.get(name, ()))
        plans += ("chunked-full-1x6144", "chunked-lora-keep-2x1536") if name in CHUNKED_CASES else ()
        plans += (*_LOW_RANK, *_LAYERWISE) if name in LOW_RANK_CASES else ()
        found += [Case(name, plan) for plan in plans]
    return found


def cut_model(reference: str, layers: int) -> ModelFacts:
    """The catalog model with its first `layers` layers."""
    model = load_model(reference, offline=True)
    if model.layers == layers:
        return model
    config: dict[str, Any] = {**model.config, "num_hidden_layers": layers}
    for key in ("layer_types", "mlp_layer_types"):
        if isinstance(config.get(key), list):
            config[key] = config[key][:layers]
    return facts_of_config(config, name=model.id, source=model.source, native_dtype=model.native_dtype)


def kind_of(model: ModelFacts) -> str:
    return "MLA" if model.mla else "MoE" if model.moe else "dense"


def row_of(case: Case) -> dict[str, Any]:
    from advisor.trace import trace_step

    reference, layers = MODELS[case.model]
    model = cut_model(reference, layers)
    traced = trace_step(model, case.plan)
    peak = traced.peak
    print(
        f"{case.id}: {peak.total / GIB:.3f} GiB at the {traced.moment}, {traced.seconds:.0f} s",
        file=sys.stderr,
    )
    sizes = {"peak": peak.total} | {
        name: getattr(peak, name) for name in ("weights", "gradients", "optimizer", "working", "logits")
    }
    return {
        "id": case.id,
        "split": case.split,
        "kind": kind_of(model),
        "model": reference,
        "layers": layers,
        "plan": json.dumps(PLANS[case.plan_name], sort_keys=True),
        "moment": traced.moment,
        **{f"{name}_gib": f"{size / GIB:.4f}" for name, size in sizes.items()},
        "versions": " ".join(f"{name}=={version}" for name, version in traced.versions.items()),
        "command": f"python tools/trace_cases.py --case '{case.id}'",
    }


def read_rows() -> list[dict[str, str]]:
    if not ROWS.exists():
        return []
    with ROWS.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write_rows(rows: list[dict[str, Any]], target: Any) -> None:
    writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--case", nargs="+", metavar="ID")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    if given.case:
        chosen = [case for case in cases() if case.id in given.case]
        write_rows([row_of(case) for case in chosen], sys.stdout)
        return 0 if len(chosen) == len(given.case) else 2
    rows: dict[str, dict[str, Any]] = {} if given.again else {row["id"]: row for row in read_rows()}
    failed = 0
    for case in sorted(cases(), key=lambda case: list(PLANS).index(case.plan_name)):
        if case.id in rows:
            continue
        try:
            rows[case.id] = row_of(case)
        except Exception as error:  # named, and the others go on
            print(f"{case.id}: {type(error).__name__}: {error}", file=sys.stderr)
            failed += 1
        with ROWS.open("w", newline="", encoding="utf-8") as target:
            write_rows([rows[c.id] for c in cases() if c.id in rows], target)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
