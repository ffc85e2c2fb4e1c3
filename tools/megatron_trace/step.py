"""One micro batch of Megatron-Core's GPTModel on fake tensors, and what was alive at each of its moments."""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # compiled functions are stood in for, or work in place as written

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.models.common.embeddings import rotary_pos_embedding
from megatron.core.models.gpt import GPTModel, gpt_layer_specs
from megatron.core.transformer import MLATransformerConfig, TransformerConfig
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler, get_moe_layer_wise_logging_tracker
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from advisor.trace.fake import device
from tools.megatron_trace import modules, routing

ROUND = 512
"""Bytes to which PyTorch's allocator rounds (c10/cuda/CUDACachingAllocator.cpp: kMinBlockSize)."""
IN_PLACE = {torch.ops.aten.add.Tensor: torch.ops.aten.add_.Tensor}
STATES = 12.0
"""fp32 master copy and both moments of Adam, per parameter of this rank's shard."""


class Alive(TorchDispatchMode):
    """Bytes of all storages that still exist, and the most of them at each moment. Autograd sums gradients in place,
    but out of place where it sees a tensor subclass, which a fake tensor is: turned back (advisor/trace/fake/step.py)."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.at_head, self.moment = 0, 0, "setup"
        self.peaks: dict[str, int] = {}
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in IN_PLACE and self.moment == "backward" and not torch.is_grad_enabled():
            func = IN_PLACE[func]
        out = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cuda":
                self._see(leaf.untyped_storage())
        self.peaks[self.moment] = max(self.peaks.get(self.moment, 0), self.now)
        return out

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // ROUND) * ROUND
        self.now += size

        def gone(_: Any) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)


@dataclass(frozen=True, slots=True)
class Traced:
    """Bytes on the rank."""

    weights: int
    gradients: int
    optimizer: float
    peaks: dict[str, int]
    """Moment -> all that is alive at its peak, optimizer states included."""
    kept: int
    """Of all layers, when the head is reached: what is kept for backward, and what Megatron-Core's objects still hold."""


def trace(facts: ModelFacts, plan: Plan) -> Traced:
    """The second of two micro batches on rank 0, which has the embedding and the head (one pipeline stage)."""
    device.install()
    get_moe_layer_wise_logging_tracker().clear()
    with warnings.catch_warnings(), device.pretended(), _ranks(plan), routing.balanced(), _no_rng():
        warnings.simplefilter("ignore")
        alive = Alive()
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"), alive:
            model, states = _model(facts, plan)
            weights = sum(_size(t) for t in model.parameters())
            gradients = sum(
                _size(buffer.grad_data) for buffer in (*model.buffers, *model.expert_parallel_buffers)
            )
            _watch_head(model.module, alive)
            for _ in range(2):
                alive.peaks, alive.moment = {}, "forward"
                _micro_batch(model, plan)
            peaks = {moment: size + states for moment, size in alive.peaks.items()}
            return Traced(weights, gradients, states, peaks, alive.at_head - weights - gradients)


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextlib.contextmanager
def _ranks(plan: Plan) -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=plan.world_size, store=FakeStore())
    try:
        with patch.object(torch.cuda, "current_device", lambda: torch.device("cuda", 0)):
            parallel_state.initialize_model_parallel(
                tensor_model_parallel_size=plan.tensor_parallel,
                context_parallel_size=plan.context_parallel,
                expert_model_parallel_size=plan.expert_parallel,
                expert_tensor_parallel_size=plan.expert_tensor_parallel,
                create_gloo_process_groups=False,
            )
            yield
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


@contextlib.contextmanager
def _no_rng() -> Iterator[None]:
    """States of random generators, which a fake device has none of."""
    names = ("_get_all_rng_states", "_set_all_rng_states")
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(patch.object(tensor_parallel.random, name, lambda *_: ()))
        stack.enter_context(patch.object(tensor_parallel.random, "_fork_rng", contextlib.nullcontext))
        tracker = tensor_parallel.random.CudaRNGStatesTracker
        stack.enter_context(patch.object(tracker, "fork", lambda *_: contextlib.nullcontext()))
        stack.enter_context(patch.object(rotary_pos_embedding, "get_pos_emb_on_this_cp_rank", _own_positions))
        yield


