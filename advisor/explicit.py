"""Request -> one explicit plan, no search: what `advisor estimate` puts a number on.

Every plan field that was not given takes the default of the table here; each says why. A plan that does not
divide evenly is refused with the two numbers; one that does not fit is not: that is what the estimate tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from advisor.errors import InputError
from advisor.plan import Plan
from advisor.planner.legality import illegal, stage_layers
from advisor.planner.space import rollouts
from advisor.planner.start import first_plan, pinned, tunings
from advisor.request import PINS, Request, parse_request
from advisor.resolve import APART, Resolved, resolve
from advisor.rules import FrameworkRules, allowed_values
from advisor.rules.implied import implied_values

MEGATRON_ONLY = {
    "pipeline_parallel": 1,
    "pipeline_first_layers": 0,
    "pipeline_last_layers": 0,
    "virtual_pipeline_parallel": 1,
    "expert_tensor_parallel": 1,
    "recompute": "none",
}
"""Plan fields that, given another value than this, say that Megatron-LM is meant."""

FLAGS = {field: name for name, field in PINS.items()}
"""Plan field -> request field, to name the flag at fault."""


@dataclass(frozen=True, slots=True)
class Explicit:
    """A request, the plan it spells out, and where the request's open values came from."""

    resolved: Resolved
    plan: Plan

    def request_dict(self) -> dict[str, Any]:
        """The contract's `request`; the batch is the plan's own."""
        shown = self.resolved.as_dict()
        shown["global_batch_size"] = self.plan.global_batch_size
        if "global_batch_size" in shown["origins"]:
            shown["origins"]["global_batch_size"] = "micro batch x accumulation x data-parallel ranks"
        return shown


def explicit_plan(request: Request, rules: FrameworkRules | None = None) -> Explicit:
    """The plan that a request spells out, with a framework's habits where one is given. Raises InputError."""
    resolved = _resolve(request)
    pins = pinned(request)
    # `auto` takes the first tuning that the search would try.
    plan = first_plan(resolved, *tunings(resolved.request)[0], pins)
    plan = replace(plan, **_backend(plan, pins))
    _contradictions(plan, request, pins)
    plan = replace(plan, **_split(plan, resolved, pins))
    plan = replace(plan, **_numbers(plan, request, pins))
    plan = replace(plan, **_rollout(plan, resolved, rules))
    if rules is not None:
        given = {*pins, *_named(request)}
        habits = {field: value for field, value in implied_values(rules, plan).items() if field not in given}
        plan = replace(plan, **habits)
    plan = plan.normalised()
    _divides(plan, resolved)
    plan = replace(plan, gradient_accumulation_steps=_accumulation(plan, request, pins))
    _legal(plan, resolved)
    return Explicit(resolved, plan)


def _resolve(request: Request) -> Resolved:
    """An estimate needs no method: SFT is the plainest."""
    if request.method is None and not request.data:
        resolved = resolve(parse_request({**request.given(), "method": "sft"}))
        return replace(resolved, origins={**resolved.origins, "method": "default"})
    return resolve(request)


def _backend(plan: Plan, pins: Mapping[str, Any]) -> dict[str, Any]:
    """Stages and Megatron's own recomputation mean Megatron-LM unless `--backend` says otherwise."""
    named = [field for field, plain in MEGATRON_ONLY.items() if pins.get(field, plain) != plain]
    if pins.get("backend", "megatron" if named else "hf") == "hf":
        if pins.get("recompute", "none") != "none":
            raise InputError("recompute", "is Megatron's; with backend hf use --gradient-checkpointing")
        return {"backend": "hf"}
    changes: dict[str, Any] = {"backend": "megatron", "sequence_parallel": plan.tensor_parallel > 1}
    if "attention" not in pins:
        changes["attention"] = "flash"
    if "recompute" not in pins:
        changes["recompute"] = "full" if pins.get("gradient_checkpointing") else "none"
    return changes


