"""Groups of keys in train.yaml, and rows that are there on one condition."""

from __future__ import annotations

from advisor.frameworks.ms_swift.values import Compute
from advisor.frameworks.table import ABSENT, When

MODEL, DATA, METHOD, BATCH, OPTIM, KERNELS, SPREAD, SAVE = (
    "Model and what trains",
    "Data",
    "Method",
    "Batch",
    "Optimization",
    "Precision and kernels",
    "How it is spread over the GPUs",
    "Logging and checkpoints",
)


def only(condition: When, compute: Compute) -> Compute:
    """A Derived that is there only where the condition holds."""
    return lambda plan, job: compute(plan, job) if condition(plan) else ABSENT
