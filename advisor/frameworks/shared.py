"""Rows that frameworks share because they hand the same keys on to the same trainers (transformers, TRL).

A framework that spells a key in another way says so; one that differs in more than the spelling writes
its own row and leaves the shared one out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor.facts.types import ModelFacts
from advisor.frameworks.table import (
    ABSENT,
    LIST,
    REPO,
    Case,
    Choice,
    Codec,
    Const,
    Derived,
    Job,
    Key,
    Row,
    When,
    always,
    mapped,
)
from advisor.plan import LOW_RANK_OPTIMIZERS, Plan

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_foreach": "adamw_torch",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    **{name: name for name in LOW_RANK_OPTIMIZERS},
}
"""Plan's optimizer -> its name in transformers' trainer."""

BATCH_KEYS = (
    ("micro_batch_size", "per_device_train_batch_size", "sequences per GPU and pass"),
    ("gradient_accumulation_steps", "gradient_accumulation_steps", "passes per optimizer step"),
    ("epochs", "num_train_epochs", "passes over the data"),
)
SCHEDULE_KEYS = (
    ("learning_rate", "learning_rate", "peak learning rate"),
    ("lr_scheduler", "lr_scheduler_type", "shape of the learning rate"),
    ("warmup_ratio", "warmup_steps", "below 1: share of all steps"),
    ("weight_decay", "weight_decay", "decoupled weight decay"),
    ("max_grad_norm", "max_grad_norm", "gradients are scaled down to this norm"),
)
ADAPTER_KEYS = (
    ("lora_rank", "lora_r", "rank of the adapters"),
    ("lora_alpha", "lora_alpha", "adapter output is scaled by alpha / rank"),
)


def _keys(
    keys: Sequence[tuple[str, str, str]],
    group: str,
    when: When,
    spelled: Mapping[str, str],
    without: Sequence[str],
    codecs: Mapping[str, Codec],
) -> tuple[Key, ...]:
    return tuple(
        Key(name, spelled.get(name, key), why, when=when, group=group, **_codec(name, codecs))
        for name, key, why in keys
        if name not in without
    )


def _codec(name: str, codecs: Mapping[str, Codec]) -> dict[str, Any]:
    return {"codec": codecs[name]} if name in codecs else {}


def batch_rows(
    group: str,
    when: When = always,
    *,
    spelled: Mapping[str, str] | None = None,
    codecs: Mapping[str, Codec] | None = None,
) -> tuple[Row, ...]:
    """Micro batch, accumulation, epochs. `spelled`: field -> key, where it is not transformers' name."""
    return _keys(BATCH_KEYS, group, when, spelled or {}, (), codecs or {})


def schedule_rows(
    group: str,
    when: When = always,
    *,
    spelled: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    codecs: Mapping[str, Codec] | None = None,
    ratio_until: str = "",
) -> tuple[Row, ...]:
    """Learning rate and its shape, weight decay, gradient norm.

    `ratio_until`: the first release of the framework whose transformers reads a share of the steps from
    `warmup_steps`; the ones before have `warmup_ratio`.
    """
    found = _keys(SCHEDULE_KEYS, group, when, spelled or {}, without, codecs or {})
    if not ratio_until:
        return found
    ratio = Key(
        "warmup_ratio", "warmup_ratio", "share of all steps", when=when, group=group, until=ratio_until
    )
    place = next(n for n, row in enumerate(found) if row.field == "warmup_ratio")
    return (*found[:place], ratio, replace(found[place], since=ratio_until), *found[place + 1 :])


def optimizer_row(
    group: str, when: When = always, *, key: str = "optim", more: Mapping[str, str] | None = None
) -> Row:
    """The optimizer by transformers' names and what the framework adds to them."""
    codec = mapped({**OPTIMIZERS, **(more or {})})
    return Key("optimizer", key, "optimizer and its implementation", codec=codec, when=when, group=group)


