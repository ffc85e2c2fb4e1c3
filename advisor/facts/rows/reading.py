"""Every format into the neutral row, or the reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from advisor.facts.rows.formats import FORMATS, Message, Row, list_of_objects, type_word
from advisor.facts.rows.turns import (
    Cells,
    answer_turns,
    assistant_turn,
    conversation_of,
    one_turn,
    prompt_turns,
    tools_of,
    turns_of,
    user_turn,
)

_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def problem(row: object, format: str) -> str | None:
    """What is wrong with this row as one of the format, or None."""
    if not isinstance(row, dict):
        return f"the row is {type_word(row)}, it must be an object with named columns"
    try:
        neutral(cast(Row, row), format)
    except ValueError as error:
        return str(error)
    return None


def neutral(row: Mapping[str, Any], format: str) -> Row:
    """The row in neutral form; ValueError says what is wrong with it."""
    parser = _PARSERS.get(format)
    if parser is None:
        raise ValueError(f"`{format}` is not a format; known: {', '.join(FORMATS)}")
    cells = Cells(row, format)
    parsed = parser(cells)
    return {"plain": False, **parsed, "tools": tools_of(cells.get("tools")), "extra": cells.extra()}


def _read_text(cells: Cells) -> Row:
    return {"kind": "text", "text": cells.string("text"), "plain": True}


def _chat(messages: list[Message]) -> Row:
    return {"kind": "chat", "messages": messages, "split": len(messages) - 1}


def _read_messages(cells: Cells) -> Row:
    column = cells.column("messages")
    return _chat(conversation_of(turns_of(cells.need("messages"), column), column))


def _read_sharegpt(cells: Cells) -> Row:
    column = cells.column("conversations")
    value = cells.need("conversations")
    if not isinstance(value, list):
        raise ValueError(f"`{column}` is {type_word(value)}, it must be a list of turns")
    items = cast("list[object]", value)
    if not items:
        raise ValueError(f"`{column}` is an empty list")
    messages = [_sharegpt_turn(item, f"`{column}` turn {number}") for number, item in enumerate(items, 1)]
    system = cells.optional("system")
    if system and messages[0]["role"] == "system":
        raise ValueError("there is a `system` column and a system turn: keep one")
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return _chat(conversation_of(messages, column))


def _sharegpt_turn(item: object, where: str) -> Message:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is {type_word(item)}, it must be an object with from and value")
    turn = cast(Message, item)
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str) or speaker not in _SHAREGPT_ROLES:
        raise ValueError(f"{where} is from {speaker!r}; known: {', '.join(_SHAREGPT_ROLES)}")
    role = _SHAREGPT_ROLES[speaker]
    if speaker == "function_call":
        return {"role": role, "content": "", "tool_calls": _calls_from_text(value, where)}
    others = {key: other for key, other in turn.items() if key not in ("from", "value")}
    return one_turn({"role": role, "content": value, **others}, where)


def _calls_from_text(value: object, where: str) -> list[Any]:
    try:
        parsed: object = json.loads(value) if isinstance(value, str) else None
    except json.JSONDecodeError:
        parsed = None
    calls = list_of_objects(cast(object, parsed) if isinstance(parsed, list) else [parsed])
    if not calls or any(set(call) != {"name", "arguments"} for call in calls):
        raise ValueError(f"{where} is a function_call, its value must be JSON with name and arguments")
    return [{"type": "function", "function": call} for call in calls]


def _read_alpaca(cells: Cells) -> Row:
    system, question, answer = cells.optional("system"), cells.string("instruction"), cells.string("output")
    data = cells.optional("input")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    history: object = cells.get("history") or []
    if not isinstance(history, list):
        raise ValueError("`history` must be a list of [question, answer] strings")
    for pair in cast("list[object]", history):
        turns = cast("list[object]", pair) if isinstance(pair, list) else []
        if len(turns) != 2 or not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise ValueError("`history` must be a list of [question, answer] strings")
        messages += [user_turn(cast(str, turns[0])), assistant_turn(cast(str, turns[1]))]
    messages += [user_turn(f"{question}\n{data}" if data else question), assistant_turn(answer)]
    return _chat(messages)


def _same_shape(cells: Cells, *names: str) -> bool:
    """Whether the fields are lists of messages; ValueError when some are and some are not."""
    lists = [isinstance(cells.need(name), list) for name in names]
    if any(lists) and not all(lists):
        words = ", ".join(f"`{cells.column(name)}` is {type_word(cells.get(name))}" for name in names)
        raise ValueError(f"{words}: use strings for all or lists of messages for all")
    return all(lists)


def _read_prompt_completion(cells: Cells) -> Row:
    if _same_shape(cells, "prompt", "completion"):
        prompt = prompt_turns(cells.need("prompt"), cells.column("prompt"))
        answer = answer_turns(cells.need("completion"), cells.column("completion"))
        return {"kind": "chat", "messages": prompt + answer, "split": len(prompt)}
    messages = [user_turn(cells.string("prompt")), assistant_turn(cells.string("completion"))]
    return {**_chat(messages), "plain": True}


def _read_preference(cells: Cells) -> Row:
    chosen, rejected = cells.string("chosen"), cells.string("rejected")
    if chosen == rejected:
        raise ValueError("`chosen` and `rejected` are the same")
    prompt = [user_turn(cells.string("prompt"))] if "prompt" in cells.columns else []
    if cells.column("prompt") == "instruction" and cells.row.get("input"):
        raise ValueError("the question is split into `instruction` and `input`: join them as `prompt`")
    pair = {"prompt": prompt, "chosen": [assistant_turn(chosen)], "rejected": [assistant_turn(rejected)]}
    return {"kind": "pair", **pair, "plain": True}


def _read_preference_messages(cells: Cells) -> Row:
    chosen, rejected = turns_of(cells.need("chosen"), "chosen"), turns_of(cells.need("rejected"), "rejected")
    if chosen == rejected:
        raise ValueError("`chosen` and `rejected` are the same")
    if "prompt" in cells.columns:
        prompt = prompt_turns(cells.need("prompt"), cells.column("prompt"))
    else:
        shared = _shared_turns(chosen, rejected)
        if not shared:
            raise ValueError("there is no `prompt`, and `chosen` and `rejected` share no first turns")
        prompt = prompt_turns(chosen[:shared], "chosen")
        chosen, rejected = chosen[shared:], rejected[shared:]
    answers = {"chosen": answer_turns(chosen, "chosen"), "rejected": answer_turns(rejected, "rejected")}
    return {"kind": "pair", "prompt": prompt, **answers}


def _shared_turns(first: list[Message], second: list[Message]) -> int:
    """Length of the common prefix that leaves both an answer."""
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    return shared


def _read_kto(cells: Cells) -> Row:
    label = cells.need("label")
    if not isinstance(label, bool):
        raise ValueError(f"`{cells.column('label')}` is {type_word(label)}, it must be true or false")
    if "completion" not in cells.columns and isinstance(cells.get("prompt"), list):
        column = cells.column("prompt")
        turns = conversation_of(turns_of(cells.get("prompt"), column), column)
        return {"kind": "label", "prompt": turns[:-1], "completion": turns[-1:], "label": label}
    if _same_shape(cells, "prompt", "completion"):
        prompt = prompt_turns(cells.need("prompt"), cells.column("prompt"))
        answer = answer_turns(cells.need("completion"), cells.column("completion"))
        return {"kind": "label", "prompt": prompt, "completion": answer, "label": label}
    prompt, answer = [user_turn(cells.string("prompt"))], [assistant_turn(cells.string("completion"))]
    return {"kind": "label", "prompt": prompt, "completion": answer, "label": label, "plain": True}


def _read_rl(cells: Cells) -> Row:
    value = cells.need("prompt")
    solution = solution_text(cells.need("solution"), cells.column("solution"))
    if isinstance(value, list):
        turns = turns_of(cast("list[object]", value), cells.column("prompt"))
        prompt = prompt_turns(turns, cells.column("prompt"))
        return {"kind": "prompt", "prompt": prompt, "solution": solution}
    prompt = [user_turn(cells.string("prompt"))]
    return {"kind": "prompt", "prompt": prompt, "solution": solution, "plain": True}


def solution_text(value: object, column: str) -> str:
    if column == "reward_model":
        if not isinstance(value, dict) or "ground_truth" not in value:
            raise ValueError("`reward_model` must be an object with ground_truth")
        return solution_text(cast(Row, value)["ground_truth"], "reward_model.ground_truth")
    text = json.dumps(value) if isinstance(value, int | float) else value
    if not isinstance(text, str):
        raise ValueError(f"`{column}` is {type_word(value)}, it must be a string or a number")
    if not text.strip():
        raise ValueError(f"`{column}` is empty")
    return text


_PARSERS: Mapping[str, Callable[[Cells], Row]] = {
    "text": _read_text,
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
    "prompt-completion": _read_prompt_completion,
    "preference": _read_preference,
    "preference-messages": _read_preference_messages,
    "kto": _read_kto,
    "rl-prompts": _read_rl,
}
