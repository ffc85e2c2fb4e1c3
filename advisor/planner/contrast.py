"""What another value of one plan field would do: the same plan with that change, judged and estimated again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from advisor.estimate.memory import estimate_memory
from advisor.estimate.time import seconds_per_step
from advisor.estimate.types import MemoryEstimate
from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from advisor.planner.here import Here
from advisor.planner.legality import illegal, stage_layers
from advisor.rules import describe_cluster, describe_model, refusals

Change = Callable[[Plan, ModelFacts], Mapping[str, Any]]


def _halved(field: str) -> Change:
    """Half of a degree, or 2 where it is 1."""
    return lambda p, m: {field: getattr(p, field) // 2 or 2}


def _flipped(field: str) -> Change:
    return lambda p, m: {field: not getattr(p, field)}


def _other(field: str, others: Mapping[str, str]) -> Change:
    return lambda p, m: {field: others[getattr(p, field)]}


def _pipeline(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    stages = plan.pipeline_parallel // 2 or 2
    first, last = stage_layers(model.layers, stages, plan.virtual_pipeline_parallel)
    return {"pipeline_parallel": stages, "pipeline_first_layers": first, "pipeline_last_layers": last}


def _chunks(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    chunks = plan.virtual_pipeline_parallel // 2 or 2
    first, last = stage_layers(model.layers, plan.pipeline_parallel, chunks)
    return {"virtual_pipeline_parallel": chunks, "pipeline_first_layers": first, "pipeline_last_layers": last}


def _zero(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    return {"zero_stage": plan.zero_stage - 1 if plan.zero_stage else 1}


def _checkpointing(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    if plan.backend == "megatron":
        return {"recompute": "none" if plan.gradient_checkpointing else "full"}
    return {"gradient_checkpointing": not plan.gradient_checkpointing}


def _tuning(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    return {
        "tuning": {"full": "lora", "lora": "full", "freeze": "full", "dora": "lora", "qlora": "lora"}[
            plan.tuning
        ]
    }


def _quantization(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    if plan.quantization != "none":
        return {"quantization": "none"}
    return {"tuning": "qlora"} if plan.uses_adapter else {}


def _sequence(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    longer = {"response_len": 2 * plan.response_len} if plan.online else {"seq_len": 2 * plan.seq_len}
    return longer if not plan.online or plan.response_len else {}


def _copies(plan: Plan, model: ModelFacts) -> Mapping[str, Any]:
    """One copy over all GPUs; from there a copy on each node."""
    if not plan.fsdp or plan.nodes == 1:
        return {}
    return {"fsdp_replicas": 1 if plan.fsdp_replicas > 1 else plan.nodes}


CHANGES: Mapping[str, Change] = {
    "tuning": _tuning,
    "quantization": _quantization,
    "param_dtype": _other("param_dtype", {"bf16": "fp32", "fp32": "bf16"}),
    "master_weights": _flipped("master_weights"),
    "lora_rank": lambda p, m: {"lora_rank": 2 * p.lora_rank} if p.uses_adapter else {},
    "seq_len": _sequence,
    "response_len": lambda p, m: {"response_len": 2 * p.response_len} if p.response_len else {},
    "packing": _flipped("packing"),
    "micro_batch_size": lambda p, m: {"micro_batch_size": 2 * p.micro_batch_size},
    "optimizer": lambda p, m: {"optimizer": "adamw_8bit" if p.optimizer == "adamw" else "adamw"},
    "optimizer_rank": lambda p, m: {"optimizer_rank": 2 * p.optimizer_rank} if p.low_rank_optimizer else {},
    "nodes": lambda p, m: {"nodes": p.nodes // 2 or 2},
    "zero_stage": _zero,
    "fsdp": _flipped("fsdp"),
    "fsdp_replicas": _copies,
    "offload": _other("offload", {"none": "optimizer", "optimizer": "none", "all": "optimizer", "nvme": "all",
                                  "experts": "all"}),
    "tensor_parallel": _halved("tensor_parallel"),
    "sequence_parallel": _flipped("sequence_parallel"),
    "pipeline_parallel": _pipeline,
    "virtual_pipeline_parallel": lambda p, m: _chunks(p, m) if p.pipeline_parallel > 1 else {},
    "expert_parallel": lambda p, m: _halved("expert_parallel")(p, m) if m.moe else {},
    "expert_tensor_parallel": lambda p, m: _halved("expert_tensor_parallel")(p, m) if m.moe else {},
    "context_parallel": _halved("context_parallel"),
    "gradient_checkpointing": _checkpointing,
    "recompute": lambda p, m: {"recompute": {"none": "selective", "selective": "none", "full": "selective"}[p.recompute]},
    "attention": _other("attention", {"flash": "sdpa", "sdpa": "flash", "eager": "sdpa"}),
    "liger": _flipped("liger"),
    "compile": lambda p, m: _flipped("compile")(p, m) if p.backend == "hf" else {},
    "activation_offload": lambda p, m: _flipped("activation_offload")(p, m)
        if p.backend == "hf" and p.gradient_checkpointing else {},
    "loss": _other("loss", {"stock": "fused", "chunked": "stock", "fused": "stock"}),
    "rollout_tensor_parallel": lambda p, m: _halved("rollout_tensor_parallel")(p, m)
        if p.rollout_engine == "vllm" else {},
    "rollout_offload": lambda p, m: _flipped("rollout_offload")(p, m) if p.rollout_engine == "vllm" else {},
    "rollout_sleep": lambda p, m: _flipped("rollout_sleep")(p, m) if p.rollout_engine == "vllm" else {},
}  # fmt: skip
"""Plan field -> the neighbouring value; nothing where no other value says anything here."""


def contrast(here: Here, field: str) -> str:
    """What the neighbouring value would do; "" where there is none."""
    change = CHANGES.get(field)
    return with_change(here, change(here.plan, here.resolved.model)) if change else ""


def with_change(here: Here, changes: Mapping[str, Any]) -> str:
    """ "with FIELD = VALUE ...": what refuses it, or the memory and the time it would take."""
    if not changes:
        return ""
    plan = _same_batch(replace(here.plan, **_companions(here, changes), **changes), here.plan).normalised()
    if plan == here.plan:
        return ""
    if (
        "virtual_pipeline_parallel" not in changes
        and plan.gradient_accumulation_steps % plan.pipeline_parallel
    ):
        plan, changes = _in_one_piece(plan, here.resolved.model, changes)
    named = ", ".join(
        f"{name} = {_plain(value)}" for name, value in changes.items() if _says(plan, name, value)
    )
    lead = f"with {named or 'the change'} "
    if not plan.data_parallel:
        return f"{lead}{plan.world_size} GPUs are too few"
    broken = illegal(plan, here.resolved.model)
    if broken:
        return f"{lead}it breaks a rule: {broken[0][1]}"
    refused = _refused(here, plan)
    return lead + (
        f"{here.rules.title if here.rules else ''} refuses: {refused}" if refused else _cost(here, plan)
    )


def _companions(here: Here, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What has to change along, so that only the change itself is judged."""
    along: dict[str, Any] = {}
    plan = here.plan
    if "tuning" in changes:
        rank = plan.lora_rank if plan.uses_adapter else Plan().lora_rank
        base = "4bit" if changes["tuning"] == "qlora" else "none"
        along |= {
            "quantization": base,
            "lora_rank": rank,
            "lora_alpha": 2 * rank,
            "param_dtype": Plan().param_dtype,
        }
        if plan.backend == "megatron" and here.resolved.model.moe:
            along["lora_targets"] = ("experts",)  # its linears include the routed experts
    if "zero_stage" in changes:
        along["fsdp"] = False
    if changes.get("fsdp") is False:
        along["zero_stage"] = 2
    if "nodes" in changes and plan.fsdp_replicas > 1:
        along["fsdp_replicas"] = max(plan.fsdp_replicas * changes["nodes"] // plan.nodes, 1)
    return along


def _in_one_piece(
    plan: Plan, model: ModelFacts, changes: Mapping[str, Any]
) -> tuple[Plan, Mapping[str, Any]]:
    """The plan without model chunks, which need other numbers of micro batches, and the changes with that said."""
    if plan.virtual_pipeline_parallel == 1:
        return plan, changes
    first, last = stage_layers(model.layers, plan.pipeline_parallel)
    along = {"virtual_pipeline_parallel": 1}
    split = {"pipeline_first_layers": first, "pipeline_last_layers": last}
    return replace(plan, **along, **split), {**changes, **along}


def _says(plan: Plan, name: str, value: Any) -> bool:
    """Only what is still so once fields without a meaning are at rest."""
    return getattr(plan, name) == value and not (value == 0 and name.startswith("pipeline_"))


def _same_batch(plan: Plan, before: Plan) -> Plan:
    """Accumulation that keeps the global batch as near as it can."""
    per_pass = plan.micro_batch_size * plan.data_parallel
    steps = max(1, round(before.global_batch_size / per_pass)) if per_pass else 1
    return replace(plan, gradient_accumulation_steps=steps)


def _refused(here: Here, plan: Plan) -> str:
    if here.rules is None:
        return ""
    facts = {"model": describe_model(here.resolved.model), "cluster": describe_cluster(here.resolved.cluster)}
    found = refusals(here.rules, plan, facts)
    return found[0].because.rstrip(".") if found else ""


def _cost(here: Here, plan: Plan) -> str:
    cluster = here.resolved.cluster
    if plan.nodes != here.plan.nodes:
        cluster = replace(cluster, nodes=plan.nodes)
    framework = here.rules.framework if here.rules else None
    memory = estimate_memory(here.resolved.model, plan, cluster, all_stages=False, framework=framework)
    text = f"a GPU holds {memory.total:.1f} of {memory.capacity_gib:.1f} GiB"
    if memory.total > memory.capacity_gib:
        return f"{text}, which does not fit"
    if memory.fits == "no":
        return f"{text}, but a node {_beside_gpus(memory)}"
    if memory.fits == "tight" and here.memory.fits == "fits":
        text += f" (tight: up to {memory.high:.1f})"
    now = seconds_per_step(here.resolved.model, here.plan, here.resolved.cluster)
    then = seconds_per_step(here.resolved.model, plan, cluster)
    if not now or not then:
        return text
    ratio = (then / plan.global_batch_size) / (now / here.plan.global_batch_size)
    return f"{text} and a sequence takes {ratio:.2f} times as long"


def _beside_gpus(memory: MemoryEstimate) -> str:
    if memory.host_gib > memory.host_capacity_gib:
        return f"{memory.host_gib:.0f} of {memory.host_capacity_gib:.0f} GiB of host memory"
    return f"{memory.nvme_gib:.0f} of {memory.nvme_capacity_gib:.0f} GiB of NVMe"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