def _contradictions(plan: Plan, request: Request, pins: Mapping[str, Any]) -> None:
    """Pairs of flags that cannot both hold. Raises InputError."""
    stage = pins.get("zero_stage")
    if plan.backend == "megatron":
        if pins.get("fsdp"):
            raise InputError("fsdp", "is not for backend megatron, which brings its distributed optimizer")
        if stage not in (None, 1):
            raise InputError(
                "zero", f"{stage} is not for backend megatron; its distributed optimizer is stage 1"
            )
        if pins.get("gradient_checkpointing") is False and plan.recompute != "none":
            raise InputError("recompute", f"{plan.recompute} contradicts --no-gradient-checkpointing")
    elif pins.get("fsdp") and stage not in (None, 3):
        raise InputError("zero", f"{stage} contradicts --fsdp, which shards weights too, as stage 3 does")
    if request.rollout_placement in APART and not plan.rollout_gpus:
        raise InputError("rollout_placement", f"{request.rollout_placement} needs --rollout-gpus N here")
    if pins.get("activation_offload") and not plan.gradient_checkpointing:
        raise InputError(
            "activation_offload", "contradicts --no-gradient-checkpointing: what it moves is not kept"
        )
    if request.lora_rank and not plan.uses_adapter:
        raise InputError("lora_rank", f"{request.lora_rank} given, but {plan.tuning} tuning has no adapters")
    if request.optimizer_rank and not plan.low_rank_optimizer:
        raise InputError(
            "optimizer_rank", f"{request.optimizer_rank} given, but {plan.optimizer} projects no gradients"
        )


def _split(plan: Plan, resolved: Resolved, pins: Mapping[str, Any]) -> dict[str, Any]:
    """An uneven pipeline split where the layers ask for one and none was given."""
    if plan.pipeline_parallel == 1 or "pipeline_first_layers" in pins or "pipeline_last_layers" in pins:
        return {}
    first, last = stage_layers(resolved.model.layers, plan.pipeline_parallel, plan.virtual_pipeline_parallel)
    return {"pipeline_first_layers": first, "pipeline_last_layers": last}


def _numbers(plan: Plan, request: Request, pins: Mapping[str, Any]) -> dict[str, Any]:
    """What trainable weights are held in: adapters in fp32, as peft keeps them, and whatever fp16 or fp32
    training updates (a gradient scaler refuses 16-bit gradients); else 16 bit."""
    if "param_dtype" in pins or plan.precision == "bf16-pure":
        return {}
    adapters = plan.uses_adapter and plan.backend == "hf"
    return {"param_dtype": "fp32" if adapters or plan.precision in ("fp16", "fp32") else "bf16"}


def _rollout(plan: Plan, resolved: Resolved, rules: FrameworkRules | None) -> dict[str, Any]:
    if not plan.online:
        return {}
    engines = allowed_values(rules, "rollout_engine", plan.as_dict()) if rules else None
    options = rollouts(plan, resolved.model, resolved.cluster.gpu_memory_gib, engines)
    # Of an engine's settings the one that leaves most to training.
    return options[0][-1] if options else {"rollout_engine": "hf"}


def _named(request: Request) -> set[str]:
    """Plan fields that the request names under the same name."""
    named = {name for name in request.given() if name in Plan.__dataclass_fields__}
    return named | {"method", "tuning", "quantization", "nodes", "gpus_per_node", "precision", "seq_len"}


def _accumulation(plan: Plan, request: Request, pins: Mapping[str, Any]) -> int:
    """From the global batch; without one, enough micro batches to fill the stages and whole groups."""
    per_pass = plan.micro_batch_size * plan.data_parallel
    wanted, given = request.global_batch_size, pins.get("gradient_accumulation_steps")
    if wanted is not None and given is not None and wanted != given * per_pass:
        raise InputError(
            "global_batch_size",
            f"{wanted} is not micro batch {plan.micro_batch_size} x accumulation {given} x DP "
            f"{plan.data_parallel} = {given * per_pass}",
        )
    if given is not None:
        return given
    if wanted is not None:
        if wanted % per_pass:
            raise InputError(
                "global_batch_size",
                f"{wanted} does not split into passes of micro batch {plan.micro_batch_size} x DP "
                f"{plan.data_parallel} = {per_pass}",
            )
        return wanted // per_pass
    steps = plan.pipeline_parallel
    while plan.online and plan.generations and steps * per_pass % plan.generations:
        steps += 1
    return steps


def _divides(plan: Plan, resolved: Resolved) -> None:
    """The degrees must divide before a batch can be counted. Raises InputError."""
    world = plan.tensor_parallel * plan.pipeline_parallel * plan.context_parallel
    if plan.world_size % world:
        _legal(plan, resolved)


def _legal(plan: Plan, resolved: Resolved) -> None:
    """Raises InputError naming the field and the two numbers."""
    broken = illegal(plan, resolved.model)
    if broken:
        row, text = broken[0]
        raise InputError(FLAGS.get(row.field, row.field), text)
