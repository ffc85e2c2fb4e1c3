"""A neutral row in another format. All is kept, or the conversion raises ValueError with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from advisor.facts.rows.formats import FORMATS, Message, Row, solution_column
from advisor.facts.rows.reading import neutral, solution_text


def convert(row: Mapping[str, Any], source_format: str, target_format: str) -> Row:
    """The row in another format; ValueError with the reason when something would be lost."""
    return render(neutral(row, source_format), target_format)


def render(parsed: Row, target_format: str) -> Row:
    """A neutral row in the target format."""
    writer = _WRITERS.get(target_format)
    if writer is None:
        raise ValueError(f"`{target_format}` is not a format; known: {', '.join(FORMATS)}")
    return writer(parsed)


def unpair(row: Mapping[str, Any], source_format: str) -> tuple[Row, Row]:
    """A preference row as two kto rows: the chosen answer labelled true, the rejected one false."""
    parsed = _of_kind(neutral(row, source_format), "pair", "kto")
    if not parsed["prompt"]:
        raise ValueError("there is no `prompt`, and kto needs one")
    rest = {"kind": "label", "prompt": parsed["prompt"], "plain": parsed["plain"], "tools": parsed["tools"]}
    good = {**rest, "completion": parsed["chosen"], "label": True}
    bad = {**rest, "completion": parsed["rejected"], "label": False}
    return render(good, "kto"), render(bad, "kto")


def take_chosen(row: Mapping[str, Any], source_format: str) -> Row:
    """The chosen answer of a preference row as a messages row: the rejected one is given up on purpose."""
    parsed = _of_kind(neutral(row, source_format), "pair", "messages")
    if not parsed["prompt"]:
        raise ValueError("there is no `prompt`, so the turns of the answer are unknown")
    return _with_tools({"messages": [*parsed["prompt"], *parsed["chosen"]]}, parsed)


_LACKS = {
    ("text", "chat"): "raw text has no turns",
    ("pair", "chat"): "the rejected answer would be lost (take_chosen gives it up on purpose)",
    ("label", "chat"): "the label would be lost",
    ("prompt", "chat"): "there is no answer to learn from, only a prompt and a solution",
    ("pair", "label"): "one pair makes two labelled rows (unpair does it)",
    ("chat", "label"): "nothing says whether the answer is good or bad",
    ("chat", "pair"): "there is no rejected answer",
    ("label", "pair"): "there is one answer, a pair needs two",
}


def _of_kind(parsed: Row, kind: str, target: str) -> Row:
    if parsed["kind"] == kind:
        return parsed
    why = _LACKS.get((parsed["kind"], kind), f"the row is of kind {parsed['kind']}")
    raise ValueError(f"cannot become {target}: {why}")


def _with_tools(row: Row, parsed: Row) -> Row:
    return {**row, "tools": parsed["tools"]} if parsed["tools"] else row


def _no_tools(parsed: Row, target: str) -> None:
    if parsed["tools"]:
        raise ValueError(f"{target} has no room for `tools`")


def _plain_text(message: Message, target: str) -> str:
    """The content of a message that is nothing but a string."""
    others = sorted(set(message) - {"role", "content"})
    if others:
        raise ValueError(f"{target} has no room for a message's {', '.join(others)}")
    if not isinstance(message["content"], str):
        raise ValueError(f"{target} has no room for content made of parts")
    return message["content"]


def _write_text(parsed: Row) -> Row:
    """Turns become paragraphs in their order; bare prompt and completion are joined as they are written."""
    if parsed["kind"] == "text":
        return {"text": parsed["text"]}
    _no_tools(_of_kind(parsed, "chat", "text"), "text")
    parts = [_plain_text(message, "text") for message in parsed["messages"]]
    joined = parsed["plain"] and (parts[0][-1:].isspace() or parts[1][:1].isspace())
    return {"text": ("" if joined else "\n\n").join(parts)}


def _write_messages(parsed: Row) -> Row:
    return _with_tools({"messages": _of_kind(parsed, "chat", "messages")["messages"]}, parsed)


def _write_prompt_completion(parsed: Row) -> Row:
    messages = _of_kind(parsed, "chat", "prompt-completion")["messages"]
    prompt, answer = messages[: parsed["split"]], messages[parsed["split"] :]
    return _with_tools(_bare({"prompt": prompt, "completion": answer}, parsed), parsed)


def _bare(fields: dict[str, list[Message]], parsed: Row) -> Row:
    """Strings when the source held strings."""
    if not parsed["plain"]:
        return dict(fields)
    return {name: messages[0]["content"] for name, messages in fields.items() if messages}


def _write_alpaca(parsed: Row) -> Row:
    _no_tools(_of_kind(parsed, "chat", "alpaca"), "alpaca")
    messages: list[Message] = parsed["messages"]
    texts = [_plain_text(message, "alpaca") for message in messages]
    if any(message["role"] == "tool" for message in messages):
        raise ValueError("alpaca has no room for tool turns")
    row: Row = {"instruction": texts[-2], "input": "", "output": texts[-1]}
    system = messages[0]["role"] == "system"
    if system:
        row["system"] = texts[0]
    earlier = texts[1 if system else 0 : -2]
    if earlier:
        row["history"] = [earlier[at : at + 2] for at in range(0, len(earlier), 2)]
    return row


_SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}


def _write_sharegpt(parsed: Row) -> Row:
    messages: list[Message] = _of_kind(parsed, "chat", "sharegpt")["messages"]
    row: Row = {"conversations": [_speech(m) for m in messages if m["role"] != "system"]}
    if messages[0]["role"] == "system":
        row["system"] = _plain_text(messages[0], "sharegpt")
    if parsed["tools"]:
        row["tools"] = json.dumps(parsed["tools"], ensure_ascii=False)
    return row


def _speech(message: Message) -> Row:
    calls = message.get("tool_calls")
    if not calls:
        plain = {key: value for key, value in message.items() if key != "tool_calls"}
        return {"from": _SPEAKERS[message["role"]], "value": _plain_text(plain, "sharegpt")}
    if message["content"]:
        raise ValueError("sharegpt has no room for text and tool calls in one turn")
    _plain_text({key: value for key, value in message.items() if key != "tool_calls"}, "sharegpt")
    bare = [_call(call) for call in calls]
    return {
        "from": "function_call",
        "value": json.dumps(bare[0] if len(bare) == 1 else bare, ensure_ascii=False),
    }


def _call(call: object) -> Row:
    """Name and arguments of a tool call that has nothing else, such as an id."""
    whole = cast(Row, call) if isinstance(call, dict) else {}
    function = whole.get("function")
    if set(whole) - {"type", "function"} or not isinstance(function, dict):
        raise ValueError("sharegpt has no room for the id of a tool call")
    inner = cast(Row, function)
    if set(inner) != {"name", "arguments"}:
        raise ValueError("a tool call needs name and arguments, and nothing else, to become sharegpt")
    return inner


def _write_preference(parsed: Row) -> Row:
    _no_tools(_of_kind(parsed, "pair", "preference"), "preference")
    if len(parsed["prompt"]) > 1 or len(parsed["chosen"]) > 1 or len(parsed["rejected"]) > 1:
        raise ValueError("preference holds one question and one answer each, this row has more turns")
    names = ("prompt", "chosen", "rejected") if parsed["prompt"] else ("chosen", "rejected")
    return {name: _plain_text(parsed[name][0], "preference") for name in names}


def _write_preference_messages(parsed: Row) -> Row:
    if not _of_kind(parsed, "pair", "preference-messages")["prompt"]:
        raise ValueError("there is no `prompt`, so the turns of the answers are unknown")
    return _with_tools({name: parsed[name] for name in ("prompt", "chosen", "rejected")}, parsed)


def _write_kto(parsed: Row) -> Row:
    _of_kind(parsed, "label", "kto")
    fields = _bare({"prompt": parsed["prompt"], "completion": parsed["completion"]}, parsed)
    return _with_tools({**fields, "label": parsed["label"]}, parsed)


def _write_rl(parsed: Row) -> Row:
    """A chat becomes a prompt when it has a solution column; its answer stays as the column `completion`."""
    extra: Row = dict(parsed["extra"])
    if parsed["kind"] == "chat":
        column = solution_column(extra)
        if column is None:
            raise ValueError("cannot become rl-prompts: there is no solution to check an answer against")
        solution = solution_text(extra[column] if column == "reward_model" else extra.pop(column), column)
        prompt, answer = parsed["messages"][: parsed["split"]], parsed["messages"][parsed["split"] :]
        kept = answer[0]["content"] if parsed["plain"] else answer
        extra = {**extra, "completion": kept} if "completion" not in extra else _taken("completion")
    else:
        prompt, solution = _of_kind(parsed, "prompt", "rl-prompts")["prompt"], parsed["solution"]
    for column in ("prompt", "solution"):
        if extra.get(column) is not None:
            _taken(column)
    extra = {column: value for column, value in extra.items() if column not in ("prompt", "solution")}
    return _with_tools({"prompt": prompt, "solution": solution, **extra}, parsed)


def _taken(column: str) -> Row:
    raise ValueError(f"cannot become rl-prompts: another column is already named `{column}`")


_WRITERS: Mapping[str, Callable[[Row], Row]] = {
    "text": _write_text,
    "messages": _write_messages,
    "sharegpt": _write_sharegpt,
    "alpaca": _write_alpaca,
    "prompt-completion": _write_prompt_completion,
    "preference": _write_preference,
    "preference-messages": _write_preference_messages,
    "kto": _write_kto,
    "rl-prompts": _write_rl,
}
