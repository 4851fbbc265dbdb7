"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request

from fireside.assistant.text import CompletionPrompt, OutputConstraint, TextChunk, TokenText, Usage
from fireside.assistant.text_model import TextModel
from fireside.server.api import generation
from fireside.server.api.generation import Answer, check_token_ids, constraint_of, start_answer, text_options
from fireside.server.api.schemas.completions import Completion, CompletionRequest
from fireside.server.body import BoundedRoute
from fireside.server.deps import Context, CurrentContext
from fireside.server.errors import invalid
from fireside.server.openapi import streams
from fireside.server.streaming import DONE, EventStream, event, unless_disconnected

router = APIRouter(route_class=BoundedRoute, tags=["generation"])


@router.post(
    "/v1/completions",
    response_model=Completion,
    response_model_exclude_unset=True,
    responses=streams("CompletionChunk"),
)
async def create_completion(
    body: CompletionRequest, request: Request, context: CurrentContext
) -> dict[str, Any] | EventStream:
    """Plain text that goes on from the prompt, whole or as it is written."""
    model = context.models.get(body.model)
    with model.beginning():
        work = await unless_disconnected(request.receive, _start(body, context, model))
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return EventStream(_events(work, with_usage), work.answer.chunks)
    return await unless_disconnected(request.receive, _whole(work))


