"""Rows of training data: what a row means, what is wrong with it, and how it reads in another format.

Every format is parsed into a neutral row and written from one. This module imports the standard library
only, so that a copy can travel in a starter repository.

Neutral rows, by `kind`:
  text    text
  chat    messages, split (index of the first message of the answer)
  pair    prompt, chosen, rejected (lists of messages; prompt is empty when the row has none)
  label   prompt, completion (lists of messages), label
  prompt  prompt (list of messages), solution
Each also has `plain` (the row held bare strings, no turns), `tools` (or None) and `extra` (other columns).

`extra` columns are no training content: only rl-prompts has room for them, other targets leave them out.
All else is kept, or the conversion raises ValueError with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

Row = dict[str, Any]
Message = dict[str, Any]

PROMPT_NAMES = ("prompt", "question", "query", "instruction", "input")
ANSWER_NAMES = ("completion", "response", "output", "answer")
SOLUTION_NAMES = ("solution", "ground_truth", "answer", "final_answer", "reward_model")
MESSAGES_NAMES = ("messages", "conversations", "conversation", "dialogue")
TEXT_NAMES = ("text", "content", "document")
LABEL_NAMES = ("label", "kto_tag")

_TOOLS = {"tools": ("tools",)}
COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "text": {"text": TEXT_NAMES},
    "messages": {"messages": MESSAGES_NAMES, **_TOOLS},
    "sharegpt": {"conversations": ("conversations", "conversation"), "system": ("system",), **_TOOLS},
    "alpaca": {
        "instruction": ("instruction",),
        "input": ("input", "context"),
        "output": ("output", "response", "completion"),
        "system": ("system",),
        "history": ("history",),
    },
    "prompt-completion": {"prompt": PROMPT_NAMES, "completion": ANSWER_NAMES, **_TOOLS},
    "preference": {"prompt": PROMPT_NAMES, "chosen": ("chosen",), "rejected": ("rejected",)},
    "preference-messages": {
        "prompt": PROMPT_NAMES,
        "chosen": ("chosen",),
        "rejected": ("rejected",),
        **_TOOLS,
    },
    "kto": {
        "prompt": (*PROMPT_NAMES, *MESSAGES_NAMES),
        "completion": ANSWER_NAMES,
        "label": LABEL_NAMES,
        **_TOOLS,
    },
    "rl-prompts": {"prompt": (*PROMPT_NAMES, *MESSAGES_NAMES), "solution": SOLUTION_NAMES, **_TOOLS},
}
"""Format -> field -> column names that are read as this field, best first."""

FORMATS = tuple(COLUMNS)

ROLES = ("system", "user", "assistant", "tool")
_FOLLOWS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
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


# --- which format a row is in -------------------------------------------------------------------


def mapping(row: Mapping[str, Any], format: str) -> dict[str, str]:
    """Field of the format -> the column of this row that holds it."""
    found: dict[str, str] = {}
    for name, candidates in COLUMNS[format].items():
        column = next((c for c in candidates if row.get(c) is not None), None)
        if column is not None:
            found[name] = column
    return found


def solution_column(row: Mapping[str, Any]) -> str | None:
    """The column that holds a checkable solution, if any."""
    return next((c for c in SOLUTION_NAMES if row.get(c) is not None), None)


def guess(row: Mapping[str, Any]) -> str:
    """The format this row is most likely in, by its columns; `unknown` if none."""
    has = {column for column, value in row.items() if value is not None}
    if {"chosen", "rejected"} <= has:
        turns = isinstance(row["chosen"], list) or isinstance(row["rejected"], list)
        return "preference-messages" if turns else "preference"
    if _label_like(row) and has & {*ANSWER_NAMES, *MESSAGES_NAMES}:
        return "kto"
    for column in MESSAGES_NAMES:
        if column in has and (isinstance(row[column], list) or column in ("messages", "conversations")):
            return _guess_turns(row, column)
    return _guess_flat(has, isinstance(row.get("prompt"), list))


def _label_like(row: Mapping[str, Any]) -> bool:
    """Also values that are wrong for a label but leave no doubt what is meant: the row is then reported."""
    values = [row[name] for name in LABEL_NAMES if name in row]
    return any(str(value).lower() in ("true", "false", "0", "1") for value in values)


def _guess_turns(row: Mapping[str, Any], column: str) -> str:
    turns = _objects(row[column])
    if any("from" in turn for turn in turns):
        return "sharegpt"
    answered = any(turn.get("role") == "assistant" for turn in turns)
    return "messages" if answered or not solution_column(row) else "rl-prompts"


def _guess_flat(has: set[str], prompt_is_list: bool) -> str:
    if "prompt" in has:
        answers = {"completion"} if prompt_is_list else {"completion", "response", "output"}
        return "prompt-completion" if has & answers else "rl-prompts"
    if "instruction" in has and has & {"output", "response", "completion"}:
        return "alpaca"
    if has & set(PROMPT_NAMES):
        if has & set(ANSWER_NAMES):
            return "prompt-completion"
        if has & set(SOLUTION_NAMES):
            return "rl-prompts"
    return "text" if has & set(TEXT_NAMES) else "unknown"


# --- reading: row -> neutral --------------------------------------------------------------------


def problem(row: object, format: str) -> str | None:
    """What is wrong with this row as one of the format, or None."""
    if not isinstance(row, dict):
        return f"the row is {_word(row)}, it must be an object with named columns"
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
    cells = _Cells(row, format)
    parsed = parser(cells)
    return {"plain": False, **parsed, "tools": _tools(cells.get("tools")), "extra": cells.extra()}


class _Cells:
    """One row seen through the field names of its format."""

    def __init__(self, row: Mapping[str, Any], format: str) -> None:
        self.row = row
        self.columns = mapping(row, format)
        self.names = COLUMNS[format]

    def get(self, name: str) -> Any:
        return self.row.get(self.columns.get(name, ""))

    def column(self, name: str) -> str:
        return self.columns.get(name, name)

    def need(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            others = [other for other in self.names[name] if other != name]
            also = f" (also read: {', '.join(others)})" if others else ""
            raise ValueError(f"missing `{name}`{also}")
        return value

    def string(self, name: str) -> str:
        value = self.need(name)
        if not isinstance(value, str):
            raise ValueError(f"`{self.column(name)}` is {_word(value)}, it must be a string")
        if not value.strip():
            raise ValueError(f"`{self.column(name)}` is empty")
        return value

    def optional(self, name: str) -> str:
        """A string that may be absent or empty."""
        value = self.get(name)
        if value is None or value == "":
            return ""
        return self.string(name)

    def extra(self) -> Row:
        used = set(self.columns.values()) - {"reward_model"}
        return {column: value for column, value in self.row.items() if column not in used}


def _word(value: object) -> str:
    words: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return words.get(type(value), type(value).__name__)


def _objects(value: object) -> list[Message]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast(Message, item) for item in items if isinstance(item, dict)]


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _tools(value: object) -> list[Any] | None:
    """Tool definitions, given as a list or as the JSON text of one."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError("`tools` is a string that is not JSON") from None
    if value is None or value in ("", []):
        return None
    if not isinstance(value, list):
        raise ValueError(f"`tools` is {_word(value)}, it must be a list of tool definitions")
    return cast("list[Any]", value)


