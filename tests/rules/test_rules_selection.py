"""The policy: the shipped rules decide as the seed says, and a house can add, outweigh and leave out."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from advisor.rules import (
    APPLIES,
    PASSES,
    UNDECIDED,
    Policy,
    Scope,
    evaluate,
    load_policy,
    reasons,
    rejections,
    score,
    warnings,
)
from advisor.rules.names import ROOTS, examples

FRAMEWORKS = ("trl", "axolotl", "llamafactory", "ms-swift", "unsloth", "verl")


def situation(framework: str, changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    facts = examples(tuple(ROOTS))
    for path, value in {"framework.name": framework, **changes}.items():
        root, name = path.split(".", 1)
        facts[root][name] = value
    return facts


def best(policy: Policy, changes: dict[str, Any], **per_framework: dict[str, Any]) -> set[str]:
    """The frameworks with the highest score among those no gate rejects."""
    scores: dict[str, float] = {}
    for name in FRAMEWORKS:
        facts = situation(name, changes | per_framework.get(name.replace("-", "_"), {}))
        judgements = evaluate(policy, Scope(**facts))
        if not rejections(judgements):
            scores[name] = score(judgements)
    return {name for name, points in scores.items() if points == max(scores.values())}


SMALL_GPU = {"cluster.world_size": 1, "cluster.gpus_per_node": 1, "cluster.gpu_memory_gib": 23.6}
LARGE = {
    "model.billions": 235.1,
    "model.moe": True,
    "plan.tuning": "full",
    "cluster.nodes": 16,
    "cluster.world_size": 128,
}


@pytest.mark.parametrize(
    ("changes", "winners"),
    [
        ({}, {"axolotl", "llamafactory"}),
        (SMALL_GPU, {"unsloth"}),
        ({"request.method": "grpo"}, {"verl"}),
        ({"request.method": "grpo", "request.avoid": ["verl"]}, {"axolotl", "llamafactory"}),
        ({"request.framework": "trl"}, {"trl"}),
        ({"request.avoid": ["axolotl"]}, {"llamafactory"}),
        ({"model.vision": True}, {"llamafactory"}),
        ({"request.launcher": "skypilot"}, {"axolotl"}),
        ({"request.method": "grpo", "request.prefer": "simplicity"}, {"llamafactory"}),
        (
            {"request.method": "grpo", "request.prefer": "simplicity", "request.avoid": ["llamafactory"]},
            {"trl", "unsloth"},
        ),
        ({"request.prefer": "stability"}, {"axolotl"}),
        ({"request.prefer": "simplicity"}, {"llamafactory"}),
        ({**SMALL_GPU, "request.prefer": "memory"}, {"unsloth"}),
        ({**SMALL_GPU, "request.prefer": "stability"}, {"axolotl"}),
    ],
)
def test_who_wins(changes: dict[str, Any], winners: set[str]) -> None:
    assert best(load_policy(), changes) == winners


def test_megatron_for_a_large_mixture_over_several_nodes() -> None:
    megatron = {"plan.backend": "megatron"}
    assert best(load_policy(), LARGE, ms_swift=megatron, verl=megatron) == {"ms-swift"}


def test_without_the_seed_rule_another_wins() -> None:
    policy = load_policy()
    rules = tuple(rule for rule in policy.rules if rule.id != "seed.rl-heart")
    online = {"request.method": "grpo"}
    assert best(policy, online) == {"verl"}
    assert best(Policy(rules), online) == {"axolotl", "llamafactory"}
    nothing = Policy(tuple(rule for rule in rules if not rule.id.startswith("seed.")))
    assert best(nothing, {}) == set(FRAMEWORKS)


HOUSE = """\
title: Ours
without: [seed.start-documented]
rules:
  - id: house.trl
    title: We know TRL
    when: framework.name == "trl"
    effect: prefer
    weight: 50
    because: Our scripts are written for it.
    source: https://example.org/wiki
    cases:
      applies: [{framework.name: trl}]
      passes: [{framework.name: verl}]
"""


def test_house_rules_are_loaded_after(tmp_path: Path) -> None:
    path = tmp_path / "house.yaml"
    path.write_text(HOUSE, encoding="utf-8")
    policy = load_policy([path])
    assert policy.rules[-1].id == "house.trl"
    assert policy.rules[-1].file == str(path)
    assert "seed.start-documented" not in {rule.id for rule in policy.rules}
    assert best(policy, {}) == {"trl"}
    # The shipped policy itself is untouched.
    assert "seed.start-documented" in {rule.id for rule in load_policy().rules}


def test_two_house_files_may_not_share_an_id(tmp_path: Path) -> None:
    paths = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for path in paths:
        path.write_text(HOUSE.replace("without: [seed.start-documented]\n", ""), encoding="utf-8")
    with pytest.raises(Exception, match=r"two\.yaml:3: id 'house\.trl' is taken by .*one\.yaml:3"):
        load_policy(paths)


def test_every_rule_is_in_the_trace_with_its_outcome() -> None:
    policy = load_policy()
    facts = situation("axolotl", {"cluster.gpu_memory_gib": None, "memory.fits": None})
    judged = {j.rule.id: j for j in evaluate(policy, Scope(**facts))}
    assert list(judged) == [rule.id for rule in policy.rules]
    assert judged["seed.start-documented"].outcome == APPLIES
    assert judged["gate.avoided"].outcome == PASSES
    assert judged["fit.no"].outcome == UNDECIDED
    assert not judged["fit.no"].rejects
    assert [reason.rule for reason in warnings(judged.values())] == ["fit.no"]
    assert "not decided, memory.fits not known" in warnings(judged.values())[0].because
    assert reasons(judged.values())[0].rule == "seed.start-documented"


def test_gates_give_their_reasons() -> None:
    facts = situation("trl", {"request.framework": "verl", "request.avoid": ["trl"], "memory.fits": "no"})
    judged = evaluate(load_policy(), Scope(**facts))
    assert {reason.rule for reason in rejections(judged)} == {"gate.pinned", "gate.avoided", "fit.no"}
    assert all(reason.because and reason.source for reason in rejections(judged))


def test_facts_are_unchanged_after_a_run() -> None:
    facts = situation("trl", {"request.avoid": ["verl"]})
    before = deepcopy(facts)
    evaluate(load_policy(), Scope(**facts))
    assert facts == before
