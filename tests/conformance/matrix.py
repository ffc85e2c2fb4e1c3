"""The matrix: a covering array of requests for one framework, and the starter repos it yields.

Every pair of levels that the framework's rules leave possible stands together in some request. The levels are
the choices of the request's own fields; the rules, the legality table and the reading of a request say which
levels go together, so what is generated follows them and repeats none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from advisor.advise import Advice
from advisor.errors import InputError
from advisor.facts.dataset import inspect
from advisor.facts.models import load_model
from advisor.frameworks import framework
from advisor.judging import search_all
from advisor.plan import LORA_TARGET_WORDS, Plan
from advisor.planner.fill import PLANNED
from advisor.planner.legality import illegal, stage_layers
from advisor.planner.pools import ALIKE
from advisor.planner.search import Searcher
from advisor.planner.space import hf_layouts, shardings, tunings
from advisor.request import PINS, Request, parse_request
from advisor.resolve import APART, resolve
from advisor.rules import (
    FrameworkRules,
    capability_refusals,
    describe_cluster,
    describe_model,
    load_framework,
    load_policy,
)
from advisor.rules.capabilities import allowed
from advisor.rules.expressions import APPLIES, Scope, decide
from advisor.rules.implied import implied_values
from advisor.rules.names import PLAN
from advisor.rules.types import Only
from advisor.starter.build import build
from advisor.starter.write import write_starter
from tests.conformance.covering import Array, Constraint, Row, covering_array
from tests.conformance.signature import digest, settings, signature
from tests.conformance.starters import DATA, answers_for, judge_all

Answers = dict[str, Any]
Case = Mapping[str, str]
"""Axis -> label of the level."""

WORLD = yaml.safe_load(Path(__file__).with_name("matrix.yaml").read_text("utf-8"))
OPEN = "open"
"""The level that leaves a field to the advisor."""


def choices(field: str) -> tuple[Any, ...]:
    """The values a field of the request may have."""
    return tuple(_literals(Request.model_fields[field].annotation))


def _literals(annotation: Any) -> Iterator[Any]:
    if annotation is bool:
        yield from (False, True)
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        yield from chain.from_iterable(map(_literals, get_args(annotation)))


def _levels(field: str, *, is_open: bool = True) -> dict[str, Answers]:
    found = {str(value): {field: value} for value in choices(field)}
    return {OPEN: {}, **found} if is_open else found


NEEDS: Mapping[str, Answers] = {"virtual_pipeline_parallel": {"pipeline_parallel": 2}}
"""What a degree has no meaning without."""


def _layouts() -> dict[str, Answers]:
    """How the model is spread: every ZeRO stage, FSDP2, copies under it, and every degree that the request knows, by
    twos."""
    degrees = [name for name in Request.model_fields if name.endswith("_parallel")]
    megatron = {"backend": "megatron"}
    found: dict[str, Answers] = {OPEN: {}}
    for stage in choices("zero"):
        found[f"zero-{stage}"] = {"backend": "hf", "zero": stage, "fsdp": False}
    sharded = {"fsdp": {"backend": "hf", "fsdp": True}, "zero-3": found["zero-3"]}
    found["fsdp"] = sharded["fsdp"]
    found["fsdp copies"] = {**sharded["fsdp"], "fsdp_replicas": 2}
    for degree in degrees:
        for label, spread in sharded.items():
            found[f"{label} {degree}"] = {**spread, degree: 2}
    found["megatron"] = megatron
    for degree in degrees:
        found[f"megatron {degree}"] = {**megatron, **NEEDS.get(degree, {}), degree: 2}
    grid = {**megatron, "tensor_parallel": 2, "pipeline_parallel": 2, "expert_parallel": 4}
    found["megatron grid"] = grid
    found["megatron split grid"] = {**grid, "virtual_pipeline_parallel": 2, "expert_tensor_parallel": 2}
    return found


def _recomputation() -> dict[str, Answers]:
    found = _levels("gradient_checkpointing")
    return found | {f"recompute {value}": {"recompute": value} for value in choices("recompute")}


@cache
def data_of_format() -> dict[str, str]:
    """Format of rows -> a file of the examples that holds it."""
    return {inspect(str(path)).format: str(path) for path in sorted(DATA.glob("*.jsonl"))}


def _places() -> dict[str, Answers]:
    """Rows that are copied, rows left where they are, and rows on a hub."""
    return {"copied": {}, "in place": {"data_in_place": True}, "hub": {"data": ["someone/rows"]}}


Axes = Mapping[str, Mapping[str, Answers]]
"""Axis -> label -> the answers it gives."""


@cache
def axes() -> Axes:
    """Every axis of the matrix with all its levels."""
    plain = (
        "precision",
        "optimizer",
        "attention",
        "liger",
        "compile",
        "activation_offload",
        "packing",
        "loss",
        "param_dtype",
        "master_weights",
    )
    return {
        "method": _levels("method", is_open=False),
        "tuning": {str(v): {"tuning": v} for v in choices("tuning") if v != "auto"},
        "quantization": _levels("quantization"),
        "layout": _layouts(),
        "model": {name: {"model": name} for name in chain.from_iterable(WORLD["models"].values())},
        "cluster": {f"{c['nodes']} x {c['gpus_per_node']} {c['gpu']}": dict(c) for c in WORLD["clusters"]},
        "rollout_placement": _levels("rollout_placement"),
        "offload": _levels("offload"),
        "recomputation": _recomputation(),
        **{name: _levels(name) for name in plain},
        "lora_targets": {OPEN: {}, **{word: {"lora_targets": word} for word in LORA_TARGET_WORDS}},
        "format": {name: {"data": [path], "data_format": name} for name, path in data_of_format().items()},
        "place": _places(),
        "tracker": _levels("tracker"),
        "launcher": _levels("launcher"),
        "hub": _levels("hub"),
    }


def expressible(name: str) -> Axes:
    """The axes without the fields that this framework has no key for; `lone_cases` asks those once each."""
    held = framework(name).TABLE.held
    return {
        axis: levels if held >= _unplanned(levels) else {OPEN: levels[OPEN]}
        for axis, levels in axes().items()
    }


def lone_cases(name: str) -> list[Case]:
    """One case for each level that `expressible` leaves out, all else open."""
    kept = expressible(name)
    first = {axis: next(iter(levels)) for axis, levels in axes().items()}
    return [
        {**first, axis: label}
        for axis, levels in axes().items()
        for label in levels
        if label not in kept[axis]
    ]


def _unplanned(levels: Mapping[str, Answers]) -> set[str]:
    """Plan fields of an axis that the search leaves to the framework's habits."""
    return {PINS[key] for answers in levels.values() for key in answers if key in PINS} - PLANNED


