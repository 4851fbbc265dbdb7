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
    message begins, the very first left out: places to cut a conversation that is too long. preamble: ids at the
    beginning that stand before a later turn as well when the conversation begins with it: bos, system messages, tools.
    is_folded: the template takes no system message, and its text became part of the user's first.
    """

    ids: list[int]
    targets: list[bool]
    message_starts: list[int]
    turn_starts: list[int]
    preamble: int = 0
    is_folded: bool = False


class ConversationRenderer:
    """Renders conversations by a model's own template, the way the server renders its prompts.

    Where the template has no tools of a known spelling, tools and calls are spelled out as text, as when serving. Where
    it refuses a system message or leaves it out of an answered conversation (Gemma's and Mistral's), that is put before
    the first user message, as these families document it.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._template_has_tools = (
            template.supports_tools and native_format(template.source, tokenizer.added_tokens) is not None
        )
        self._takes_system = _takes_system(template)

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
        is_folded = not self._takes_system and bool(messages) and messages[0]["role"] == "system"
        if is_folded:
            messages = _folded(messages)
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
        preamble = turns.preamble
        spans = [*answers, *((end, end) for end, _ in followers), (preamble, preamble)]
        openings = {opening for opening, _ in answers}  # where a prompt ends when this is served
        ids, found = self._tokenizer.encode_spans(turns.text, turns.mark, spans, openings)
        targets = [False] * len(ids)
        for start, stop in found[: len(answers)]:
            stop = self._end_of_turn(ids, start, stop)
            targets[start:stop] = [True] * (stop - start)
        starts = [(start, role) for (start, _), (_, role) in zip(found[len(answers) : -1], followers, strict=True)]
        before, behind = found[-1]  # the same where a token begins there
        return RenderedConversation(
            ids=ids,
            targets=targets,
            message_starts=[start for start, _ in starts if 0 < start < len(ids)],
            turn_starts=[start for start, role in starts if role == "user" and 0 < start < len(ids)],
            preamble=before if before == behind else 0,
            is_folded=is_folded,
        )

    def _end_of_turn(self, ids: Sequence[int], start: int, stop: int) -> int:
        """Behind the control token that ends the turn: what a template writes after it (a newline) nobody generates."""
        control = self._tokenizer.special_token_ids
        return next((index + 1 for index in range(stop - 1, start - 1, -1) if ids[index] in control), stop)


def _takes_system(template: ChatTemplate) -> bool:
    """Whether a system message shows in an answered conversation; Mistral shows it where the user spoke last."""
    texts = {"system": "Be brief.", "user": "Hello.", "assistant": "Hi."}
    try:
        shown = template.render([{"role": role, "content": text} for role, text in texts.items()])
    except TemplateError:
        return False
    return texts["system"] in shown


def _folded(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """With the system messages at the beginning put before the first user message, an empty line between."""
    count = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    rest = list(messages[count:])
    parts = [*messages[:count], *([rest.pop(0)] if rest and rest[0]["role"] == "user" else [])]
    texts = [adapted_message(message)["content"] for message in parts]
    return [{"role": "user", "content": "\n\n".join(texts)}, *rest]
