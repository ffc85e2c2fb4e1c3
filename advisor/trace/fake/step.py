"""One steady training step of the real model on fake tensors, and what was alive at each of its moments."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker

from advisor.facts.types import ModelFacts
from advisor.plan import Plan
from advisor.trace.fake import attention, device, low_rank
from advisor.trace.fake.build import any_grouped_product, autocast, build, shard
from advisor.trace.fake.low_rank import without_values
from advisor.trace.types import Snapshot

WEIGHTS = ("Parameter", "Buffer", "Sharded Param")
GRADIENTS = ("Gradient", "Sharded Grad")

IN_PLACE = {
    torch.ops.aten.add.Tensor: torch.ops.aten.add_.Tensor,
    torch.ops.aten.index_put.default: torch.ops.aten.index_put_.default,
}


class _Moments:
    """Mixed into PyTorch's trackers: one peak for each moment of the step instead of one for each module.

    Autograd sums gradients, and writes that of an indexing, in place, but out of place where it sees a tensor
    subclass (input_buffer.cpp, FunctionsManual.cpp index_backward), which a fake tensor is: turned back, so that no
    copy is counted. Gradients are off where autograd adds, and on where checkpointing runs the model again.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in IN_PLACE and self._mod_tracker.is_bw and not torch.is_grad_enabled():
            func = IN_PLACE[func]
        return super().__torch_dispatch__(func, types, args, kwargs)

    def start(self) -> None:
        self.moment = "forward"
        self.peaks: dict[str, dict[str, int]] = {}
        self.at_head = 0

    def _update_peak_stats(self, peak_state: Any) -> None:
        for where, alive in self._curr_mem_snap.items():
            if where.type == "cuda":
                known = self.peaks.get(self.moment)
                if known is None or known["Total"] < alive["Total"]:
                    self.peaks[self.moment] = dict(alive)

    def get_tracker_snapshot(self, type: str = "current") -> Any:
        """Modules' own snapshots are not read here, so they are not copied deeply."""
        return {where: dict(alive) for where, alive in self._curr_mem_snap.items()}

    def kept(self) -> int:
        """Bytes alive now beside weights and gradients."""
        alive = next(snap for where, snap in self._curr_mem_snap.items() if where.type == "cuda")
        return alive["Total"] - _sum(alive, WEIGHTS + GRADIENTS)


class _OneRank(_Moments, MemTracker):
    """MemTracker that leaves frozen parameters without gradient hooks, which it cannot take."""

    def _track_module_params_and_buffers(self, module: nn.Module, install_grad_hooks: bool = True) -> Any:
        trained = any(p.requires_grad for p in module.parameters())
        if not install_grad_hooks or (trained and all(p.requires_grad for p in module.parameters())):
            return super()._track_module_params_and_buffers(module, install_grad_hooks)
        sizes = super()._track_module_params_and_buffers(module, install_grad_hooks=False)
        for child in module.modules():
            for parameter in child.parameters(recurse=False):
                if parameter.requires_grad and parameter not in self._param_to_grad_hook_handles:
                    super()._track_module_params_and_buffers(_Holder(parameter), True)
        return sizes