def answers_of(name: str, case: Case) -> Answers:
    """The request that a case asks."""
    given: Answers = {}
    for axis, label in case.items():
        given |= axes()[axis][label]
    return answers_for(name, **given)


# --- which levels go together -------------------------------------------------------------------

Fits = Callable[[Answers], bool]


def _constraint(on: tuple[str, ...], fits: Fits) -> Constraint:
    def judge(row: Row) -> bool:
        given: Answers = {}
        for axis, label in row.items():
            given |= axes()[axis][label]
        return fits(given)

    return Constraint(on, judge)


PLAN_FIELD = {**PINS} | {name: name for name in ("method", "nodes", "gpus_per_node")}
"""Request field -> plan field that it sets; tuning and quantization are settled together."""


def plan_values(answers: Answers) -> dict[str, Any]:
    """The plan fields that these answers settle."""
    found = {PLAN_FIELD[name]: value for name, value in answers.items() if name in PLAN_FIELD}
    if "tuning" in answers:
        asked = {name: answers[name] for name in ("tuning", "quantization", "method") if name in answers}
        found["tuning"], found["quantization"] = tunings(parse_request(asked))[0]
    if answers.get("fsdp"):
        found["zero_stage"] = 3
    if "lora_targets" in answers:
        found["lora_targets"] = (answers["lora_targets"],)
    return found


def _setting(*fields: str) -> tuple[str, ...]:
    """The axes that these plan fields hang on."""
    wanted = set(fields)
    if wanted & {"tuning", "quantization"}:
        wanted |= {"tuning", "quantization"}
    if wanted & {"world_size", "data_parallel", "global_batch_size"}:
        wanted |= {"nodes", "gpus_per_node"}
    found: list[str] = []
    for axis, levels in axes().items():
        settled = {PLAN_FIELD.get(key, key) for answers in levels.values() for key in answers}
        if "fsdp" in settled:
            settled.add("zero_stage")
        if settled & wanted:
            found.append(axis)
    return tuple(found)


