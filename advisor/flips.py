"""What would admit a rejected framework: single changes of the request, each found by planning again.

Nothing is guessed: a change is named only when the framework then ranks, with the memory its plan takes. The
changes tried are few, and chosen by why the framework was rejected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advisor.alternatives import PLAN_PINS, asked_for, gpus_text, grown, least_times
from advisor.errors import InputError
from advisor.judging import Ranked, Rejected, search_all, time_of
from advisor.planner.order import Candidate
from advisor.planner.pools import NO_ENGINE
from advisor.planner.search import Searcher
from advisor.request import parse_request
from advisor.resolve import Resolved, resolve
from advisor.rules import Policy

MOST_FLIPS = 2
MOST_SEARCHES = 5
"""For each framework; a request that the framework's tables refuse at once does not count."""

TUNINGS = {"full": ("lora", "qlora"), "freeze": ("full", "lora", "qlora"), "lora": ("qlora", "full"),
           "dora": ("lora", "qlora"), "qlora": ("lora", "full"), "auto": ("full",)}  # fmt: skip
"""The other tunings, the nearest first."""

LIGHTER = {"full": ("lora", "qlora"), "freeze": ("lora", "qlora"), "lora": ("qlora",), "dora": ("qlora",)}
"""The tunings that take less memory."""

METHODS = {
    "ppo": ("grpo", "rloo"), "grpo": ("rloo", "ppo", "dpo", "sft"), "dapo": ("grpo", "gspo"), "gspo": ("grpo", "dapo"),
    "dr-grpo": ("grpo", "rloo"), "rloo": ("grpo",), "reinforce++": ("grpo", "rloo"), "ipo": ("dpo",),
    "orpo": ("dpo", "simpo"), "simpo": ("cpo", "orpo", "dpo"), "cpo": ("simpo", "dpo"), "kto": ("dpo",),
    "gkd": ("sft",), "dpo": ("simpo", "orpo"),
}  # fmt: skip
"""Methods for the same end. Whether the data serves them is looked up, not assumed."""

OTHER_DATA = {("grpo", "dpo"), ("grpo", "sft"), ("kto", "dpo")}
"""Pairs that learn from differently shaped rows: offered only for data that was read and serves both."""

LIMITS = {"fit.max-hours": "max_hours", "fit.max-cost": "max_cost"}


@dataclass(frozen=True, slots=True)
class _Try:
    text: str
    request: Mapping[str, Any]


