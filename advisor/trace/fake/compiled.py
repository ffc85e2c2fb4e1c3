"""Layers and the loss as torch.compile runs them: what AOTAutograd's partitioner saves, what Inductor materialises.

The joint graph of a layer's forward and backward is traced on fake tensors with Inductor's decompositions and split by
the min-cut partitioner that Inductor uses. `_Schedule` then walks each half the way Inductor's kernels do: elementwise
operations and reductions are inlined into whoever reads them, so memory is taken only by products, by kernels of their
own (attention, sorting, gathering), by what those read, and by what the half returns. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch._inductor.config
from torch import nn
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from advisor.trace.fake import attention
from advisor.trace.fake.attention import backward_temporaries

VIEWS = (
    "view", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "alias", "slice", "reshape", "_unsafe_view",
    "split", "split_with_sizes", "detach", "select", "as_strided", "unbind",
)  # fmt: skip
"""Operators whose result is a window on their input."""
CHUNKS = 8
"""Of a chunked loss."""
KERNELS = (
    "mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "sort", "topk", "histc", "index_put", "index_add", "scatter_add",
    "cumsum",
)  # fmt: skip
"""Operators with a kernel of their own, which nothing is inlined into."""


@torch.library.custom_op("advisor::attention", mutates_args=())
def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    raise RuntimeError("only shapes can be asked for")


@_attention.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    batch, heads, length, _ = query.shape
    out = query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
    return out, query.new_empty(batch, heads, length, dtype=torch.float32)


@torch.library.custom_op("advisor::attention_backward", mutates_args=())
def _attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor,
    sums: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    raise RuntimeError("only shapes can be asked for")


@_attention_backward.register_fake
def _(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor,
    sums: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)


_attention.register_autograd(
    lambda ctx, grad, _: _attention_backward(grad, *ctx.saved_tensors), setup_context=_keep
)


class _OneKernel:
    """attention._Fused as one operator of a graph."""

    @staticmethod
    def apply(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return _attention(query, key, value)[0]


FORWARD, BACKWARD = torch.ops.advisor.attention.default, torch.ops.advisor.attention_backward.default
ATTENTION = (FORWARD, BACKWARD)


def _name(node: Node) -> str:
    target = node.target
    packet = getattr(target, "_opname", None) or getattr(
        getattr(target, "overloadpacket", None), "__name__", ""
    )
    return packet or getattr(target, "__name__", str(target))


def _base(node: Node) -> Node:
    """The node whose memory `node` is a window on."""
    while node.op == "call_function":
        source = node.args[0] if node.args else None
        inside = _name(node) == "getitem" and isinstance(source, Node) and _name(source) in VIEWS
        if not (inside or _name(node) in VIEWS) or not isinstance(source, Node):
            return node
        node = source
    return node


def _own_kernel(node: Node) -> bool:
    if node.op != "call_function":
        return False
    source = node.args[0] if _name(node) == "getitem" else node
    return isinstance(source, Node) and (_name(source) in KERNELS or source.target in ATTENTION)


class _Schedule:
    """One half of a layer: when each of its buffers is made and last read."""

    def __init__(self, graph: GraphModule) -> None:
        nodes = list(graph.graph.nodes)
        self.inputs = [node for node in nodes if node.op == "placeholder"]
        returned = pytree.arg_tree_leaves(nodes[-1].args[0])
        self.returned = [_base(node) if isinstance(node, Node) else None for node in returned]
        kept = {node for node in self.returned if node is not None and node.op != "placeholder"}
        self.made = [n for n in nodes if n.op == "call_function" and self._materialised(n, kept)]
        self.last: dict[Node, int] = {}
        for place, node in enumerate(self.made):
            for read in self._reads(node, set(self.made)):
                self.last[read] = place

    @staticmethod
    def _materialised(node: Node, kept: set[Node]) -> bool:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or _base(node) is not node:
            return False
        if node in kept or _own_kernel(node):
            return True
        return any(_own_kernel(user) for user in _readers(node))

    @staticmethod
    def _reads(node: Node, made: set[Node]) -> set[Node]:
        found: set[Node] = set()
        stack = list(node.all_input_nodes)
        seen: set[Node] = set()
        while stack:
            read = _base(stack.pop())
            if read in seen:
                continue
            seen.add(read)
            if read in made or read.op == "placeholder":
                found.add(read)
            else:
                stack += read.all_input_nodes
        return found

    def run(self, given: list[Any]) -> list[torch.Tensor | None]:
        """Take and give back memory in the order of the graph. `given` is emptied as its tensors are read last."""
        alive: dict[Node, Any] = dict(zip(self.inputs, given, strict=True))
        given.clear()
        stays = {node for node in self.returned if node is not None}
        for node in [n for n in alive if n not in self.last and n not in stays]:
            del alive[node]
        for place, node in enumerate(self.made):
            done = [read for read, last in self.last.items() if last == place and read not in stays]
            # An elementwise kernel writes over an input of its size that nobody reads later; a concatenation does not.
            if not _own_kernel(node) and _name(node) != "cat":
                over = next((read for read in done if _bytes(read) == _bytes(node)), None)
                alive.pop(over, None)
            source = node.args[0]
            if isinstance(source, Node) and source.target is BACKWARD and node.args[1] == 2:
                inputs = [read.meta["val"] for read in source.args[1:4] if isinstance(read, Node)]
                del [backward_temporaries(*map(torch.empty_like, inputs))][:]
            value = node.meta["val"]
            alive[node] = torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype, device=value.device
            )
            for read in done:
                alive.pop(read, None)
        return [None if node is None else alive[node] for node in self.returned]


def _bytes(node: Node) -> int:
    value = node.meta["val"]
    return value.numel() * value.element_size()


def _readers(node: Node) -> Iterator[Node]:
    """Who reads a node, through windows on it."""
    for user in node.users:
        if user.op == "call_function" and _base(user) is not user:
            yield from _readers(user)
        else:
            yield user


class _Halves:
    """Forward and backward of a function of tensors, as compiled."""

    def __init__(self, function: Callable[..., Any], inputs: list[torch.Tensor]) -> None:
        from torch._functorch.aot_autograd import aot_function
        from torch._functorch.partitioners import min_cut_rematerialization_partition
        from torch._inductor.decomposition import select_decomp_table
        from torch._inductor.fx_passes.joint_graph import joint_graph_passes

        found: list[GraphModule] = []

        def keep(graph: GraphModule, _: Any) -> GraphModule:
            found.append(graph)
            return graph

        def split(joint: GraphModule, *args: Any, **kwargs: Any) -> Any:
            joint_graph_passes(joint)
            return min_cut_rematerialization_partition(joint, *args, compiler="inductor", **kwargs)

        compiled = aot_function(
            function, keep, keep, partition_fn=split, decompositions=select_decomp_table()
        )
        with (
            patch.object(attention, "_Fused", _OneKernel),
            torch._inductor.config.patch(joint_graph_constant_folding=False),
        ):
            results = pytree.tree_leaves(compiled(*inputs))
            torch.autograd.backward(results, [torch.ones_like(result) for result in results])
        for tensor in inputs:
            tensor.grad = None
        self.results = len(results)
        self.forward, self.backward = (_Schedule(graph) for graph in found)


class _Run(torch.autograd.Function):
    """A result that nobody differentiates gets a gradient of zeros, as AOTAutograd's own function gives it."""

    @staticmethod
    def forward(ctx: Any, halves: _Halves, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.halves = halves
        given = halves.forward.run(list(inputs))
        results, saved = given[: halves.results], given[halves.results :]
        ctx.like = [result.new_empty(()).expand(result.shape) for result in results]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*saved)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        ctx.maybe_clear_saved_tensors()
        given = [
            *saved,
            *(
                torch.zeros_like(like).contiguous() if grad is None else grad
                for like, grad in zip(ctx.like, grads)
            ),
        ]
        del saved, grads
        return None, *ctx.halves.backward.run(given)


