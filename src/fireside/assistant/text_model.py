"""`TextModel`: a model that speaks text, over an engine that speaks token ids."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from fireside.assistant.answer import AnswerReader
from fireside.assistant.encoding import Prompt, PromptEncoder, param_of
from fireside.assistant.errors import ContextLengthExceeded, PromptError
from fireside.assistant.structured import GrammarChecker, GrammarPart, answer_part
from fireside.assistant.text import ChatPrompt, CompletionPrompt, TextChunk, TextOptions, ToolChoiceMode
from fireside.assistant.tool_calls.grammar import answer_or_calls, calls_grammar, is_strict
from fireside.assistant.tool_calls.parser import ToolCallParser
from fireside.engine.client import EngineClient, EngineUnavailable
from fireside.engine.messages import FinishReason, GenerationOutput, GenerationRequest
from fireside.models.local import GenerationDefaults, LocalModel
from fireside.models.text_parts import template_for
from fireside.tokenizers.chat_template import ChatTemplate
from fireside.tokenizers.tokenizer import Tokenizer
from fireside.tokenizers.tool_call_format import HERMES, ToolCallFormat, native_format

_MAX_STOP_LENGTH = 1024  # characters; every piece of text is held against every stop string


@dataclass(frozen=True)
class _Form:
    """What a prompt asks of the answer's form."""

    grammar: str | None = None
    tools: ToolCallParser | None = None


