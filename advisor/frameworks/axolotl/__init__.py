"""Axolotl: `axolotl train train.yaml`, started by torchrun, with a DeepSpeed JSON or an FSDP2 block.

Every key stands in train.yaml: Axolotl drops keys it does not know, and its own defaults are not the plan's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from advisor.errors import InputError
from advisor.facts.lora import linear_module_names
from advisor.frameworks.axolotl.data import data_need
from advisor.frameworks.axolotl.reading import READING, SERVED_FILE
from advisor.frameworks.axolotl.server import SERVED
from advisor.frameworks.axolotl.table import NAME, PREPARED, TABLE, TRACKERS
from advisor.frameworks.axolotl.values import deepspeed, unfrozen_patterns
from advisor.frameworks.base import SERVER_FILE, Emitted, Smoke, longer, unquantized
from advisor.frameworks.shared import on_server
from advisor.frameworks.table import (
    Job,
    Rendered,
)
from advisor.plan import Plan
from advisor.rendering import render

JUDGE = "axolotl.py"
TINY_LAYERS = (1,)
"""Layers of the tiny model that a `freeze` plan trains in the smoke run."""
__all__ = ["JUDGE", "NAME", "READING", "TABLE", "command", "context", "data_need", "files", "smoke"]


def command(plan: Plan, job: Job) -> Sequence[str]:
    return ("axolotl", "train", "train.yaml")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    """Raises InputError for a reward model that Axolotl would take for a Python module."""
    if plan.online and job.reward_model:
        _check_reward_model(job.reward_model)
    train = render(
        "axolotl/train.yaml.jinja", document=rendered["train"], command=command(plan, job), job=job
    )
    emitted = [Emitted("train.yaml", "config", train)]
    if deepspeed(plan):
        content = rendered["deepspeed"].mapping()
        text = render("axolotl/deepspeed.json.jinja", content=content)
        emitted.append(Emitted("deepspeed.json", "deepspeed", text))
    if plan.method == "kto":
        emitted.append(Emitted("chat_rows.py", "script", render("axolotl/chat_rows.py.jinja")))
    if plan.online and job.reward:
        function = job.reward.rpartition(":")[2]
        text = render("axolotl/reward_adapter.py.jinja", function=function)
        emitted.append(Emitted("reward_adapter.py", "reward", text))
    if on_server(plan):
        served = render("axolotl/vllm.yaml.jinja", document=rendered[SERVED], job=job)
        emitted.append(Emitted(SERVED_FILE, "config", served))
        server = render("axolotl/rollout.sh.jinja", plan=plan, file=SERVED_FILE)
        emitted.append(Emitted(SERVER_FILE, "launch", server, True))
    return emitted


def _check_reward_model(name: str) -> None:
    # It imports what stands before the last dot, and goes on only when there is no such module.
    if "." not in name or name.startswith("."):
        raise InputError(
            "reward_model",
            f"Axolotl 0.21.0 reads {name!r} as a Python name and fails; it takes a reward model only when "
            "there is a dot in the middle of its name: rename the folder (reward/v1.0), or choose another "
            "framework",
        )


def smoke(plan: Plan, job: Job) -> Smoke:
    tool: dict[str, str] = {"text_part.py": "axolotl/smoke/text_part.py"} if job.model.vision else {}
    partial = "the image tower: Axolotl wants an image processor, which no tiny model has"
    return Smoke(
        files=tool | longer(plan, job),
        rl=plan.online,
        partial=partial if tool else "",
        spread_left_out=_spread_left_out(plan),
        judged_roles=("config", "deepspeed"),
        trained=unquantized(plan),
        layers=TINY_LAYERS,
    )


def _spread_left_out(plan: Plan) -> str:
    """accelerate makes no DeepSpeed engine of processes that are told to stay on the CPU, and without that Axolotl
    places the model on the GPU of the process's number (accelerate==1.15.0:accelerate/state.py:974)."""
    if plan.fsdp or plan.zero_stage not in (1, 2):
        return ""  # those fail without a GPU, and say so themselves
    return f"ZeRO-{plan.zero_stage} (accelerate leaves DeepSpeed out on a CPU: the processes trained data parallel)"


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    scorers = ["reward_adapter.reward"] if job.reward else []
    scorers.append("smoke/work/scorer.v1" if job.reward_model else "smoke.longer.reward")
    return {
        "environment": {"AXOLOTL_DO_NOT_TRACK": "1"},
        "pool": plan.rollout_gpus > 0,
        "prepared": PREPARED,
        "imports": plan.method == "kto" or plan.online,
        "row_files": [job.data_path, *(["chat_rows.py"] if plan.method == "kto" else [])],
        "trackers": [switch for switch, _ in TRACKERS.values()],
        "batch": _smoke_batch(plan),
        "tiny_unfrozen": json.dumps(unfrozen_patterns(plan, "^[a-z_.]*layers", TINY_LAYERS)),
        "module_names": json.dumps(linear_module_names(job.model, plan.lora_targets)),
        "scorers": json.dumps(scorers),
    }


def _smoke_batch(plan: Plan) -> tuple[int, int]:
    """(micro batch, accumulation): small, a whole group for GRPO, two rows for KTO's KL term."""
    if plan.online:
        return plan.generations, 1
    return min(plan.micro_batch_size, 2), min(plan.gradient_accumulation_steps, 2)