class _Holder(nn.Module):
    """A module of one parameter."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.weight = parameter


class _ManyRanks(_Moments, FSDPMemTracker):
    pass


def _sum(alive: dict[str, int], names: tuple[str, ...]) -> int:
    return sum(size for key, size in alive.items() if getattr(key, "value", key) in names)


@dataclass(slots=True)
class _Run:
    model: nn.Module
    trained: list[nn.Parameter]
    own: list[nn.Parameter]
    """What of `trained` lies on this rank: the same storage. DTensors would step and be clipped alike, but in fake mode
    their propagation of global shapes would be counted too."""
    optimizers: list[torch.optim.Optimizer]
    """One, or none where the backward steps."""
    tracker: Any
    states: int
    """Bytes of optimizer states on the rank."""


def trace(facts: ModelFacts, plan: Plan, steps: int = 1) -> dict[str, Snapshot]:
    """Moment of the last step -> what was alive at its peak, in bytes on one GPU. Optimizer states are there from
    the start, so one step is as steady as the last of several."""
    device.install()
    attention.register()
    with (
        warnings.catch_warnings(),
        device.pretended(),
        any_grouped_product(),
        without_values(),
        _ranks(plan) as mesh,
    ):
        warnings.simplefilter("ignore")
        with FakeTensorMode(allow_non_fake_inputs=True):
            with torch.device("cuda"):
                run = _prepare(facts, plan, mesh)
            _watch_head(run)
            with run.tracker:
                for _ in range(steps):
                    run.tracker.start()
                    _step(run, plan)
            return _snapshots(run)


@contextlib.contextmanager
def _ranks(plan: Plan) -> Iterator[Any]:
    """A mesh of fake ranks, of two dimensions under hybrid sharding; the collectives of its process group do
    nothing."""
    if not plan.fsdp or plan.world_size == 1:
        yield None
        return
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=plan.world_size, store=FakeStore())
    try:
        copies = plan.fsdp_replicas
        shape, names = (
            ((copies, plan.shard_group), ("replicate", "shard")) if copies > 1 else ((plan.world_size,), None)
        )
        yield init_device_mesh("cuda", shape, mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


def _prepare(facts: ModelFacts, plan: Plan, mesh: Any) -> _Run:
    model = build(facts, plan)
    if mesh is not None:
        shard(model, plan, mesh)
    trained = [p for p in model.parameters() if p.requires_grad]
    own = trained if mesh is None else [nn.Parameter(p.to_local().detach()) for p in trained]
    if plan.low_rank_optimizer:
        return _low_rank(model, facts, plan, trained)
    kind = {"fused": True} if plan.optimizer == "adamw" else {"foreach": True}
    optimizer = torch.optim.AdamW(own, lr=1e-4, **kind)
    states = _fill_states(optimizer, own)
    tracker = _OneRank() if mesh is None else _ManyRanks(model, optimizer)
    tracker.start()
    if mesh is None:
        tracker.track_external(model, optimizer)
    return _Run(model, trained, own, [optimizer], tracker, states)


def _low_rank(model: nn.Module, facts: ModelFacts, plan: Plan, trained: list[nn.Parameter]) -> _Run:
    found = low_rank.optimizers(model, facts, plan)
    states = low_rank.fill(found, trained)
    tracker = _OneRank()
    tracker.start()
    tracker.track_external(model, *states)
    if plan.steps_layerwise:
        low_rank.stepping(found)
        found = []
    total = sum(state.untyped_storage().nbytes() for state in states)
    return _Run(model, trained, trained, found, tracker, total)


def _fill_states(optimizer: torch.optim.Optimizer, trained: list[nn.Parameter]) -> int:
    """What the first step leaves behind, so that the traced one is a later step."""
    total = 0
    for weight in trained:
        state = optimizer.state[weight]
        where = "cuda" if optimizer.defaults["fused"] else "cpu"
        state["step"] = torch.zeros((), dtype=torch.float32, device=where)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        total += 2 * state["exp_avg"].untyped_storage().nbytes()
    return total


def _step(run: _Run, plan: Plan) -> None:
    """Micro batches, clipping and the optimizer's step; two micro batches stand for any accumulation."""
    tokens = torch.zeros(plan.micro_batch_size, plan.seq_len, dtype=torch.long, device="cuda")
    for _ in range(min(plan.gradient_accumulation_steps, 2)):
        run.tracker.moment = "forward"
        with autocast(plan):
            loss = run.model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        del loss
        run.tracker.reset_mod_stats()
    run.tracker.moment = "optimizer"
    for weight, own in zip(run.trained, run.own, strict=True):
        if own is not weight and weight.grad is not None:
            own.grad = weight.grad.to_local()
    if run.optimizers:
        nn.utils.clip_grad_norm_(run.own, plan.max_grad_norm)
    with patch("torch.optim.adam._get_value", lambda value: 1.0):  # the number of the step has no value here
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
    run.model.zero_grad()


def _watch_head(run: _Run) -> None:
    """The loss begins when the head is called and ends when its input has a gradient."""
    base = run.model.get_base_model() if hasattr(run.model, "peft_config") else run.model
    head = base.get_output_embeddings()

    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        run.tracker.moment = "loss"
        run.tracker.at_head = run.tracker.kept()
        inputs[0].register_hook(leave)

    def leave(_: torch.Tensor) -> None:
        run.tracker.moment = "backward"

    head.register_forward_pre_hook(enter)


def _snapshots(run: _Run) -> dict[str, Snapshot]:
    found: dict[str, Snapshot] = {}
    for moment, alive in run.tracker.peaks.items():
        weights, gradients = _sum(alive, WEIGHTS), _sum(alive, GRADIENTS)
        working = alive["Total"] - weights - gradients - run.states
        logits = working + run.states - run.tracker.at_head if moment == "loss" else 0
        found[moment] = Snapshot(weights, gradients, run.states, working - logits, logits)
    return found
