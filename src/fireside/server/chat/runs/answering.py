"""From a plan to events: what the model says, as it says it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from fireside.assistant.text import TextChunk
from fireside.assistant.text_model import TextModel
from fireside.engine.client import EngineUnavailable
from fireside.server.api.generation import text_options
from fireside.server.api.schemas.generation import GenerationFields
from fireside.server.chat.runs.live import Event
from fireside.server.chat.runs.plan import FittedPrompt, Plan
from fireside.server.chat.runs.thinking import BEGIN, Thinking
from fireside.server.chat.schemas import Parameters
from fireside.server.metrics import Metrics

PATIENCE_SECONDS = 15.0  # with an engine that is being started again
TEMPERATURE = 0.7  # where nobody says one: OpenAI's 1.0 makes small models ramble


@dataclass(frozen=True)
class Answered:
    usage: dict[str, Any]
    finish_reason: str


def sampled_by(wanted: Parameters, model: TextModel) -> dict[str, Any]:
    """What an answer is written with: as wanted; where nothing is, as the model's authors say; and where they do not,
    as we do."""
    authors = {"temperature": model.defaults.temperature, "top_p": model.defaults.top_p}
    known = {name: value for name, value in authors.items() if value is not None}
    return {"temperature": TEMPERATURE} | known | wanted.model_dump(exclude_none=True)


async def write_answer(plan: Plan, fitted: FittedPrompt, metrics: Metrics, emit: Callable[[Event], None]) -> Answered:
    """Raises what stands in the way (EngineError), before or after some of the text."""
    if fitted.left_out and not plan.is_blind:  # models differ in what they have room for
        emit({"type": "context", "left_out": fitted.left_out})
    model, wanted = plan.model, plan.parameters
    given = wanted.model_dump(include={"temperature", "top_p", "seed"})
    if given["temperature"] is None and model.defaults.temperature is None:
        given["temperature"] = TEMPERATURE
    fields = GenerationFields.model_validate(given)
    options = text_options(fields, model, max_tokens=fitted.max_tokens or None, logprobs=None)
    with suppress(TimeoutError, EngineUnavailable):  # which the engine says itself, with its reason, when it is asked
        async with asyncio.timeout(PATIENCE_SECONDS):
            await model.engine.wait_ready()
    thinking = Thinking() if BEGIN in model.tokenizer.added_tokens and not plan.continues else None
    last = TextChunk()
    chunks = model.generate(fitted.prompt, options, f"run-{plan.run_id}", prompt_ids=fitted.prompt_ids)
    async with aclosing(metrics.watch(model.name, chunks)) as watched:
        async for last in watched:
            if last.text:
                text = last.text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # which PostgreSQL cannot keep
                for event in thinking.push(text) if thinking else ({"type": "text", "text": text},):
                    emit(event)
    for event in thinking.finish() if thinking else ():
        emit(event)
    assert last.usage is not None and last.finish_reason is not None  # `TextChunk` promises them of the last one
    usage = {
        "prompt_tokens": last.usage.prompt_tokens,
        "completion_tokens": last.usage.completion_tokens,
        "cached_tokens": last.usage.cached_tokens,
    }
    if not plan.is_blind:  # and in how they count
        emit({"type": "usage", **usage})
    return Answered(usage, last.finish_reason)
