"""`advisor explain`: what a word means here, when to use it, what it costs, and where that comes from."""

from __future__ import annotations

import ast
import difflib
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from advisor import plan as plan_module
from advisor.cli.common import OUTPUTS, print_data
from advisor.cli.terms import Term, find, spelled, term_names, term_of, terms
from advisor.errors import InputError
from advisor.plan import Plan

WIDTH = 100
PLAN_FILE = "advisor/plan.py"
REQUEST_FILE = "advisor/request.py"


@click.command()
@click.argument("topic", nargs=-1)
@click.option("--params", metavar="P", default="100e9", help="Parameters for `explain memory`: 100e9, 8B.")
@click.option(
    "--for",
    "plan_of",
    metavar="PATH",
    help="A starter repo, an advice or an answers file: says what it is there.",
)
@click.option("--output", type=OUTPUTS, default="text", show_default=True, help="Form of the answer.")
def explain(topic: tuple[str, ...], params: str, plan_of: str | None, output: str) -> int:
    """A term, plan field, request field, method, rule or capability id; `memory` for the rule of thumb.

    With --for the answer says what the topic is in that plan, in its numbers. Without TOPIC: the list of topics.
    """
    word = " ".join(topic)
    if not word:
        _print({"topics": topics()}, output, _topics_text)
        return 0
    if spelled(word) == "memory":
        from advisor.estimate.rule_of_thumb import rule_of_thumb

        _print(rule_of_thumb(parameter_count(params)), output, _memory_text)
        return 0
    found = list(entries(word))
    if not found:
        raise InputError("topic", f"{word!r} is not known{_close(word)}; advisor explain lists the topics")
    if plan_of:
        found = _applied(found, Path(plan_of))
    _print({"topic": word, "entries": found}, output, _entries_text)
    return 0


