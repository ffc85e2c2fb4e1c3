"""ms-swift: `swift pt|sft|rlhf train.yaml` on transformers, `megatron pt|sft|rlhf train.yaml` on Megatron-core.

Both read the same YAML shape with different names for much of it; no value is ever null, because a null
reaches ms-swift as the text "None".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor.frameworks.base import SERVER_FILE, Emitted, Smoke, data_parallel_on_cpu, scored_alike
from advisor.frameworks.ms_swift.data import data_need
from advisor.frameworks.ms_swift.reading import READING
from advisor.frameworks.ms_swift.table import TABLE
from advisor.frameworks.ms_swift.values import (
    NAME,
    PLUGIN,
    REWARD,
    grouped,
    hf,
    layer_prefix,
    megatron,
    registered_names,
)
from advisor.frameworks.shared import on_server
from advisor.frameworks.table import (
    Job,
    Rendered,
)
from advisor.plan import OFFLINE_PREFERENCE, Plan
from advisor.rendering import render

JUDGE = "ms_swift.py"
TINY_LAYERS = (1,)
"""Layers of the tiny model that a `freeze` plan trains in the smoke run."""
__all__ = ["JUDGE", "NAME", "READING", "TABLE", "command", "context", "data_need", "files", "smoke"]


def command(plan: Plan, job: Job) -> Sequence[str]:
    subcommand = {"cpt": "pt", "sft": "sft"}.get(plan.method, "rlhf")
    return ("swift" if hf(plan) else "megatron", subcommand, "train.yaml")


def nearest(plan: Plan) -> Plan:
    """The transformers plan that a CPU trains in place of a Megatron one."""
    single = dict.fromkeys(("tensor_parallel", "pipeline_parallel", "context_parallel", "expert_parallel"), 1)
    near = replace(
        plan, **single, backend="hf", expert_tensor_parallel=1, precision="bf16", zero_stage=0, offload="none",
        nodes=1, gpus_per_node=1,
    )  # fmt: skip
    return near.normalised()


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    emitted = [_config("train.yaml", "config", plan, job, rendered)]
    if megatron(plan):
        near = nearest(plan)
        documents = TABLE.render(near, job, lambda _: near.as_dict())
        emitted.append(_config("smoke/nearest.yaml", "smoke", near, job, documents))
    if grouped(plan) and job.reward:
        function = job.reward.rpartition(":")[2]
        plugin = render(f"{NAME}/{PLUGIN}.jinja", function=function, name=REWARD)
        emitted.append(Emitted(PLUGIN, "reward", plugin))
    if on_server(plan):
        text = render(f"{NAME}/rollout.sh.jinja", plan=plan, job=job, documents=rendered.documents)
        emitted.append(Emitted(SERVER_FILE, "launch", text, True))
    return emitted


def _config(path: str, role: str, plan: Plan, job: Job, rendered: Rendered) -> Emitted:
    text = render(f"{NAME}/train.yaml.jinja", document=rendered["train"], command=command(plan, job), job=job)
    return Emitted(path, role, text)


def smoke(plan: Plan, job: Job) -> Smoke:
    left_out = "Megatron needs GPUs: the same method was trained on transformers" if megatron(plan) else ""
    trained = nearest(plan) if megatron(plan) else None
    second = {"longer_plugin.py": f"{NAME}/smoke/longer_plugin.py"} if second_reward(plan, job) else {}
    return Smoke(
        files=second,
        rl=plan.online,
        partial=left_out,
        trained=trained,
        layers=TINY_LAYERS,
        spread_left_out=data_parallel_on_cpu(plan),
    )


def second_reward(plan: Plan, job: Job) -> bool:
    return grouped(plan) and scored_alike(plan, job)


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    near = nearest(plan) if megatron(plan) else plan
    return {
        "pool": plan.rollout_gpus > 0,
        "trained": near,
        "trained_file": "smoke/nearest.yaml" if megatron(plan) else "train.yaml",
        "trained_command": command(near, job),
        "model_type": registered_names(job)[0],
        "layer_prefix": layer_prefix(job.model),
        "second_reward": f"[{REWARD}, smoke_longer]" if second_reward(plan, job) else "",
        # It logs four digits, and a preference loss moves less in three steps at the rate that suits real data.
        "logged_rounded": plan.method in OFFLINE_PREFERENCE,
        "smoke_batch": plan.generations if grouped(plan) else 2,
    }
