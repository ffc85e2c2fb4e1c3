"""`estimate --trace`: one real training step of the real model class on fake tensors, beside the estimate.

Nothing is downloaded and no GPU is needed: transformers builds the class of the model without weights, PyTorch
runs a step of it on tensors that have a shape and no content (FakeTensorMode), and PyTorch's memory trackers
count what would be alive. Needs the optional packages of `pip install 'posttrain-advisor[trace]'`; they are
imported when a trace is asked for, never before.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from time import monotonic

from advisor.errors import InputError
from advisor.facts.types import ModelFacts
from advisor.plan import LOW_RANK_OPTIMIZERS, Plan
from advisor.trace.types import Snapshot, Trace

PACKAGES = ("torch", "transformers", "peft")
OPTIMIZER_PACKAGES = {"galore": "galore_torch", "apollo": "apollo_torch"}
"""First word of an optimizer -> the package that it is in."""
INSTALL = "pip install 'posttrain-advisor[trace]'"


def trace_step(model: ModelFacts, plan: Plan) -> Trace:
    """Trace one steady training step. Raises InputError when the packages are missing or the plan has a part
    that no trace can show."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError("trace", f"needs {', '.join(missing)}: {INSTALL}")
    own = OPTIMIZER_PACKAGES.get(plan.optimizer.partition("_")[0])
    if own and find_spec(own) is None:
        raise InputError(
            "trace", f"of optimizer {plan.optimizer} needs {own}: pip install {own.replace('_', '-')}"
        )
    untraced = not_traced(model, plan)
    if untraced:
        raise InputError("trace", f"does not cover {'; '.join(untraced)}")
    from advisor.trace.fake.step import trace

    started = monotonic()
    moments = trace(model, plan)
    used = (*PACKAGES, own) if own else PACKAGES
    return Trace(moments, {name: metadata.version(name) for name in used}, monotonic() - started)


def not_traced(model: ModelFacts, plan: Plan) -> list[str]:
    """What of a plan no trace shows: kernels, frameworks and models beside the one that trains."""
    config = model.config
    capped = bool(config.get("final_logit_softcapping"))
    checks = {
        f"method {plan.method} (sft and cpt are traced)": plan.method not in ("sft", "cpt"),
        "backend megatron": plan.backend != "hf",
        "tensor, pipeline, expert or context parallelism": plan.tensor_parallel
        * plan.pipeline_parallel
        * plan.expert_parallel
        * plan.context_parallel
        > 1,
        f"ZeRO-{plan.zero_stage} (of sharding, --fsdp is traced)": plan.zero_stage > 0 and not plan.fsdp,
        "several ranks without --fsdp": plan.world_size > 1 and not plan.fsdp,
        f"offload {plan.offload}": plan.offload != "none",
        f"optimizer {plan.optimizer} (adamw, adamw_foreach, GaLore and APOLLO are)": plan.optimizer
        not in ("adamw", "adamw_foreach", *LOW_RANK_OPTIMIZERS),
        "an fp32 master copy beside bf16 weights": plan.master_weights,
        f"precision {plan.precision}": plan.precision not in ("bf16", "bf16-pure", "fp32"),
        "8-bit quantization (4-bit is)": plan.quantization == "8bit",
        "packed routed experts": plan.quantize_experts,
        "a quantized base under --fsdp": plan.quantization != "none" and plan.fsdp,
        "Liger kernels": plan.liger,
        "layer inputs on the host under --fsdp, with compiled layers or few that train": plan.activation_offload
        and (plan.fsdp or plan.compile or plan.tuning == "freeze"),
        "compiled layers under --fsdp": plan.compile and plan.fsdp,
        "dropout on adapters of compiled layers": plan.compile and plan.lora_dropout > 0,
        "compiled layers with routed experts in fp32": plan.compile
        and model.moe is not None
        and (plan.quantization != "none" or (plan.param_dtype == "fp32" and not plan.uses_adapter)),
        "the fused loss on capped logits": plan.loss == "fused" and capped,
    }
    return [text for text, holds in checks.items() if holds]


__all__ = ["INSTALL", "PACKAGES", "Snapshot", "Trace", "not_traced", "trace_step"]
