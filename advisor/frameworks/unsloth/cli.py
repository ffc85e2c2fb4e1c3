"""unsloth.yaml: the run of train.py for `unsloth train --config`, where the command has words for it.

The command trains `cpt` and `sft` on one GPU. It has no key for the optimizer, the schedule and clipping: what it
does there by itself, and the plan would not, is named in the file (unsloth==2026.10.9:
studio/backend/core/training/trainer.py:4748, unsloth_cli/commands/train.py:63).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from advisor.facts.lora import linear_module_names
from advisor.frameworks.table import ABSENT, Derived, Document, Job, Line
from advisor.frameworks.unsloth.table import sees
from advisor.plan import Plan
from advisor.releases import in_release

FILE = "unsloth.yaml"
OWN_WAY = {"optimizer": "adamw_8bit", "lr_scheduler": "linear", "max_grad_norm": 1.0, "logging_steps": 1}
"""Plan field without a key -> what the command does."""
DORA_SINCE = "2026.9.14"
FORMATS = {"messages": "chatml", "text": "raw"}
"""Row format -> its name there."""

DATA, TRAINING, ADAPTER, TRACKING = "Data", "Training", "Adapter", "Tracking"


def speaks(plan: Plan, job: Job) -> bool:
    """Whether the command can train this plan at all."""
    return (
        plan.method in ("cpt", "sft")
        and plan.world_size == 1
        and plan.tuning != "freeze"
        and (plan.tuning != "dora" or in_release(DORA_SINCE, "", job.version))
        and plan.quantization in ("none", "4bit")
        and plan.precision == "bf16"
        and plan.epochs == int(plan.epochs)
        and job.data_format in FORMATS
        and job.hub == "hf"
        and job.adapter is None
        and job.model.moe is None  # its names for target modules would reach the routed experts
        and not sees(job.model)
        and job.tracker in ("none", "wandb", "tensorboard")
    )


def differences(plan: Plan) -> list[str]:
    """What the command does in its own way, each with what the plan says."""
    return [
        f"{name} {value} ({getattr(plan, name)} in train.py)"
        for name, value in OWN_WAY.items()
        if getattr(plan, name) != value
    ]


def warmup_steps(plan: Plan, job: Job) -> int:
    steps = math.ceil(job.rows / plan.global_batch_size) * int(plan.epochs)
    return round(steps * plan.warmup_ratio)


def _adapter(value: Callable[[Plan, Job], Any]) -> Callable[[Plan, Job], Any]:
    return lambda p, j: value(p, j) if p.uses_adapter else ABSENT


ROWS = (
    Derived("model", lambda p, j: j.model_path, "the model to start from"),
    Derived(
        "data.local_dataset",
        lambda p, j: [j.data_path] if j.data_local else ABSENT,
        group=DATA,
        why="the rows",
    ),
    Derived("data.dataset", lambda p, j: ABSENT if j.data_local else j.data_path, group=DATA, why="the rows"),
    Derived("data.format_type", lambda p, j: FORMATS[j.data_format], group=DATA, why="their format"),
    Derived(
        "training.training_type",
        lambda p, j: "lora" if p.uses_adapter else "full",
        group=TRAINING,
        why="what trains and how, as in train.py",
    ),
    Derived(
        "training.load_in_4bit",
        lambda p, j: p.quantization == "4bit",
        group=TRAINING,
        why="4-bit NF4 base or 16 bit",
    ),
    Derived(
        "training.max_seq_length", lambda p, j: p.seq_len, group=TRAINING, why="longest sequence, tokens"
    ),
    Derived(
        "training.packing",
        lambda p, j: p.packing,
        group=TRAINING,
        why="fill each sequence with several samples",
    ),
    Derived(
        "training.train_on_completions",
        lambda p, j: p.method == "sft",
        group=TRAINING,
        why="learn the assistant turns only",
    ),
    Derived("training.num_epochs", lambda p, j: int(p.epochs), group=TRAINING, why="passes over the data"),
    Derived("training.batch_size", lambda p, j: p.micro_batch_size, group=TRAINING, why="sequences a pass"),
    Derived(
        "training.gradient_accumulation_steps",
        lambda p, j: p.gradient_accumulation_steps,
        group=TRAINING,
        why="passes a step",
    ),
    Derived("training.learning_rate", lambda p, j: float(p.learning_rate), group=TRAINING, why="peak"),
    Derived("training.warmup_steps", warmup_steps, group=TRAINING, why="the plan's share of all steps"),
    Derived("training.weight_decay", lambda p, j: float(p.weight_decay), group=TRAINING, why="decoupled"),
    Derived(
        "training.gradient_checkpointing",
        lambda p, j: "unsloth" if p.gradient_checkpointing else "none",
        group=TRAINING,
        why="activations recomputed or kept",
    ),
    Derived(
        "training.save_steps", lambda p, j: p.save_steps, group=TRAINING, why="steps between checkpoints"
    ),
    Derived("training.random_seed", lambda p, j: p.seed, group=TRAINING, why="shuffling and initialisation"),
    Derived("training.output_dir", lambda p, j: j.output_dir, group=TRAINING, why="checkpoints"),
    Derived(
        "lora.lora_r",
        _adapter(lambda p, j: p.lora_rank),
        group=ADAPTER,
        why="low-rank adapters, as in train.py",
    ),
    Derived(
        "lora.lora_alpha", _adapter(lambda p, j: int(p.lora_alpha)), group=ADAPTER, why="scale: alpha / rank"
    ),
    Derived(
        "lora.lora_dropout",
        _adapter(lambda p, j: float(p.lora_dropout)),
        group=ADAPTER,
        why="on the adapters' input",
    ),
    Derived(
        "lora.target_modules",
        _adapter(lambda p, j: ",".join(linear_module_names(j.model, p.lora_targets))),
        group=ADAPTER,
        why="modules that get adapters",
    ),
    Derived("lora.use_dora", lambda p, j: True if p.tuning == "dora" else ABSENT, group=ADAPTER, why="DoRA"),
    Derived(
        "logging.enable_wandb",
        lambda p, j: True if j.tracker == "wandb" else ABSENT,
        group=TRACKING,
        why="tracker",
    ),
    Derived(
        "logging.wandb_project",
        lambda p, j: j.run_name if j.tracker == "wandb" else ABSENT,
        group=TRACKING,
        why="project",
    ),
    Derived(
        "logging.enable_tensorboard",
        lambda p, j: True if j.tracker == "tensorboard" else ABSENT,
        group=TRACKING,
        why="tracker",
    ),
)


def document(plan: Plan, job: Job) -> Document:
    """The file's content, for a plan that the command can train."""
    lines = ((row, row.compute(plan, job)) for row in ROWS)
    return Document("cli", tuple(Line(r.key, v, r.why, r.group) for r, v in lines if v is not ABSENT))
