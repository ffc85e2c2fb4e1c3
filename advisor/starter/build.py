"""Advice -> the files of a starter repo, in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from advisor import __version__, schemas
from advisor.advise import Advice, Ranked
from advisor.errors import InputError
from advisor.facts.lora import linear_module_names
from advisor.frameworks import framework
from advisor.frameworks.base import Emitted, Framework, Smoke
from advisor.frameworks.table import Job, Rendered
from advisor.paths import templates_root
from advisor.plan import Plan
from advisor.planner.order import describe
from advisor.rendering import render
from advisor.resolve import Resolved
from advisor.rules import load_framework
from advisor.rules.implied import implied_values
from advisor.starter.data import Wiring, as_lines, smoke_rows, stored_rows, wire
from advisor.starter.requirements import requirements

JUDGES = Path(__file__).resolve().parent.parent / "judges"
BF16_FOLDER = "model_bf16"
SMOKE_FILES = ("tiny_model.py", "loss.py", "override.py", "checkpoint.py")


def build(advice: Advice, row: Ranked, answers: Mapping[str, Any]) -> list[Emitted]:
    """Every file of the starter repo for one row of the ranking, ordered by path.

    `answers` is the request as the user gave it. Raises InputError when the data cannot be wired in,
    CannotExpress when the framework's table has no key for a value of the plan.
    """
    module = framework(row.framework)
    resolved = advice.resolved
    plan = row.plan
    wiring = wire(resolved.datasets, plan, module.data_need(plan), bool(resolved.request.data_in_place))
    job = _job(resolved, row, wiring)
    rules = load_framework(row.framework, version=row.version)
    rendered = module.TABLE.render(plan, job, lambda p: implied_values(rules, p))
    configured = module.files(plan, job, rendered)
    beside = dict(file.keys for file in configured if file.keys)
    schemas.demand(row.framework, job.version, {**module.READING.by_schema(rendered), **beside})
    _refuse_dropped(row, resolved, configured)
    files = [
        *configured,
        *_data(wiring, plan),
        *_rewards(job, resolved),
        *_launch(module, plan, job, rendered, resolved),
        *requirements(rules, plan, resolved.request.tracker),
        *_prepare(resolved, job),
    ]
    files += _smoke(module, plan, job, rendered, wiring, resolved, files)
    files.append(Emitted("answers.yaml", "answers", answers_text(answers, row)))
    command = list(module.command(plan, job))
    files.append(Emitted("README.md", "readme", _readme(advice, row, job, module, command, files, rendered)))
    files.append(Emitted("advice.json", "report", advice_json(advice, row, command, files)))
    return sorted(files, key=lambda file: file.path)


def _refuse_dropped(row: Ranked, resolved: Resolved, configured: Sequence[Emitted]) -> None:
    """Raises InputError for an answer that no file of this framework carries: it must not be lost in silence."""
    adapter = resolved.request.adapter
    if adapter and not any(adapter in file.text for file in configured):
        raise InputError(
            "adapter",
            f"{adapter!r} has no place in the starter for {row.title}; merge it into the model first and pass "
            "that folder as --model, or pin another framework",
        )


def _job(resolved: Resolved, row: Ranked, wiring: Wiring) -> Job:
    request, model = resolved.request, resolved.model
    path = model.local_path or model.id
    if needs_preparing(resolved):
        path = BF16_FOLDER
    first = resolved.datasets[0] if resolved.datasets else None
    extra = {**first.extra, "columns": first.columns} if first else {}
    return Job(
        model=model,
        model_path=path,
        data_path=wiring.path,
        data_local=wiring.local,
        data_format=wiring.format,
        data_extra=extra,
        rows=wiring.rows,
        run_name=slug(f"{model.id.split('/')[-1]}-{row.plan.method}-{row.plan.tuning}"),
        tracker=request.tracker or "none",
        hub=request.hub or "hf",
        reward=_reward_reference(request.reward),
        reward_model=request.reward_model,
        teacher=request.teacher,
        adapter=request.adapter,
        version=row.version,
    )


def needs_preparing(resolved: Resolved) -> bool:
    """Whether the checkpoint must be converted before any of the six can train it."""
    return resolved.model.native_dtype.startswith("fp8") and resolved.model.local_path is None


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _reward_reference(reward: str | None) -> str | None:
    """`path/to/file.py:function` -> `rewards.py:function`: the file travels into the repo under that name."""
    if reward is None:
        return None
    file, colon, function = reward.rpartition(":")
    if not colon or not function.isidentifier() or not file.endswith(".py"):
        raise InputError("reward", f"{reward!r} will not do; give FILE.py:function")
    return f"rewards.py:{function}"


def _data(wiring: Wiring, plan: Plan) -> list[Emitted]:
    if not wiring.local or Path(wiring.path).is_absolute():
        return []
    rows = list(stored_rows(wiring, plan)) or smoke_rows(wiring, plan)
    return [Emitted(wiring.path, "data", as_lines(rows))]


def _rewards(job: Job, resolved: Resolved) -> list[Emitted]:
    if job.reward is None:
        return []
    source = str(resolved.request.reward).rpartition(":")[0]
    default = resolved.origins.get("reward")
    if default:
        return [
            Emitted("rewards.py", "reward", (templates_root() / "starter" / "rewards.py").read_text("utf-8"))
        ]
    try:
        return [Emitted("rewards.py", "reward", Path(source).read_text(encoding="utf-8"))]
    except OSError as error:
        raise InputError("reward", f"{source}: {error.strerror or error}") from None


def _launch(module: Framework, plan: Plan, job: Job, rendered: Rendered, resolved: Resolved) -> list[Emitted]:
    context = _context(module, plan, job, rendered)
    environment = dict(context.get("environment", {}))
    if job.hub == "modelscope":
        environment.setdefault("USE_MODELSCOPE_HUB", "1")
    context["environment"] = environment
    files = [
        Emitted("run.sh", "launch", render(f"{module.NAME}/run.sh.jinja", **context), True),
        Emitted("launch/env.sh", "launch", render("launch/env.sh.jinja", **context)),
    ]
    launcher = resolved.request.launcher
    if plan.rollout_gpus and launcher in ("kubeflow", "skypilot"):
        raise InputError(
            "launcher", f"{launcher} starts all machines alike; with rollout_gpus take slurm, torchrun or ray"
        )
    if launcher == "slurm" or (plan.machines > 1 and launcher in (None, "auto")):
        template = context.get("slurm_template", "launch/slurm.sbatch.jinja")
        files.append(Emitted("launch/slurm.sbatch", "slurm", render(template, **context), True))
    if launcher == "kubeflow":
        files.append(
            Emitted("launch/trainjob.yaml", "kubernetes", render("launch/trainjob.yaml.jinja", **context))
        )
    if launcher == "skypilot":
        gpu = resolved.cluster.gpu
        files.append(
            Emitted(
                "launch/sky.yaml",
                "skypilot",
                render(
                    "launch/sky.yaml.jinja",
                    **context,
                    accelerators=f"{_sky_name(gpu.id)}:{plan.gpus_per_node}",
                    disk_gb=disk_gb(resolved),
                    prepare=needs_preparing(resolved),
                ),
            )
        )
    return files


def _sky_name(gpu: str) -> str:
    """A catalog id as SkyPilot spells accelerators: h100-sxm -> H100, a100-sxm-80 -> A100-80GB."""
    words = [word for word in gpu.split("-") if word not in ("sxm", "pcie", "rtx", "sxm5")]
    name = "-".join(words).upper()
    return {"A100-80": "A100-80GB", "A100-40": "A100", "4090": "RTX4090", "5090": "RTX5090"}.get(name, name)


def disk_gb(resolved: Resolved) -> int:
    """Disk for the checkpoint, its conversion, and two checkpoints of what trains; at least 256 GB."""
    model_gb = 2 * resolved.model.total_parameters / 1e9
    return max(256, round(model_gb * (4 if needs_preparing(resolved) else 3)))


def _context(module: Framework, plan: Plan, job: Job, rendered: Rendered) -> dict[str, Any]:
    return {
        "plan": plan,
        "job": job,
        "documents": rendered.documents,
        "command": tuple(module.command(plan, job)),
        **module.context(plan, job, rendered),
    }


def _prepare(resolved: Resolved, job: Job) -> list[Emitted]:
    if not needs_preparing(resolved):
        return []
    bf16_gb = 2 * resolved.model.total_parameters / 1e9
    text = render(
        "starter/prepare_model.sh.jinja", model=resolved.model.id, folder=BF16_FOLDER, bf16_gb=round(bf16_gb)
    )
    script = (templates_root() / "starter" / "dequantize_fp8.py").read_text("utf-8")
    return [
        Emitted("prepare_model.sh", "launch", text, True),
        Emitted("prepare/dequantize_fp8.py", "launch", script),
    ]


def _smoke(
    module: Framework,
    plan: Plan,
    job: Job,
    rendered: Rendered,
    wiring: Wiring,
    resolved: Resolved,
    files: Sequence[Emitted],
) -> list[Emitted]:
    smoke = smoke_of(module, plan, job)
    judged = [file.path for file in files if file.role in smoke.judged_roles]
    arguments = ["--seq-class"] if plan.method == "rm" and smoke.reward_head else []
    if resolved.model.local_path:
        arguments += ["--tokenizer-from", resolved.model.local_path]
    context = {
        **_context(module, plan, job, rendered),
        "smoke": smoke,
        "judge_arguments": [*smoke.judge_arguments, *judged],
        "tiny_arguments": arguments,
        "checkpoint_arguments": checkpoint_arguments(smoke.trained or plan, job, smoke.layers),
        "data_override": not wiring.local or wiring.rows > 2000,
    }
    root = templates_root()
    plain = {f"smoke/{name}": root / "starter" / "smoke" / name for name in SMOKE_FILES}
    plain |= {f"smoke/{name}": root / path for name, path in smoke.files.items()}
    plain["smoke/judge.py"] = JUDGES / module.JUDGE
    config = json.dumps(dict(resolved.model.config), indent=2, ensure_ascii=False) + "\n"
    return [
        Emitted("smoke.sh", "smoke", render(f"{module.NAME}/smoke.sh.jinja", **context), True),
        Emitted("smoke/rows.jsonl", "smoke", as_lines(smoke_rows(wiring, plan))),
        Emitted("smoke/model_config/config.json", "smoke", config),
        *(Emitted(path, "smoke", source.read_text("utf-8")) for path, source in sorted(plain.items())),
    ]


def smoke_of(module: Framework, plan: Plan, job: Job) -> Smoke:
    """What the smoke run does and leaves out; no CPU runs a rollout engine."""
    smoke = module.smoke(plan, job)
    if plan.rollout_engine == "vllm" and not smoke.partial:
        smoke = replace(smoke, partial="the vLLM rollout: the model itself generated the answers")
    return smoke


def checkpoint_arguments(plan: Plan, job: Job, layers: Sequence[int]) -> list[str]:
    """What smoke/checkpoint.py must find trained: the modules with adapters, the layers, or everything."""
    arguments: list[str] = []
    if plan.uses_adapter:
        names = linear_module_names(job.model, plan.lora_targets)
        arguments += ["--adapter", *names, "--rank", str(plan.lora_rank)]
        arguments += ["--experts"] if "experts" in plan.lora_targets else []
        arguments += ["--magnitude"] if plan.tuning == "dora" else []
    elif plan.tuning == "freeze":
        named = ["--layers", *map(str, layers)] if layers else []
        arguments += named or ["--last-layers", str(plan.freeze_trainable_layers)]
    return [*arguments, "--head"] if plan.method == "rm" else arguments


def answers_text(answers: Mapping[str, Any], row: Ranked) -> str:
    """The answers as given, with the chosen framework: `advisor new --answers answers.yaml` repeats the run."""
    kept = {k: v for k, v in answers.items() if v is not None and k != "origins"} | {
        "framework": row.framework
    }
    head = f"# Written by advisor {__version__}. Run it again: advisor new DIR --answers answers.yaml\n"
    return head + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def roles(files: Sequence[Emitted]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sorted(files, key=lambda file: file.path):
        found.setdefault(file.role, []).append(file.path)
    return found


def advice_json(advice: Advice, row: Ranked, command: Sequence[str], files: Sequence[Emitted]) -> str:
    content = advice.as_dict()
    content["ranking"] = [other for other in content["ranking"] if other["framework"] == row.framework]
    content |= {
        "framework": row.framework,
        "version": row.version,
        "plan": row.plan.as_dict(),
        "command": list(command),
        "files": roles([*files, Emitted("advice.json", "report", "")]),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _readme(
    advice: Advice,
    row: Ranked,
    job: Job,
    module: Framework,
    command: Sequence[str],
    files: Sequence[Emitted],
    rendered: Rendered,
) -> str:
    return render(
        "starter/README.md.jinja",
        row=row,
        advice=advice,
        resolved=advice.resolved,
        plan=row.plan,
        job=job,
        name=module.NAME,
        command=tuple(command),
        described=describe(row.plan),
        has={file.path for file in files},
        documents=rendered.documents,
        version=__version__,
    )