def _applied(entries: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Each entry with `here`: what it is in the plan of that path."""
    from advisor.cli.applied import about_field, about_term, load_plan

    here = load_plan(path)
    applied: list[dict[str, Any]] = []
    for entry in entries:
        if entry["kind"] == "term":
            lines = about_term(here, terms()[entry["id"]])
        elif entry["kind"] == "plan field":
            lines = list(about_field(here, entry["id"]))
        else:
            lines = list[str]()
        applied.append({**entry, "here": lines} if lines else entry)
    return applied


def _print(data: dict[str, Any], output: str, as_text: Any) -> None:
    if output == "text":
        click.echo(as_text(data))
    else:
        print_data(data, output)


def entries(topic: str) -> Iterator[dict[str, Any]]:
    """Everything of that name: term, plan field, request field, rule or row of a framework's rules."""
    term = find(topic)
    if term is not None:
        yield _term(term)
    field = spelled(topic).replace("-", "_")
    yield from _plan_field(field)
    yield from _request_field(field)
    yield from _rule(topic.strip())


def _term(term: Term) -> dict[str, Any]:
    """What people read; which plan fields it is about is for `--for`."""
    return {"kind": "term", **{key: value for key, value in term.items() if key not in ("fields", "is")}}


# --- fields ---------------------------------------------------------------------------------------


def plan_docs() -> dict[str, str]:
    """Plan field -> the string below it."""
    tree = ast.parse(Path(str(plan_module.__file__)).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Plan")
    docs: dict[str, str] = {}
    for node, after in pairwise(body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[node.target.id] = " ".join(str(after.value.value).split())
    return docs


def _plan_field(name: str) -> Iterator[dict[str, Any]]:
    docs = plan_docs()
    if name not in docs:
        return
    field = next(field for field in fields(Plan) if field.name == name)
    default = None if field.default is MISSING else field.default
    term = term_of(name)
    yield {
        "kind": "plan field",
        "id": name,
        "what": docs[name],
        **({"use": term["use"], "cost": term["cost"], "see": [term["id"]]} if term else {}),
        "default": list(default) if isinstance(default, tuple) else default,
        "source": PLAN_FILE,
    }


def _request_field(name: str) -> Iterator[dict[str, Any]]:
    from advisor.request import Request

    if name not in Request.model_fields:
        return
    field = Request.model_fields[name]
    schema = Request.model_json_schema()["properties"][name]
    options = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    limits = {key: options[0][key] for key in _LIMITS if key in options[0]}
    flag = name.replace("_", "-")
    yield {
        "kind": "request field",
        "id": name,
        "what": field.description or "",
        "flag": f"--{flag}/--no-{flag}" if options[0].get("type") == "boolean" else f"--{flag}",
        "answers_key": name,
        **({"choices": options[0]["enum"]} if "enum" in options[0] else {}),
        **limits,
        "source": REQUEST_FILE,
    }


_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


# --- rules ----------------------------------------------------------------------------------------


def _rule(topic: str) -> Iterator[dict[str, Any]]:
    from advisor.cli.catalog import policy_row
    from advisor.planner.legality import TABLE

    row = policy_row(topic)
    if row is not None:
        yield {"kind": "rule", **row}
    for legality in TABLE:
        if legality.id == topic:
            yield {
                "kind": "rule of divisibility",
                "id": legality.id,
                "what": _first_words(legality.id),
                "field": legality.field,
                "source": legality.source,
            }
    from advisor.cli.catalog import framework_row

    found = framework_row(topic)
    if found is not None:
        yield {"kind": "framework rule", **found}


def _first_words(identifier: str) -> str:
    return f"A plan must divide evenly here ({identifier.removeprefix('planner.').replace('-', ' ')})."


def topics() -> dict[str, list[str]]:
    """Every topic, by kind. Capability ids are listed by `advisor rules`."""
    from advisor.request import Request
    from advisor.rules import load_policy

    return {
        "terms": list(terms()),
        "plan fields": list(plan_docs()),
        "request fields": list(Request.model_fields),
        "rules": [rule.id for rule in load_policy().rules],
        "other": ["memory"],
    }


def _close(topic: str) -> str:
    from advisor.cli.catalog import row_ids

    known = [
        *term_names(),
        *(n.replace("_", "-") for n in plan_docs()),
        *topics()["request fields"],
        *row_ids(),
    ]
    close = difflib.get_close_matches(spelled(topic), list(dict.fromkeys(known)), n=4, cutoff=0.6)
    return f"; close: {', '.join(close)}" if close else ""


def parameter_count(text: str) -> float:
    """`100e9`, `8B` or `500M` as a number. Raises InputError."""
    scale = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}.get(text[-1:].lower(), 1.0)
    try:
        value = float(text[:-1] if scale > 1 else text) * scale
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError("params", f"{text!r} is not a number of parameters; write 100e9 or 8B")
    return value


# --- text -----------------------------------------------------------------------------------------


def _topics_text(data: dict[str, Any]) -> str:
    blocks = [f"{kind}\n{_fill(', '.join(names), '  ')}" for kind, names in data["topics"].items()]
    return "\n\n".join([*blocks, "advisor explain TOPIC; ids of framework rows: advisor rules"])


def _memory_text(data: dict[str, Any]) -> str:
    rows = [(name, data[key], data["formulas"][key]) for name, key in _THUMB]
    lines = [
        f"Rule of thumb for {data['parameters'] / 1e9:g}B parameters (GB = 10^9 bytes)",
        *(f"  {name:<6} {size:>8,.0f} GB   {formula}" for name, size, formula in rows),
        "",
        "How the estimate here differs",
        *(_fill(f"- {text}", "  ", first="") for text in data["differences"]),
        "",
        "The estimate of a plan: advisor estimate --model ID --gpu NAME --tuning lora ...",
    ]
    return "\n".join(lines)


_THUMB = (("full", "full_gb"), ("LoRA", "lora_gb"), ("QLoRA", "qlora_gb"))


def _entries_text(data: dict[str, Any]) -> str:
    return "\n\n".join(entry_text(entry) for entry in data["entries"])


LABELS = {
    "what": "",
    "when": "Holds when",
    "effect": "Effect",
    "because": "Because",
    "use": "Use it",
    "cost": "Costs",
    "here": "Here",
    "field": "Field",
    "flag": "Flag",
    "answers_key": "Answers key",
    "choices": "Choices",
    "minimum": "At least",
    "exclusiveMinimum": "More than",
    "maximum": "At most",
    "exclusiveMaximum": "Less than",
    "default": "Default",
    "framework": "Framework",
    "match": "Where",
    "supported": "Supported",
    "values": "Values",
    "set": "Sets",
    "note": "Note",
    "aliases": "Also called",
    "see": "See also",
    "source": "Source",
}


def entry_text(entry: dict[str, Any]) -> str:
    """One entry, one labelled line each."""
    title = f": {entry['title']}" if entry.get("title") else ""
    lines = [f"{entry['id']} ({entry['kind']}){title}"]
    for key, label in LABELS.items():
        value = entry.get(key)
        if value is None or value in ([], "", {}):
            continue
        if not label:
            lines.append(_fill(_shown(value), "  "))
            continue
        # What a topic is in a plan is a sentence for each field.
        texts = value if key == "here" else [_shown(value)]
        marks = [f"{label}:", *("" for _ in texts[1:])]
        lines += [_fill(f"{mark:<13}{text}", "  ", hang=13) for mark, text in zip(marks, texts, strict=True)]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_shown(inner)}" for key, inner in value.items()) or "every plan"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _fill(text: str, indent: str, *, first: str | None = None, hang: int = 0) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
