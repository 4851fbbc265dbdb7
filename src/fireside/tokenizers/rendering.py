"""Conversations as a model is trained on them: token ids, and which of them are the assistant's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fireside.tokenizers.chat_template import ChatTemplate, TemplateError, adapted_message
from fireside.tokenizers.tokenizer import Tokenizer
from fireside.tokenizers.tool_call_format import native_format
from fireside.tokenizers.tools_as_text import with_tools_as_text


@dataclass(frozen=True)
class RenderedConversation:
    """ids: the whole conversation. targets: whether loss is taken of each id: what the assistant says, its tool calls
    and the token that ends its turn. message_starts, turn_starts: indices of ids where a message, and where a user's
    message begins, the very first left out: places to cut a conversation that is too long.
    """

    ids: list[int]
    targets: list[bool]
    message_starts: list[int]
    turn_starts: list[int]


class ConversationRenderer:
    """Renders conversations by a model's own template, the way the server renders its prompts.

    Where the template has no tools of a known spelling, tools and calls are spelled out as text, as when serving.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._template_has_tools = (
            template.supports_tools and native_format(template.source, tokenizer.added_tokens) is not None
        )

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> RenderedConversation:
        """`messages` and `tools` in OpenAI's form. Raises `TemplateError`, also if the assistant's words cannot be told
        apart, as with a template that rewrites all earlier turns.

        A message whose place in the whole cannot be found is context only; templates that drop the reasoning of
        earlier turns are trained on the last one.
        """
        if not self._template_has_tools:
            messages, tools = with_tools_as_text([adapted_message(m) for m in messages], tools or ()), None
        turns = self._template.render_turns(self._tokenizer, messages, tools=tools)
        answers = [
            (opening, end)
            for opening, end in zip(turns.openings, turns.ends, strict=True)
            if opening is not None and end is not None and opening < end
        ]
        if not answers and any(message["role"] == "assistant" for message in messages):
            raise TemplateError("the chat template does not show which of the text is the assistant's")
        followers = [
            (end, message["role"])
            for end, message in zip(turns.ends[:-1], messages[1:], strict=True)
            if end is not None and message["role"] != "tool"
        ]
        spans = [*answers, *((end, end) for end, _ in followers)]
        openings = {opening for opening, _ in answers}  # where a prompt ends when this is served
        ids, found = self._tokenizer.encode_spans(turns.text, turns.mark, spans, openings)
        targets = [False] * len(ids)
        for start, stop in found[: len(answers)]:
            stop = self._end_of_turn(ids, start, stop)
            targets[start:stop] = [True] * (stop - start)
        starts = [(start, role) for (start, _), (_, role) in zip(found[len(answers) :], followers, strict=True)]
        return RenderedConversation(
            ids=ids,
            targets=targets,
            message_starts=[start for start, _ in starts if 0 < start < len(ids)],
            turn_starts=[start for start, role in starts if role == "user" and 0 < start < len(ids)],
        )

    def _end_of_turn(self, ids: Sequence[int], start: int, stop: int) -> int:
        """Behind the control token that ends the turn: what a template writes after it (a newline) nobody generates."""
        control = self._tokenizer.special_token_ids
        return next((index + 1 for index in range(stop - 1, start - 1, -1) if ids[index] in control), stop)
