"""From prompts to token ids: a conversation by the model's chat template, text by its tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fireside.assistant.errors import ContextLengthExceeded, PromptError
from fireside.assistant.messages import find_refused, normalised
from fireside.assistant.preamble import Preambles
from fireside.assistant.text import ChatPrompt, CompletionPrompt, ToolChoiceMode
from fireside.tokenizers.chat_template import ChatTemplate, TemplateError
from fireside.tokenizers.tokenizer import Tokenizer, TooManyTokens
from fireside.tokenizers.tools_as_text import with_tools_as_text

Prompt = ChatPrompt | CompletionPrompt

_LONG_PROMPT = 20_000  # characters beyond which encoding moves to a thread, so that streams go on
# What the request says elsewhere, and what an answer depends on: not for the caller's further values.
_RESERVED_VARIABLES = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message"})


class PromptEncoder:
    """Encodes the prompts of one model.

    name: how clients call the model. template_has_tools: False: tools are told to the model in its system message.
    """

    def __init__(
        self, name: str, tokenizer: Tokenizer, chat_template: ChatTemplate | None, *, template_has_tools: bool
    ) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self._template = chat_template
        self._template_has_tools = template_has_tools
        self._preambles = Preambles(self._render_plain)

    async def encode(self, prompt: Prompt, limit: int) -> tuple[int, ...]:
        """At least one token id. Raises PromptError; ContextLengthExceeded once there are over twice `limit` tokens."""
        try:
            if _characters(prompt) > _LONG_PROMPT:
                return await asyncio.to_thread(self._encode, prompt, limit)
            return self._encode(prompt, limit)
        except TooManyTokens as error:
            raise ContextLengthExceeded(
                prompt_tokens=error.counted,
                is_counted=False,
                max_tokens=None,
                context_length=limit,
                param=param_of(prompt),
            ) from error

    async def measure_preamble(self, prompt: Prompt, prompt_ids: Sequence[int]) -> int:
        """How many of the ids that `encode` gave for `prompt` lead up to the conversation: see `preamble`."""
        if not isinstance(prompt, ChatPrompt):
            return 0
        return await self._preambles.measure(prompt_ids, prompt.messages, _tools_of(prompt))

    def _encode(self, prompt: Prompt, limit: int) -> tuple[int, ...]:
        if isinstance(prompt, ChatPrompt):
            return self._encode_chat(prompt, limit)
        return self._encode_completion(prompt, limit)

    def _encode_chat(self, prompt: ChatPrompt, limit: int) -> tuple[int, ...]:
        template = self._template
        if template is None:
            raise PromptError(
                f"The model {self._name!r} has no chat template, so it holds no conversations; use /v1/completions.",
                param="model",
                code="unsupported_value",
            )
        for name in prompt.template_kwargs:
            if name in _RESERVED_VARIABLES:
                raise PromptError(
                    f"chat_template_kwargs cannot set {name}, which follows from the rest of the request.",
                    param=f"chat_template_kwargs.{name}",
                )
        messages: Sequence[Mapping[str, Any]] = normalised(
            prompt.messages, continue_final_message=prompt.continue_final_message
        )
        tools = _tools_of(prompt)
        as_text = not self._template_has_tools and (
            tools or any(message["role"] == "tool" or "tool_calls" in message for message in messages)
        )

        def render(part: Sequence[Mapping[str, Any]], *, continue_final: bool = False) -> list[int]:
            return template.encode(
                self._tokenizer,
                with_tools_as_text(part, tools) if as_text else part,
                tools=None if as_text else tools or None,
                continue_final_message=continue_final,
                variables=prompt.template_kwargs,
                limit=limit,
            )

        try:
            return tuple(render(messages, continue_final=prompt.continue_final_message))
        except TemplateError as error:
            place = f"messages[{find_refused(messages, render)}].role"
            raise PromptError(f"{error} (at {place})", param=place) from error

    def _render_plain(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """As `_encode_chat` renders, but without the request's template variables: what they change is its own."""
        assert self._template is not None  # or nothing would have been encoded
        as_text = bool(tools) and not self._template_has_tools
        messages = normalised(messages)
        return self._template.encode(
            self._tokenizer,
            with_tools_as_text(messages, tools) if as_text else messages,
            tools=None if as_text else tools or None,
        )

    def _encode_completion(self, prompt: CompletionPrompt, limit: int) -> tuple[int, ...]:
        if prompt.token_ids is not None:
            ids = prompt.token_ids
            outside = next((i for i in ids if not 0 <= i < self._tokenizer.vocab_size), None)
            if outside is not None:
                raise PromptError(
                    f"{outside} is not a token of this model, whose ids are 0 to {self._tokenizer.vocab_size - 1}.",
                    param="prompt",
                )
        else:
            bos = self._tokenizer.bos_token_id
            ids = tuple(self._tokenizer.encode(prompt.text or "", limit=limit)) or (() if bos is None else (bos,))
        if not ids:
            raise PromptError("The prompt is empty; it must have at least one token.", param="prompt")
        return ids


def _tools_of(prompt: ChatPrompt) -> Sequence[Mapping[str, Any]]:
    return () if prompt.tool_choice == ToolChoiceMode.NONE else prompt.tools


def param_of(prompt: Prompt) -> str:
    """The part of the request that holds the prompt."""
    return "messages" if isinstance(prompt, ChatPrompt) else "prompt"


def _characters(prompt: Prompt) -> int:
    """About how much there is to encode."""
    if isinstance(prompt, CompletionPrompt):
        return len(prompt.text or "")
    return _size([prompt.messages, prompt.tools, prompt.template_kwargs])


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + _size(item) for key, item in value.items())
    return sum(map(_size, value)) if isinstance(value, Sequence) else 1
