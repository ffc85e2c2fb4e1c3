"""What `inspect` makes of files, folders and hub ids, and which methods the data serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from advisor.errors import InputError
from advisor.facts import dataset as data
from advisor.facts.types import Dataset
from advisor.plan import METHODS, ONLINE_RL

BAD = Path(__file__).parent / "bad_data"
U, A = {"role": "user", "content": "Q?"}, {"role": "assistant", "content": "An answer."}

ROWS = {
    "text": {"text": "A paragraph."},
    "messages": {"messages": [U, A]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "An answer."}]},
    "alpaca": {"instruction": "Do it.", "input": "", "output": "Done."},
    "prompt-completion": {"prompt": "Q?", "completion": "An answer."},
    "preference": {"prompt": "Q?", "chosen": "Good.", "rejected": "Bad."},
    "preference-messages": {"prompt": [U], "chosen": [A], "rejected": [{**A, "content": "Bad."}]},
    "kto": {"prompt": "Q?", "completion": "An answer.", "label": False},
    "rl-prompts": {"prompt": [U], "solution": "42"},
}


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("format", ROWS)
def test_every_format_is_detected(format: str, tmp_path: Path) -> None:
    found = data.inspect(write(tmp_path / "d.jsonl", ROWS[format], ROWS[format]))
    assert (found.format, found.rows, found.bad_rows, found.local) == (format, 2, (), True)
    assert found.columns == tuple(ROWS[format])
    assert 0 < found.mean_chars <= found.max_chars


def test_all_formats_are_covered() -> None:
    assert set(ROWS) == set(data.FORMATS)


@pytest.mark.parametrize(
    ("row", "format", "renamed"),
    [
        (
            {"question": "Q?", "answer": "A."},
            "prompt-completion",
            {"prompt": "question", "completion": "answer"},
        ),
        (
            {"query": "Q?", "response": "A."},
            "prompt-completion",
            {"prompt": "query", "completion": "response"},
        ),
        ({"input": "Q?", "output": "A."}, "prompt-completion", {"prompt": "input", "completion": "output"}),
        (
            {"instruction": "I", "context": "c", "response": "r"},
            "alpaca",
            {"input": "context", "output": "response"},
        ),
        ({"conversations": [U, A]}, "messages", {"messages": "conversations"}),
        ({"question": "Q?", "chosen": "a", "rejected": "b"}, "preference", {"prompt": "question"}),
        ({"messages": [U, A], "label": True}, "kto", {"prompt": "messages"}),
        ({"prompt": "Q?", "answer": 4}, "rl-prompts", {"solution": "answer"}),
        (
            {"messages": [U], "ground_truth": "4"},
            "rl-prompts",
            {"prompt": "messages", "solution": "ground_truth"},
        ),
        (
            {"prompt": [U], "data_source": "s", "reward_model": {"style": "rule", "ground_truth": "4"}},
            "rl-prompts",
            {"solution": "reward_model"},
        ),
        ({"content": "A page."}, "text", {"text": "content"}),
        ({"chosen": "a", "rejected": "b"}, "preference", {}),
        ({"chosen": [U, A], "rejected": [U, {**A, "content": "b"}]}, "preference-messages", {}),
    ],
)
def test_close_names_are_read_and_reported(row: object, format: str, renamed: object, tmp_path: Path) -> None:
    found = data.inspect(write(tmp_path / "d.jsonl", row))
    assert (found.format, found.bad_rows) == (format, ())
    assert found.extra["mapping"] == renamed


def test_a_declared_format_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"question": "6 x 7?", "answer": "42"})
    assert data.inspect(path).format == "prompt-completion"
    declared = data.inspect(path, "rl-prompts")
    assert (declared.format, declared.rows) == ("rl-prompts", 1)
    assert data.methods_served(declared) == ONLINE_RL
    with pytest.raises(InputError, match="'qa' is not a format; choose one of text, messages"):
        data.inspect(path, "qa")


def test_tool_turns_count_as_tool_rows(tmp_path: Path) -> None:
    call = {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
    }
    row = {"messages": [U, call, {"role": "tool", "content": "1"}, A, U, A]}
    found = data.inspect(write(tmp_path / "d.jsonl", row))
    assert (found.format, found.bad_rows) == ("messages", ())
    assert (found.extra["tool_rows"], found.extra["multi_turn_rows"]) == (1, 1)


def test_lengths(tmp_path: Path) -> None:
    rows = [{"prompt": "abc", "completion": "de"}, {"prompt": "a", "completion": "b"}]
    found = data.inspect(write(tmp_path / "d.jsonl", *rows))
    assert (found.mean_chars, found.max_chars) == (3.5, 5)
    assert (found.extra["max_prompt_chars"], found.extra["max_answer_chars"]) == (3, 2)


@pytest.mark.parametrize("expect", sorted(BAD.glob("*.expect")), ids=lambda path: path.stem)
def test_bad_data_is_told_with_its_line(expect: Path) -> None:
    file = next(path for path in BAD.glob(f"{expect.stem}.*") if path != expect)
    lines = expect.read_text(encoding="utf-8").splitlines()
    if lines[0].startswith("error: "):
        with pytest.raises(InputError) as raised:
            data.inspect(str(file))
        assert str(raised.value) == f"data: {file} {lines[0].removeprefix('error: ')}"
        return
    found = data.inspect(str(file))
    assert [f"{number}: {why}" for number, why in found.bad_rows] == lines
    assert found.extra["bad_total"] == len(lines)


def test_there_are_enough_bad_files() -> None:
    assert len(list(BAD.glob("*.expect"))) >= 20


def test_csv_and_tsv(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text('prompt,completion,label\n"Two\nlines?",yes,TRUE\nq,a,false\n', encoding="utf-8")
    found = data.inspect(str(table))
    assert (found.format, found.rows, found.bad_rows) == ("kto", 2, ())
    tabs = tmp_path / "t.tsv"
    tabs.write_text(
        f"id\tmessages\n1\t{json.dumps([U, A])}\n".replace('"', '""')
        .replace("\t[", '\t"[')
        .replace("]\n", ']"\n')
    )
    assert data.inspect(str(tabs)).format == "messages"


def test_json_array_wrapped_array_and_lines_under_json(tmp_path: Path) -> None:
    rows = [ROWS["alpaca"], ROWS["alpaca"]]
    for name, text in {
        "array": json.dumps(rows),
        "wrapped": json.dumps({"data": rows}),
        "lines": "\n".join(json.dumps(row) for row in rows),
    }.items():
        file = tmp_path / f"{name}.json"
        file.write_text(text, encoding="utf-8")
        assert (data.inspect(str(file)).format, data.inspect(str(file)).rows) == ("alpaca", 2), name


def test_plain_text_by_paragraph_or_line(tmp_path: Path) -> None:
    paragraphs = tmp_path / "p.txt"
    paragraphs.write_text("One\nline.\n\nTwo.\n \nThree.", encoding="utf-8")
    lines = tmp_path / "l.txt"
    lines.write_text("One.\nTwo.\n", encoding="utf-8")
    assert [(line.number, line.row) for line in data.read_rows(paragraphs)] == [
        (1, {"text": "One\nline."}),
        (4, {"text": "Two."}),
        (6, {"text": "Three."}),
    ]
    assert (data.inspect(str(lines)).format, data.inspect(str(lines)).rows) == ("text", 2)


def test_a_folder_is_read_whole_and_names_the_file_of_a_bad_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS["text"], ROWS["text"])
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "b.jsonl", ROWS["text"], {"text": ""}, ROWS["text"])
    (tmp_path / "README.md").write_text("not data")
    found = data.inspect(str(tmp_path))
    assert (found.format, found.rows) == ("text", 4)
    assert found.bad_rows == ((2, f"{Path('more', 'b.jsonl')}: `text` is empty"),)


def test_a_folder_of_two_formats_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS["text"])
    write(tmp_path / "b.jsonl", ROWS["kto"])
    with pytest.raises(InputError, match=r"mixes formats \(a.jsonl is text, b.jsonl is kto\)"):
        data.inspect(str(tmp_path))


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no data file; what is read: .jsonl"):
        data.inspect(str(tmp_path))
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InputError, match="written by save_to_disk"):
        data.inspect(str(tmp_path))


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "d.parquet"
    file.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs pyarrow \(pip install pyarrow\); or export it as .jsonl"):
        data.inspect(str(file))


def test_parquet_with_pyarrow(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    file = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([ROWS["messages"], ROWS["messages"]]), file)
    assert (data.inspect(str(file)).format, data.inspect(str(file)).rows) == ("messages", 2)


def test_hub_ids_and_missing_paths(tmp_path: Path) -> None:
    found = data.inspect("some-org/some.data_set")
    assert found == Dataset(path="some-org/some.data_set", local=False, format="unknown", rows=0)
    assert data.inspect("org/name", "kto").format == "kto"
    write(tmp_path / "train.jsonl", ROWS["text"])
    with pytest.raises(InputError, match=r"does not exist; did you mean .*train.jsonl\?"):
        data.inspect(str(tmp_path / "trian.jsonl"))
    for path in ("data/none.jsonl", "squad", "a/b/c"):
        with pytest.raises(InputError, match=r"does not exist; give a file .* or a hub id as org/name"):
            data.inspect(path)


def test_an_unknown_format_is_told(tmp_path: Path) -> None:
    found = data.inspect(write(tmp_path / "d.jsonl", {"height": 3, "name": "x"}))
    assert (found.format, data.methods_served(found)) == ("unknown", ())
    assert (data.mismatch(found, "dpo") or "").endswith(
        "is in no known format (columns: height, name); dpo needs preference (prompt, chosen, rejected)"
    )


def test_methods_served() -> None:
    def served(format: str, solution: str = "") -> set[str]:
        found = Dataset(path="d", local=True, format=format, rows=1, extra={"solution": solution})
        return set(data.methods_served(found))

    assert served("text") == {"cpt"}
    assert served("messages") == {"sft", "cpt", "gkd"}
    assert served("alpaca", solution="answer") == {"sft", "cpt", "gkd", *ONLINE_RL}
    assert served("preference") == {"dpo", "ipo", "orpo", "simpo", "cpo", "rm", "kto"}
    assert served("kto") == {"kto"}
    assert served("rl-prompts") == set(ONLINE_RL)
    assert data.methods_served(data.inspect("org/name")) == METHODS
    everything = set().union(*(served(format) for format in data.FORMATS))
    assert everything == set(METHODS)


@pytest.mark.parametrize("format", data.FORMATS)
@pytest.mark.parametrize("method", METHODS)
def test_mismatch_agrees_with_methods_served(format: str, method: str) -> None:
    found = Dataset(path="d.jsonl", local=True, format=format, rows=1)
    message = data.mismatch(found, method)
    assert (message is None) == (method in data.methods_served(found))
    if message:
        assert "\n" not in message
        assert message.startswith("d.jsonl holds ")
        assert f"; {method} needs " in message


def test_mismatch_words() -> None:
    found = Dataset(path="d.jsonl", local=True, format="kto", rows=1)
    assert data.mismatch(found, "dpo") == (
        "d.jsonl holds answers labelled good or bad (KTO); dpo needs preference (prompt, chosen, rejected); "
        "this data serves kto"
    )


def test_a_solution_column_must_be_in_every_row(tmp_path: Path) -> None:
    row = {"messages": [U, A], "solution": "4"}
    assert data.inspect(write(tmp_path / "a.jsonl", row, row)).extra["solution"] == "solution"
    assert data.inspect(write(tmp_path / "b.jsonl", row, ROWS["messages"])).extra["solution"] == ""


def test_jsonl_is_streamed(tmp_path: Path) -> None:
    file = tmp_path / "big.jsonl"
    line = json.dumps({"text": "x" * 10_000}) + "\n"
    with file.open("w") as stream:
        for _ in range(4000):
            stream.write(line)
    code = (
        "import resource, sys; from advisor.facts.dataset import inspect\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert inspect(sys.argv[1]).rows == 4000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    grown = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert int(grown.stdout) < 15_000, "KiB for a 40 MB file"


def test_many_bad_rows_are_counted_but_not_all_kept(tmp_path: Path) -> None:
    found = data.inspect(write(tmp_path / "d.jsonl", ROWS["text"], *[{"text": ""}] * 1500))
    assert (len(found.bad_rows), found.extra["bad_total"], found.rows) == (data.BAD_ROWS_KEPT, 1500, 1)
