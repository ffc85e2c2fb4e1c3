"""What online RL would gain by generating one step ahead of training, on GPUs of its own.

The search does not choose that unasked: the policy then trains on answers of the step before, which is another
algorithm. Here the request is planned again as if it had been asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.alternatives import asked_for
from advisor.judging import Ranked, search_all
from advisor.plan import ONLINE_RL
from advisor.planner.search import Searcher
from advisor.request import parse_request
from advisor.resolve import Resolved, resolve
from advisor.rules import Policy, allowed_values, load_framework

AHEAD = "separate-async"


def gained_ahead(resolved: Resolved, policy: Policy, ranking: Sequence[Ranked]) -> tuple[str, ...]:
    """For each framework that can and would be faster so, the flag and the seconds."""
    request = resolved.request
    if request.method not in ONLINE_RL or request.rollout_gpus or request.rollout_placement != "auto":
        return ()
    able = [row for row in ranking if _can(row)]
    if not able or resolved.cluster.world_size == 1:
        return ()
    other = resolve(parse_request({**asked_for(resolved), "rollout_placement": AHEAD}))
    searcher, found = Searcher(other), list[str]()
    for row in able:
        again, _ = search_all(other, policy, searcher, row.framework)
        before, after = _seconds(row), _seconds(again[0]) if again else None
        if before and after and after < before:
            found.append(
                f"--rollout-placement {AHEAD}: {row.framework} {after:.3g} s a step instead of {before:.3g}, trained on "
                "answers that are a step old"
            )
    return tuple(found)


def _can(row: Ranked) -> bool:
    allowed = allowed_values(load_framework(row.framework), "rollout_placement", row.plan.as_dict())
    return allowed is None or AHEAD in allowed


def _seconds(row: Ranked) -> float | None:
    return row.time.extra.get("seconds_per_step")
