"""A CUDA device for fake tensors on a machine that has none.

Shapes, dtypes, autocast lists and allocator rounding follow the device of a tensor, so a fake tensor should
say `cuda`. A CPU build of PyTorch refuses that in two places: there is no device guard for CUDA, and its
hooks say that CUDA was never built. PyTorch has a guard that does nothing for builds with CUDA but no GPU
(`torch._C._ensureCUDADeviceGuardSet`); it is installed when the registered one counts no devices, so one that
answers 0 to everything is registered first. Of the hooks, two answers change. Nothing here runs a kernel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

CUDA = 1
"""c10::DeviceType::CUDA (c10/core/DeviceType.h)."""
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
HOOKS = "_ZN2at6detail12getCUDAHooksEv"
HOOK_COUNT = 48
"""More than CUDAHooksInterface has virtual functions, fewer than would leave its section."""
IS_BUILT, HAS_PRIMARY_CONTEXT = 2, 4
"""Places in AcceleratorHooksInterface after the two destructors (ATen/detail/AcceleratorHooksInterface.h)."""
ONE_KERNEL = ("silu_backward",)
"""Operators with a CUDA kernel and, beside it, a formula of other operators (native_functions.yaml: dispatch
CUDA and CompositeImplicitAutograd) that decoder layers use."""

_kept: list[object] = []


def _answer(value: int) -> int:
    """Address of a function that returns `value`."""
    function = ctypes.CFUNCTYPE(ctypes.c_longlong)(lambda: value)
    _kept.append(function)
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _table(entries: list[int]) -> int:
    """Address of an array of function addresses."""
    table = (ctypes.c_void_p * len(entries))(*entries)
    _kept.append(table)
    return ctypes.addressof(table)


def install() -> None:
    """Make this process accept fake CUDA tensors; nothing to do where PyTorch was built with CUDA."""
    if torch.version.cuda is not None or torch.version.hip is not None or _kept:
        return
    folder = Path(torch.__file__).parent / "lib"
    core = ctypes.CDLL(str(folder / "libc10.so"))
    guards = (ctypes.c_void_p * (CUDA + 1)).in_dll(core, GUARDS)
    nothing = ctypes.c_void_p(_table([_answer(0)] * HOOK_COUNT))
    _kept.append(nothing)
    guards[CUDA] = ctypes.addressof(nothing)
    torch._C._ensureCUDADeviceGuardSet()
    get_hooks = getattr(ctypes.CDLL(str(folder / "libtorch_cpu.so")), HOOKS)
    get_hooks.restype = ctypes.c_void_p
    virtual = ctypes.c_void_p.from_address(get_hooks())
    entries = list((ctypes.c_void_p * HOOK_COUNT).from_address(virtual.value or 0))
    yes = _answer(1)
    entries[IS_BUILT] = entries[HAS_PRIMARY_CONTEXT] = yes
    virtual.value = _table(entries)
    _keep_whole()
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or accelerator.type != "cuda":
        raise RuntimeError(f"PyTorch {torch.__version__} takes no fake CUDA device; traced with 2.13")


def _keep_whole() -> None:
    """Name CUDA kernels for operators that a CPU build would take apart for want of them, temporaries and all.
    In fake mode only their shapes are asked for."""
    library = torch.library.Library("aten", "IMPL")
    _kept.append(library)
    for name in ONE_KERNEL:
        library.impl(name, _never, "CUDA")


def _never(*_: object) -> torch.Tensor:
    raise RuntimeError("there is no CUDA device: only shapes can be asked for")


@contextmanager
def pretended() -> Iterator[None]:
    """Streams and events that do nothing, autocast that does not switch itself off, an 8.0 or newer card."""
    answers = {
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.cuda.is_bf16_supported": lambda *_, **__: True,
        "torch.cuda.get_device_capability": lambda *_, **__: (9, 0),
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.set_device": lambda *_: None,
        "torch.cuda.Stream": _Stream,
        "torch.cuda.Event": _Event,
        "torch.cuda.current_stream": lambda *_: torch.cpu.current_stream(),
        "torch.cuda.stream": torch.cpu.stream,
    }
    with ExitStack() as stack:
        for name, value in answers.items():
            stack.enter_context(patch(name, value))
        yield


class _Event(torch.cpu.Event):
    def __init__(self, **_: object) -> None:
        super().__init__()


class _Stream(torch.cpu.Stream):
    def record_event(self, event: torch.cpu.Event | None = None) -> torch.cpu.Event:
        """FSDP2 refuses an all-reduce without an event."""
        return event or _Event()