class TextModel:
    """Answers prompts with one model.

    name: how clients call it. context_length: tokens of prompt and answer together, as the model has it; the engine may
    hold less. defaults: how the model's authors want it sampled. grammar_timeout: seconds that trying out one grammar
    may take. version: a digest of its files, by which an answer says which weights wrote it.
    """

    def __init__(
        self,
        *,
        name: str,
        tokenizer: Tokenizer,
        engine: EngineClient,
        chat_template: ChatTemplate | None,
        context_length: int,
        defaults: GenerationDefaults,
        grammar_timeout: float = 5.0,
        version: str | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.tokenizer = tokenizer
        self.engine = engine
        self.chat_template = chat_template
        self.defaults = defaults
        self._writing = self._beginning = 0  # answers
        self._model_context = context_length
        self._grammars = GrammarChecker(grammar_timeout)
        supports_tools = chat_template is not None and chat_template.supports_tools
        native = (
            native_format(chat_template.source, tokenizer.added_tokens) if chat_template and supports_tools else None
        )
        self._encoder = PromptEncoder(name, tokenizer, chat_template, template_has_tools=native is not None)
        self.tool_call_format: ToolCallFormat = native or HERMES
        markers = (self.tool_call_format.begin, self.tool_call_format.end)
        self._marker_ids = {text: _added_id(tokenizer, text) for text in markers if text in tokenizer.added_tokens}

    @classmethod
    def from_local(
        cls, model: LocalModel, engine: EngineClient, *, max_context: int | None = None, grammar_timeout: float = 5.0
    ) -> TextModel:
        """The model on disk, answered for by `engine`. Raises ModelError or TemplateError for unusable files."""
        tokenizer = model.load_tokenizer()
        template = None if model.chat_template is None else template_for(tokenizer, model.chat_template)
        own = model.config.max_position_embeddings
        return cls(
            name=model.name,
            tokenizer=tokenizer,
            engine=engine,
            chat_template=template,
            context_length=min(own, max_context or own),
            defaults=model.generation,
            grammar_timeout=grammar_timeout,
            version=model.version(),
        )

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may have together."""
        info = self.engine.info
        return min(self._model_context, info.max_context) if info else self._model_context

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end an answer, as the model has them."""
        own = self.tokenizer.eos_token_id
        return self.defaults.eos_token_ids or (() if own is None else (own,))

    @property
    def answering(self) -> int:
        """Answers in the making."""
        return max(self._writing, self._beginning)

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """For one who has chosen this model and is to ask it to `generate` before it ends: that counts as an answer."""
        self._beginning += 1
        try:
            yield
        finally:
            self._beginning -= 1

    async def encode(self, prompt: Prompt, *, limit: int | None = None) -> tuple[int, ...]:
        """The prompt's token ids, at least one. Raises PromptError.

        A prompt that has over twice `limit` tokens (default: the context) is not encoded whole, which would take
        gigabytes for the largest: it raises ContextLengthExceeded. Shorter ones are the caller's to measure.
        """
        return await self._encoder.encode(prompt, self.context_length if limit is None else limit)

    async def generate(
        self,
        prompt: Prompt,
        options: TextOptions,
        request_id: str | None = None,
        *,
        prompt_ids: tuple[int, ...] | None = None,
    ) -> AsyncGenerator[TextChunk, None]:
        """The answer as it is written; the last chunk has the finish reason and the usage.

        prompt_ids: what `encode` gave for the prompt, for a caller who wants several answers to it.
        Closing the iterator cancels the request in the engine. Raises PromptError (ContextLengthExceeded) before the
        engine hears of the request, and what `EngineClient.generate` raises.
        """
        self._writing += 1
        try:
            async with aclosing(self._generate(prompt, options, request_id, prompt_ids)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._writing -= 1

    async def _generate(
        self,
        prompt: Prompt,
        options: TextOptions,
        request_id: str | None,
        prompt_ids: tuple[int, ...] | None,
    ) -> AsyncGenerator[TextChunk, None]:
        _check_stop_strings(options.stop)
        if prompt_ids is None:
            prompt_ids = await self.encode(prompt)
        max_tokens = self._max_tokens(prompt, prompt_ids, options)
        predicted_ids = await self._encoder.encode_prediction(options.prediction, self.context_length)
        form = await self._form(prompt)
        eos = () if options.ignore_eos else self.eos_token_ids
        request = GenerationRequest(
            id=request_id or uuid.uuid4().hex,
            prompt_ids=prompt_ids,
            sampling=msgspec.structs.replace(
                options.sampling,
                max_tokens=max_tokens,
                stop_token_ids=tuple(dict.fromkeys((*eos, *options.sampling.stop_token_ids))),
            ),
            grammar=form.grammar,
            priority=options.priority,
            preamble_tokens=await self._encoder.measure_preamble(prompt, prompt_ids),
            predicted_ids=predicted_ids[:max_tokens],
        )
        reader = AnswerReader(
            self.tokenizer,
            options,
            prompt_ids,
            continuing=isinstance(prompt, CompletionPrompt) or prompt.continue_final_message,
            tools=form.tools,
            markers=self._hidden_markers() if form.tools else None,
        )
        last = None
        # Closed before the last chunk is handed on, so that an answer cut short by a stop string frees its place first.
        async with aclosing(_closable(self.engine.generate(request))) as outputs:
            async for output in outputs:
                if output.finish_reason is FinishReason.CANCELLED:
                    break
                chunk = reader.read(output)
                if chunk.finish_reason is not None:
                    last = chunk
                    break
                yield chunk
        if last is None:
            raise EngineUnavailable("The engine gave up the request before it was done; it may be sent again.")
        yield last

    def close(self) -> None:
        """Ends what helps to check grammars. The engine is its owner's to close."""
        self._grammars.close()

    def _max_tokens(self, prompt: Prompt, prompt_ids: Sequence[int], options: TextOptions) -> int:
        """How many tokens may be generated. Raises ContextLengthExceeded."""
        context_length = self.context_length
        wanted = options.sampling.max_tokens
        least = 0 if options.score_only else max(wanted, 1)
        if len(prompt_ids) + least > context_length:
            raise ContextLengthExceeded(
                prompt_tokens=len(prompt_ids),
                max_tokens=wanted if wanted > 0 else None,
                context_length=context_length,
                param=param_of(prompt),
            )
        if options.score_only:
            return 0
        return wanted if wanted > 0 else context_length - len(prompt_ids)

    async def _form(self, prompt: Prompt) -> _Form:
        """Raises PromptError if the form asked for cannot be."""
        answer = answer_part(prompt.constraint) if prompt.constraint else None
        if isinstance(prompt, ChatPrompt):
            named = None if isinstance(prompt.tool_choice, ToolChoiceMode) else prompt.tool_choice
            must_call = named is not None or prompt.tool_choice is ToolChoiceMode.REQUIRED
            tools = [tool for tool in prompt.tools if named in (None, tool["function"]["name"])]
            if must_call and not tools:
                missing = "are no tools" if named is None else f"is no tool called {named!r}"
                raise PromptError(f"tool_choice asks for a call, but there {missing}.", param="tool_choice")
            if tools and prompt.tool_choice is not ToolChoiceMode.NONE:
                parallel = prompt.parallel_tool_calls and named is None
                return await self._form_with_tools(prompt, tools, answer, must_call=must_call, parallel=parallel)
        if answer is None or prompt.constraint is None:
            return _Form()
        return _Form(await self._grammars.check([answer], param=prompt.constraint.param))

    async def _form_with_tools(
        self,
        prompt: ChatPrompt,
        tools: Sequence[Mapping[str, Any]],
        answer: GrammarPart | None,
        *,
        must_call: bool,
        parallel: bool,
    ) -> _Form:
        spelling = self.tool_call_format
        # Where a call may begin without a marker, it is told from free text too late for a grammar.
        within_text = not must_call and not answer and not spelling.bare and any(map(is_strict, tools))
        grammar = None
        if must_call or answer or within_text:
            text_ids = self._text_ids() if within_text else None
            parts = calls_grammar(spelling, tools, parallel=parallel, marker_ids=self._marker_ids, text_ids=text_ids)
            param = "tools"
            if answer and prompt.constraint and not must_call:
                parts, param = answer_or_calls(answer, parts), prompt.constraint.param
            grammar = await self._grammars.check(parts, param=param)
        parser = ToolCallParser(
            spelling,
            [tool["function"]["name"] for tool in tools],
            enforced=grammar is not None and (must_call or not spelling.bare),
            required=must_call,
            max_calls=None if parallel else 1,
        )
        return _Form(grammar, parser)

    def _hidden_markers(self) -> dict[int, str]:
        """The control tokens among the markers of tool calls, which the parser must see all the same."""
        added = self.tokenizer.added_tokens
        return {token_id: text for text, token_id in self._marker_ids.items() if added[text]}

    def _text_ids(self) -> list[int]:
        """Added tokens in brackets that are part of an answer's text, such as `<think>`."""
        added = self.tokenizer.added_tokens.items()
        texts = [text for text, is_special in added if not is_special and text[:1] == "<" and text[-1:] == ">"]
        return [_added_id(self.tokenizer, text) for text in texts if text not in self._marker_ids]


def _added_id(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.encode(text, allow_special=True, add_bos=False)[0]


def _closable(outputs: AsyncIterator[GenerationOutput]) -> AsyncGenerator[GenerationOutput, None]:
    """`EngineClient.generate` promises `aclose`, which the type of its result does not tell."""
    return cast("AsyncGenerator[GenerationOutput, None]", outputs)


def _check_stop_strings(stop: Sequence[str]) -> None:
    for string in stop:
        if not 0 < len(string) <= _MAX_STOP_LENGTH:
            raise PromptError(
                f"A stop string has 1 to {_MAX_STOP_LENGTH:,} characters, not {len(string):,}.", param="stop"
            )
