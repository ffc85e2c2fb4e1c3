"""docs/accuracy.md: runs known to fit and runs known to run out of memory, judged on their own hardware."""

from __future__ import annotations

from tests.accuracy.fits import Run, runs

INTRO = """{ran} published runs that are known to have fitted: {feasible} are called feasible (the likely figure is within
the card; `tight`: the high end is not). {oom} published cases of running out of memory: {caught} are called
tight or infeasible. The judgement is `advisor estimate` on the stated hardware; host memory is left out,
because few documents state it. "Longest" contexts come from one benchmark that names the longest sequence that
still ran: just below it must fit, well above it must not. Data: `tests/accuracy/fits.csv`."""

MISSED = """Missed: 8-bit LoRA of GLM-4.7-Flash with routed experts, for which the example's author projects 45 to 50 GiB.
What peft keeps when it adapts an expert tensor that bitsandbytes holds in 8 bit has not been traced."""


def _settings(run: Run) -> str:
    plan = run.plan
    parts = [f"{plan.method} {plan.tuning}", f"{plan.micro_batch_size} x {plan.seq_len}"]
    for name, degree in (
        ("TP", plan.tensor_parallel), ("PP", plan.pipeline_parallel), ("EP", plan.expert_parallel),
        ("CP", plan.context_parallel),
    ):  # fmt: skip
        parts += [f"{name}{degree}"] if degree > 1 else []
    if plan.fsdp:
        parts.append("FSDP2")
    elif plan.zero_stage and plan.backend == "hf":
        parts.append(f"ZeRO-{plan.zero_stage}")
    parts += [f"offload {plan.offload}"] if plan.offload != "none" else []
    return ", ".join(parts)


def _row(run: Run) -> str:
    memory = run.memory
    gpus = f"{run.plan.world_size} x {run.request['gpu']}"
    wrong = "" if run.right else " **wrong**"
    return (
        f"| {str(run.request['model']).removesuffix('.json')} | {_settings(run)} | {gpus} | {run.verdict}{wrong} | "
        f"{memory.total:.1f} ({memory.low:.1f} to {memory.high:.1f}) of {memory.capacity_gib:.1f} | {run.statement} | "
        f"{run.source} |"
    )


def lines() -> list[str]:
    ran = [run for run in runs() if run.ran]
    oom = [run for run in runs() if not run.ran]
    head = [
        "| model | settings | GPUs | verdict | ours, GiB per GPU | published | source |",
        "|---|---|---|---|---|---|---|",
    ]
    return [
        "## Known to fit, known to run out of memory",
        "",
        INTRO.format(
            ran=len(ran),
            feasible=sum(run.right for run in ran),
            oom=len(oom),
            caught=sum(run.right for run in oom),
        ),
        "",
        *head,
        *(_row(run) for run in ran),
        "",
        *head,
        *(_row(run) for run in oom),
        "",
        MISSED,
    ]


if __name__ == "__main__":
    print("\n".join(lines()))
