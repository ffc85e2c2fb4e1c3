"""Sanity of the whole planner, for any request: memory, GPUs and lengths move the answer the right way.

What may make more GPUs slower is what the time model states: communication between them and the bubble of a
pipeline (`StepTime.communication`, `.bubble`); and, since plans that take the same time to within 2 % are told
apart by simplicity, that tolerance.
"""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from advisor.estimate.time import estimate_time
from advisor.judging import Ranked, search_all
from advisor.planner.search import Searcher
from advisor.request import parse_request
from advisor.resolve import resolve
from advisor.rules import load_policy

COARSE = 1.03
"""Plans within 2 % count as equally fast (planner); rounding of the comparison adds to it."""
BATCH = 128

MODELS = st.sampled_from(
    ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B"]
)
CARDS = st.sampled_from(["4090", "l40s", "a100-80gb", "h100"])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    online = draw(st.sampled_from([False, False, True]))
    lengths = (
        {"prompt_len": 512, "response_len": 512}
        if online
        else {"seq_len": draw(st.sampled_from([512, 4096]))}
    )
    return {
        "model": draw(MODELS),
        "gpu": draw(CARDS),
        "method": "grpo" if online else draw(st.sampled_from(["sft", "dpo"])),
        "tuning": draw(st.sampled_from(["full", "lora", "qlora"])),
        "gpus_per_node": draw(st.sampled_from([1, 2, 4])),
        "global_batch_size": BATCH,
        **lengths,
    }


def _best(request: dict[str, Any]) -> Ranked | None:
    resolved = resolve(parse_request(request))
    ranking, _ = search_all(resolved, load_policy(), Searcher(resolved))
    return ranking[0] if ranking else None


def _step(request: dict[str, Any], row: Ranked) -> tuple[float, float]:
    """(seconds, seconds of stated overheads) for one sequence."""
    resolved = resolve(parse_request(request))
    extra = estimate_time(resolved.model, row.plan, resolved.cluster, None, None).extra
    parts: dict[str, float] = extra["parts"]
    size = row.plan.global_batch_size
    return extra["seconds_per_step"] / size, (parts["communication"] + parts["bubble"]) / size


@settings(max_examples=12, deadline=None)
@given(requests(), st.sampled_from([1.25, 2.0, 4.0]), st.booleans())
def test_more_memory_never_makes_a_feasible_request_infeasible(
    request: dict[str, Any], times: float, host: bool
) -> None:
    assume(_best(request))
    resolved = resolve(parse_request(request))
    field = "cpu_memory_gib" if host else "gpu_memory_gib"
    more = times * getattr(resolved.cluster, field)
    assert _best({**request, field: more}), (field, more)


@settings(max_examples=12, deadline=None)
@given(requests())
def test_more_gpus_never_lengthen_the_best_time_beyond_the_stated_overheads(request: dict[str, Any]) -> None:
    few = _best(request)
    assume(few)
    assert few is not None
    twice = {**request, "gpus_per_node": 2 * request["gpus_per_node"]}
    many = _best(twice)
    assert many is not None
    before, _ = _step(request, few)
    after, overheads = _step(twice, many)
    assert after - overheads <= before * COARSE, (few.plan, many.plan)


@settings(max_examples=12, deadline=None)
@given(requests())
def test_a_longer_sequence_never_needs_less_memory(request: dict[str, Any]) -> None:
    """What fits at a length fits at half of it, and the same plan takes no less."""
    field = "response_len" if "response_len" in request else "seq_len"
    assume(_best(request))
    assert _best({**request, field: request[field] // 2})
