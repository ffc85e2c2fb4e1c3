"""Collects weights under a name prefix."""

from __future__ import annotations

from advisor.facts.types import Weight


class Inventory:
    """A growing list of weights; empty tensors and zero counts are left out."""

    def __init__(self, prefix: str = "", into: list[Weight] | None = None) -> None:
        self.prefix = prefix
        self.weights: list[Weight] = [] if into is None else into

    def under(self, prefix: str) -> Inventory:
        """The same list, written to under a longer prefix."""
        return Inventory(f"{self.prefix}{prefix}.", self.weights)

    def add(
        self, name: str, shape: tuple[int, ...], role: str, count: int = 1, *, linear: bool = False
    ) -> None:
        if count > 0 and all(size > 0 for size in shape):
            self.weights.append(Weight(self.prefix + name, shape, count, role, linear))

    def linear(
        self, name: str, shape: tuple[int, int], role: str, count: int = 1, *, bias: bool = False
    ) -> None:
        """An nn.Linear: `shape` is (out, in)."""
        self.add(f"{name}.weight", shape, role, count, linear=True)
        if bias:
            self.add(f"{name}.bias", shape[:1], role, count)

    def norm(self, name: str, size: int, count: int = 1, *, bias: bool = False, role: str = "norm") -> None:
        self.add(f"{name}.weight", (size,), role, count)
        if bias:
            self.add(f"{name}.bias", (size,), role, count)

    def gated_mlp(
        self, name: str, hidden: int, ffn: int, role: str, count: int = 1, *, bias: bool = False
    ) -> None:
        block = self.under(name)
        block.linear("gate_proj", (ffn, hidden), role, count, bias=bias)
        block.linear("up_proj", (ffn, hidden), role, count, bias=bias)
        block.linear("down_proj", (hidden, ffn), role, count, bias=bias)
