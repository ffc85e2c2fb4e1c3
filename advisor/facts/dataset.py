"""What the user's data is: its format, its size, its bad rows, and which methods it can train.

Files are streamed row by row; only a `.json` array is read whole.
"""

from __future__ import annotations

import csv
import difflib
import importlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from advisor.errors import InputError
from advisor.facts import rows
from advisor.facts.types import Dataset
from advisor.plan import METHODS, ONLINE_RL

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
FORMATS = rows.FORMATS

BAD_ROWS_KEPT = 1000
"""Bad rows listed with their line; `extra["bad_total"]` counts all of them."""

_GUESSED_FROM = 100
_NOT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SUPERVISED = ("messages", "sharegpt", "alpaca", "prompt-completion")
_PAIRED = ("dpo", "ipo", "orpo", "simpo", "cpo", "rm", "kto")


class Line(NamedTuple):
    """One row as it stands in a file: `row`, or what kept it from being read."""

    file: Path
    number: int
    """Line number from 1; in a `.json` array and in Parquet the row's place."""
    row: dict[str, Any] | None
    error: str = ""


# --- reading ------------------------------------------------------------------------------------


def data_files(path: Path) -> list[Path]:
    """The data files under a path, in the order they are read."""
    if path.is_file():
        return [path]
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        raise InputError("data", f"{path} was written by save_to_disk; export it as .jsonl with to_json")
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in SUFFIXES and file.is_file() and _is_data(file, path)
    ]
    if not found:
        raise InputError("data", f"{path} holds no data file; what is read: {', '.join(SUFFIXES)}")
    return found


def _is_data(file: Path, root: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(root).parts)
    return not hidden and file.name not in _NOT_DATA


def read_rows(path: Path) -> Iterator[Line]:
    """Every row of a file or folder; unreadable rows come with their error."""
    for file in data_files(path):
        yield from _read_file(file)


def _read_file(file: Path) -> Iterator[Line]:
    match file.suffix.lower():
        case ".jsonl":
            return _read_jsonl(file)
        case ".json":
            return _read_json(file)
        case ".csv":
            return _read_table(file, ",")
        case ".tsv":
            return _read_table(file, "\t")
        case ".txt":
            return _read_text(file)
        case ".parquet":
            return _read_parquet(file)
        case suffix:
            kind = f"a {suffix} file" if suffix else "a file without a suffix"
            raise InputError("data", f"{file} is {kind}; what is read: {', '.join(SUFFIXES)}")


def _as_line(file: Path, number: int, value: object) -> Line:
    if isinstance(value, dict):
        return Line(file, number, cast("dict[str, Any]", value))
    return Line(file, number, None, "not an object with named columns")


def _read_jsonl(file: Path) -> Iterator[Line]:
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                value: object = json.loads(raw.decode("utf-8").strip())
            except UnicodeDecodeError:
                yield Line(file, number, None, "not UTF-8 text")
            except (json.JSONDecodeError, RecursionError) as error:
                yield Line(file, number, None, f"invalid JSON: {_json_reason(error)}")
            else:
                yield _as_line(file, number, value)


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply"


def _read_json(file: Path) -> Iterator[Line]:
    try:
        value: object = json.loads(_decode(file, file.read_bytes()))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:
            yield from _read_jsonl(file)
            return
        place = f"line {error.lineno} column {error.colno}"
        raise InputError("data", f"{file} is not valid JSON: {error.msg} at {place}") from None
    if isinstance(value, dict):
        value = _only_list(cast("dict[str, object]", value))
    if not isinstance(value, list):
        raise InputError("data", f"{file} is not a JSON array of rows (or write .jsonl: one object a line)")
    for number, item in enumerate(cast("list[object]", value), 1):
        yield _as_line(file, number, item)


def _only_list(value: dict[str, object]) -> object:
    """The rows of an object that wraps them ({"data": [...]}), or the object as a single row."""
    lists = [cast("list[object]", item) for item in value.values() if isinstance(item, list)]
    wrapped = len(lists) == 1 and rows.guess(value) == "unknown"
    return lists[0] if wrapped else [value]


