"""Conversations to prompts, by the Jinja template that comes with a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import meta, nodes

from fireside.tokenizers.chat_environment import ChatEnvironment, RefusedByTemplate, render_bounded
from fireside.tokenizers.look_alikes import escaped, look_alikes, unused_characters
from fireside.tokenizers.tokenizer import Tokenizer
from fireside.tokenizers.turns import TemplateError, Turns, find_turns

__all__ = ["ChatTemplate", "TemplateError", "adapted_message"]

Message = Mapping[str, Any]
Marker = Callable[[str], str]


class ChatTemplate:
    """One model's chat template, compiled once.

    Messages are OpenAI's: `role`, `content` (text, text parts or None), `tool_calls`, `tool_call_id`, `name`; other
    keys reach the template as they are. What templates expect otherwise is adapted: content None becomes "", text
    parts become one text (joined by newlines), keys that are None and empty `tool_calls` are left out, and a tool
    call's arguments become an object where they are JSON text.

    Attributes:
        supports_tools: the template reads `tools`.
    """

    def __init__(self, source: str, *, bos_token: str | None, eos_token: str | None) -> None:
        """Raises `TemplateError` when `source` is not a template."""
        environment = ChatEnvironment()
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise TemplateError(f"the chat template cannot be compiled{line}: {error}") from error
        self.source = source
        self.supports_tools = "tools" in meta.find_undeclared_variables(tree)
        self._names = {"bos_token": bos_token or "", "eos_token": eos_token or ""}
        self._literals = "\0".join(_literals(tree))

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt as text, for people to read. `variables`: more values for the template. Raises `TemplateError`."""
        data = _Conversation(messages, tools, variables or {})
        (end,) = self._unused(data, 1)
        return self._render(data, add_generation_prompt, end if continue_final_message else None)

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> list[int]:
        """The prompt as token ids; a bos token is there if the template writes one.

        Control tokens come from the template alone: in messages, tools and `variables`, what is spelled like one is
        plain text. Control tokens are the special ones, and those others that the template itself writes
        (`<tool_call>`); the latter stay tokens in messages of the assistant, who produced them as tokens.
        With `continue_final_message` the prompt ends where the last message's text ends. Raises `TemplateError`, and
        `TooManyTokens` for a prompt with over twice `limit` tokens.
        """
        data = _Conversation(messages, tools, variables or {})
        end, mark = self._unused(data, 2)
        self._mark(data, tokenizer, mark)
        text = self._render(data, add_generation_prompt, end if continue_final_message else None)
        return tokenizer.encode_marked(text.replace(escaped(mark), mark), mark, limit=limit)

    def render_turns(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Turns:
        """The whole conversation, for training on, and where its messages lie (`find_turns`). Control tokens come from
        the template alone, as in `encode`. Raises `TemplateError`."""
        data = _Conversation(messages, tools, variables or {})
        (mark,) = self._unused(data, 1)
        self._mark(data, tokenizer, mark)
        every = data.messages
        roles = [str(message.get("role")) for message in every]
        lead = next((index for index, role in enumerate(roles) if role != "system"), len(roles))

        def render(first: int, count: int, *, opening: bool = False) -> str:
            data.messages = every[:count] if first <= lead else every[:lead] + every[first:count]
            return self._render(data, opening, None).replace(escaped(mark), mark)

        return find_turns(render, roles, mark)

    def _mark(self, data: _Conversation, tokenizer: Tokenizer, mark: str) -> None:
        special = frozenset(token for token, is_special in tokenizer.added_tokens.items() if is_special)
        written = {token for token in tokenizer.added_tokens if not token.isspace() and token in self._literals}
        everyone, assistant = look_alikes(special | written), look_alikes(special)
        data.mark(
            everyone=lambda text: everyone.mark(text, mark),
            assistant=lambda text: assistant.mark(text, mark),
        )

    def _unused(self, data: _Conversation, count: int) -> list[str]:
        free = unused_characters([self.source, *data.strings()], count)
        if len(free) < count:
            raise TemplateError("the conversation holds every private-use character of Unicode; one must be free")
        return free

    def _render(self, data: _Conversation, add_generation_prompt: bool, end: str | None) -> str:
        """`end`: a character that occurs nowhere, to mark the end of the final message, where the prompt stops."""
        if end is not None:
            data.append_to_final_message(f"{end} ")
        variables = data.variables | {
            "messages": data.messages,
            "tools": data.tools,
            "add_generation_prompt": add_generation_prompt and end is None,
            **self._names,
        }
        try:
            text = render_bounded(self._template, variables)
        except RefusedByTemplate as error:
            raise TemplateError(f"the model's chat template refuses this conversation: {error}") from error
        except Exception as error:  # a template is a program of someone else's: it may raise anything
            kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
            raise TemplateError(f"the model's chat template cannot render this conversation: {kind}{error}") from error
        if end is None:
            return text
        before, found, after = text.rpartition(end)
        if not found:
            raise TemplateError("the final message cannot be continued: the chat template leaves its text out")
        return before if after.startswith(" ") else before.rstrip()  # a template that trims, trims what went before


class _Conversation:
    """What a template gets to see: plain copies, adapted to what templates expect."""

    def __init__(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, variables: Mapping[str, Any]
    ) -> None:
        self.messages: list[dict[str, Any]] = [adapted_message(message) for message in messages]
        self.tools: Any = _copy(tools) or None
        self.variables: dict[str, Any] = _copy(variables)

    def strings(self) -> Iterator[str]:
        yield from _strings([self.messages, self.tools, self.variables])

    def mark(self, *, everyone: Marker, assistant: Marker) -> None:
        self.messages = [
            _copy(message, assistant if message.get("role") == "assistant" else everyone) for message in self.messages
        ]
        self.tools = _copy(self.tools, everyone)
        self.variables = _copy(self.variables, everyone)

    def append_to_final_message(self, text: str) -> None:
        if not self.messages or not self.messages[-1]["content"]:
            raise TemplateError("there is no final message with text to continue")
        self.messages[-1]["content"] += text


def adapted_message(message: Message) -> dict[str, Any]:
    """A copy of a message as templates expect it: see `ChatTemplate`."""
    adapted = {key: value for key, value in _copy(message).items() if value is not None}
    adapted["content"] = _text(adapted.get("content", ""))
    if not adapted.get("tool_calls", True):
        del adapted["tool_calls"]
    for call in adapted.get("tool_calls", ()):
        function = call.get("function", call)
        function["arguments"] = _parsed(function.get("arguments", {}))
    return adapted


def _text(content: Any) -> str:
    """The content of a message as one text."""
    if isinstance(content, str):
        return content
    texts = [part if isinstance(part, str) else part.get("text") for part in content]
    if None in texts:
        raise TemplateError("a message holds a part that is not text, and this model reads text only")
    return "\n".join(texts)


def _parsed(arguments: Any) -> Any:
    """A tool call's arguments: OpenAI writes them as JSON text, templates expect the object."""
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            return arguments
        return parsed if isinstance(parsed, dict) else arguments
    return arguments


def _copy(value: Any, change: Marker = str) -> Any:
    """A copy in plain JSON types, with `change` applied to every string; keys count as strings.

    Subclasses are reduced to their base, so that a template meets no methods but those the sandbox knows.
    """
    if isinstance(value, str):
        return change(str.__str__(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_copy(key, change): _copy(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item, change) for item in value]
    raise TemplateError(f"a chat template takes JSON values, not {type(value).__name__}")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _literals(tree: nodes.Template) -> Iterator[str]:
    """The text that a template itself writes or compares with."""
    for data in tree.find_all(nodes.TemplateData):
        yield data.data
    for constant in tree.find_all(nodes.Const):
        if isinstance(constant.value, str):
            yield constant.value