def constraints(rules: FrameworkRules) -> list[Constraint]:
    """What the reading of a request, the planner's layouts and the framework's rules allow."""
    return [
        _constraint(("method", "format"), _is_readable),
        _constraint(("rollout_placement", "method", "cluster", "launcher"), _has_a_place),
        _constraint(("tuning", "quantization"), _is_readable),
        _constraint(("layout", "cluster", "model"), _is_legal),
        _constraint(("lora_targets", "tuning", "quantization", "model"), _is_legal),
        _constraint(("layout", "cluster", "offload"), _is_a_layout),
        *(
            _constraint(("optimizer", *axes), _projects)
            for axes in (
                ("tuning", "quantization"),
                ("layout", "cluster"),
                ("precision",),
                ("master_weights",),
            )
        ),
        _constraint(("offload", "layout", "tuning", "quantization", "cluster", "model"), _is_legal),
        _constraint(
            _setting("method", "tuning", "quantization", "backend"), lambda given: _is_cell(rules, given)
        ),
        *_restrictions(rules),
        *_keys(rules),
        *_limits(rules),
    ]


def _is_readable(given: Answers) -> bool:
    try:
        resolve(parse_request(answers_for("trl", **{"method": "sft", "data": None, **given})))
    except InputError:
        return False
    return True


def _has_a_place(given: Answers) -> bool:
    """Only what generates has a place; GPUs of its own where there are several, started by what tells them apart."""
    placement = given.get("rollout_placement")
    if placement in APART and (given["gpus_per_node"] == 1 or given.get("launcher") in ALIKE):
        return False
    return placement is None or _is_readable(given)


def _is_legal(given: Answers) -> bool:
    first = WORLD["clusters"][0]
    cluster = [given.get(name, first[name]) for name in ("gpu", "gpus_per_node", "nodes")]
    resolved = _resolved(given["model"], *cluster)
    values = plan_values(given)
    stages, chunks = (values.get(f"{kind}pipeline_parallel", 1) for kind in ("", "virtual_"))
    head, tail = stage_layers(resolved.model.layers, stages, chunks)
    plan = Plan(
        **{"lora_targets": ("all-linear",), "gradient_accumulation_steps": stages, **values},
        pipeline_first_layers=head,
        pipeline_last_layers=tail,
    )
    return not illegal(plan, resolved.model)


def _projects(given: Answers) -> bool:
    """Whether a low-rank optimizer may step what these axes settle, all else as it wants it."""
    plan = Plan(**{"tuning": "full", "gpus_per_node": 1, **plan_values(given)})
    return all(row.field != "optimizer" for row, _ in illegal(plan, load_model("Qwen/Qwen3-8B")))


def _is_a_layout(given: Answers) -> bool:
    """The planner tries such a spread: some stages and offloads do not go together."""
    values = plan_values(given)
    if values.get("backend") == "megatron":
        return values.get("offload", "none") in ("none", "optimizer")
    plan = Plan(nodes=values["nodes"], gpus_per_node=values["gpus_per_node"])
    pins = {k: v for k, v in values.items() if k not in ("nodes", "gpus_per_node", "backend")}
    return any(
        all(pins.get(field, value) == value for field, value in shape.items())
        for shape in hf_layouts(plan, pins)
    )


def _is_cell(rules: FrameworkRules, given: Answers) -> bool:
    values = plan_values(given)
    cell = {k: values[k] for k in ("method", "tuning", "quantization")}
    backends = (values["backend"],) if "backend" in values else ("hf", "megatron")
    return any(not capability_refusals(rules, Plan(**cell, backend=backend)) for backend in backends)


def _restrictions(rules: FrameworkRules) -> Iterator[Constraint]:
    """One for each field: all rows that restrict it must leave some backend."""
    for field in dict.fromkeys(row.field for row in rules.only):
        rows = [row for row in rules.only if row.field == field]
        if _setting(field):
            on = _setting(field, *(name for row in rows for name in row.match))
            yield _constraint(on, lambda given, rows=rows: _is_inside(rows, plan_values(given)))


