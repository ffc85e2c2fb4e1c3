"""The transformers model of a plan, on fake tensors, as its trainer would prepare it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from advisor.trace.fake import attention, compiled, loss, offloaded, quantized

ATTENTION = {"flash": attention.FLASH, "sdpa": attention.SDPA, "eager": "eager"}


def build(facts: ModelFacts, plan: Plan) -> nn.Module:
    """The model in training mode: weights in the plan's dtype, adapters, checkpointing, the loss. Call it in
    fake mode under the fake device."""
    model = _model(facts, plan)
    context = partial(autocast, plan)
    if plan.quantization == "4bit":
        quantized.quantize(model)
        if plan.fp32_leftovers and plan.param_dtype == "fp32" and plan.precision == "bf16":
            quantized.prepare(model)
    if plan.tuning == "freeze":
        _freeze(model, plan.freeze_trainable_layers)
    if plan.loss == "fused":
        loss.fuse_loss(model)
    elif plan.loss == "chunked":
        compiled.chunk_loss(model, plan.micro_batch_size, plan.seq_len, context)
    elif plan.compile:
        compiled.compile_loss(model, plan.micro_batch_size * plan.seq_len, context)
    if plan.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if plan.activation_offload:
            offloaded.offload_inputs(model, facts.layers)
        if plan.tuning != "full":
            model.enable_input_require_grads()
    trained = _adapters(model, facts, plan) if plan.uses_adapter else model
    if plan.compile:
        compiled.compile_layers(
            trained, decoder_layers(trained), plan.micro_batch_size, plan.seq_len, context
        )
    return trained.train()


def autocast(plan: Plan) -> Any:
    """The context that a step runs in."""
    enabled = plan.precision == "bf16" and not (plan.fsdp and plan.tuning == "full")
    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=enabled)


def _model(facts: ModelFacts, plan: Plan) -> nn.Module:
    import transformers
    from transformers.initialization import no_init_weights

    config = transformers.AutoConfig.for_model(**_config(facts))
    wide = plan.precision == "fp32" or (plan.param_dtype == "fp32" and not plan.uses_adapter)
    kind = getattr(transformers, facts.architecture)
    with no_init_weights():
        model = kind._from_config(
            config,
            dtype=torch.float32 if wide else torch.bfloat16,
            attn_implementation=ATTENTION[plan.attention],
        )
    model.tie_weights()
    return model


def _config(facts: ModelFacts) -> dict[str, Any]:
    """The config without what makes transformers load quantized weights; no cache, as trainers set it."""
    dropped = ("quantization_config", "torch_dtype", "dtype", "transformers_version", "auto_map")
    kept: Mapping[str, Any] = {k: v for k, v in facts.config.items() if k not in dropped}
    return {**kept, "model_type": facts.model_type, "use_cache": False}


def _freeze(model: nn.Module, trained_layers: int) -> None:
    model.requires_grad_(False)
    for layer in decoder_layers(model)[-trained_layers:]:
        layer.requires_grad_(True)


def _adapters(model: nn.Module, facts: ModelFacts, plan: Plan) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=plan.lora_rank,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout,
        target_modules=linear_module_names(facts, plan.lora_targets),
        target_parameters=expert_parameter_names(facts) if "experts" in plan.lora_targets else None,
        use_dora=plan.tuning == "dora",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    with _in_place_moves():
        trained = get_peft_model(model, config, autocast_adapter_dtype=plan.param_dtype == "fp32")
    if plan.param_dtype != "fp32":
        for name, weight in list(trained.named_parameters()):
            if weight.requires_grad and weight.dtype == torch.float32:
                _replace(trained, name, nn.Parameter(weight.detach().to(torch.bfloat16)))
    return trained


def _replace(model: nn.Module, name: str, weight: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, weight)


@contextmanager
def _in_place_moves() -> Iterator[None]:
    """peft moves modules with `Module.to`, which cannot swap the storage of a fake parameter; this sets a new
    parameter instead."""

    def apply(self: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
        for child in self.children():
            child._apply(change)
        for store in (self._parameters, self._buffers):
            for name, tensor in store.items():
                if tensor is None:
                    continue
                moved = change(tensor)
                if store is self._parameters:
                    moved = nn.Parameter(moved.detach(), requires_grad=tensor.requires_grad)
                store[name] = moved
        return self

    with patch.object(nn.Module, "_apply", apply):
        yield


class _GroupedProduct(torch.autograd.Function):
    """What torch's grouped matmul keeps and makes for dtypes that its fake form refuses."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight)
        return rows.new_empty(rows.shape[0], weight.shape[2])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad_rows = grad.new_empty(grad.shape[0], weight.shape[1]) if ctx.needs_input_grad[0] else None
        return grad_rows, torch.empty_like(weight) if rows is not None else None


@contextmanager
def any_grouped_product() -> Iterator[None]:
    """PyTorch's grouped matmul runs for fp32 experts too, but its fake form takes bf16 alone."""
    from transformers.integrations import moe

    real = moe._grouped_mm

    def grouped(rows: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
        if weight.dtype == torch.bfloat16:
            return real(rows, weight, offs)
        return _GroupedProduct.apply(rows.to(weight.dtype), weight)

    with patch.object(moe, "_grouped_mm", grouped):
        yield


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The repeated layers of the text decoder."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return base.get_decoder().layers


def shard(model: nn.Module, plan: Plan, mesh: Any) -> None:
    """FSDP2 on each decoder layer and the root: under mixed precision computing in bf16 and reducing in fp32."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy()
    if plan.precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, mp_policy=policy)