RENEWED_EVERY = 200
"""Steps between new projections: both papers' and every library's default but one."""
SCALES = {"galore": 2.0, "apollo": 32.0}
"""What the projected update is multiplied by (of APOLLO its root). transformers' 0.25 and 1 are those of pre-training,
whose learning rate is a thousand times as high; these are the defaults of LLaMA-Factory, which fine-tunes
(llamafactory==0.9.5:llamafactory/hparams/finetuning_args.py:287, 328)."""
RANK = "rank that gradients are projected to"
RANK_ARGUMENT = re.compile(r"\brank=(\d+)")


def low_rank_of(name: str, when: When = always) -> When:
    """Whether a plan's optimizer is `galore` or `apollo`."""
    return lambda plan: plan.optimizer.startswith(name) and when(plan)


def decoder_linears(model: ModelFacts) -> str:
    """The expression for every linear in the decoder layers, by the names of modules: neither head nor vision tower."""
    attention = next(w.name for w in model.weights if w.role == "attention" and ".*." in w.name)
    return re.escape(attention.partition("*")[0]) + ".*"


def low_rank_keys(
    name: str, rank: str, interval: str, scale: str, group: str, when: When = always
) -> tuple[Row, ...]:
    """Rank, interval and scale of a low-rank optimizer that has keys of its own."""
    mine = low_rank_of(name, when)
    return (
        Key("optimizer_rank", rank, RANK, when=mine, group=group),
        Const(interval, RENEWED_EVERY, "steps between new projections", when=mine, group=group),
        Const(scale, SCALES[name], "of the update", when=mine, group=group),
    )


def _rank_argument(scale: float) -> Codec:
    def back(text: str) -> int:
        found = RANK_ARGUMENT.search(text)
        if found is None:
            raise ValueError(text)
        return int(found[1])

    return Codec(lambda rank: f"rank={rank},update_proj_gap={RENEWED_EVERY},scale={scale}", back, (128, 16))


def low_rank_rows(
    group: str, when: When = always, *, names: Sequence[str] = tuple(SCALES), as_list: bool = False
) -> tuple[Row, ...]:
    """Rank and target modules of transformers' GaLore and APOLLO; `as_list`: lists and mappings instead of text."""
    rows: list[Row] = []
    for name in names:
        mine = low_rank_of(name, when)
        if as_list:
            keys = ("optim_args.rank", "optim_args.update_proj_gap", "optim_args.scale")
            rows += low_rank_keys(name, *keys, group, when)
        else:
            codec = _rank_argument(SCALES[name])
            rows.append(Key("optimizer_rank", "optim_args", RANK, codec=codec, when=mine, group=group))

    def targets(plan: Plan, job: Job) -> Any:
        if not any(low_rank_of(name, when)(plan) for name in names):
            return ABSENT
        linears = decoder_linears(job.model)
        return [linears] if as_list else linears

    rows.append(Derived("optim_target_modules", targets, "linears of the decoder layers", group=group))
    return tuple(rows)


def seed_row(group: str) -> Row:
    return Key("seed", "seed", "shuffling and initialisation", group=group)


def compile_row(group: str) -> Row:
    """transformers' trainer hands the whole model to torch.compile. Written only when on."""
    why = "torch.compile: the first steps take minutes"
    cases = (Case((True,), {"torch_compile": True}, why), Case((False,), {"torch_compile": ABSENT}))
    return Choice(("compile",), cases, group=group)


def inputs_away_row(group: str, keys: Mapping[str, Any], since: str = "") -> Row:
    """Layer inputs wait in host memory. Written only when they do."""
    cases = (
        Case((True,), keys, "the inputs of checkpointed layers wait in host memory", since=since),
        Case((False,), dict.fromkeys(keys, ABSENT)),
    )
    return Choice(("activation_offload",), cases, group=group)


def uses_adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def adapter_rows(
    group: str, dropout: str, *, document: str = "train", rank_key: str = "lora_r"
) -> tuple[Row, ...]:
    """Rank, alpha, dropout (`dropout` says why the plan's value), and the word the modules were chosen by."""
    rows = (*ADAPTER_KEYS, ("lora_dropout", "lora_dropout", dropout))
    named = {"lora_rank": rank_key}
    return (
        *(Key(name, named.get(name, key), why, document, when=uses_adapter, group=group) for name, key, why in rows),
        Key("lora_targets", "lora_targets", "", REPO, LIST, when=uses_adapter),
    )  # fmt: skip


