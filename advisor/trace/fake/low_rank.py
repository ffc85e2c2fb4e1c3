"""GaLore and APOLLO on fake tensors: the optimizers of galore-torch and apollo-torch, grouped as transformers' trainer
groups them (trainer_optimizer.py: _setup_low_rank_optimizer), every step renewing its projections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from advisor.facts.types import ModelFacts
from advisor.plan import Plan

RENEWED = {"update_proj_gap": 1}
"""Each step renews the projections, which takes the most."""


def optimizers(model: nn.Module, facts: ModelFacts, plan: Plan) -> list[torch.optim.Optimizer]:
    """One optimizer, or one a parameter for those that step layer by layer."""
    rest, projected = _groups(model, facts)
    settings: dict[str, Any] = {"rank": plan.optimizer_rank, "scale": 2.0, "proj_type": "std", **RENEWED}
    if plan.optimizer.startswith("galore"):
        from galore_torch import GaLoreAdamW as kind  # pyright: ignore[reportMissingImports]
    else:
        from apollo_torch import APOLLOAdamW as kind  # pyright: ignore[reportMissingImports]

        settings |= {"proj": "random", "scale_type": "channel"}
    if not plan.steps_layerwise:
        return [kind([{"params": rest}, {"params": projected, **settings}], lr=1e-5)]
    alone = [kind([{"params": [weight]}], lr=1e-5) for weight in rest]
    return alone + [kind([{"params": [weight], **settings}], lr=1e-5) for weight in projected]


def _groups(model: nn.Module, facts: ModelFacts) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What keeps whole moments, and the matrices of the decoder layers, each in the order of the model."""
    inside = next(w.name for w in facts.weights if w.role == "attention" and "*" in w.name).partition("*")[0]
    named = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside)
    }
    parameters = list(model.named_parameters())
    return (
        [weight for name, weight in parameters if name not in named],
        [weight for name, weight in parameters if name in named],
    )


def fill(found: list[torch.optim.Optimizer], trained: list[nn.Parameter]) -> list[torch.Tensor]:
    """What earlier steps leave behind: one step on gradients of zeros. Returns the states, each storage once."""
    for optimizer in found:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.zeros_like(weight)
        optimizer.step()
        optimizer.zero_grad()
    held: dict[int, torch.Tensor] = {}
    for optimizer in found:
        for state in optimizer.state.values():
            kept = [*state.values(), getattr(state.get("projector"), "ortho_matrix", None)]
            held |= {id(t.untyped_storage()): t for t in kept if isinstance(t, torch.Tensor)}
    return list(held.values())


def stepping(found: list[torch.optim.Optimizer]) -> None:
    """Steps each parameter once its gradient is whole, as the layerwise optimizers' hooks do."""

    def hook(optimizer: torch.optim.Optimizer) -> Any:
        def step(_: torch.Tensor) -> None:
            optimizer.step()
            optimizer.zero_grad()

        return step

    for optimizer in found:
        for weight in optimizer.param_groups[0]["params"]:
            weight.register_post_accumulate_grad_hook(hook(optimizer))


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """What these optimizers read from tensors or draw from a generator of the GPU has no value here."""
    try:
        import apollo_torch.apollo as apollo  # pyright: ignore[reportMissingImports]
        import apollo_torch.random_projector as projector  # pyright: ignore[reportMissingImports]
    except ImportError:
        yield
        return

    def randn(shape: Any, seed: int, device: Any, dtype: Any) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    with (
        patch.object(apollo, "max", lambda one, other: one, create=True),
        patch.object(projector, "stable_randn", randn),
        patch.object(projector, "next_seed", lambda seed: seed),
    ):
        yield