def _keys(rules: FrameworkRules) -> Iterator[Constraint]:
    """Pinned number formats that the configuration has a key for, in some spread."""
    pinned = ("param_dtype", "master_weights")
    if all(len(expressible(rules.framework)[axis]) > 1 for axis in pinned):
        on = _setting(*pinned, "precision", "method", "tuning", "zero_stage", "offload")
        yield _constraint(on, lambda given: _has_keys(rules, plan_values(given)))


def _has_keys(rules: FrameworkRules, values: Mapping[str, Any]) -> bool:
    table = framework(rules.framework).TABLE
    for spread in _spreads(values):
        start = Plan(**{**values, **spread}).normalised()
        habits = {
            k: v for k, v in implied_values(rules, start).items() if k not in values and k not in spread
        }
        plan = replace(start, **habits)
        if not table.inexpressible(plan, lambda p: implied_values(rules, p), rules.version):
            return True
    return False


def _is_inside(rows: Sequence[Only], values: Mapping[str, Any]) -> bool:
    backends = (values["backend"],) if "backend" in values else ("hf", "megatron")
    return any(all(_holds(row, {**values, "backend": b}) for row in rows) for b in backends)


def _holds(row: Only, values: Mapping[str, Any]) -> bool:
    """An undecided match restricts nothing yet."""
    if row.field not in values:
        return True
    matches = all(f in values and allowed(values[f], choice) for f, choice in row.match.items())
    return not matches or allowed(values[row.field], row.values)


def _limits(rules: FrameworkRules) -> Iterator[Constraint]:
    for row in rules.limits:
        named = set(re.findall(r"\bplan\.(\w+)", row.when))
        habitual = named - PLANNED
        wider = named | {f for habit in rules.habits if habitual & habit.set.keys() for f in habit.match}
        involved = _setting(*wider) if _setting(*named) else ()
        roots = (("model", "model."), ("cluster", "cluster."))
        extra = tuple(axis for axis, root in roots if root in row.when and axis not in involved)
        if involved or extra:
            yield _constraint(
                (*involved, *extra),
                lambda given, row=row, habitual=habitual: _is_possible(rules, row.when, given, habitual),
            )


def _is_possible(rules: FrameworkRules, when: str, given: Answers, habitual: set[str]) -> bool:
    """Some spread that the answers leave open escapes the limit; what stays unknown does not refuse.

    Fields that the search leaves to the framework's habits are what those give.
    """
    values, facts = plan_values(given), _facts(given)
    for spread in _spreads(values):
        settled = {**values, **spread}
        implied = implied_values(rules, Plan(**settled).normalised())
        own = {name: implied.get(name, getattr(Plan(), name)) for name in habitual - settled.keys()}
        if not _applies(when, {**settled, **own}, facts):
            return True
    return False