def save_rows(group: str, *, output: str = "checkpoints and the final model") -> tuple[Row, ...]:
    """Where and how often it saves and logs."""
    return (
        Derived("output_dir", lambda p, j: j.output_dir, output, group=group),
        Key("save_steps", "save_steps", "steps between checkpoints", group=group),
        Const("save_total_limit", 2, "older checkpoints are deleted", group=group),
        Key("logging_steps", "logging_steps", "steps between log lines", group=group),
    )


def tracker_rows(group: str) -> tuple[Row, ...]:
    """The tracker and the run's name in it, as transformers' trainer takes them."""
    return (
        Derived("report_to", lambda p, j: j.tracker, "experiment tracker", group=group),
        Derived("run_name", lambda p, j: j.run_name, "name of the run in the tracker", group=group),
    )


def size_rows() -> tuple[Row, ...]:
    """Machines and GPUs, where only the launcher is told."""
    return (
        Key("nodes", "nodes", "", document=REPO),
        Key("gpus_per_node", "gpus_per_node", "", document=REPO),
    )


def mesh_rows() -> tuple[Row, ...]:
    """Data-parallel part of accelerate's device mesh under FSDP2. Sharding over all ranks is its default; a mesh is
    written where the sequence is split or copies are kept."""
    prefix, file = "parallelism_config.parallelism_config_", "accelerate"
    return (
        Derived(f"{prefix}dp_shard_size", _ranks_of_a_copy, "ranks that shard the weights", document=file),
        Key(
            "fsdp_replicas", f"{prefix}dp_replicate_size", "copies of them; the copies all-reduce gradients", file,
            when=lambda p: p.fsdp, absent=1,
        ),
    )  # fmt: skip


def _ranks_of_a_copy(plan: Plan, job: Job) -> Any:
    meshed = plan.context_parallel > 1 or plan.fsdp_replicas > 1
    return plan.data_parallel // plan.fsdp_replicas if meshed else ABSENT


def renamed(cases: Sequence[Case], release: str, names: Mapping[str, str]) -> tuple[Case, ...]:
    """The cases as a release writes them, and as the ones before it did. `names`: key -> what it was called."""
    before = (
        replace(case, keys={names.get(key, key): value for key, value in case.keys.items()}, until=release)
        for case in cases
    )
    return (*(replace(case, since=release) for case in cases), *before)


def on_vllm(plan: Plan) -> bool:
    return plan.rollout_engine == "vllm"


def generation_rows(group: str, answers: When, prefix: str = "") -> tuple[Row, ...]:
    """How many answers and how long, as TRL's trainers call them; `answers` says where their length has meaning."""
    return (
        Key(
            "generations", f"{prefix}num_generations", "answers per prompt", when=lambda p: p.online, absent=0,
            group=group,
        ),
        Key(
            "response_len", f"{prefix}max_completion_length", "longest answer, tokens", when=answers, absent=0,
            group=group,
        ),
    )  # fmt: skip


def colocated(plan: Plan) -> bool:
    return on_vllm(plan) and plan.rollout_placement == "colocated"


def on_server(plan: Plan) -> bool:
    return on_vllm(plan) and plan.rollout_placement == "separate"


def engine_row(group: str, shares: str, prefix: str = "") -> Row:
    """What generates, as TRL's trainers take it; `shares` says what the vLLM engine shares."""
    return Choice(
        ("rollout_engine",),
        (
            Case(("none",), {f"{prefix}use_vllm": ABSENT}),
            Case(("hf",), {f"{prefix}use_vllm": False}, "transformers generates the answers"),
            Case(("vllm",), {f"{prefix}use_vllm": True, f"{prefix}vllm_mode": "colocate"}, shares),
        ),
        group=group,
    )


