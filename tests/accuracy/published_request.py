"""A published row as the request that `advisor estimate` would be asked: by rule, never row by row."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from advisor.errors import AdvisorError
from advisor.explicit import Explicit, explicit_plan
from advisor.facts.models import linear_module_names, load_model
from advisor.facts.software import Software, software_of
from advisor.facts.types import ModelFacts
from advisor.request import parse_request
from advisor.rules import FrameworkRules, load_framework
from tests.accuracy.published_filter import Row

HERE = Path(__file__).parent
NAMES: dict[str, str] = json.loads((HERE / "published_models.json").read_text("utf-8"))
"""Model as a row calls it -> catalog id, or the name of a public config in models/ (each says its source)."""

FRAMEWORKS = {"ms-swift": "ms-swift", "Megatron-SWIFT": "ms-swift", "axolotl": "axolotl"}
"""Whose habits hold; the others are plain PyTorch with the numbers the row states."""

GPUS = {
    "H20": "h20", "A100-40GB": "a100-sxm-40", "A100": "a100-sxm-80", "A100-SXM4-80GB": "a100-sxm-80",
    "A100-80GB": "a100-sxm-80", "A800": "a800-sxm-80", "H800": "h800-sxm", "RTX 4090": "rtx-4090",
    "A10G": "a10g", "NVIDIA L40S": "l40s", "24GB class": "rtx-4090", "H100 96GB HBM2e": "gh200-96",
}  # fmt: skip
"""Others, and cards that are not named, are taken as 80 GB ones: the card decides no term but the rollout's."""

PURE = ("bf16-true", "bf16 (no autocast", "bfloat16 + fp32 adapters")
TARGETS = {
    "q,v": "q_proj,v_proj",
    "query+value": "q_proj,v_proj",
    "q,k,v": "q_proj,k_proj,v_proj",
    "q,k,v,o + mlp": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
    "query+key+value+projection+mlp+head": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,lm_head",
    "c_attn,c_proj,w1,w2": "all-linear",
    "linear_qkv linear_proj": "attention",
    "all-linear (default)": "all-linear",
}
OPTIMIZERS = {
    "torch.optim.AdamW": "adamw_foreach",  # PyTorch's own choice on CUDA when nothing is asked for
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_torch_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "dist_muon": "muon",
    "muon": "muon",
}
OFFLOADS = {
    "": "none", "optimizer->CPU": "optimizer", "params+optimizer->CPU": "all", "params->CPU": "all",
    "experts->CPU": "experts",
}  # fmt: skip
QUANTIZATIONS = {"": "none", "bnb-8bit": "8bit", "nf4": "4bit", "bnb-4bit": "4bit", "gptq-int4": "4bit"}
COMPILED = re.compile(r"\bcompile\b")
"""In a row's notes, where it says what was switched on."""
STACK = {"torchtune": "0.5.0", "torchtitan": "0.0.2"}
"""Release whose habits hold; each row's own commit is one of it (version.txt)."""
BITSANDBYTES = re.compile(r"\bbnb (\d+\.\d+\.\d+)")
STAGES = {"pt": "cpt", "pretrain": "cpt", "sft": "sft", "dpo": "dpo", "kto": "kto", "rm": "rm"}


class Unsayable(Exception):
    """Why no plan says what the row did."""


def model_reference(name: str) -> str:
    """What `--model` would be given."""
    name = NAMES.get(name, name)
    config = HERE / "models" / f"{name}.json"
    return str(config) if config.is_file() else name


@cache
def model_of(name: str) -> ModelFacts:
    try:
        return load_model(model_reference(name))
    except AdvisorError as error:
        raise Unsayable("the model's dimensions are not at hand") from error


def _take(table: dict[str, str], value: str, what: str) -> str:
    if value not in table:
        raise Unsayable(f"{what} {value}")
    return table[value]


def _tuning(row: Row, megatron: bool) -> dict[str, Any]:
    if row["method"] == "full":
        return {"tuning": "full"}
    if row["method"] not in ("lora", "qlora"):
        raise Unsayable(f"method {row['method']}")
    quant = row["quant"]
    kind = "4bit" if quant.startswith("bnb.nf4") else _take(QUANTIZATIONS, quant, "quantization")
    rank = re.match(r"\d+", row["lora_rank"])
    targets = TARGETS.get(row["lora_targets"], row["lora_targets"] or "all-linear")
    if row["framework"] == "Megatron-SWIFT" and megatron and targets == "all-linear":
        # Its Megatron side takes grouped linears too (ms-swift 4.6.0, swift/megatron/utils/utils.py:23).
        targets = "experts" if model_of(row["model"]).moe else targets
    if rank is None or targets == "custom" or "router" in targets:
        raise Unsayable(f"adapter {row['lora_rank']} {targets}".strip())
    if "," in targets:  # PEFT passes over names that a model does not have
        there = set(linear_module_names(model_of(row["model"]), ("all-linear",)))
        targets = ",".join(name for name in targets.split(",") if name in there)
    return {
        "tuning": "qlora" if kind != "none" else "lora",
        "quantization": kind,
        "lora_rank": int(rank.group()),
        "lora_targets": targets,
    }