@contextmanager
def _inputs_of(layers: nn.ModuleList, layer: nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """What `layer` is called with while this is open; the layers before it hand on their input."""
    seen: list[tuple[Any, Any]] = []

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append((args, kwargs))

    hook = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """Layers with equal weights compile to the same graph."""
    return type(layer), *((n, w.shape, w.dtype, w.requires_grad) for n, w in layer.named_parameters())


def compile_layers(model: nn.Module, layers: nn.ModuleList, rows: int, length: int, autocast: Any) -> None:
    """Have every decoder layer run as compiled. `autocast` makes the context that a step runs in."""
    tokens = torch.zeros(rows, length, dtype=torch.long, device="cuda")
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    firsts = {_kind(layer): layer for layer in reversed(layers)}
    calls: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    for kind, layer in firsts.items():
        with _inputs_of(layers, layer) as seen, torch.no_grad(), autocast():
            base.get_decoder()(input_ids=tokens, use_cache=False)
        calls[kind] = seen[0]
    halves = {kind: _compiled_layer(layer, *calls[kind], autocast) for kind, layer in firsts.items()}
    for layer in layers:
        layer.forward = _runner(layer, halves[_kind(layer)])


def _tensors(args: Any, kwargs: Any) -> tuple[list[torch.Tensor], Callable[[list[torch.Tensor]], Any]]:
    """The tensors of a call, and how to put others in their place."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def rebuilt(tensors: list[torch.Tensor]) -> Any:
        new = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            new[place] = tensor
        return pytree.tree_unflatten(new, spec)

    return [leaves[i] for i in places], rebuilt


def _compiled_layer(layer: nn.Module, args: Any, kwargs: Any, autocast: Any) -> _Halves:
    given, rebuilt = _tensors(args, kwargs)
    names = [name for name, _ in (*layer.named_parameters(), *layer.named_buffers())]
    forward = getattr(
        type(layer).forward, "__wrapped__", type(layer).forward
    )  # transformers checkpoints around it

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        args, kwargs = rebuilt(list(tensors[: len(given)]))
        weights = dict(zip(names, tensors[len(given) :], strict=True))
        with autocast():
            out = torch.func.functional_call(_Bare(layer, forward), _prefixed(weights), args, kwargs)
        return out[0] if isinstance(out, tuple) else out

    tensors = [t.detach().requires_grad_(i == 0) for i, t in enumerate(given)]
    return _Halves(function, [*tensors, *layer.parameters(), *layer.buffers()])


class _Bare(nn.Module):
    """A layer without its hooks and without checkpointing."""

    def __init__(self, layer: nn.Module, forward: Any) -> None:
        super().__init__()
        self.layer, self._forward = layer, forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self.layer, *args, **kwargs)


def _prefixed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"layer.{name}": weight for name, weight in weights.items()}


def _runner(layer: nn.Module, halves: _Halves) -> Callable[..., torch.Tensor]:
    def run(*tensors: torch.Tensor) -> torch.Tensor:
        return _Run.apply(halves, *tensors, *layer.parameters(), *layer.buffers())[0]

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensors, _ = _tensors(args, kwargs)
        if layer.gradient_checkpointing:
            return layer._gradient_checkpointing_func(run, *tensors)
        return run(*tensors)

    return forward


def compile_loss(model: nn.Module, rows: int, autocast: Any) -> None:
    """Have the head's product and the cross-entropy run as one compiled function. It also hands out the logits: a
    trainer compiles the whole model, whose outputs Accelerate raises to fp32 under autocast (accelerator.py:1830, then
    :2073 compiles)."""
    head = model.get_output_embeddings()
    weight = head.weight

    def function(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> Any:
        with autocast():
            logits = nn.functional.linear(hidden, weight)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            return loss, logits.float() if torch.is_autocast_enabled("cuda") else logits

    hidden = torch.empty(rows, weight.shape[1], dtype=weight.dtype, device=weight.device, requires_grad=True)
    labels = torch.zeros(rows, dtype=torch.long, device=weight.device)
    halves = _Halves(function, [hidden, weight, labels])
    head.forward = lambda hidden: hidden

    def loss(logits: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return _Run.apply(halves, logits.reshape(rows, -1), head.weight, labels.reshape(-1))[0]

    model.loss_function = loss


def chunk_loss(model: nn.Module, rows: int, length: int, autocast: Any) -> None:
    """The cross-entropy in eight chunks along the sequence, each compiled with its cast to fp32 and nothing else
    (axolotl 0.21.0: monkeypatch/loss/chunked.py)."""
    head = model.get_output_embeddings()

    def function(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits.float(), labels, reduction="sum")

    def halves(tokens: int) -> _Halves:
        logits = torch.empty(tokens, head.weight.shape[0], dtype=torch.bfloat16, device=head.weight.device)
        labels = torch.zeros(tokens, dtype=torch.long, device=head.weight.device)
        return _Halves(function, [logits.requires_grad_(), labels])

    known = {
        size: halves(size) for size in {rows * part.numel() for part in torch.empty(length).chunk(CHUNKS)}
    }

    def loss(logits: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        total = logits.new_zeros((), dtype=torch.float32)
        for part, asked in zip(logits.chunk(CHUNKS, 1), labels.chunk(CHUNKS, 1), strict=True):
            flat = part.reshape(-1, part.shape[-1])
            total = total + _Run.apply(known[len(flat)], flat, asked.reshape(-1))[0]
        return total

    model.loss_function = loss