def server_row(group: str, shares: str, when: When = always, prefix: str = "") -> Choice:
    """`engine_row` for a framework whose vLLM may also be a server on GPUs of its own."""
    use, mode = f"{prefix}use_vllm", f"{prefix}vllm_mode"
    server = {use: True, mode: "server"}
    return Choice(
        ("rollout_engine", "rollout_placement"),
        (
            Case(("none", "colocated"), {use: ABSENT}),
            Case(("hf", "colocated"), {use: False}, "transformers generates the answers"),
            Case(("vllm", "colocated"), {use: True, mode: "colocate"}, shares),
            Case(("vllm", "separate"), server, "vLLM has GPUs of its own: launch/rollout.sh starts it"),
        ),
        when=when,
        group=group,
    )


SERVER_PORT, SERVER_PATIENCE = 8000, 3600.0
"""Port of the server, as both sides have it by default; seconds that the trainer waits while it loads the model."""


ENGINE = ("rollout_tensor_parallel", "rollout_memory_fraction")


def pool_rows(served: Sequence[str] = ENGINE) -> tuple[Row, ...]:
    """What the server's command line says, not the trainer's configuration: its GPUs, and what is `served` there."""
    return tuple(
        Key(name, name, "", REPO, when=on_server) for name in ("rollout_gpus", "rollout_nodes", *served)
    )


def sleep_row(group: str, prefix: str = "") -> Row:
    """Whether vLLM sleeps between rollouts, as TRL's trainers take it."""
    return Key(
        "rollout_sleep",
        f"{prefix}vllm_enable_sleep_mode",
        "vLLM gives its memory back while the policy trains",
        when=colocated,
        absent=False,
        group=group,
    )


def share_row(group: str, key: str, document: str = "train") -> Row:
    """How much of each GPU vLLM may take."""
    return Key(
        "rollout_memory_fraction",
        key,
        "share of each GPU that vLLM may take",
        document,
        when=colocated,
        absent=0.0,
        group=group,
    )


def engine_width_row(group: str, key: str) -> Row:
    """GPUs of one vLLM engine."""
    return Key(
        "rollout_tensor_parallel",
        key,
        "GPUs that share one vLLM engine",
        when=colocated,
        absent=1,
        group=group,
    )


GROUP_LOSSES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "grpo": ({"loss_type": "grpo"}, "the loss of the GRPO paper"),
    "dapo": (
        {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": True},
        "DAPO: token-level loss, wider upper clip, cut answers are ignored",
    ),
    "gspo": (
        {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": 3.0e-4,
            "epsilon_high": 4.0e-4,
        },
        "GSPO: importance ratio per sequence, hence small clips",
    ),
    "dr-grpo": (
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        "Dr. GRPO: no length or deviation normalisation",
    ),
}
"""Method -> keys of TRL's GRPO trainer."""

PREFERENCE_LOSSES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "dpo": ({"loss_type": ["sigmoid"]}, "the DPO loss"),
    "ipo": ({"loss_type": ["ipo"]}, "IPO is a DPO loss in TRL"),
    "kto": ({}, ""),
    "rm": ({}, ""),
    "orpo": ({}, ""),
    "simpo": (
        {"loss_type": "simpo", "cpo_alpha": 0.0},
        "SimPO is a CPO loss in TRL; alpha 0 drops the SFT term",
    ),
    "cpo": ({"loss_type": "sigmoid"}, "the CPO loss"),
}
"""Method -> keys of TRL's trainers that learn from given answers."""

TRL_LOSSES = {**PREFERENCE_LOSSES, **GROUP_LOSSES, "rloo": ({}, ""), "gkd": ({}, "")}


def loss_cases(
    losses: Mapping[str, tuple[Mapping[str, Any], str]],
    beside: Mapping[str, Mapping[str, Any]],
    prefix: str = "",
) -> tuple[Case, ...]:
    """A case per method: `beside` gives what stands there besides the keys of the loss (`prefix` before each)."""
    return tuple(
        Case((method,), {**beside[method], **{prefix + key: value for key, value in keys.items()}}, why)
        for method, (keys, why) in losses.items()
    )