def _turns(value: object, where: str) -> list[Message]:
    """A non-empty list of well-formed messages, nulls left out."""
    if not isinstance(value, list):
        raise ValueError(f"`{where}` is {_word(value)}, it must be a list of messages")
    items = cast("list[object]", value)
    if not items:
        raise ValueError(f"`{where}` is an empty list")
    return [_turn(item, f"`{where}` message {number}") for number, item in enumerate(items, 1)]


def _turn(item: object, where: str) -> Message:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is {_word(item)}, it must be an object with role and content")
    message = {key: value for key, value in cast(Message, item).items() if value is not None}
    role = message.get("role")
    if role is None:
        raise ValueError(f"{where} has no role")
    if role not in ROLES:
        raise ValueError(f"{where} has role {role!r}; known: {', '.join(ROLES)}")
    content = message.get("content", "")
    if not isinstance(content, str | list):
        raise ValueError(f"{where} has content that is {_word(content)}, it must be a string")
    empty = not content.strip() if isinstance(content, str) else not content
    if empty and not message.get("tool_calls") and role != "tool":
        raise ValueError(f"{where} ({role}) is empty")
    return {**message, "content": content}


def _in_order(messages: list[Message], where: str, start: str = "") -> list[Message]:
    previous = start
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role not in _FOLLOWS[previous]:
            place = f"after {previous}" if previous else "first"
            expected = " or ".join(_FOLLOWS[previous])
            raise ValueError(
                f"wrong role order in `{where}`: message {number} is {role} {place}, expected {expected}"
            )
        previous = role
    return messages


