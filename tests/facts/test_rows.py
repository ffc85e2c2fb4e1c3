"""Conversion between formats loses nothing, or says what it would lose."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.facts import rows

words = st.text(min_size=1, max_size=40).filter(lambda text: text.strip())
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def user(text: str) -> rows.Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> rows.Message:
    return {"role": "assistant", "content": text}


@st.composite
def chats(draw: st.DrawFn, *, tools: bool = False) -> rows.Row:
    messages: list[rows.Message] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(words)})
    for _ in range(draw(st.integers(1, 4))):
        messages.append(user(draw(words)))
        if tools and draw(st.booleans()):
            messages += [{"role": "assistant", "content": "", "tool_calls": [CALL]}]
            messages += [{"role": "tool", "content": draw(st.text(max_size=20))}]
        messages.append(assistant(draw(words)))
    return {"messages": messages, **({"tools": [TOOL]} if tools else {})}


@st.composite
def pairs(draw: st.DrawFn) -> rows.Row:
    chosen = draw(words)
    rejected = draw(words.filter(lambda text: text != chosen))
    return {"prompt": draw(words), "chosen": chosen, "rejected": rejected}


@given(chats(tools=True))
def test_messages_through_sharegpt_and_back(row: rows.Row) -> None:
    there = rows.convert(row, "messages", "sharegpt")
    assert rows.convert(there, "sharegpt", "messages") == row


@given(chats(tools=True))
def test_messages_through_prompt_completion_and_back(row: rows.Row) -> None:
    there = rows.convert(row, "messages", "prompt-completion")
    assert rows.convert(there, "prompt-completion", "messages") == row


@given(chats())
def test_messages_through_alpaca_and_back(row: rows.Row) -> None:
    there = rows.convert(row, "messages", "alpaca")
    assert rows.problem(there, "alpaca") is None
    assert rows.convert(there, "alpaca", "messages") == row


@given(words, words)
def test_bare_prompt_and_completion_stay_bare(prompt: str, completion: str) -> None:
    row = {"prompt": prompt, "completion": completion}
    assert rows.convert(row, "prompt-completion", "prompt-completion") == row
    turns = {"messages": [user(prompt), assistant(completion)]}
    assert rows.convert(row, "prompt-completion", "messages") == turns


@given(pairs())
def test_preference_through_messages_and_back(row: rows.Row) -> None:
    there = rows.convert(row, "preference", "preference-messages")
    assert rows.problem(there, "preference-messages") is None
    assert rows.convert(there, "preference-messages", "preference") == row


@given(pairs())
def test_a_pair_makes_two_labelled_rows(row: rows.Row) -> None:
    good, bad = rows.unpair(row, "preference")
    assert good == {"prompt": row["prompt"], "completion": row["chosen"], "label": True}
    assert bad == {"prompt": row["prompt"], "completion": row["rejected"], "label": False}


@given(words, words, st.booleans())
def test_kto_strings_and_turns(prompt: str, completion: str, label: bool) -> None:
    plain = {"prompt": prompt, "completion": completion, "label": label}
    turns = {"prompt": [user(prompt)], "completion": [assistant(completion)], "label": label}
    whole = {"messages": [user(prompt), assistant(completion)], "label": label}
    assert rows.convert(plain, "kto", "kto") == plain
    assert rows.convert(turns, "kto", "kto") == turns
    assert rows.convert(whole, "kto", "kto") == turns


@given(words, words, st.dictionaries(st.sampled_from(["level", "source", "entry"]), st.integers()))
def test_rl_prompts_keep_every_other_column(prompt: str, solution: str, others: dict[str, int]) -> None:
    row = {"question": prompt, "ground_truth": solution, **others}
    there = rows.convert(row, "rl-prompts", "rl-prompts")
    assert there == {"prompt": [user(prompt)], "solution": solution, **others}
    assert rows.convert(there, "rl-prompts", "rl-prompts") == there


@given(st.sampled_from(rows.FORMATS), st.sampled_from(rows.FORMATS), chats(), pairs(), words)
def test_a_conversion_that_is_not_refused_is_valid_in_its_target(
    source: str, target: str, chat: rows.Row, pair: rows.Row, text: str
) -> None:
    try:
        row = make(source, chat, pair, text)
        there = rows.convert(row, source, target)
    except ValueError:
        return
    assert rows.problem(there, target) is None
    assert target == source or rows.guess(there) == target


def make(format: str, chat: rows.Row, pair: rows.Row, text: str) -> rows.Row:
    match format:
        case "text":
            return {"text": text}
        case "preference" | "preference-messages":
            return rows.convert(pair, "preference", format)
        case "kto":
            return rows.unpair(pair, "preference")[0]
        case "rl-prompts":
            return {"prompt": pair["prompt"], "solution": text}
        case _:
            return rows.convert(chat, "messages", format)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["role", "content", "from", "value", "tool_calls", "ground_truth"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
COLUMN_NAMES = sorted(
    {name for columns in rows.COLUMNS.values() for names in columns.values() for name in names}
)


@given(st.dictionaries(st.sampled_from(COLUMN_NAMES), JSON, max_size=5), st.sampled_from(rows.FORMATS))
def test_garbage_is_a_problem_never_a_crash(row: rows.Row, format: str) -> None:
    assert rows.guess(row) in (*rows.FORMATS, "unknown")
    why = rows.problem(row, format)
    assert why is None or "\n" not in why


LOSSES: list[tuple[str, str, rows.Row, str]] = [
    (
        "preference",
        "messages",
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        "rejected answer would be lost",
    ),
    ("kto", "messages", {"prompt": "q", "completion": "a", "label": True}, "label would be lost"),
    ("kto", "preference", {"prompt": "q", "completion": "a", "label": True}, "a pair needs two"),
    ("text", "messages", {"text": "t"}, "raw text has no turns"),
    ("preference", "kto", {"prompt": "q", "chosen": "a", "rejected": "b"}, "unpair does it"),
    ("messages", "preference", {"messages": [user("q"), assistant("a")]}, "no rejected answer"),
    ("messages", "kto", {"messages": [user("q"), assistant("a")]}, "nothing says whether"),
    ("messages", "rl-prompts", {"messages": [user("q"), assistant("a")]}, "there is no solution"),
    ("rl-prompts", "messages", {"prompt": "q", "solution": "1"}, "no answer to learn from"),
    ("messages", "alpaca", {"messages": [user("q"), assistant("a")], "tools": [TOOL]}, "no room for `tools`"),
    ("preference", "preference-messages", {"chosen": "a", "rejected": "b"}, "there is no `prompt`"),
    (
        "preference-messages",
        "preference",
        {
            "prompt": [user("q"), assistant("a"), user("r")],
            "chosen": [assistant("b")],
            "rejected": [assistant("c")],
        },
        "this row has more turns",
    ),
    (
        "messages",
        "sharegpt",
        {
            "messages": [
                user("q"),
                {**assistant(""), "tool_calls": [{"id": "1", **CALL}]},
                {"role": "tool", "content": "1"},
                assistant("a"),
            ]
        },
        "id of a tool call",
    ),
    ("messages", "sharegpt", {"messages": [{**user("q"), "name": "bo"}, assistant("a")]}, "a message's name"),
    (
        "messages",
        "alpaca",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, assistant("a")]},
        "content made of parts",
    ),
]


@pytest.mark.parametrize(("source", "target", "row", "why"), LOSSES)
def test_a_loss_is_refused_with_its_reason(source: str, target: str, row: rows.Row, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rows.convert(row, source, target)


def test_take_chosen_is_the_way_to_give_up_the_rejected_answer() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert rows.take_chosen(row, "preference") == {"messages": [user("q"), assistant("a")]}


def test_a_chat_with_a_solution_becomes_a_prompt_and_keeps_its_answer() -> None:
    row = {"messages": [user("6 x 7?"), assistant("It is 42.")], "answer": 42, "level": 1}
    assert rows.convert(row, "messages", "rl-prompts") == {
        "prompt": [user("6 x 7?")],
        "solution": "42",
        "level": 1,
        "completion": [assistant("It is 42.")],
    }


def test_alpaca_input_follows_the_instruction() -> None:
    row = {
        "instruction": "Translate.",
        "input": "cat",
        "output": "chat",
        "system": "Be brief.",
        "history": [["a", "b"]],
    }
    assert rows.convert(row, "alpaca", "messages")["messages"] == [
        {"role": "system", "content": "Be brief."},
        user("a"),
        assistant("b"),
        user("Translate.\ncat"),
        assistant("chat"),
    ]


def test_text_from_chats() -> None:
    chat = {"messages": [user("q"), assistant("a")]}
    assert rows.convert(chat, "messages", "text") == {"text": "q\n\na"}
    code = {"prompt": "def one():\n", "completion": "    return 1"}
    assert rows.convert(code, "prompt-completion", "text") == {"text": "def one():\n    return 1"}


def test_implicit_prompts_are_the_shared_turns() -> None:
    row = {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
    assert rows.convert(row, "preference-messages", "preference") == {
        "prompt": "q",
        "chosen": "a",
        "rejected": "b",
    }


def test_tools_travel_as_json_text_in_sharegpt() -> None:
    row: dict[str, Any] = {"messages": [user("q"), assistant("a")], "tools": [TOOL]}
    assert json.loads(rows.convert(row, "messages", "sharegpt")["tools"]) == [TOOL]


def test_unknown_formats_are_named() -> None:
    with pytest.raises(ValueError, match="`qa` is not a format; known: text, messages"):
        rows.neutral({"text": "a"}, "qa")
    with pytest.raises(ValueError, match="`qa` is not a format"):
        rows.convert({"text": "a"}, "text", "qa")
    assert rows.problem(3, "text") == "the row is a number, it must be an object with named columns"