class Flipper:
    """Plans changed requests; frameworks that try the same change share its estimates."""

    def __init__(self, resolved: Resolved, policy: Policy) -> None:
        self.resolved = resolved
        self.policy = policy
        self.asked = asked_for(resolved)
        self.searchers: dict[str, Searcher | None] = {}

    def flips(self, row: Rejected) -> tuple[str, ...]:
        """The smallest changes that admit this framework; none where no change tried does."""
        found: list[str] = []
        searches = 0
        for lever in self._levers(row):
            for change in lever:
                if searches >= MOST_SEARCHES:
                    return tuple(found)
                ranked, searched = self._plan(change, row.framework)
                searches += searched
                if ranked:
                    found.append(f"{change.text}: {_room(ranked)}")
                    break
            if len(found) == MOST_FLIPS:
                break
        return tuple(found)

    def _plan(self, change: _Try, framework: str) -> tuple[Ranked | None, bool]:
        """The framework's row under this change, and whether that took a search."""
        if change.text not in self.searchers:
            self.searchers[change.text] = self._searcher(change.request)
        searcher = self.searchers[change.text]
        if searcher is None:
            return None, False
        before = searcher.examined
        ranking, _ = search_all(searcher.resolved, self.policy, searcher, framework)
        return ranking[0] if ranking else None, searcher.examined > before

    def _searcher(self, request: Mapping[str, Any]) -> Searcher | None:
        try:
            return Searcher(resolve(parse_request(request)))
        except InputError:
            return None

    def _levers(self, row: Rejected) -> Iterator[Iterator[_Try]]:
        rules = {reason.rule for reason in row.reasons}
        if rules & {"gate.pinned", "gate.avoided"}:
            yield self._gates(row.framework)
            return
        if rules & set(LIMITS):
            yield self._raised(rules, row.closest, row.framework)
            yield self._more_gpus(1.0)
            return
        yield self._pins()
        if row.closest is None or "planner.memory" not in rules:
            if NO_ENGINE in rules:
                yield self._more_gpus(1.0)
            yield self._quantization()
            yield self._tuning(TUNINGS)
            yield self._method()
            return
        yield self._host(row.closest)
        yield self._tuning(LIGHTER)
        yield self._shorter(row.closest)
        yield self._more_gpus(least_times(row.closest))
        yield self._bigger_gpu(row.closest)

    def _with(self, text: str, **changes: Any) -> _Try:
        kept = {**self.asked, **changes}
        return _Try(text, {name: value for name, value in kept.items() if value is not None})

    def _gates(self, framework: str) -> Iterator[_Try]:
        pin, avoided = self.asked.get("framework"), tuple(self.asked.get("avoid", ()))
        if pin and pin != framework:
            yield self._with(f"without --framework {pin}", framework=None, framework_version=None)
        elif framework in avoided:
            rest = tuple(name for name in avoided if name != framework) or None
            yield self._with(f"without --avoid {framework}", avoid=rest)

    def _raised(self, rules: set[str], closest: Candidate | None, framework: str) -> Iterator[_Try]:
        """The limit that this framework's plan would keep, to two digits and rounded up."""
        if closest is None:
            return
        time = time_of(self.resolved, closest.plan, framework)
        needed = {"max_hours": time.hours, "max_cost": time.cost}
        broken = [field for rule, field in LIMITS.items() if rule in rules]
        limits = {field: _round_up(value) for field in broken if (value := needed[field]) is not None}
        if limits:
            flags = " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in limits.items())
            yield self._with(flags, **limits)

    def _pins(self) -> Iterator[_Try]:
        pins = [
            name for name in (*PLAN_PINS, "precision", "optimizer") if self.asked.get(name, "auto") != "auto"
        ]
        for name in pins:
            yield self._with(f"without --{name.replace('_', '-')} {_plain(self.asked[name])}", **{name: None})
        if len(pins) > 1:
            yield self._with("without any pinned part of the plan", **dict.fromkeys(pins))

    def _quantization(self) -> Iterator[_Try]:
        if self.asked.get("quantization", "none") != "none" and self.asked.get("tuning") != "qlora":
            yield self._with("quantization none", quantization="none")

    def _tuning(self, others: Mapping[str, Sequence[str]]) -> Iterator[_Try]:
        for tuning in others.get(str(self.asked.get("tuning", "auto")), ()):
            quantization = self.asked.get("quantization") if tuning == "qlora" else None
            yield self._with(f"tuning {tuning}", tuning=tuning, quantization=quantization)

    def _method(self) -> Iterator[_Try]:
        now = str(self.resolved.request.method)
        local = bool(self.resolved.datasets) and all(dataset.local for dataset in self.resolved.datasets)
        for method in METHODS.get(now, ()):
            if method == "ppo" and "reward_model" not in self.asked:
                continue
            if local or (now, method) not in OTHER_DATA:
                yield self._with(f"method {method}", method=method)

    def _shorter(self, closest: Candidate) -> Iterator[_Try]:
        terms = closest.memory.terms
        lasting = sum(terms[name] for name in ("weights", "gradients", "optimizer", "reference", "rollout"))
        if lasting >= closest.memory.capacity_gib:
            return
        request = self.resolved.request
        field = "response_len" if closest.plan.online else "seq_len"
        length = int(getattr(request, field) or 0)
        for shorter in (length // 2, length // 4):
            if shorter >= 512:
                yield self._with(f"{field} {shorter}", **{field: shorter})

    def _more_gpus(self, least: float) -> Iterator[_Try]:
        """Twice as many at a time, from the least that could do."""
        start = 2 ** max(1, math.floor(math.log2(least)))
        for factor in (start, 2 * start, 4 * start):
            shape = grown(self.resolved.cluster, factor)
            if shape and shape[0] <= 65536:
                yield self._with(gpus_text(*shape), nodes=shape[0], gpus_per_node=shape[1])

    def _bigger_gpu(self, closest: Candidate) -> Iterator[_Try]:
        memory = closest.memory
        if memory.total > memory.capacity_gib:
            for share in (1.0, 1.1):
                size = math.ceil(share * memory.total)
                yield self._with(f"GPUs of {size} GiB", gpu_memory_gib=float(size))

    def _host(self, closest: Candidate) -> Iterator[_Try]:
        memory = closest.memory
        if memory.total <= memory.capacity_gib and memory.host_gib > memory.host_capacity_gib:
            size = math.ceil(memory.host_gib)
            yield self._with(f"{size} GiB of host memory a node", cpu_memory_gib=float(size))


def with_flips(resolved: Resolved, policy: Policy, rejected: Sequence[Rejected]) -> tuple[Rejected, ...]:
    """The rows again, each with what would admit it."""
    flipper = Flipper(resolved, policy)
    return tuple(replace(row, flips=flipper.flips(row)) for row in rejected)


def _room(row: Ranked) -> str:
    memory = row.memory
    return f"{memory.fits} at {memory.total:.0f} of {memory.capacity_gib:.0f} GiB a GPU"


def _round_up(value: float) -> float:
    """To two digits, never down: a plan of 30.4 hours needs a limit of 31."""
    digits = 10 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / digits) * digits:.2g}")


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