def _conversation(messages: list[Message], where: str) -> list[Message]:
    _in_order(messages, where)
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"`{where}` ends with {messages[-1]['role']}: there is no assistant answer to learn")
    return messages


def _prompt_turns(value: object, where: str) -> list[Message]:
    messages = _in_order(_turns(value, where), where)
    if messages[-1]["role"] not in ("user", "tool"):
        raise ValueError(f"`{where}` ends with {messages[-1]['role']}, a prompt must end with user")
    return messages


def _answer_turns(value: object, where: str) -> list[Message]:
    messages = _in_order(_turns(value, where), where, start="user")
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"`{where}` ends with {messages[-1]['role']}, an answer must end with assistant")
    return messages


def _read_text(cells: _Cells) -> Row:
    return {"kind": "text", "text": cells.string("text"), "plain": True}


def _chat(messages: list[Message]) -> Row:
    return {"kind": "chat", "messages": messages, "split": len(messages) - 1}


def _read_messages(cells: _Cells) -> Row:
    column = cells.column("messages")
    return _chat(_conversation(_turns(cells.need("messages"), column), column))


def _read_sharegpt(cells: _Cells) -> Row:
    column = cells.column("conversations")
    value = cells.need("conversations")
    if not isinstance(value, list):
        raise ValueError(f"`{column}` is {_word(value)}, it must be a list of turns")
    items = cast("list[object]", value)
    if not items:
        raise ValueError(f"`{column}` is an empty list")
    messages = [_sharegpt_turn(item, f"`{column}` turn {number}") for number, item in enumerate(items, 1)]
    system = cells.optional("system")
    if system and messages[0]["role"] == "system":
        raise ValueError("there is a `system` column and a system turn: keep one")
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return _chat(_conversation(messages, column))


def _sharegpt_turn(item: object, where: str) -> Message:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is {_word(item)}, it must be an object with from and value")
    turn = cast(Message, item)
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str) or speaker not in _SHAREGPT_ROLES:
        raise ValueError(f"{where} is from {speaker!r}; known: {', '.join(_SHAREGPT_ROLES)}")
    role = _SHAREGPT_ROLES[speaker]
    if speaker == "function_call":
        return {"role": role, "content": "", "tool_calls": _calls_from_text(value, where)}
    others = {key: other for key, other in turn.items() if key not in ("from", "value")}
    return _turn({"role": role, "content": value, **others}, where)


def _calls_from_text(value: object, where: str) -> list[Any]:
    try:
        parsed: object = json.loads(value) if isinstance(value, str) else None
    except json.JSONDecodeError:
        parsed = None
    calls = _objects(cast(object, parsed) if isinstance(parsed, list) else [parsed])
    if not calls or any(set(call) != {"name", "arguments"} for call in calls):
        raise ValueError(f"{where} is a function_call, its value must be JSON with name and arguments")
    return [{"type": "function", "function": call} for call in calls]


def _read_alpaca(cells: _Cells) -> Row:
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
        messages += [_user(cast(str, turns[0])), _assistant(cast(str, turns[1]))]
    messages += [_user(f"{question}\n{data}" if data else question), _assistant(answer)]
    return _chat(messages)


def _same_shape(cells: _Cells, *names: str) -> bool:
    """Whether the fields are lists of messages; ValueError when some are and some are not."""
    lists = [isinstance(cells.need(name), list) for name in names]
    if any(lists) and not all(lists):
        words = ", ".join(f"`{cells.column(name)}` is {_word(cells.get(name))}" for name in names)
        raise ValueError(f"{words}: use strings for all or lists of messages for all")
    return all(lists)