def _spreads(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the planner may choose where the answers leave the sharding open."""
    names = ("zero_stage", "fsdp", "offload")
    if values.get("backend") == "megatron":
        yield {}
        return
    for row in shardings(values):
        spread = dict(zip(names, row))
        if all(values.get(name, value) == value for name, value in spread.items()):
            yield spread
    if "backend" not in values:
        yield {"backend": "megatron"}


def _applies(when: str, values: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> bool:
    plan: dict[str, Any] = dict.fromkeys(PLAN) | dict(values)
    if "lora_targets" in values:
        plan["lora_targets"] = list(values["lora_targets"])
    if "nodes" in values:
        plan["world_size"] = values["nodes"] * values["gpus_per_node"]
    return decide(when, Scope(plan=plan, framework={}, **facts)).outcome == APPLIES


def _facts(given: Answers) -> dict[str, Mapping[str, Any]]:
    """The model's and the cluster's, where the answers name them."""
    first = WORLD["clusters"][0]
    cluster = {name: given.get(name, first[name]) for name in ("gpu", "gpus_per_node", "nodes")}
    resolved = _resolved(given.get("model", next(iter(axes()["model"]))), *cluster.values())
    return {
        "model": describe_model(resolved.model) if "model" in given else {},
        "cluster": describe_cluster(resolved.cluster) if "gpu" in given else {},
    }


@cache
def _resolved(model: str, gpu: str, gpus_per_node: int, nodes: int) -> Any:
    return resolve(
        parse_request(
            {"model": model, "gpu": gpu, "gpus_per_node": gpus_per_node, "nodes": nodes, "method": "sft"}
        )
    )


# --- the array ----------------------------------------------------------------------------------


def array(name: str, seed: int = 0) -> Array:
    """A pairwise covering array of one framework; each seed gives another, always the same one."""
    levels = {axis: list(labels) for axis, labels in expressible(name).items()}
    return covering_array(levels, constraints(load_framework(name)), seed)


# --- what comes out -----------------------------------------------------------------------------

JUDGED_ROLES = ("config", "accelerate", "deepspeed", "fsdp")


@dataclass(frozen=True)
class Outcome:
    """What the advisor made of one case: a starter repo, or the reason why not."""

    case: Case
    answers: Answers
    folder: Path | None
    cause: str
    """Id of the rule, or field of the request, that refused it; "": emitted."""
    files: tuple[Path, ...] = ()
    """The configuration, as the judge reads it."""
    signature: str = ""
    """Names of the keys and every enumerated value; no rates, sizes, ids, paths, seeds or names."""
    digest: str = ""
    """Of all keys and values."""
    problems: tuple[str, ...] = ()
    """What the framework's judge says against it."""

    @property
    def given(self) -> dict[str, str]:
        """The levels that the case sets."""
        return {axis: label for axis, label in self.case.items() if label != OPEN}

    @property
    def accepted(self) -> bool:
        return not self.cause and not self.problems


def outcome(name: str, case: Case, folder: Path) -> Outcome:
    """Puts a case to the advisor, as `advisor new` does, and writes the starter repo."""
    answers = answers_of(name, case)
    try:
        advice = advice_of(name, answers)
        if advice.best is None:
            return Outcome(case, answers, None, advice.rejected[0].reasons[0].rule)
        write_starter(folder, build(advice, advice.best, answers), force=False)
    except InputError as error:
        return Outcome(case, answers, None, f"input: {error.field}")
    roles = json.loads((folder / "advice.json").read_text("utf-8"))["files"]
    files = tuple(folder / path for role in JUDGED_ROLES for path in roles.get(role, []))
    found = sorted(item for file in files for item in settings(file))
    return Outcome(case, answers, folder, "", files, signature(found), digest(found))


def advice_of(name: str, answers: Answers) -> Advice:
    """The advice about one framework alone, without alternatives."""
    resolved = resolve(parse_request(answers))
    ranking, rejected = search_all(resolved, load_policy([]), Searcher(resolved), only=name)
    return Advice(resolved, tuple(ranking), tuple(rejected), (), (), {})


# --- the whole of it ----------------------------------------------------------------------------

MOST_ARRAYS = 12


@dataclass(frozen=True)
class Matrix:
    """All cases of one framework, judged."""

    framework: str
    outcomes: tuple[Outcome, ...]
    arrays: int
    pairs: int
    """Pairs of levels there are."""
    possible: int
    """Those that the constraints leave; each stands in a case of every array."""


def judged_matrix(name: str, folder: Path, wanted: int) -> Matrix:
    """Covering arrays, one after the other, until `wanted` emitted cases differ; all judged in one process."""
    outcomes = [outcome(name, case, folder / f"lone-{n:03d}") for n, case in enumerate(lone_cases(name))]
    first = array(name)
    for seed in range(MOST_ARRAYS):
        rows = first.rows if seed == 0 else array(name, seed).rows
        outcomes += [outcome(name, case, folder / f"{seed:02d}-{n:03d}") for n, case in enumerate(rows)]
        if len({case.signature for case in outcomes if not case.cause}) >= wanted:
            break
    found = judge_all(name, [case.folder for case in outcomes if case.folder])
    judged = [replace(case, problems=_said(case, found)) for case in outcomes]
    return Matrix(name, tuple(judged), seed + 1, first.pairs, first.possible)


def _said(case: Outcome, found: Mapping[str, list[str]]) -> tuple[str, ...]:
    return tuple(problem for file in case.files for problem in found[str(file)])
