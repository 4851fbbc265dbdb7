"""The forms that conversations are published in, to OpenAI's messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from fireside.data.documents import Problem

Row = Mapping[str, Any]
Kind = Literal["documents", "openai", "sharegpt", "alpaca", "pairs"]
Messages = list[dict[str, Any]]

_ROLES = frozenset({"system", "user", "assistant", "tool"})
_SAME_ROLE = {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
_PAIRS = (  # the keys of a question and its answer
    ("question", "answer"),  # GSM8K
    ("prompt", "completion"),  # TRL, which also has lists of messages under them
    ("prompt", "response"),
    ("instruction", "response"),  # Dolly
    ("query", "response"),
    ("problem", "solution"),
)
_BESIDE = ("context", "input")  # what a question is about
_NOT_ALONE = frozenset({"text", "choices", "options", "passage"})  # a row with one of these is something else as well
_CALLS = frozenset({"function_call", "tool_call"})  # ShareGPT's roles of a call


class BadConversation(Exception):
    """A row holds no conversation to train on, and why."""

    def __init__(self, detail: str, problem: Problem = Problem.BAD_CONVERSATION) -> None:
        super().__init__(detail)
        self.problem = problem


def detect(row: Row) -> Kind:
    """The form of `row`; what has the keys of no form of conversation is a document."""
    turns = _decoded(row.get("conversations", row.get("conversation")))
    if "messages" in row:
        return "openai"
    if isinstance(turns, list) and turns and isinstance(turns[0], Mapping):
        return "sharegpt" if "from" in turns[0] else "openai"
    if "instruction" in row and "output" in row:
        return "alpaca"
    return "pairs" if _pair(row) and _NOT_ALONE.isdisjoint(row) else "documents"


def to_openai(row: Row, kind: Kind) -> tuple[Messages, list[dict[str, Any]]]:
    """Messages and tools of a row. What follows the assistant's last message is left out, since nothing answers it.

    Raises `BadConversation`.
    """
    messages = [_checked(message, index) for index, message in enumerate(_READERS[kind](row))]
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise BadConversation("the conversation has no message of the assistant's", Problem.NO_ASSISTANT)
    if not any(m["role"] == "assistant" and (m["content"] or m.get("tool_calls")) for m in messages):
        raise BadConversation("every message of the assistant's is empty", Problem.NO_ASSISTANT)
    tools = _decoded(row.get("tools")) or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise BadConversation("tools is not a list of objects")
    return messages, [dict(tool) for tool in tools]


def _openai(row: Row) -> Sequence[Any]:
    return _turns(row.get("messages", row.get("conversations", row.get("conversation"))), "messages")


def _sharegpt(row: Row) -> Sequence[Any]:
    messages: list[Any] = []
    if isinstance(row.get("system"), str) and row["system"]:
        messages.append({"role": "system", "content": row["system"]})
    for index, turn in enumerate(_turns(row.get("conversations", row.get("conversation")), "conversations")):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("from"), str):
            raise BadConversation(f"conversations[{index}] has no 'from'")
        if turn["from"] in _CALLS:
            call = _decoded(turn.get("value"))
            if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
                raise BadConversation(f"conversations[{index}] is not a function call in JSON")
            calls = [{"type": "function", "function": dict(call)}]
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        else:
            messages.append({"role": turn["from"], "content": turn.get("value")})
    return messages


def _alpaca(row: Row) -> Sequence[Any]:
    messages: list[Any] = []
    if isinstance(row.get("system"), str) and row["system"]:
        messages.append({"role": "system", "content": row["system"]})
    history = _decoded(row.get("history")) or []
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise BadConversation("history is not a list of pairs")
    for turn in history:
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    question = row.get("instruction")
    if isinstance(question, str) and isinstance(row.get("input"), str) and row["input"].strip():
        question = f"{question}\n\n{row['input']}"
    return [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": row.get("output")}]


def _pairs(row: Row) -> Sequence[Any]:
    messages: list[Any] = []
    if isinstance(row.get("system"), str) and row["system"]:
        messages.append({"role": "system", "content": row["system"]})
    found = _pair(row)
    if found is None:
        keys = ", ".join(f"{question} and {answer}" for question, answer in _PAIRS)
        raise BadConversation(f"there is no question with an answer as text: a pair has {keys}")
    if row.get("label") is False:  # KTO's rows (TRL): the answer is there to be unlearned
        raise BadConversation("the answer is marked as a bad one: label is false")
    question, answer = found
    if isinstance(question, list) or isinstance(answer, list):
        return [*messages, *_as_messages(question, "user"), *_as_messages(answer, "assistant")]
    about = next((row[key] for key in _BESIDE if isinstance(row.get(key), str) and row[key].strip()), None)
    question = question if about is None else f"{question}\n\n{about}"
    return [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _pair(row: Row) -> tuple[Any, Any] | None:
    """The first question with its answer, as texts or lists of messages."""
    for keys in _PAIRS:
        found = [_decoded_list(row.get(key)) for key in keys]
        if all(isinstance(value, str | list) and value for value in found):
            return found[0], found[1]
    return None


def _decoded_list(value: Any) -> Any:
    """As `_decoded`, for lists of messages alone: a text stays what it is."""
    found = _decoded(value) if isinstance(value, str) and value.lstrip().startswith("[{") else value
    return found if isinstance(found, list) else value


def _as_messages(value: Any, role: str) -> list[Any]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]


_READERS: dict[str, Callable[[Row], Sequence[Any]]] = {
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "pairs": _pairs,
}


def _turns(value: Any, key: str) -> Sequence[Any]:
    turns = _decoded(value)
    if not isinstance(turns, list) or not turns:
        raise BadConversation(f"{key} is not a list of messages")
    return turns


def _checked(message: Any, index: int) -> dict[str, Any]:
    """A message with a role of OpenAI's and with content as text."""
    if not isinstance(message, Mapping):
        raise BadConversation(f"message {index} is not an object")
    role = message.get("role")
    role = _SAME_ROLE.get(role, role) if isinstance(role, str) else role
    if not isinstance(role, str) or role not in _ROLES:
        raise BadConversation(f"message {index} has the role {role!r}; the roles are {', '.join(sorted(_ROLES))}")
    calls = _decoded(message.get("tool_calls")) or []
    if not isinstance(calls, list):
        raise BadConversation(f"message {index} has tool calls that are not a list")
    if calls and role != "assistant":
        raise BadConversation(f"message {index} has tool calls and is not the assistant's")
    result: dict[str, Any] = {"role": role, "content": _text(message.get("content"), index, has_calls=bool(calls))}
    if calls:
        result["tool_calls"] = [_call(call, index) for call in calls]
    for key in ("name", "tool_call_id"):
        if isinstance(message.get(key), str):
            result[key] = message[key]
    return result


def _text(content: Any, index: int, *, has_calls: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and has_calls:
        return ""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content if part]
        known = [text for text in texts if isinstance(text, str)]
        if len(known) == len(texts):
            return "\n".join(known)
        raise BadConversation(f"message {index} holds a part that is not text")
    raise BadConversation(f"message {index} has no text")


def _call(call: Any, index: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadConversation(f"message {index} has a tool call without a function's name")
    arguments = _decoded(function.get("arguments", function.get("parameters", {})))
    if not isinstance(arguments, Mapping):
        raise BadConversation(f"message {index} has a tool call whose arguments are not a JSON object")
    # Tables give every row the keys of all rows, with None for those it lacks.
    known = {key: value for key, value in arguments.items() if value is not None}
    result: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": known}}
    if isinstance(call.get("id"), str):
        result["id"] = call["id"]
    return result


def _decoded(value: Any) -> Any:
    """Tables keep lists and objects as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value) if value.strip() else None
    except (msgspec.DecodeError, RecursionError):
        return value


def canonical(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as one text, the same for the same conversation."""
    return json.dumps([messages, tools], ensure_ascii=False, sort_keys=True)
