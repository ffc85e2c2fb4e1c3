"""The reverse questions: how few GPUs do it, how long a sequence fits, which is the largest model.

Each is answered by planning a ladder of requests; the answer is the ordinary advice for the one chosen, and the
ladder is shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.errors import InputError
from advisor.facts.models import ModelSummary, model_summaries
from advisor.judging import Ranked, search_all
from advisor.plan import ONLINE_RL
from advisor.planner.search import Searcher
from advisor.request import Request, parse_request
from advisor.resolve import resolve
from advisor.rules import Policy

MOST_NODES = 64
"""How many nodes are tried when nobody said how many there are."""
SHORTEST = 256
LARGER_TRIED = 3
"""Models above the first size that does not fit which are tried too: size is not all that counts."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One rung of the ladder."""

    changes: Mapping[str, Any]
    best: Ranked | None

    def as_dict(self) -> dict[str, Any]:
        row = self.best
        if row is None:
            return {**self.changes, "feasible": False}
        return {
            **self.changes,
            "feasible": True,
            "framework": row.framework,
            "gib_per_gpu": round(row.memory.total, 1),
            "hours": None if row.time.hours is None else float(f"{row.time.hours:.3g}"),
            "cost": None if row.time.cost is None else float(f"{row.time.cost:.3g}"),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked, the request that answers it, and what was tried. No answer: the nearest request."""

    question: str
    """`minimize` or `what_fits`."""
    what: str
    chosen: Mapping[str, Any] | None
    tried: tuple[Tried, ...]
    request: Request

    def as_dict(self) -> dict[str, Any]:
        chosen = None if self.chosen is None else dict(self.chosen)
        return {"what": self.what, "chosen": chosen, "tried": [row.as_dict() for row in self.tried]}


def answer(request: Request, policy: Policy) -> Answer | None:
    """The answer to the request's reverse question; None when it asks none. Raises InputError."""
    if request.minimize and request.what_fits:
        raise InputError("what_fits", "answer one reverse question at a time: drop --minimize or --what-fits")
    if request.minimize:
        return _smallest(request, policy) if request.minimize == "gpus" else _least(request, policy)
    if request.what_fits == "seq-len":
        return _longest(request, policy)
    return _largest(request, policy) if request.what_fits == "model" else None


class _Ladder:
    """Plans requests that differ in a few fields, and remembers them in the order tried."""

    def __init__(self, request: Request, policy: Policy) -> None:
        self.request = request
        self.policy = policy
        self.tried: list[Tried] = []

    def at(self, changes: Mapping[str, Any]) -> Tried:
        """The rung with these changes; one whose input is refused is not feasible."""
        known = next((row for row in self.tried if row.changes == changes), None)
        if known is None:
            known = Tried(changes, self._best(changes))
            self.tried.append(known)
        return known

    def _best(self, changes: Mapping[str, Any]) -> Ranked | None:
        try:
            resolved = resolve(self.changed(changes))
        except InputError:  # GPUs set aside to generate do not divide every cluster
            return None
        ranking, _ = search_all(resolved, self.policy, Searcher(resolved))
        return ranking[0] if ranking else None

    def changed(self, changes: Mapping[str, Any]) -> Request:
        return parse_request({**self.request.given(), **changes})

    def answer(self, question: str, what: str, found: Tried | None, otherwise: Mapping[str, Any]) -> Answer:
        request = self.changed(found.changes if found else otherwise)
        return Answer(question, what, found.changes if found else None, tuple(self.tried), request)


# --- sizes ----------------------------------------------------------------------------------------


def sizes(request: Request) -> list[dict[str, int]]:
    """Clusters up to the given one, smallest first: parts of a node, then whole nodes."""
    resolved = resolve(request)
    usual = resolved.cluster.gpu.gpus_per_node
    fewest = request.minimize == "gpus"
    per_node = request.gpus_per_node or usual
    nodes = request.nodes or (MOST_NODES if fewest else 1)
    parts = [{"nodes": 1, "gpus_per_node": gpus} for gpus in _steps(per_node)]
    return parts + [{"nodes": count, "gpus_per_node": per_node} for count in _steps(nodes) if count > 1]


def _steps(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and the end itself."""
    steps = {size for power in range(17) for size in (2**power, 3 * 2**power) if size < most}
    return sorted(steps | {most})


def _smallest(request: Request, policy: Policy) -> Answer:
    ladder, ways = _Ladder(request, policy), sizes(request)
    found = next((row for size in ways if (row := ladder.at(size)).best), None)
    return ladder.answer("minimize", "gpus", found, ways[-1])


def _least(request: Request, policy: Policy) -> Answer:
    what = str(request.minimize)
    ladder, ways = _Ladder(request, policy), sizes(request)
    rows = [row for size in ways if (row := ladder.at(size)).best]
    found = min(rows, key=lambda row: _spent(row, what), default=None)
    return ladder.answer("minimize", what, found, ways[-1])


def _spent(row: Tried, what: str) -> float:
    """Hours or GPU hours (one price for one card) for the same work, whatever its amount."""
    best = row.best
    if best is None or not best.time.tokens_per_second:
        reason = best.time.reason if best else "no plan"
        raise InputError("minimize", f"{what} cannot be compared: {reason}")
    gpus = best.plan.all_gpus if what == "cost" else 1
    return gpus * best.time.hours if best.time.hours is not None else gpus / best.time.tokens_per_second


# --- lengths --------------------------------------------------------------------------------------


def _longest(request: Request, policy: Policy) -> Answer:
    resolved = resolve(request)
    ladder = _Ladder(request, policy)
    generates = resolved.request.method in (*ONLINE_RL, "gkd")
    field = "response_len" if generates else "seq_len"
    taken = resolved.request.prompt_len or 0 if generates else 0
    given: int | None = getattr(request, field)
    most = given or max(SHORTEST, (resolved.model.max_positions or 131_072) - taken)
    rungs = [{field: length} for length in _steps(most) if length >= SHORTEST] or [{field: most}]
    return ladder.answer("what_fits", "seq-len", _last(rungs, ladder.at), rungs[0])


def _last(rungs: Sequence[Mapping[str, Any]], at: Callable[[Mapping[str, Any]], Tried]) -> Tried | None:
    """The last rung that is feasible, by halving: what fits at one rung fits at the ones before it."""
    low, high, found = 0, len(rungs), None
    while low < high:
        middle = (low + high) // 2
        row = at(rungs[middle])
        if row.best:
            found, low = row, middle + 1
        else:
            high = middle
    return found


# --- models ---------------------------------------------------------------------------------------


def _largest(request: Request, policy: Policy) -> Answer:
    ladder = _Ladder(request, policy)
    rungs = [{"model": row["id"]} for row in _by_size(request)]
    if not rungs:
        raise InputError("what_fits", "no model of the catalog is that small and takes that many tokens")
    found = _last(rungs, ladder.at)
    place = rungs.index(dict(found.changes)) if found else -1
    for rung in reversed(rungs[place + 1 : place + 1 + LARGER_TRIED]):
        if (row := ladder.at(rung)).best:
            found = row
            break
    return ladder.answer("what_fits", "model", found, rungs[0])


def _by_size(request: Request) -> list[ModelSummary]:
    """Catalog models, smallest first, one for each size; those named by mistake or too short are left out."""
    most = None
    if request.model:
        from advisor.facts.models import load_model

        most = load_model(request.model, offline=request.offline is not False).total_parameters
    sizes_seen: dict[int, ModelSummary] = {}
    for row in model_summaries():
        total = row["total"]
        if not total or (most and total > most) or (row["context"] or 0) < (request.seq_len or 0):
            continue
        if request.model and row["id"].lower() == request.model.lower():
            sizes_seen[total] = row
        sizes_seen.setdefault(total, row)
    return [sizes_seen[total] for total in sorted(sizes_seen)]