@dataclass(frozen=True)
class _Work:
    """`drawn` choices are made of each prompt and the best `n` of them are answered with."""

    answer: Answer
    echoes: Sequence[_Echo | None]  # one per prompt
    n: int
    drawn: int
    top: int | None  # how many likeliest tokens the caller wants at each place; None: no log-probabilities
    prompt_logprobs: bool  # whether the caller wants them apart from the echo too

    def writer(self, index: int) -> _Writer:
        return _Writer(self.top, self.echoes[index // self.drawn], self.prompt_logprobs)


@dataclass(frozen=True)
class _Echo:
    text: str
    first_token: TokenText


async def _start(body: CompletionRequest, context: Context, model: TextModel) -> _Work:
    if body.suffix and context.models.knows(body.model):
        raise invalid("suffix", "this model was not trained to fill a gap, only to go on from a prompt")
    n = body.n or 1
    drawn = body.best_of or n
    if drawn < n:
        raise invalid("best_of", f"is {drawn}, fewer than the n = {n} answers to choose")
    if drawn > n and body.stream:
        raise invalid("best_of", "cannot be streamed: the best answers are known at the end")
    prompts = _prompts(body, model, constraint_of(body, body.response_format))
    room = context.settings.max_running + context.settings.max_waiting
    if len(prompts) * drawn > room:
        raise invalid("prompt", f"asks for {len(prompts) * drawn} answers, more than the {room} that can ever wait")
    echoes: list[_Echo | None] = [None] * len(prompts)
    if body.echo:
        for i, prompt in enumerate(prompts):
            # Encoded here, once, because the text of the first token is wanted too.
            ids = prompt.token_ids or await model.encode(prompt)
            prompts[i] = CompletionPrompt(token_ids=ids, constraint=prompt.constraint)
            echoes[i] = _echo(prompt, ids, model)
    options = text_options(
        body,
        model,
        max_tokens=16 if body.max_tokens is None else body.max_tokens,
        logprobs=0 if body.logprobs is None and drawn > n else body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
    )
    answer = await start_answer(context, model, prompts, options, choices_per_prompt=drawn, id_prefix="cmpl")
    return _Work(answer, echoes, n, drawn, body.logprobs, body.prompt_logprobs is not None)


def _prompts(body: CompletionRequest, model: TextModel, constraint: OutputConstraint | None) -> list[CompletionPrompt]:
    given = body.prompt
    several: Sequence[Any] = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    prompts = []
    for one in several:
        if isinstance(one, str):
            prompts.append(CompletionPrompt(text=one, constraint=constraint))
        else:
            ids = tuple(check_token_ids("prompt", one, model))
            prompts.append(CompletionPrompt(token_ids=ids, constraint=constraint))
    return prompts


def _echo(prompt: CompletionPrompt, ids: Sequence[int], model: TextModel) -> _Echo:
    tokenizer = model.tokenizer
    text = tokenizer.decode(ids, skip_special_tokens=False) if prompt.text is None else prompt.text
    first = TokenText(
        id=ids[0] if ids else 0,
        text=tokenizer.decode(ids[:1], skip_special_tokens=False),
        bytes=(),
        # Nothing comes before it to tell its probability by. OpenAI's schema has no null here.
        logprob=0.0,
    )
    return _Echo(text, first)


class _Writer:
    """Turns the chunks of one choice into pieces of OpenAI's `choices[i]`: the echoed prompt first, then the answer."""

    def __init__(self, top: int | None, echo: _Echo | None, prompt_logprobs: bool) -> None:
        self._top = top
        self._prompt_logprobs = prompt_logprobs
        self._echo = echo
        self._offset = 0  # characters before the next token, the echoed prompt's included

    def piece(self, chunk: TextChunk) -> dict[str, Any]:
        text = chunk.text
        tokens = list(chunk.logprobs or ())
        piece: dict[str, Any] = {}
        if self._prompt_logprobs and chunk.prompt_logprobs is not None:
            piece["prompt_logprobs"] = generation.prompt_logprobs_list(chunk.prompt_logprobs)
        if self._echo is not None:
            text = self._echo.text + text
            tokens = [token or self._echo.first_token for token in chunk.prompt_logprobs or ()] + tokens
            self._echo = None
        logprobs = None if self._top is None else self._logprobs(tokens, self._top)
        return {"text": text, "logprobs": logprobs, **piece}

    def _logprobs(self, tokens: Sequence[TokenText], top: int) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "text_offset": offsets,
            "token_logprobs": [generation.finite(token.logprob) for token in tokens],
            "tokens": [token.text for token in tokens],
            "top_logprobs": [_likeliest(token, top) for token in tokens],
        }


def _likeliest(token: TokenText, top: int) -> Mapping[str, float]:
    """The `top` likeliest tokens and the one that stands there. Of two with one text the likelier is told."""
    likeliest: dict[str, float] = {}
    for candidate in (*token.top[:top], token):
        likeliest.setdefault(candidate.text, generation.finite(candidate.logprob))
    return likeliest


async def _whole(work: _Work) -> dict[str, Any]:
    answer = work.answer
    chunks: list[list[TextChunk]] = [[] for _ in range(answer.choices)]
    async with aclosing(answer.chunks) as stream:
        async for index, chunk in stream:
            chunks[index].append(chunk)
    choices: list[dict[str, Any]] = []
    for start in range(0, answer.choices, work.drawn):
        candidates = range(start, start + work.drawn)
        for index in sorted(candidates, key=lambda i: _mean_logprob(chunks[i]), reverse=True)[: work.n]:
            choices.append({"index": len(choices), **_choice(chunks[index], work.writer(index))})
    usages = [generation.usage_of(made[-1]) for made in chunks]
    return {
        **_head(answer),
        "choices": choices,
        "usage": generation.usage_dict(usages, work.drawn),
    }


def _mean_logprob(chunks: Sequence[TextChunk]) -> float:
    logprobs = [token.logprob for chunk in chunks for token in chunk.logprobs or ()]
    return sum(logprobs) / len(logprobs) if logprobs else 0.0


def _choice(chunks: Sequence[TextChunk], writer: _Writer) -> dict[str, Any]:
    last = chunks[-1]
    joined = TextChunk(
        text="".join(chunk.text for chunk in chunks),
        logprobs=tuple(token for chunk in chunks for token in chunk.logprobs or ()),
        prompt_logprobs=next((c.prompt_logprobs for c in chunks if c.prompt_logprobs is not None), None),
    )
    return {**writer.piece(joined), "finish_reason": last.finish_reason, "stop_reason": last.stop_reason}


async def _events(work: _Work, with_usage: bool) -> AsyncGenerator[bytes]:
    answer = work.answer
    head = _head(answer)
    if with_usage:
        head["usage"] = None
    writers = [work.writer(index) for index in range(answer.choices)]
    usages: list[Usage] = [Usage(prompt_tokens=0, completion_tokens=0)] * answer.choices
    try:
        async for index, chunk in answer.chunks:
            piece = {"index": index, **writers[index].piece(chunk), "finish_reason": chunk.finish_reason}
            if chunk.finish_reason is not None:
                piece["stop_reason"] = chunk.stop_reason
                usages[index] = generation.usage_of(chunk)
            elif not piece["text"] and not chunk.logprobs:
                continue
            yield event({**head, "choices": [piece]})
        if with_usage:
            yield event({**head, "choices": [], "usage": generation.usage_dict(usages, work.drawn)})
    except Exception as exc:
        yield generation.failure_event(exc)
    yield DONE


def _head(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": "text_completion",
        "created": answer.created,
        "model": answer.model.name,
        "system_fingerprint": answer.fingerprint,
    }
