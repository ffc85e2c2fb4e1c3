"""Hugging Face TRL: `trl <method> --config train.yaml`, launched by accelerate.

Methods that its command line lacks (orpo, simpo, cpo) read the same YAML through a small train.py
around TRL's own parser and experimental trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.frameworks.base import (
    SERVER_FILE,
    DataNeed,
    Emitted,
    Smoke,
    data_kind,
    data_parallel_on_cpu,
    longer,
    unquantized,
)
from advisor.frameworks.shared import on_server
from advisor.frameworks.table import (
    Job,
    Rendered,
)
from advisor.frameworks.trl.reading import READING
from advisor.frameworks.trl.table import EXPERIMENTAL, NAME, SUBCOMMANDS, TABLE, has_command
from advisor.plan import Plan
from advisor.rendering import render

JUDGE = "trl.py"
__all__ = ["JUDGE", "NAME", "READING", "TABLE", "command", "context", "data_need", "files", "smoke"]

READS = {
    "text": ("text",),
    "conversation": ("prompt-completion", "messages", "sharegpt"),
    "preference": ("preference", "preference-messages"),
    "label": ("kto",),
    "prompts": ("rl-prompts",),
}


def _quantized(plan: Plan) -> bool:
    return plan.quantization != "none"


def data_need(plan: Plan) -> DataNeed:
    if plan.method == "gkd":  # the student answers the prompt itself, so prompts must stand apart
        return DataNeed(("prompt-completion",))
    return DataNeed(READS[data_kind(plan.method)])


def command(plan: Plan, job: Job) -> Sequence[str]:
    if has_command(plan):
        return ("trl", SUBCOMMANDS[plan.method], "--config", "train.yaml")
    return ("accelerate", "launch", "--config_file", "accelerate.yaml", "train.py", "--config", "train.yaml")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    train = render("trl/train.yaml.jinja", document=rendered["train"], command=command(plan, job), job=job)
    accelerate = render("trl/accelerate.yaml.jinja", document=rendered["accelerate"])
    emitted = [
        Emitted("train.yaml", "config", train),
        Emitted("accelerate.yaml", "accelerate", accelerate),
    ]
    if not has_command(plan):
        module, prefix = EXPERIMENTAL[plan.method]
        emitted.append(
            Emitted("train.py", "script", render("trl/train.py.jinja", module=module, prefix=prefix))
        )
    if plan.online and job.reward:
        function = job.reward.rpartition(":")[2]
        adapter = render("trl/reward_adapter.py.jinja", function=function)
        emitted.append(Emitted("reward_adapter.py", "reward", adapter))
    if on_server(plan):
        text = render("trl/rollout.sh.jinja", plan=plan, job=job, documents=rendered.documents)
        emitted.append(Emitted(SERVER_FILE, "launch", text, True))
    return emitted


def smoke(plan: Plan, job: Job) -> Smoke:
    return Smoke(
        files=longer(plan, job),
        rl=plan.online,
        trained=unquantized(plan),
        spread_left_out=data_parallel_on_cpu(plan),
    )


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    return {"has_command": has_command(plan), "quantized": _quantized(plan), "pool": plan.rollout_gpus > 0}
