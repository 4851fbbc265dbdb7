"""Asking a `TextModel` in tests: options, and a whole answer as one chunk."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from fireside.assistant.text import (
    ChatPrompt,
    CompletionPrompt,
    TextChunk,
    TextOptions,
)
from fireside.assistant.text_model import TextModel
from fireside.engine.messages import SamplingParams
from fireside.engine.scripted import ScriptedClient
from tests.assistant.models import (
    text_model,
)

HELLO = ChatPrompt(messages=[{"role": "user", "content": "Hello"}])


def options(*, stop: tuple[str, ...] = (), **sampling: Any) -> TextOptions:
    return TextOptions(sampling=SamplingParams(**{"max_tokens": 0, **sampling}), stop=stop)


async def answer(
    model: TextModel, prompt: ChatPrompt | CompletionPrompt = HELLO, opts: TextOptions | None = None
) -> TextChunk:
    """The whole answer as one chunk; checks that finish reason and usage come last, and only then."""
    chunks = [chunk async for chunk in model.generate(prompt, opts or options())]
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].finish_reason is not None and chunks[-1].usage is not None
    model.close()
    return replace(
        chunks[-1],
        text="".join(chunk.text for chunk in chunks),
        tool_calls=tuple(delta for chunk in chunks for delta in chunk.tool_calls),
        token_ids=tuple(token_id for chunk in chunks for token_id in chunk.token_ids),
        logprobs=tuple(token for chunk in chunks for token in chunk.logprobs or ()) or None,
        prompt_logprobs=chunks[0].prompt_logprobs,
    )


def calls(chunk: TextChunk) -> list[tuple[str, Any]]:
    joined: list[tuple[str, str]] = []
    for delta in chunk.tool_calls:
        if delta.name is not None:
            joined.append((delta.name, ""))
        joined[-1] = (joined[-1][0], joined[-1][1] + delta.arguments)
    return [(name, json.loads(arguments)) for name, arguments in joined]


async def start(script: Any, **kwargs: Any) -> tuple[TextModel, ScriptedClient]:
    model, engine = text_model(script, **kwargs)
    await engine.start()
    return model, engine
