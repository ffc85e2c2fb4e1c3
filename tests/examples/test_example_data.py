"""The example data is what it says it is, and no two rows are variants of each other."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from advisor.facts.dataset import inspect

DATA = Path(__file__).parents[2] / "examples" / "data"
FILES = {
    "sft.jsonl": ("messages", 300),
    "preference.jsonl": ("preference", 120),
    "kto.jsonl": ("kto", 100),
    "cpt.jsonl": ("text", 60),
    "rl.jsonl": ("rl-prompts", 300),
    "sharegpt.jsonl": ("sharegpt", 24),
    "alpaca.jsonl": ("alpaca", 24),
    "prompt_completion.jsonl": ("prompt-completion", 24),
    "preference_messages.jsonl": ("preference-messages", 24),
}
NEAR = 0.6


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def strings(value: object) -> list[str]:
    """All text of a row, without the columns that say where it came from and without system prompts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    if isinstance(value, dict):
        if value.get("role") == "system":
            return []
        skipped = ("role", "from", "source", "system")
        return [text for key, item in value.items() if key not in skipped for text in strings(item)]
    return []


def grams(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4)))


def near_duplicates(texts: list[str]) -> list[tuple[int, int]]:
    """Pairs whose word 5-grams overlap by more than NEAR (Jaccard)."""
    sets = [grams(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for row, mine in enumerate(sets):
        for gram in mine:
            for other in holders[gram]:
                shared[other, row] += 1
            holders[gram].append(row)
    return [
        (first, second)
        for (first, second), common in shared.items()
        if common / (len(sets[first]) + len(sets[second]) - common) > NEAR
    ]


def test_near_duplicates_are_found() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    assert near_duplicates([text, text.replace("twelve", "thirteen"), "something else"]) == [(0, 1)]


def test_every_file_is_listed() -> None:
    assert {path.name for path in DATA.glob("*.jsonl")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_format_rows_and_no_bad_row(name: str) -> None:
    format, least = FILES[name]
    found = inspect(str(DATA / name))
    assert (found.format, found.bad_rows) == (format, ())
    assert found.rows >= least


@pytest.mark.parametrize("name", FILES)
def test_no_near_duplicates(name: str) -> None:
    pairs = near_duplicates([" ".join(strings(row)) for row in read(name)])
    print(f"{name}: {len(pairs)} near-duplicates")
    assert pairs == []


def test_no_near_duplicates_across_files() -> None:
    texts = [" ".join(strings(row)) for name in FILES for row in read(name)]
    pairs = near_duplicates(texts)
    print(f"{len(texts)} rows: {len(pairs)} near-duplicates")
    assert pairs == []


def test_no_question_is_asked_twice() -> None:
    questions = [
        row["messages"][-2]["content"].lower() for row in read("sft.jsonl") if len(row["messages"]) == 2
    ]
    prompts = [row["prompt"].lower() for name in ("preference.jsonl", "kto.jsonl") for row in read(name)]
    assert len(set(questions)) == len(questions)
    assert len(set(prompts)) == len(prompts)


def test_sft_is_varied() -> None:
    rows = [row["messages"] for row in read("sft.jsonl")]
    lengths = [len(messages[-1]["content"]) for messages in rows]
    openings = {" ".join(messages[-1]["content"].split()[:3]) for messages in rows}
    assert sum(messages[0]["role"] == "system" for messages in rows) >= 10
    assert sum(len(messages) > 3 for messages in rows) >= 10
    assert min(lengths) < 120 < 600 < max(lengths)
    assert len(openings) > 0.9 * len(rows)


def test_cpt_paragraphs_are_of_useful_length() -> None:
    lengths = [len(row["text"].split()) for row in read("cpt.jsonl")]
    assert min(lengths) >= 80
    assert max(lengths) <= 300


def test_kto_has_both_labels() -> None:
    good = [row["label"] for row in read("kto.jsonl")]
    assert 0.25 < sum(good) / len(good) < 0.8
