"""The questions of `advisor new` on a terminal. Each fills a field of Request; what is given is not asked.

An answer is judged as a flag would be, with the same message; `?` explains and asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import questionary

from advisor.cli.detect import Detected, detect
from advisor.cli.explain import entry_text
from advisor.cli.terms import Term, find
from advisor.errors import InputError
from advisor.facts.dataset import inspect, methods_served
from advisor.facts.gpus import gpu_summaries, load_gpu
from advisor.facts.models import load_model, model_summaries
from advisor.plan import METHODS, ONLINE_RL
from advisor.request import parse_request
from advisor.resolve import REQUIRED, resolve, usual_method

EXPLAIN = "?"
TUNINGS = ("auto", "full", "freeze", "lora", "dora", "qlora")
PREFERENCES = ("none", "simplicity", "memory", "speed", "stability", "community")

MEANINGS = {
    "model": "A hub id (Qwen/Qwen3-8B), a folder with config.json, or a config.json. Names without the publisher "
    "do when there is one such model. advisor models lists the catalog.",
    "data": "A file or folder (.jsonl, .json, .csv, .tsv, .txt, .parquet) or a hub id. It is read to find its format "
    "and which methods it can train. Empty: the starter repo comes with example rows to replace.",
    "gpu": "A name as people write it: h100, a100-80gb, 4090. advisor gpus lists the catalog. It decides memory, "
    "speed and number formats.",
    "gpus_per_node": "GPUs in one machine that the training may use. They share fast links.",
    "nodes": "Machines that train together, each with as many GPUs.",
    "tuning": "Which weights train. auto: the first of LoRA, QLoRA and so on that fits.",
    "auto": "The first tuning that fits: LoRA, then a quantized base (full first for cpt).",
    "none": "No preference: the rules of selection and the plan decide.",
}
"""What a question means, where the vocabulary has no term for it."""

Values = dict[str, Any]
Check = Callable[[Any], None]


def ask(values: Mapping[str, Any], *, required_only: bool = False) -> Values:
    """The values with the answers of a person added. Raises KeyboardInterrupt when they leave."""
    session = _Session(dict(values), required_only)
    try:
        _questions(session)
    except EOFError:
        raise KeyboardInterrupt from None
    return session.values


def confirm_write(count: int, target: Path) -> bool:
    """The last question. Raises KeyboardInterrupt when they leave."""
    try:
        return bool(questionary.confirm(f"Write {count} files to {target}?", default=True).unsafe_ask())
    except EOFError:
        raise KeyboardInterrupt from None


def _questions(s: _Session) -> None:
    s.judge_given()
    s.text("model", "Which model do you start from?", choices=_models(), check=s.is_model)
    s.text("data", "Where is your data?", default="example rows", paths=True, check=s.is_data)
    _method(s)
    if s.values.get("method") == "gkd":
        s.text("teacher", "Which model is the teacher?", choices=_models(), check=s.is_teacher, needed=True)
    _gpus(s)
    _tuning(s)
    if s.values.get("method") in ONLINE_RL:
        _online(s)
    elif s.values.get("method") == "gkd":
        _lengths(s)
    else:
        s.open_text("seq_len", "Longest sample in tokens?")
    if "framework" not in s.values:
        s.choose("prefer", "What matters most to you?", PREFERENCES, default="none")


def _models() -> list[str]:
    return [row["id"] for row in model_summaries() if row["total"]]


def _method(s: _Session) -> None:
    served: tuple[str, ...] = METHODS
    path = s.values.get("data")
    if path and not s.skips("method"):
        dataset = inspect(path[0] if isinstance(path, (tuple, list)) else path, s.values.get("data_format"))
        served = methods_served(dataset)
        if not served:
            raise InputError("data", f"{dataset.path} is in no known format; give --data-format")
        if dataset.local:
            bad = f", {len(dataset.bad_rows)} rows are left out" if dataset.bad_rows else ""
            click.echo(f"  {dataset.rows} rows of {dataset.format}{bad}; methods they can train are offered")
    s.choose("method", "What do you want to train?", served, default=usual_method(served))


def _gpus(s: _Session) -> None:
    found = None if s.skips("gpu") else detect()
    if found is not None and not found.id:
        click.echo(f"  nvidia-smi shows {found.count} x {found.name}, which is not in the catalog")
    here = found if found is not None and found.id else None
    names = [row["id"] for row in gpu_summaries()]
    if here is not None:
        click.echo(f"  nvidia-smi shows {here.count} x {here.name}: {here.id}")
    s.text("gpu", "Which GPU do you have?", default=here.id if here else "", choices=names, check=s.is_gpu)
    s.text("gpus_per_node", "How many GPUs in one machine?", default=_count(s, here))
    s.text("nodes", "How many machines?", default="1")


def _count(s: _Session, here: Detected | None) -> str:
    return str(here.count) if here is not None and s.values.get("gpu") == here.id else "1"


def _tuning(s: _Session) -> None:
    s.choose("tuning", "Which weights should train?", TUNINGS, default="auto")


def _lengths(s: _Session) -> None:
    s.open_text("prompt_len", "Longest prompt in tokens?", topic="seq-len")
    s.open_text("response_len", "Longest answer in tokens?", topic="seq-len")


def _online(s: _Session) -> None:
    _lengths(s)
    s.open_text("generations", "How many answers per prompt?")
    if "reward_model" not in s.values:
        s.open_text("reward", "Which function scores an answer, as FILE.py:function?", check=s.is_reward)


class _Session:
    """The answers so far, and how a question is put."""

    def __init__(self, values: Values, required_only: bool) -> None:
        self.values = values
        self.required_only = required_only

    def skips(self, field: str) -> bool:
        """Given already; or not required, when only that is asked."""
        if field == "method" and self.required_only and self.values.get("data"):
            return True
        return field in self.values or (self.required_only and field not in REQUIRED)

    def text(
        self,
        field: str,
        question: str,
        *,
        default: str = "",
        choices: Sequence[str] = (),
        paths: bool = False,
        check: Check | None = None,
        needed: bool = False,
        topic: str = "",
    ) -> None:
        """A line; empty takes the default. Asked until the answer will do."""
        if field in self.values or (self.skips(field) and not needed):
            return
        shown = f" [{default}]" if default else ""
        while True:
            answer = _line(f"{question}{shown} (? explains)", choices, paths)
            if answer == EXPLAIN:
                click.echo(_meaning(field, topic))
                continue
            if self._takes(field, answer or default, default, check):
                return

    def open_text(self, field: str, question: str, *, topic: str = "", check: Check | None = None) -> None:
        """A line whose default is the one that flags would get; taking it leaves the field open."""
        if self.skips(field):
            return
        resolved = resolve(parse_request(self.values))
        value = getattr(resolved.request, field)
        origin = resolved.origins.get(field, "")
        shown = f"{value}, {origin}" if origin.startswith(("longest", "from")) else str(value)
        while True:
            answer = _line(f"{question} [{shown}] (? explains)", (), False)
            if answer == EXPLAIN:
                click.echo(_meaning(field, topic))
            elif answer in ("", str(value)) or self._takes(field, answer, "", check or self.resolves):
                return

    def choose(self, field: str, question: str, options: Sequence[str], *, default: str) -> None:
        """One of a few; typing narrows the list."""
        if self.skips(field):
            return
        rows = [_option(option) for option in options]
        rows.append(questionary.Choice("? explain these", EXPLAIN, description="Print what each means."))
        while True:
            answer = questionary.select(
                question, rows, default=default, use_search_filter=True, use_jk_keys=False
            ).unsafe_ask()
            if answer == EXPLAIN:
                click.echo("\n\n".join(_meaning(option, "") for option in options))
                continue
            if answer in ("none", "auto"):  # the default stays open, as without the flag
                return
            if self._takes(field, answer, "", None):
                return

    def _takes(self, field: str, answer: str, default: str, check: Check | None) -> bool:
        """Judges an answer as a flag is judged; says why not."""
        if field == "data" and answer == default:
            return True
        try:
            if not answer:
                raise InputError(field, "needs an answer")
            value = parse_request({field: answer}).given()[field]
            if check is not None:
                check({field: value})
        except InputError as error:
            click.secho(f"  {error}", fg="red", err=True)
            return False
        self.values[field] = value
        return True

    # --- checks: the loaders that a run uses ---------------------------------------------------

    def judge_given(self) -> None:
        """What came by flag or file is judged before a person answers anything. Raises InputError."""
        for field, check in (("model", self.is_model), ("gpu", self.is_gpu), ("data", self.is_data)):
            if self.values.get(field):
                check(self.values)

    def is_model(self, answer: Values) -> None:
        load_model(answer["model"], offline=self.values.get("offline") is not False)

    def is_teacher(self, answer: Values) -> None:
        load_model(answer["teacher"], offline=self.values.get("offline") is not False)

    def is_gpu(self, answer: Values) -> None:
        load_gpu(answer["gpu"])

    def is_data(self, answer: Values) -> None:
        dataset = inspect(answer["data"][0], self.values.get("data_format"))
        if not methods_served(dataset):
            columns = ", ".join(dataset.columns) or "none"
            raise InputError("data", f"{dataset.path} is in no known format (columns: {columns})")

    def is_reward(self, answer: Values) -> None:
        file, _, function = answer["reward"].rpartition(":")
        if not file or not function.isidentifier():
            raise InputError("reward", f"{answer['reward']!r} will not do: write FILE.py:function")
        if not Path(file).is_file():
            raise InputError("reward", f"{file}: no such file")

    def resolves(self, answer: Values) -> None:
        resolve(parse_request({**self.values, **answer}))


def _line(message: str, choices: Sequence[str], paths: bool) -> str:
    if paths:
        question = questionary.path(message)
    elif choices:
        question = questionary.autocomplete(message, list(choices))
    else:
        question = questionary.text(message)
    return str(question.unsafe_ask()).strip()


def _option(name: str) -> questionary.Choice:
    term = _term(name)
    title = f"{name:<12} {term['title']}" if term and term["title"].lower() != name else name
    return questionary.Choice(title, name, description=term["what"] if term else MEANINGS.get(name))


def _term(name: str) -> Term | None:
    """`memory` is a preference here, and no term."""
    return None if name in PREFERENCES else find(name)


def _meaning(name: str, topic: str) -> str:
    term = _term(topic or name)
    if name in MEANINGS or term is None:
        return "  " + click.wrap_text(
            f"{name}: {MEANINGS.get(name, PREFERENCE_MEANINGS.get(name, 'no more is known'))}", 96, "", "  "
        )
    return entry_text({"kind": "term", **term})


PREFERENCE_MEANINGS = {
    "simplicity": "Few files and concepts between you and the training.",
    "memory": "The framework and the plan that leave most memory free.",
    "speed": "The fastest of the plans found.",
    "stability": "Frameworks whose releases break least.",
    "community": "Frameworks with the most users and documentation.",
}