def _sharding(row: Row, megatron: bool) -> dict[str, Any]:
    kind = row["sharding"]
    found: dict[str, Any] = {"offload": _take(OFFLOADS, row["offload"], "offload")}
    for field, column in (("tensor_parallel", "tp"), ("pipeline_parallel", "pp"), ("expert_parallel", "ep")):
        if row[column]:
            found[field] = int(row[column])
    context = row["cp"] or (row["sp"] if row["sp"].isdigit() else "")
    if context:
        found["context_parallel"] = int(context)
    if not megatron and found.get("tensor_parallel", 1) > 1:
        raise Unsayable("tensor parallelism with the sequence split, outside Megatron")
    if megatron:
        return found | {
            "backend": "megatron",
            "recompute": row["grad_ckpt"].split()[0] if row["grad_ckpt"] else "none",
        }
    if kind.startswith("ZeRO-"):
        found["zero"] = int(kind[5])
    elif kind.startswith("FSDP2") and "apart" not in kind:
        found["fsdp"] = True
    elif kind not in ("none", "DDP"):
        raise Unsayable(f"sharding {kind}" if kind != "FSDP" else "FSDP 1, whose flat gradients are whole")
    return found


def _numbers(row: Row, megatron: bool) -> dict[str, Any]:
    text = row["precision"]
    if "fp8" in text:
        return {"precision": "fp8"}
    if text.startswith(PURE):
        return {"precision": "bf16-pure", "param_dtype": "fp32" if "fp32 adapters" in text else "bf16"}
    if "fp32 sharded" in text:
        return {"precision": "bf16", "param_dtype": "fp32"}
    if text == "fp16":
        return {"precision": "fp16"}
    if not text.startswith("bf16"):
        raise Unsayable(f"precision {text or 'not stated'}")
    return {"precision": "bf16"} | ({"master_weights": True} if megatron else {})


def _kernels(row: Row, megatron: bool) -> dict[str, Any]:
    loss = row["fused_ce"]
    attention = row["attn"]
    if attention == "flex":
        raise Unsayable("flex attention")
    eager = attention in ("eager", "unfused")
    flash = attention.startswith("flash") or megatron
    found: dict[str, Any] = {"attention": "eager" if eager else "flash" if flash else "sdpa"}
    if loss == "liger":
        found["liger"] = True
    elif loss == "chunked CE":
        found["loss"] = "chunked"
    else:
        found["loss"] = "fused" if loss in ("CCE", "megatron fused CE") else "stock"
    if not megatron:
        found["compile"] = COMPILED.search(row["notes"]) is not None
        checkpointing = row["grad_ckpt"]
        if checkpointing.startswith("selective"):
            raise Unsayable("selective checkpointing of single operations")
        found["gradient_checkpointing"] = checkpointing.startswith(("true", "full"))
    return found


def request_of(row: Row) -> dict[str, Any]:
    """Raises Unsayable."""
    if "Ascend" in row["gpu"]:
        raise Unsayable("not a CUDA device")
    if not row["seq_len"].isdigit() or not row["micro_batch"][:1].isdigit():
        raise Unsayable("no length or no micro batch")
    model_of(row["model"])
    megatron = "dist. optimizer" in row["sharding"] or row["sharding"].startswith("Megatron")
    gpus = int(row["n_gpus"])
    found: dict[str, Any] = {
        "model": model_reference(row["model"]),
        "method": _take(STAGES, row["stage"], "method"),
        "gpu": GPUS.get(row["gpu"], "h100-sxm"),
        "gpus_per_node": min(gpus, 8),
        "nodes": max(1, gpus // 8),
        "seq_len": int(row["seq_len"]),
        "micro_batch_size": int(row["micro_batch"].split()[0]),
        "gradient_accumulation_steps": int(row["accumulation"] or 1),
        "packing": not row["seq_note"].startswith(("max", "padded", "alpaca", "Alpaca", "data")),
        "optimizer": OPTIMIZERS.get(row["optimizer"], "adamw"),
    }
    if any(word in row["optimizer"] for word in ("aLore", "APOLLO", "4bit", "bf16 moments")):
        raise Unsayable(f"optimizer {row['optimizer']}")
    if framework := FRAMEWORKS.get(row["framework"]):
        found["framework"] = framework
    return (
        found
        | _tuning(row, megatron)
        | _sharding(row, megatron)
        | _numbers(row, megatron)
        | _kernels(row, megatron)
    )


def software_beneath(row: Row) -> Software:
    """The habits of the libraries that the row's document names."""
    named = {row["framework"]: STACK[row["framework"]]} if row["framework"] in STACK else {}
    if release := BITSANDBYTES.search(row["notes"]):
        named["bitsandbytes"] = release.group(1)
    return software_of(named)


@cache
def _rules(framework: str | None) -> FrameworkRules | None:
    return load_framework(framework) if framework else None


def explicit_of(row: Row) -> Explicit:
    """The plan, model and cluster that `advisor estimate` would put a number on. Raises Unsayable."""
    request = request_of(row)
    try:
        return explicit_plan(parse_request(request), _rules(request.get("framework")))
    except AdvisorError as error:
        raise Unsayable(str(error).replace(str(HERE), "")) from error
