"""Drives an engine in tests: make requests, step until idle, gather what each request got."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fireside.engine.engine import Engine
from fireside.engine.messages import (
    FinishReason,
    GenerationOutput,
    GenerationRequest,
    Rejected,
    SamplingParams,
    TokenLogprobs,
)


@dataclass
class Result:
    """Everything a request was given, put together."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stopped_by: int | None = None
    cached_tokens: int = 0
    rejected: Rejected | None = None
    steps: list[int] = field(default_factory=list)  # the steps that gave it tokens

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None or self.rejected is not None


def request(
    name: str,
    prompt: Iterable[int],
    *,
    max_tokens: int = 8,
    temperature: float = 0.0,
    grammar: str | None = None,
    priority: int = 0,
    preamble: int = 0,
    **sampling: Any,
) -> GenerationRequest:
    """Greedy unless it says otherwise."""
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, **sampling)
    return GenerationRequest(
        id=name,
        prompt_ids=tuple(prompt),
        sampling=params,
        grammar=grammar,
        priority=priority,
        preamble_tokens=preamble,
    )


class Driver:
    """Steps an engine and keeps the results. Checks after every step that no block went astray."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.results: dict[str, Result] = {}
        self.num_steps = 0

    def submit(self, *requests: GenerationRequest) -> None:
        for one in requests:
            self.engine.submit(one)
            self.results[one.id] = Result()

    def step(self) -> None:
        self.num_steps += 1
        for output in self.engine.step():
            self._take(output)
        self.engine.check_integrity()

    def drain(self, max_steps: int = 5000) -> dict[str, Result]:
        """Steps until idle, and checks that idle means idle."""
        for _ in range(max_steps):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, f"still busy after {max_steps} steps"
        stats = self.engine.stats
        assert stats.running == stats.waiting == 0
        assert stats.blocks_free + stats.blocks_cached == stats.blocks_total
        assert all(result.ended for result in self.results.values())
        return self.results

    def _take(self, output: GenerationOutput | Rejected) -> None:
        result = self.results[output.request_id]
        assert not result.ended, "an output after the last one"
        if isinstance(output, Rejected):
            result.rejected = output
            return
        assert output.token_ids or output.finish_reason, "an output that says nothing"
        result.token_ids += output.token_ids
        if output.logprobs is not None:
            assert len(output.logprobs) == len(output.token_ids)
            result.logprobs += output.logprobs
        if output.prompt_logprobs is not None:
            assert result.prompt_logprobs is None, "prompt_logprobs came twice"
            result.prompt_logprobs = output.prompt_logprobs
        result.finish_reason = output.finish_reason
        result.stopped_by = output.stopped_by
        result.cached_tokens = output.cached_tokens
        if output.token_ids:
            result.steps.append(self.num_steps)


def run(engine: Engine, *requests: GenerationRequest) -> dict[str, Result]:
    """Submits all at once and steps until idle."""
    driver = Driver(engine)
    driver.submit(*requests)
    return driver.drain()
