"""LLaMA-Factory: `llamafactory-cli train train.yaml`, with a dataset_info.json beside the rows.

Its own launcher starts torchrun (DDP, DeepSpeed); FSDP2 goes through `accelerate launch`. KTransformers (routed
experts on the host) is switched on by the environment too, before anything is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor.errors import InputError
from advisor.frameworks.base import Emitted, Smoke, data_parallel_on_cpu, unquantized
from advisor.frameworks.llamafactory.data import data_need, dataset_entry
from advisor.frameworks.llamafactory.reading import READING
from advisor.frameworks.llamafactory.table import DATASET, NAME, TABLE
from advisor.frameworks.table import (
    Job,
    Rendered,
)
from advisor.plan import Plan
from advisor.rendering import render

JUDGE = "llamafactory.py"
KTRANSFORMERS = {
    "USE_KT": "1",
    "ACCELERATE_USE_KT": "true",
    "ACCELERATE_KT_BACKEND": "AMXBF16",
    "ACCELERATE_KT_TP_ENABLED": "true",
}
"""USE_KT keeps the launcher from torchrun; the rest is what kt-kernel and its accelerate read."""
LEFT_OUT = (
    "KTransformers, which wants a GPU beside the processor: the adapters on attention trained without it"
)

__all__ = ["JUDGE", "NAME", "READING", "TABLE", "command", "context", "data_need", "files", "smoke"]


def command(plan: Plan, job: Job) -> Sequence[str]:
    if plan.fsdp:
        launch = ("accelerate", "launch", "--config_file", "accelerate.yaml")
        return (*launch, "-m", "llamafactory.launcher", "train.yaml")
    return ("llamafactory-cli", "train", "train.yaml")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    if plan.offload == "experts" and job.adapter:
        raise InputError(
            "adapter",
            f"{job.adapter}: with --offload experts LLaMA-Factory starts the adapters of the routed experts anew; leave "
            "one of the two out",
        )
    info = json.dumps({DATASET: dataset_entry(plan, job)}, indent=2, ensure_ascii=False) + "\n"
    document = rendered["train"]
    train = render("llamafactory/train.yaml.jinja", document=document, command=command(plan, job), job=job)
    emitted = [
        Emitted("train.yaml", "config", train),
        Emitted("data/dataset_info.json", "dataset_info", info),
    ]
    if plan.fsdp:
        text = render("llamafactory/accelerate.yaml.jinja", document=rendered["accelerate"])
        emitted.append(Emitted("accelerate.yaml", "accelerate", text))
    elif plan.zero_stage:
        text = json.dumps(rendered["deepspeed"].mapping(), indent=2) + "\n"
        emitted.append(Emitted("deepspeed.json", "deepspeed", text))
    return emitted


def smoke(plan: Plan, job: Job) -> Smoke:
    roles = ("config", "dataset_info", "deepspeed", "accelerate")
    if plan.offload == "experts":
        nearest = replace(plan, offload="none", lora_targets=("attention",))
        return Smoke(reward_head=False, judged_roles=roles, trained=nearest, partial=LEFT_OUT)
    return Smoke(
        reward_head=False,
        judged_roles=roles,
        trained=unquantized(plan),
        spread_left_out=data_parallel_on_cpu(plan),
    )


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    on_host = plan.offload == "experts"
    return {
        "environment": dict(KTRANSFORMERS) if on_host else {},
        "on_host": on_host,
        "torchrun": not plan.fsdp and (plan.world_size > 1 or plan.zero_stage > 0),
        "dataset": DATASET,
    }
