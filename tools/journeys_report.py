"""Write docs/journeys.md anew: our plan beside the published one, for models of 235 and 671 billion parameters.

    python tools/journeys_report.py

The requests and the published plans stand in tests/journeys.py; a quick test fails when the page is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "journeys.md"

from advisor.advise import advise  # noqa: E402 - the checkout is not installed where this runs
from advisor.planner.order import describe  # noqa: E402
from advisor.request import parse_request  # noqa: E402
from advisor.starter.build import needs_preparing  # noqa: E402
from tests.journeys import JOURNEYS, Journey  # noqa: E402

if TYPE_CHECKING:
    from advisor.advise import Advice
    from advisor.judging import Ranked

HEAD = """# Journeys: models of 235 and 671 billion parameters

Written by `python tools/journeys_report.py`; a test fails when this page is stale. GiB = 2^30 bytes, GB = 10^9.
What people published is quoted beside what `advisor recommend` plans for the same hardware; none of these plans
was run here. The requests, the published degrees and their sources stand in `tests/journeys.py`.
"""


def command(journey: Journey) -> str:
    """The request as flags."""
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in journey.request.items()]
    return "advisor recommend " + " ".join(flags)


def _prepare(advice: Advice) -> str:
    model = advice.resolved.model
    bf16 = 2 * model.total_parameters / 1e9
    if needs_preparing(advice.resolved):
        return (
            f"`prepare_model.sh` downloads FP8 and writes the bf16 copy: about {1.5 * bf16:,.0f} GB of disk"
        )
    return f"none: published in {model.native_dtype}; the download takes {bf16:,.0f} GB of disk"


def _rollout(row: Ranked) -> str:
    plan = row.plan
    if plan.rollout_engine != "vllm":
        return ""
    text = f"; vLLM TP{plan.rollout_tensor_parallel}"
    if plan.rollout_data_parallel > 1:
        text += f" DP{plan.rollout_data_parallel} EP{plan.rollout_expert_parallel}"
    text += f" in {plan.rollout_memory_fraction:.0%} of each GPU"
    return text + (", training state on the host meanwhile" if plan.rollout_offload else "")


def _speed(journey: Journey, row: Ranked) -> list[str]:
    published, ours = journey.published.tokens_per_second, row.time.tokens_per_second
    return [f"| tokens a second | {ours:.0f} | {published:g} |"] if published and ours else []


def _section(journey: Journey) -> str:
    advice = advise(parse_request(journey.request))
    row = advice.best
    if row is None:
        raise SystemExit(f"{journey.name}: nothing fits")
    memory, published = row.memory, journey.published
    theirs = [f"{published.gpu_gib:g} GB" if published.gpu_gib else "not said"]
    theirs.append(f"{published.host_gb:,g} GB" if published.host_gb else "not said")
    lines = [
        f"## {journey.name}",
        "",
        "```bash",
        command(journey),
        "```",
        "",
        "| | ours | published |",
        "|---|---|---|",
        f"| plan | {row.framework} {row.version}: {describe(row.plan)}{_rollout(row)} | {published.plan} |",
        f"| memory of a GPU | {memory.total:.1f} of {memory.capacity_gib:.1f} GiB ({memory.low:.0f} to "
        f"{memory.high:.0f}), {memory.fits}, at the {memory.moment} | {theirs[0]} |",
        f"| host memory of a node | {memory.host_gib:,.0f} of {memory.host_capacity_gib:,.0f} GiB | {theirs[1]} |",
        *_speed(journey, row),
        f"| disk | a checkpoint to resume from: {memory.checkpoint_gib * 2**30 / 1e9:,.0f} GB | not said |",
        f"| before it starts | {_prepare(advice)} | |",
        "",
        f"{journey.differs} Source: {published.source}",
    ]
    return "\n".join(lines)


def page() -> str:
    """The whole page as it should be today."""
    return "\n\n".join([HEAD.rstrip(), *(_section(journey) for journey in JOURNEYS)]) + "\n"


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
