"""LLaMA-Factory: `llamafactory-cli train train.yaml`, with a dataset_info.json beside the rows.

Its own launcher starts torchrun (DDP, DeepSpeed); FSDP2 goes through `accelerate launch`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from advisor.frameworks.base import Emitted, Smoke, unquantized
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
__all__ = ["JUDGE", "NAME", "READING", "TABLE", "command", "context", "data_need", "files", "smoke"]


def command(plan: Plan, job: Job) -> Sequence[str]:
    if plan.fsdp:
        launch = ("accelerate", "launch", "--config_file", "accelerate.yaml")
        return (*launch, "-m", "llamafactory.launcher", "train.yaml")
    return ("llamafactory-cli", "train", "train.yaml")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
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
    return Smoke(reward_head=False, judged_roles=roles, trained=unquantized(plan))


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    return {
        "torchrun": not plan.fsdp and (plan.world_size > 1 or plan.zero_stage > 0),
        "dataset": DATASET,
    }
