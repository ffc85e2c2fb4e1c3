"""Unsloth: a script, `python train.py`, that loads with Unsloth and trains with TRL's trainers.

Its settings stand at the top of the script as keyword dictionaries, one per call. Several GPUs are torchrun;
what they shard is told to Unsloth by variables of launch/env.sh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.facts import rows
from advisor.frameworks.base import DataNeed, Emitted, Smoke, data_kind
from advisor.frameworks.table import (
    Job,
    Rendered,
)
from advisor.frameworks.unsloth import cli
from advisor.frameworks.unsloth.reading import READING
from advisor.frameworks.unsloth.table import NAME, TABLE, generates, sees
from advisor.plan import Plan
from advisor.rendering import render

JUDGE = "unsloth.py"
__all__ = ["JUDGE", "NAME", "READING", "TABLE", "command", "context", "data_need", "files", "smoke"]
MODULES = {"ORPO": "trl.experimental.orpo", "CPO": "trl.experimental.cpo"}
"""Trainer -> where it is imported from, when not from trl."""

READS = {
    "text": ("text",),
    "conversation": ("messages",),
    "preference": ("preference-messages",),
    "label": ("kto",),
    "prompts": ("rl-prompts",),
}
"""One format a kind, made of messages: the tokenizer's chat template applies to whatever the user has."""

HUB = {
    "conversation": ("messages", "prompt-completion"),
    "preference": ("preference-messages", "preference"),
}


def spell(row: dict[str, Any], format: str) -> dict[str, Any]:
    """Labelled rows as messages, so that the chat template applies to bare strings too."""
    if format != "kto":
        return row
    parsed = rows.neutral(row, format)
    tools = {"tools": parsed["tools"]} if parsed["tools"] else {}
    return {"prompt": parsed["prompt"], "completion": parsed["completion"], "label": parsed["label"], **tools}


def data_need(plan: Plan) -> DataNeed:
    if plan.method == "gkd":  # the student answers itself: only the prompt is read
        return DataNeed(("prompt-completion", "rl-prompts"))
    kind = data_kind(plan.method)
    return DataNeed(READS[kind], spell, ("kto",), HUB.get(kind))


def command(plan: Plan, job: Job) -> Sequence[str]:
    return ("python", "train.py")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    """The script, with its settings on top, and what stands between TRL and the user's reward."""
    trainer = rendered["script"].get("trainer")
    function = job.reward.rpartition(":")[2] if plan.online and job.reward else ""
    text = render(
        "unsloth/train.py.jinja",
        plan=plan,
        job=job,
        documents=rendered,
        loader=rendered["script"].get("loader"),
        trainer=trainer,
        module=MODULES.get(trainer, "trl"),
        function=function,
        prompts=generates(plan),
    )
    emitted = [Emitted("train.py", "config", text)]
    if cli.speaks(plan, job):
        emitted.append(_for_the_command(plan, job))
    if function:
        adapter = render("unsloth/reward_adapter.py.jinja", function=function)
        emitted.append(Emitted("reward_adapter.py", "reward", adapter))
    return emitted


def _for_the_command(plan: Plan, job: Job) -> Emitted:
    document = cli.document(plan, job)
    text = render(f"{NAME}/{cli.FILE}.jinja", job=job, document=document, differences=cli.differences(plan))
    return Emitted(cli.FILE, "config", text, keys=(document.name, document.mapping()))


def smoke(plan: Plan, job: Job) -> Smoke:
    seen: dict[str, str] = {"causal.py": "unsloth/smoke/causal.py"} if sees(job.model) else {}
    partial = ""
    if plan.method == "rm":
        partial = "the score head: without a GPU, Unsloth keeps the head for words"
    elif seen:
        partial = "the loader of models that see: without a GPU, Unsloth has one for text only"
    return Smoke(files=seen, reward_head=False, partial=partial, rl=plan.online)


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    environment = dict(rendered["environment"].flat())
    if job.hub == "modelscope":
        environment["UNSLOTH_USE_MODELSCOPE"] = "1"
    return {"environment": environment, "prompts": generates(plan)}