def _read_prompt_completion(cells: _Cells) -> Row:
    if _same_shape(cells, "prompt", "completion"):
        prompt = _prompt_turns(cells.need("prompt"), cells.column("prompt"))
        answer = _answer_turns(cells.need("completion"), cells.column("completion"))
        return {"kind": "chat", "messages": prompt + answer, "split": len(prompt)}
    messages = [_user(cells.string("prompt")), _assistant(cells.string("completion"))]
    return {**_chat(messages), "plain": True}


def _read_preference(cells: _Cells) -> Row:
    chosen, rejected = cells.string("chosen"), cells.string("rejected")
    if chosen == rejected:
        raise ValueError("`chosen` and `rejected` are the same")
    prompt = [_user(cells.string("prompt"))] if "prompt" in cells.columns else []
    if cells.column("prompt") == "instruction" and cells.row.get("input"):
        raise ValueError("the question is split into `instruction` and `input`: join them as `prompt`")
    pair = {"prompt": prompt, "chosen": [_assistant(chosen)], "rejected": [_assistant(rejected)]}
    return {"kind": "pair", **pair, "plain": True}


def _read_preference_messages(cells: _Cells) -> Row:
    chosen, rejected = _turns(cells.need("chosen"), "chosen"), _turns(cells.need("rejected"), "rejected")
    if chosen == rejected:
        raise ValueError("`chosen` and `rejected` are the same")
    if "prompt" in cells.columns:
        prompt = _prompt_turns(cells.need("prompt"), cells.column("prompt"))
    else:
        shared = _shared_turns(chosen, rejected)
        if not shared:
            raise ValueError("there is no `prompt`, and `chosen` and `rejected` share no first turns")
        prompt = _prompt_turns(chosen[:shared], "chosen")
        chosen, rejected = chosen[shared:], rejected[shared:]
    answers = {"chosen": _answer_turns(chosen, "chosen"), "rejected": _answer_turns(rejected, "rejected")}
    return {"kind": "pair", "prompt": prompt, **answers}


def _shared_turns(first: list[Message], second: list[Message]) -> int:
    """Length of the common prefix that leaves both an answer."""
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    return shared


def _read_kto(cells: _Cells) -> Row:
    label = cells.need("label")
    if not isinstance(label, bool):
        raise ValueError(f"`{cells.column('label')}` is {_word(label)}, it must be true or false")
    if "completion" not in cells.columns and isinstance(cells.get("prompt"), list):
        column = cells.column("prompt")
        turns = _conversation(_turns(cells.get("prompt"), column), column)
        return {"kind": "label", "prompt": turns[:-1], "completion": turns[-1:], "label": label}
    if _same_shape(cells, "prompt", "completion"):
        prompt = _prompt_turns(cells.need("prompt"), cells.column("prompt"))
        answer = _answer_turns(cells.need("completion"), cells.column("completion"))
        return {"kind": "label", "prompt": prompt, "completion": answer, "label": label}
    prompt, answer = [_user(cells.string("prompt"))], [_assistant(cells.string("completion"))]
    return {"kind": "label", "prompt": prompt, "completion": answer, "label": label, "plain": True}


def _read_rl(cells: _Cells) -> Row:
    value = cells.need("prompt")
    solution = _solution(cells.need("solution"), cells.column("solution"))
    if isinstance(value, list):
        turns = _turns(cast("list[object]", value), cells.column("prompt"))
        prompt = _prompt_turns(turns, cells.column("prompt"))
        return {"kind": "prompt", "prompt": prompt, "solution": solution}
    prompt = [_user(cells.string("prompt"))]
    return {"kind": "prompt", "prompt": prompt, "solution": solution, "plain": True}


def _solution(value: object, column: str) -> str:
    if column == "reward_model":
        if not isinstance(value, dict) or "ground_truth" not in value:
            raise ValueError("`reward_model` must be an object with ground_truth")
        return _solution(cast(Row, value)["ground_truth"], "reward_model.ground_truth")
    text = json.dumps(value) if isinstance(value, int | float) else value
    if not isinstance(text, str):
        raise ValueError(f"`{column}` is {_word(value)}, it must be a string or a number")
    if not text.strip():
        raise ValueError(f"`{column}` is empty")
    return text


_PARSERS: Mapping[str, Callable[[_Cells], Row]] = {
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


# --- writing: neutral -> row --------------------------------------------------------------------


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
        solution = _solution(extra[column] if column == "reward_model" else extra.pop(column), column)
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
