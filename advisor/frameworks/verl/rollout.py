"""Rollouts and rewards <-> hydra key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.frameworks.table import (
    ABSENT,
    FLOAT,
    REPO,
    Case,
    Choice,
    Const,
    Derived,
    Job,
    Key,
    Row,
)
from advisor.frameworks.verl.places import (
    REWARDS,
    ROLLOUT,
    ROLLOUTS,
    apart,
    derived,
    every,
    is_rl,
    on_hf,
    sends_adapters,
)
from advisor.plan import Plan

REWARD_FILE = "reward_verl.py"


def _reward_model(key: str, compute: Callable[[Plan], Any], why: str) -> Row:
    return Derived(
        f"reward.reward_model.{key}",
        lambda p, j: compute(p) if p.online and j.reward_model else ABSENT,
        why,
        group=REWARDS,
    )


def _custom_reward(key: str, value: str, why: str) -> tuple[Row, ...]:
    """It stood at the top before 0.7.1."""

    def compute(plan: Plan, job: Job) -> Any:
        return value if plan.online and job.reward else ABSENT

    name = f"custom_reward_function.{key}"
    return (
        Derived(f"reward.{name}", compute, why, group=REWARDS, since="0.7.1"),
        Derived(name, compute, why, group=REWARDS, until="0.7.1"),
    )


def _dapo(key: str, compute: Callable[[Plan], Any], why: str) -> Row:
    return Derived(
        f"reward.reward_kwargs.{key}",
        lambda p, j: compute(p) if p.method == "dapo" else ABSENT,
        why,
        group=REWARDS,
    )


POOL_ROWS: tuple[Row, ...] = (
    Const(
        "trainer.v1.separate_async.parameter_sync_step",
        1,
        "new weights after every step; batch = this x mini batch",
        when=apart,
        group=ROLLOUTS,
        since="0.9.0",
    ),
    Const(
        f"{ROLLOUT}.checkpoint_engine.backend",
        "nccl",
        "how the weights travel to the servers",
        when=apart,
        group=ROLLOUTS,
        since="0.9.0",
    ),
    Derived(
        f"{ROLLOUT}.nnodes",
        lambda p, j: max(p.rollout_nodes, 1) if apart(p) else ABSENT,
        "machines with GPUs that only generate",
        group=ROLLOUTS,
        since="0.9.0",
    ),
    Key("rollout_nodes", "rollout_nodes", "", REPO, when=apart),
    Key(
        "rollout_gpus",
        f"{ROLLOUT}.n_gpus_per_node",
        "such GPUs on each",
        when=apart,
        absent=0,
        group=ROLLOUTS,
        since="0.9.0",
    ),
)

ROLLOUT_ROWS: tuple[Row, ...] = (
    Choice(
        ("rollout_engine", "rollout_placement"),
        (
            Case(("none", "colocated"), {f"{ROLLOUT}.name": ABSENT}),
            Case(("vllm", "colocated"), {f"{ROLLOUT}.name": "vllm"}, "vLLM servers on the training GPUs"),
            Case(
                ("vllm", "separate-async"),
                {
                    f"{ROLLOUT}.name": "vllm",
                    "trainer.v1.trainer_mode": "separate_async",
                    "actor_rollout_ref.hybrid_engine": False,
                },
                "vLLM servers on GPUs of their own; training goes on one step behind",
                since="0.9.0",
            ),
        ),
        group=ROLLOUTS,
    ),
    *POOL_ROWS,
    Key("generations", f"{ROLLOUT}.n", "answers per prompt", when=is_rl, absent=0, group=ROLLOUTS),
    Key(
        "rollout_tensor_parallel",
        f"{ROLLOUT}.tensor_model_parallel_size",
        "GPUs that share one vLLM engine; verl's default is 2",
        when=is_rl,
        group=ROLLOUTS,
    ),
    Key(
        "rollout_data_parallel",
        f"{ROLLOUT}.data_parallel_size",
        "data-parallel ranks inside an engine",
        when=is_rl,
        group=ROLLOUTS,
    ),
    Key(
        "rollout_expert_parallel",
        f"{ROLLOUT}.expert_parallel_size",
        "ranks the experts are spread over: 1, or all of the engine",
        when=is_rl,
        group=ROLLOUTS,
    ),
    Key(
        "rollout_memory_fraction",
        f"{ROLLOUT}.gpu_memory_utilization",
        "share of each GPU that vLLM may take",
        when=is_rl,
        codec=FLOAT,
        group=ROLLOUTS,
    ),
    Key(
        "rollout_sleep",
        f"{ROLLOUT}.free_cache_engine",
        "vLLM gives its memory back while the policy trains",
        when=is_rl,
        group=ROLLOUTS,
    ),
    Const(
        f"{ROLLOUT}.load_format",
        "safetensors",
        "vLLM reads the base weights itself: only adapters are sent to it",
        when=every(is_rl, sends_adapters),
        group=ROLLOUTS,
    ),
    Const(
        f"{ROLLOUT}.layered_summon",
        True,
        "adapters are gathered layer by layer: a lower peak",
        when=every(is_rl, sends_adapters, on_hf),
        group=ROLLOUTS,
    ),
    *derived(
        "transfer_queue.backend.SimpleStorage.num_data_storage_units",
        "",
        lambda p, j: 2 * p.nodes,
        "each takes a CPU; the default of 8 can hang a small node",
        ROLLOUTS,
        since="0.8.0",
    ),
    *derived(
        "ray_kwargs.ray_init.num_cpus",
        "",
        lambda p, j: j.cpus_per_node,
        "CPUs for Ray; under Slurm it would count the whole machine's",
        ROLLOUTS,
        lambda p: p.machines == 1,
    ),
)

REWARD_ROWS: tuple[Row, ...] = (
    *_custom_reward("path", REWARD_FILE, "calls your function in rewards.py"),
    *_custom_reward("name", "compute_score", "the function in that file"),
    _reward_model("enable", lambda p: True, "a model scores the answers"),
    Derived(
        "reward.reward_model.model_path",
        lambda p, j: (j.reward_model or ABSENT) if p.online else ABSENT,
        "the model that scores answers",
        group=REWARDS,
    ),
    _reward_model("rollout.name", lambda p: "vllm", "vLLM serves it as a classifier"),
    _reward_model(
        "rollout.tensor_model_parallel_size", lambda p: p.rollout_tensor_parallel, "as the rollouts"
    ),
    _reward_model(
        "rollout.gpu_memory_utilization",
        lambda p: p.rollout_memory_fraction,
        "it wakes when the rollouts sleep",
    ),
    _reward_model("rollout.prompt_length", lambda p: p.seq_len, "it reads prompt and answer"),
    Const(
        "reward.reward_manager.name",
        "dapo",
        "DAPO: answers near the length limit lose reward",
        when=lambda p: p.method == "dapo",
        group=REWARDS,
    ),
    _dapo("max_resp_len", lambda p: p.response_len, "the length limit"),
    _dapo("overlong_buffer_cfg.enable", lambda p: True, "the penalty is on"),
    _dapo("overlong_buffer_cfg.len", lambda p: max(1, p.response_len // 5), "its last fifth is penalised"),
    _dapo("overlong_buffer_cfg.penalty_factor", lambda p: 1.0, "reward lost at the limit"),
    _dapo("overlong_buffer_cfg.log", lambda p: True, "how often shows in the log"),
)