def _decode(file: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("data", f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _read_table(file: Path, delimiter: str) -> Iterator[Line]:
    csv.field_size_limit(1 << 30)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            header = next(reader, list[str]())
            start = reader.line_num + 1
            for record in reader:
                if record:
                    yield _record(file, start, header, record)
                start = reader.line_num + 1
        except csv.Error as error:
            yield Line(file, reader.line_num, None, f"cannot be read any further: {error}")
        except UnicodeDecodeError:
            raise InputError("data", f"{file} is not UTF-8 text; save it as UTF-8") from None


def _record(file: Path, number: int, header: list[str], record: list[str]) -> Line:
    if len(record) != len(header):
        return Line(file, number, None, f"{len(record)} cells, the header has {len(header)}")
    return Line(file, number, {name: _cell(name, text) for name, text in zip(header, record, strict=True)})


def _cell(name: str, text: str) -> Any:
    """Tables hold strings only: lists of messages come as JSON, labels as true and false."""
    if name in rows.LABEL_NAMES and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    if text.startswith(("[{", "{")):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _read_text(file: Path) -> Iterator[Line]:
    """Paragraphs between blank lines are rows; a file without blank lines is one row a line."""
    with file.open("rb") as stream:
        head = stream.read(1 << 20)
    by_paragraph = re.search(rb"\n[ \t\r]*\n", head.strip()) is not None
    first, block = 1, list[str]()
    with file.open("rb") as stream:
        for number, raw in enumerate(chain(stream, [b""]), 1):
            line = _decode(file, raw)
            if line.strip():
                first = first if block else number
                block.append(line)
            if block and (not by_paragraph or not line.strip()):
                yield Line(file, first, {"text": "".join(block).strip()})
                block = []


def _read_parquet(file: Path) -> Iterator[Line]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            "data", f"{file}: reading Parquet needs pyarrow (pip install pyarrow); or export it as .jsonl"
        ) from None
    number = 0
    for batch in parquet.ParquetFile(file).iter_batches(batch_size=1000):
        for row in batch.to_pylist():
            number += 1
            yield _as_line(file, number, row)


# --- inspecting ---------------------------------------------------------------------------------


@dataclass
class _Tally:
    """What is counted while the rows stream by."""

    format: str
    folder: Path | None
    good: int = 0
    chars: int = 0
    max_chars: int = 0
    max_prompt: int = 0
    max_answer: int = 0
    solved: int = 0
    multi_turn: int = 0
    tools: int = 0
    bad_total: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    columns: dict[str, None] = field(default_factory=dict[str, None])
    mapping: dict[str, str] = field(default_factory=dict[str, str])
    solution: str = ""

    def add(self, line: Line) -> None:
        if line.row is None:
            self._bad(line, line.error)
            return
        self.columns.update(dict.fromkeys(line.row))
        if self.format == "unknown":
            self._measure(sum(len(v) for v in line.row.values() if isinstance(v, str)), 0)
            return
        try:
            parsed = rows.neutral(line.row, self.format)
        except ValueError as error:
            self._bad(line, str(error))
            return
        self._measure(*_lengths(parsed))
        self._note(line.row, parsed)

    def _bad(self, line: Line, why: str) -> None:
        self.bad_total += 1
        if len(self.bad) < BAD_ROWS_KEPT:
            where = f"{line.file.relative_to(self.folder)}: " if self.folder else ""
            self.bad.append((line.number, where + why))

    def _measure(self, prompt: int, answer: int) -> None:
        self.good += 1
        self.chars += prompt + answer
        self.max_chars = max(self.max_chars, prompt + answer)
        self.max_prompt = max(self.max_prompt, prompt)
        self.max_answer = max(self.max_answer, answer)

    def _note(self, row: dict[str, Any], parsed: rows.Row) -> None:
        if not self.mapping:
            self.mapping = rows.mapping(row, self.format)
        holder: dict[str, Any] = row if self.format == "rl-prompts" else parsed["extra"]
        column = rows.solution_column(holder)
        if column:
            self.solution = column
            self.solved += 1
        turns = parsed.get("messages") or [*parsed.get("prompt", ()), *parsed.get("chosen", ())]
        self.multi_turn += sum(message["role"] == "user" for message in turns) > 1
        self.tools += parsed["tools"] is not None or any(message["role"] == "tool" for message in turns)

    def dataset(self, path: str) -> Dataset:
        renamed = {name: column for name, column in self.mapping.items() if name != column}
        extra: dict[str, Any] = {
            "mapping": renamed,
            "bad_total": self.bad_total,
            "max_prompt_chars": self.max_prompt,
            "max_answer_chars": self.max_answer,
            "multi_turn_rows": self.multi_turn,
            "tool_rows": self.tools,
            "solution": self.solution if self.good and self.solved == self.good else "",
        }
        return Dataset(
            path=path,
            local=True,
            format=self.format,
            rows=self.good,
            columns=tuple(self.columns),
            bad_rows=tuple(self.bad),
            mean_chars=self.chars / self.good if self.good else 0.0,
            max_chars=self.max_chars,
            extra=extra,
        )


def _lengths(parsed: rows.Row) -> tuple[int, int]:
    """Characters of the prompt and of the (longer) answer."""
    match parsed["kind"]:
        case "text":
            return 0, len(parsed["text"])
        case "chat":
            split = parsed["split"]
            return _chars(parsed["messages"][:split]), _chars(parsed["messages"][split:])
        case "pair":
            return _chars(parsed["prompt"]), max(_chars(parsed["chosen"]), _chars(parsed["rejected"]))
        case "label":
            return _chars(parsed["prompt"]), _chars(parsed["completion"])
        case _:
            return _chars(parsed["prompt"]), 0


def _chars(messages: Iterable[rows.Message]) -> int:
    total = 0
    for message in messages:
        content = message["content"]
        total += len(content) if isinstance(content, str) else len(json.dumps(content))
        if message.get("tool_calls"):
            total += len(json.dumps(message["tool_calls"]))
    return total


def inspect(path: str, declared_format: str | None = None) -> Dataset:
    """Read the data at `path` (file, folder or hub id) and tell what it is.

    `rows` counts the usable rows. A declared format wins over the detected one.
    """
    if declared_format not in (None, "unknown", *FORMATS):
        known = ", ".join(FORMATS)
        raise InputError("data_format", f"{declared_format!r} is not a format; choose one of {known}")
    place = Path(path).expanduser()
    if not place.exists():
        return _remote(path, place, declared_format)
    format = declared_format if declared_format and declared_format != "unknown" else None
    stream = read_rows(place)
    head = list(islice(stream, _GUESSED_FROM))
    if not head:
        raise InputError("data", f"{path} is empty; give a file with at least one row")
    if format is None:
        format = _folder_format(place) if place.is_dir() else _vote(head)
    tally = _Tally(format, place if place.is_dir() else None)
    for line in chain(head, stream):
        tally.add(line)
    return tally.dataset(path)


def _vote(lines: Iterable[Line]) -> str:
    votes = Counter(rows.guess(line.row) for line in lines if line.row is not None)
    votes.pop("unknown", None)
    return votes.most_common(1)[0][0] if votes else "unknown"


def _folder_format(folder: Path) -> str:
    """The format all files share; two formats in one folder are an error, not thousands of bad rows."""
    formats: dict[str, Path] = {}
    for file in data_files(folder):
        formats.setdefault(_vote(islice(_read_file(file), _GUESSED_FROM)), file)
    if len(formats) > 1:
        kinds = ", ".join(f"{file.relative_to(folder)} is {format}" for format, file in formats.items())
        raise InputError("data", f"{folder} mixes formats ({kinds}); keep one format in a folder")
    return next(iter(formats))


def _remote(path: str, place: Path, declared_format: str | None) -> Dataset:
    if _HUB_ID.fullmatch(path) and place.suffix.lower() not in SUFFIXES:
        return Dataset(path=path, local=False, format=declared_format or "unknown", rows=0)
    near: list[str] = []
    if place.parent.is_dir():
        near = difflib.get_close_matches(place.name, [p.name for p in place.parent.iterdir()], n=1)
    hint = f"; did you mean {place.parent / near[0]}?" if near else ""
    works = f"give a file ({', '.join(SUFFIXES)}), a folder of those, or a hub id as org/name"
    raise InputError("data", f"{path} does not exist{hint or '; ' + works}")


# --- methods ------------------------------------------------------------------------------------


def methods_served(dataset: Dataset) -> tuple[str, ...]:
    """The plan methods this data can train; all of them when nothing is known about remote data."""
    served: tuple[str, ...] = ()
    match dataset.format:
        case "text":
            served = ("cpt",)
        case "messages" | "sharegpt" | "alpaca" | "prompt-completion":
            served = ("sft", "cpt", "gkd", *(ONLINE_RL if dataset.extra.get("solution") else ()))
        case "preference" | "preference-messages":
            served = _PAIRED
        case "kto":
            served = ("kto",)
        case "rl-prompts":
            served = ONLINE_RL
        case _:
            served = () if dataset.local else METHODS
    return tuple(method for method in METHODS if method in served)


_SHAPES = {
    "text": "raw text",
    "messages": "conversations (messages with role and content)",
    "sharegpt": "conversations (ShareGPT: from and value)",
    "alpaca": "instructions with answers (Alpaca)",
    "prompt-completion": "prompts with completions",
    "preference": "preference pairs (chosen and rejected)",
    "preference-messages": "preference pairs (chosen and rejected messages)",
    "kto": "answers labelled good or bad (KTO)",
    "rl-prompts": "prompts with a checkable solution",
}


def needs(method: str) -> str:
    """What data a method trains on, in words."""
    if method == "cpt":
        return f"text, or {', '.join(_SUPERVISED)}"
    if method in ("sft", "gkd"):
        return " or ".join((", ".join(_SUPERVISED[:-1]), _SUPERVISED[-1]))
    if method == "kto":
        return "kto (prompt, completion, label), or preference pairs"
    if method in ONLINE_RL:
        return "rl-prompts (prompt and solution, no answer)"
    return "preference (prompt, chosen, rejected)"


def mismatch(dataset: Dataset, method: str) -> str | None:
    """One line when this data cannot train `method`: what it is, what is needed, what it serves."""
    served = methods_served(dataset)
    if method in served:
        return None
    if dataset.format == "unknown":
        columns = ", ".join(dataset.columns) or "none"
        return f"{dataset.path} is in no known format (columns: {columns}); {method} needs {needs(method)}"
    kind = _SHAPES[dataset.format]
    return (
        f"{dataset.path} holds {kind}; {method} needs {needs(method)}; this data serves {', '.join(served)}"
    )