def _own_positions(emb: torch.Tensor, dim: int, group: Any) -> torch.Tensor:
    """This rank's part of the positions, without the index in pinned memory that picks it."""
    return emb.narrow(dim, 0, emb.shape[dim] // group.size()).clone()


def _config(facts: ModelFacts, plan: Plan) -> TransformerConfig:
    """As mcore-bridge and ms-swift's Megatron arguments set it."""
    config, moe = facts.config, facts.moe
    fields: dict[str, Any] = {
        "num_layers": facts.layers,
        "hidden_size": facts.hidden,
        "ffn_hidden_size": facts.ffn,
        "num_attention_heads": facts.heads,
        "num_query_groups": facts.kv_heads,
        "kv_channels": facts.head_dim,
        "normalization": "RMSNorm",
        "gated_linear_unit": True,
        "activation_func": torch.nn.functional.silu,
        "add_bias_linear": False,
        "bias_activation_fusion": True,
        "bias_dropout_fusion": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "qk_layernorm": any(
            "q_norm" in weight.name or "q_a_layernorm" in weight.name for weight in facts.weights
        ),
        "bf16": True,
        "params_dtype": torch.bfloat16,
        "tensor_model_parallel_size": plan.tensor_parallel,
        "context_parallel_size": plan.context_parallel,
        "expert_model_parallel_size": plan.expert_parallel,
        "expert_tensor_parallel_size": plan.expert_tensor_parallel,
        "sequence_parallel": plan.sequence_parallel and plan.tensor_parallel > 1,
        "gradient_accumulation_fusion": False,  # ms-swift 4.6.0, megatron_args.py:902: without apex
        "cross_entropy_loss_fusion": plan.loss != "stock",
        "cross_entropy_fusion_impl": "native",
        "perform_initialization": False,
        "apply_rope_fusion": False,
    }
    if plan.recompute == "full":
        fields |= {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    if moe is not None:
        fields |= {
            "num_moe_experts": moe.experts,
            "moe_router_topk": moe.experts_per_token,
            "moe_ffn_hidden_size": moe.expert_ffn,
            "moe_shared_expert_intermediate_size": moe.shared_ffn or None,
            "moe_router_dtype": "fp32",
            "moe_token_dispatcher_type": "alltoall",
            "moe_grouped_gemm": True,
            "moe_permute_fusion": True,
            "moe_router_load_balancing_type": "aux_loss",
            "moe_aux_loss_coeff": 1e-3,
            "moe_router_score_function": config.get("scoring_func", "softmax"),
            "moe_layer_freq": [0] * (facts.layers - moe.moe_layers) + [1] * moe.moe_layers,
        }
    if not facts.mla:
        return TransformerConfig(**fields)
    return MLATransformerConfig(
        **fields,
        multi_latent_attention=True,
        q_lora_rank=config.get("q_lora_rank"),
        kv_lora_rank=config["kv_lora_rank"],
        qk_head_dim=config["qk_nope_head_dim"],
        qk_pos_emb_head_dim=config["qk_rope_head_dim"],
        v_head_dim=config["v_head_dim"],
        rope_type="rope",
    )


def _model(facts: ModelFacts, plan: Plan) -> tuple[DistributedDataParallel, float]:
    config = _config(facts, plan)
    with modules.provided():
        specs = [
            gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec(
                num_experts=experts,
                moe_grouped_gemm=True,
                qk_layernorm=config.qk_layernorm,
                multi_latent_attention=bool(facts.mla),
            )
            for experts in _experts_per_layer(facts)
        ]
        block = TransformerBlockSubmodules(layer_specs=specs, layer_norm=modules.Norm)
        model = GPTModel(
            config,
            block,
            vocab_size=-(-facts.vocab // plan.tensor_parallel) * plan.tensor_parallel,
            max_sequence_length=plan.seq_len,
            share_embeddings_and_output_weights=not facts.elements("lm_head"),
            position_embedding_type="rope",
            rotary_percent=facts.config.get("partial_rotary_factor") or 1.0,
        )
    for weight in model.parameters():
        if weight.dtype != torch.bfloat16:
            weight.data = weight.data.to(torch.bfloat16)
    wrapped = DistributedDataParallel(
        config,
        DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=True),
        model,
    )
    states = 0.0
    for buffer in (*wrapped.buffers, *wrapped.expert_parallel_buffers):
        states += STATES * buffer.grad_data.numel() / buffer.data_parallel_group.size()
    return wrapped.train(), states


def _experts_per_layer(facts: ModelFacts) -> list[int | None]:
    moe = facts.moe
    routed = moe.moe_layers if moe else 0
    return [None] * (facts.layers - routed) + [moe.experts if moe else None] * routed


def _watch_head(model: GPTModel, alive: Alive) -> None:
    def enter(_: Any, inputs: tuple[Any, ...]) -> None:
        alive.moment, alive.at_head = "loss", alive.now
        if inputs[0].requires_grad:
            inputs[0].register_hook(leave)

    def leave(_: torch.Tensor) -> None:
        alive.moment = "backward"

    model.output_layer.register_forward_pre_hook(enter)


def _micro_batch(model: DistributedDataParallel, plan: Plan) -> None:
    length = plan.seq_len // plan.context_parallel
    tokens = torch.zeros(plan.micro_batch_size, length, dtype=torch.long)
    positions = torch.zeros_like(tokens)
    MoEAuxLossAutoScaler.set_loss_scale(torch.ones(()))
    losses = model(tokens, positions, None, labels=tokens)
    losses.float().sum().backward()
