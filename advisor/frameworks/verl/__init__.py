"""verl: hydra overrides, one a line, for `verl.trainer.main_ppo` (online RL on Ray) or `verl.trainer.sft_trainer`.

The same plan field has its key in one of four places: RL or SFT, PyTorch FSDP2 or Megatron; rows come in
pairs accordingly. `train.sh` holds the overrides with their reasons and is what the judge reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from advisor.errors import InputError
from advisor.facts import rows
from advisor.frameworks.base import DataNeed, Emitted, Smoke, longer
from advisor.frameworks.table import (
    Job,
    Line,
    Rendered,
)
from advisor.frameworks.verl.overrides import override
from advisor.frameworks.verl.places import NAME, apart, has_critic, on_megatron
from advisor.frameworks.verl.reading import READING
from advisor.frameworks.verl.rollout import REWARD_FILE
from advisor.frameworks.verl.table import TABLE
from advisor.frameworks.verl.training import DATA_FILE, PPO, SFT, prompts_per_step
from advisor.plan import Plan
from advisor.rendering import render

JUDGE = "verl.py"
__all__ = ["JUDGE", "NAME", "READING", "TABLE", "command", "context", "data_need", "files", "smoke"]


def _lines(plan: Plan, job: Job) -> tuple[Line, ...]:
    """The overrides of a plan that is known to be expressible."""
    return TABLE.render(plan, job, lambda p: asdict(plan))["train"].lines


def data_need(plan: Plan) -> DataNeed:
    return DataNeed(("rl-prompts",) if plan.online else ("messages",))


def _launcher(plan: Plan) -> tuple[str, ...]:
    if plan.online:
        return ("python3", "-m", PPO)
    return ("torchrun", f"--nnodes={plan.nodes}", f"--nproc_per_node={plan.gpus_per_node}", "-m", SFT)


def command(plan: Plan, job: Job) -> Sequence[str]:
    return (*_launcher(plan), *(override(line) for line in _lines(plan, job)))


def nearest(plan: Plan) -> tuple[Plan, str]:
    """The nearest plan that a CPU can train, and what it leaves out (empty: nothing)."""
    left_out: list[str] = []
    near = plan
    if on_megatron(plan):
        left_out.append("Megatron (FSDP2 trained instead)")
        targets = ("all-linear",) if plan.lora_targets == ("experts",) else plan.lora_targets
        near = replace(
            near,
            backend="hf",
            fsdp=True,
            zero_stage=3,
            offload="none",
            tensor_parallel=1,
            sequence_parallel=False,
            pipeline_parallel=1,
            expert_parallel=1,
            expert_tensor_parallel=1,
            context_parallel=1,
            master_weights=False,
            lora_dropout=0.0,
            lr_scheduler="constant" if plan.lr_scheduler == "constant" else "cosine",
            lora_targets=targets,
        )
    if has_critic(plan):
        left_out.append("the critic (GRPO trained instead)")
        near = replace(near, method="grpo")
    return near.normalised(), " and ".join(left_out)


def _script(plan: Plan, job: Job, folder: str = "") -> str:
    lines = _lines(plan, job)
    groups: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        groups.setdefault(line.group, []).append((override(line), line.why))
    return render(
        "verl/train.sh.jinja", groups=groups, plan=plan, job=job, module=_launcher(plan)[-1], up=folder
    )


def _column(job: Job, names: Sequence[str]) -> str:
    """What the user's rows call a column."""
    present = job.data_extra.get("columns", ())
    return next((name for name in names if name in present), names[0])


def _prepare_data(plan: Plan, job: Job) -> str:
    return render(
        "verl/prepare_data.py.jinja",
        plan=plan,
        job=job,
        target=DATA_FILE,
        batch=prompts_per_step(plan, job) if plan.online else plan.global_batch_size,
        messages=_column(job, rows.MESSAGES_NAMES),
        prompt=_column(job, rows.PROMPT_NAMES),
        solution=_column(job, rows.SOLUTION_NAMES),
    )


def _refuse_shared_reward_model(plan: Plan, job: Job) -> None:
    """Raises InputError: the reward model shares the GPUs that train with the rollouts, which are elsewhere then
    (verl/trainer/ppo/v1/trainer_separate_async.py:71)."""
    if apart(plan) and job.reward_model:
        raise InputError(
            "reward_model",
            f"{job.reward_model} would share the GPUs that train, which no server beside training lets it; take a "
            "reward function (reward), or let the GPUs that train generate (rollout_placement colocated)",
        )


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    _refuse_shared_reward_model(plan, job)
    emitted = [
        Emitted("train.sh", "config", _script(plan, job), True),
        Emitted("prepare_data.py", "script", _prepare_data(plan, job)),
    ]
    if plan.online and job.reward:
        function = job.reward.rpartition(":")[2]
        emitted.append(Emitted(REWARD_FILE, "reward", render("verl/reward_verl.py.jinja", function=function)))
    if plan.online and plan.machines > 1:
        emitted += [
            Emitted("launch/ray.sh", "ray", render("verl/ray.sh.jinja", plan=plan), True),
            Emitted("launch/ray_env.sh", "ray", render("verl/ray_env.sh.jinja", plan=plan)),
        ]
    near, left_out = nearest(plan)
    if left_out:
        emitted.append(Emitted("smoke/nearest.sh", "smoke", _script(near, job, "/.."), True))
    return emitted


def smoke(plan: Plan, job: Job) -> Smoke:
    left_out = [nearest(plan)[1]]
    if plan.online:
        left_out.append("the vLLM rollout (the model itself generated)")
    if plan.generates_apart:
        left_out.append("generation on GPUs of its own, one step ahead (it took turns with training)")
    if job.reward_model:
        left_out.append("the reward model")
    names = ("verl_cpu.py", "any_reward.py") if job.reward_model else ("verl_cpu.py",)
    return Smoke(
        files={name: f"verl/smoke/{name}" for name in names} | longer(plan, job),
        partial=", ".join(filter(None, left_out)),
        trained=nearest(plan)[0],
        rl=plan.online,
        judged_roles=("config",),
    )


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    environment: dict[str, Any] = {"HYDRA_FULL_ERROR": "1"}
    if on_megatron(plan) and not plan.online:
        environment["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"
    result: dict[str, Any] = {
        "environment": environment,
        "near": nearest(plan)[0],
        "partial": nearest(plan)[1],
        # Ray spreads the run over all machines.
        "machines": plan.machines,
        "processes": plan.gpus_per_machine,
    }
    if plan.online and plan.machines > 1:
        result["slurm_template"] = "verl/slurm.sbatch.jinja"
    return result
