"""Traces what PyTorch's full state dict puts together on a GPU at a time, on fake tensors and a fake process group.

    python tools/trace_gathered.py MODEL GPUS bf16|fp32     (needs the packages of the `trace` extra)

Prints one row of tests/accuracy/gathered.csv: bytes on a GPU above what it holds, and bytes that end on the host.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from advisor.facts.models import load_model
from advisor.plan import Plan
from advisor.trace.fake import attention, device, step
from advisor.trace.fake.build import any_grouped_product


def gathered(model: str, gpus: int, dtype: str) -> tuple[int, int]:
    """(bytes on the GPU at the most, without the shards; bytes on the host of rank 0)."""
    plan = Plan(tuning="full", fsdp=True, zero_stage=3, gpus_per_node=gpus, param_dtype=dtype)
    facts = load_model(model)
    device.install()
    attention.register()
    with warnings.catch_warnings(), device.pretended(), any_grouped_product(), step._ranks(plan) as mesh:
        warnings.simplefilter("ignore")
        with FakeTensorMode(allow_non_fake_inputs=True):
            with torch.device("cuda"):
                run = step._prepare(facts, plan, mesh)
            with run.tracker:
                run.tracker.start()
                before = sum(s["Total"] for w, s in run.tracker._curr_mem_snap.items() if w.type == "cuda")
                whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
                found = get_model_state_dict(run.model, options=whole)
                peak = run.tracker.peaks[run.tracker.moment]["Total"]
    storages = {v.untyped_storage()._cdata: v.numel() * v.element_size() for v in found.values()}
    return peak - before, sum(storages.values())


def main(arguments: list[str]) -> int:
    model, gpus, dtype = arguments
    above, host = gathered(model, int(gpus), dtype)
    libraries = " ".join(f"{name}=={version(name)}" for name in ("torch", "transformers"))
    print(",".join(str(value) for value in (model, gpus, dtype, above, host, libraries)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
