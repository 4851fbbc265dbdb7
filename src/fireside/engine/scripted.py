"""`ScriptedClient`: an engine that says what a script tells it to, for tests of the server. Free of torch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from fireside.engine.client import EngineBusy, EngineError, EngineState, EngineUnavailable
from fireside.engine.messages import (
    EngineInfo,
    EngineStats,
    FinishReason,
    GenerationOutput,
    GenerationRequest,
    TokenLogprobs,
)


@dataclass(frozen=True, kw_only=True)
class ScriptedAnswer:
    """What one request gets. Stop tokens and `max_tokens` of the request are honoured as by a real engine.

    token_ids: the answer; may be endless (`itertools.repeat`), since `max_tokens` ends it.
    delay: seconds before each output. tokens_per_output: how many come at once.
    logprobs: one per token, sent if the request asks for them; by default made up by `made_up_logprobs`.
    error: raised instead of an answer. crash_after: the engine dies after so many tokens.
    """

    token_ids: Iterable[int] = ()
    delay: float = 0.0
    tokens_per_output: int = 1
    logprobs: Sequence[TokenLogprobs] | None = None
    cached_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    error: EngineError | None = None
    crash_after: int | None = None


Answer = ScriptedAnswer | Sequence[int]
Script = Callable[[GenerationRequest], Answer] | Sequence[Answer]

DEFAULT_INFO = EngineInfo(
    model="scripted", device="cpu", dtype="float32", backend="scripted", max_context=2048, block_size=16, num_blocks=128
)


def made_up_logprobs(token_id: int, top: int) -> TokenLogprobs:
    """The token itself at -1/8, then its neighbours at -1, -2, ...: numbers that floats and JSON hold exactly."""
    likeliest = [(token_id, -0.125), *((token_id + rank, -float(rank)) for rank in range(1, top))]
    return TokenLogprobs(-0.125, tuple(likeliest[:top]))


class ScriptedClient:
    """Implements `EngineClient` without an engine.

    `script` is a function from a request to its answer, or answers to be given in turn (the last one from then on).
    `max_requests`: as many may be in flight; one more raises `EngineBusy`. None: no limit.

    For assertions: `requests` (all accepted, in order), `finished` and `cancelled` (ids). `in_flight` counts the rest.
    """

    def __init__(self, script: Script, *, info: EngineInfo = DEFAULT_INFO, max_requests: int | None = None) -> None:
        self._script = script
        self._info = info
        self._max_requests = max_requests
        self._state = EngineState.STARTING
        self._reason = ""
        self._crash = asyncio.Event()
        self._changed = asyncio.Event()
        self._generated_tokens = 0
        self.requests: list[GenerationRequest] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.in_flight = 0

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def reason(self) -> str:
        return "" if self._state is EngineState.READY else self._reason or f"it is {self._state}"

    @property
    def info(self) -> EngineInfo | None:
        return None if self._state is EngineState.STARTING else self._info

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            running=self.in_flight,
            blocks_total=self._info.num_blocks,
            blocks_free=self._info.num_blocks,
            prompt_tokens=sum(len(request.prompt_ids) for request in self.requests),
            generated_tokens=self._generated_tokens,
        )

    async def start(self) -> None:
        self._state = EngineState.READY
        self._change()

    async def wait_ready(self) -> EngineInfo:
        while self._state is not EngineState.READY:
            if self._state in (EngineState.FAILED, EngineState.CLOSED):
                raise EngineUnavailable(f"the engine is {self._state}")
            await self._changed.wait()
        return self._info

    async def close(self) -> None:
        self.crash(EngineState.CLOSED)

    def crash(self, state: EngineState = EngineState.RESTARTING, reason: str = "") -> None:
        """Ends every answer in flight with `EngineUnavailable`. `start` makes it serve again."""
        self._state, self._reason = state, reason
        self._crash.set()
        self._crash = asyncio.Event()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationOutput]:
        if self._state is not EngineState.READY:
            raise EngineUnavailable(f"the engine is {self._state}; the same request may succeed later")
        if self._max_requests is not None and self.in_flight >= self._max_requests:
            raise EngineBusy("the queue is full; try again shortly", retry_after=1.0)
        answer = self._next_answer(request)
        if answer.error is not None:
            raise answer.error
        self.requests.append(request)
        self.in_flight += 1
        ended = False
        try:
            async with aclosing(self._play(request, answer)) as outputs:
                async for output in outputs:
                    ended = output.finish_reason is not None
                    if ended:
                        self.finished.append(request.id)
                    yield output
        except EngineError:
            ended = True
            raise
        finally:
            self.in_flight -= 1
            if not ended:
                self.cancelled.append(request.id)

    def _next_answer(self, request: GenerationRequest) -> ScriptedAnswer:
        if callable(self._script):
            answer = self._script(request)
        else:
            answer = self._script[min(len(self.requests), len(self._script) - 1)]
        return answer if isinstance(answer, ScriptedAnswer) else ScriptedAnswer(token_ids=answer)

    async def _play(self, request: GenerationRequest, answer: ScriptedAnswer) -> AsyncGenerator[GenerationOutput, None]:
        crash, sampling = self._crash, request.sampling
        given: list[int] = []  # tokens of the whole answer so far
        sent = 0
        prompt_logprobs = _prompt_logprobs(request)
        tokens = iter(answer.token_ids)
        reason: FinishReason | None = FinishReason.LENGTH if sampling.max_tokens <= 0 else None
        while True:
            await _pause(answer.delay, crash)
            while reason is None and len(given) - sent < answer.tokens_per_output:
                if len(given) == answer.crash_after:
                    self.crash()
                    break
                token_id = next(tokens, None)
                if token_id is None:
                    reason = FinishReason.STOP
                    break
                given.append(token_id)
                if token_id in sampling.stop_token_ids and len(given) > sampling.min_tokens:
                    reason = FinishReason.STOP
                elif len(given) >= sampling.max_tokens:
                    reason = FinishReason.LENGTH
            if crash.is_set():
                raise EngineUnavailable("the engine was restarted while answering; the same request may be sent again")
            new = tuple(given[sent:])
            self._generated_tokens += len(new)
            stopped = reason is FinishReason.STOP and new and new[-1] in sampling.stop_token_ids
            yield GenerationOutput(
                request_id=request.id,
                token_ids=new,
                logprobs=_logprobs(answer, new, sent, sampling.logprobs),
                prompt_logprobs=prompt_logprobs,
                finish_reason=reason,
                stopped_by=new[-1] if stopped else None,
                cached_tokens=answer.cached_tokens,
                accepted_prediction_tokens=answer.accepted_prediction_tokens,
                rejected_prediction_tokens=answer.rejected_prediction_tokens,
            )
            if reason is not None:
                return
            sent, prompt_logprobs = len(given), None


async def _pause(delay: float, crash: asyncio.Event) -> None:
    """Waits for `delay` seconds, or until the engine dies; lets others run even at 0."""
    if delay <= 0:
        await asyncio.sleep(0)
        return
    with suppress(TimeoutError):
        await asyncio.wait_for(crash.wait(), delay)


def _logprobs(
    answer: ScriptedAnswer, token_ids: tuple[int, ...], start: int, top: int | None
) -> tuple[TokenLogprobs, ...] | None:
    if top is None:
        return None
    if answer.logprobs is not None:
        return tuple(answer.logprobs[start : start + len(token_ids)])
    return tuple(made_up_logprobs(token_id, top) for token_id in token_ids)


def _prompt_logprobs(request: GenerationRequest) -> tuple[TokenLogprobs | None, ...] | None:
    top = request.sampling.prompt_logprobs
    if top is None:
        return None
    return (None, *(made_up_logprobs(token_id, top) for token_id in request.prompt_ids[1:]))
