"""What the trainer reads of a vLLM server on GPUs of its own, and vllm.yaml, which `axolotl vllm-serve` reads.

A file of its own: of train.yaml the server would read DeepSpeed's settings too, and start its processes for them
(axolotl==0.21.0:axolotl/utils/trainer.py:635).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.frameworks.axolotl.data import datasets_entry
from advisor.frameworks.shared import SERVER_PATIENCE, SERVER_PORT, on_server, pool_rows
from advisor.frameworks.table import ABSENT, Const, Derived, Job, Key, Row
from advisor.plan import Plan

SERVED = "vllm"
"""The document, vllm.yaml."""
ENGINE, NEEDED = "The engine", "What every configuration must say"


def _served(key: str, compute: Callable[[Plan, Job], Any], why: str, group: str) -> Row:
    return Derived(
        key, lambda p, j: compute(p, j) if on_server(p) else ABSENT, why, document=SERVED, group=group
    )


def _engine(field: str, key: str, why: str) -> Row:
    return Key(field, f"vllm.{key}", why, SERVED, when=on_server, group=ENGINE)


def server_rows(group: str) -> tuple[Row, ...]:
    def told(key: str, value: Any, why: str) -> Row:
        return Const(f"trl.vllm_server_{key}", value, why, when=on_server, group=group)

    return (
        told("host", "127.0.0.1", "run.sh names another machine"),
        told("port", SERVER_PORT, "of launch/rollout.sh"),
        told("timeout", int(SERVER_PATIENCE), "seconds it may take to load"),
        _served("base_model", lambda p, j: j.model_path, "the model to start from", ENGINE),
        _engine("rollout_tensor_parallel", "tensor_parallel_size", "GPUs that share it"),
        _engine("rollout_data_parallel", "data_parallel_size", "data-parallel ranks, each of so many GPUs"),
        _engine("rollout_memory_fraction", "gpu_memory_utilization", "share of each GPU that it may take"),
        _served("vllm.max_model_len", lambda p, j: p.seq_len, "prompt and answer", ENGINE),
        _served(
            "vllm.host",
            lambda p, j: "0.0.0.0" if p.rollout_nodes else "127.0.0.1",
            "where it listens",
            ENGINE,
        ),
        _served("vllm.port", lambda p, j: SERVER_PORT, "its port", ENGINE),
        _served("datasets", datasets_entry, "not read by the server", NEEDED),
        _served("micro_batch_size", lambda p, j: 1, "not used by the server", NEEDED),
        _served("gradient_accumulation_steps", lambda p, j: 1, "not used by the server", NEEDED),
        _served("learning_rate", lambda p, j: p.learning_rate, "not used by the server", NEEDED),
        _served("output_dir", lambda p, j: j.output_dir, "it would make a folder of another name", NEEDED),
        *pool_rows(()),
    )
