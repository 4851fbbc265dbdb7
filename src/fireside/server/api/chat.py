"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request

from fireside.assistant.text import TextChunk, TokenText, ToolCallDelta, Usage
from fireside.assistant.text_model import TextModel
from fireside.server.api import generation
from fireside.server.api.generation import Answer, constraint_of, start_answer, text_options
from fireside.server.api.messages import chat_prompt
from fireside.server.api.schemas.chat import ChatCompletion, ChatCompletionRequest
from fireside.server.body import BoundedRoute
from fireside.server.deps import Context, CurrentContext
from fireside.server.errors import invalid
from fireside.server.openapi import streams
from fireside.server.streaming import DONE, EventStream, event, unless_disconnected

router = APIRouter(route_class=BoundedRoute, tags=["generation"])


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    response_model_exclude_unset=True,
    responses=streams("ChatCompletionChunk"),
)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, context: CurrentContext
) -> dict[str, Any] | EventStream:
    """The model's next message in a conversation, whole or as it is written."""
    model = context.models.get(body.model)
    with model.beginning():
        answer = await unless_disconnected(request.receive, _start(body, context, model))
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return EventStream(_events(answer, with_usage), answer.chunks)
    return await unless_disconnected(request.receive, _whole(answer))


async def _start(body: ChatCompletionRequest, context: Context, model: TextModel) -> Answer:
    if body.functions and body.function_call is None:
        raise invalid("functions", "is OpenAI's former name for tools, which this server takes instead")
    if body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs", "needs logprobs to be true")
    constraint = constraint_of(body, body.response_format)
    prompt = chat_prompt(body, constraint, context.settings.max_messages)
    options = text_options(
        body,
        model,
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prediction=body.prediction.text if body.prediction else "",
    )
    return await start_answer(context, model, [prompt], options, choices_per_prompt=body.n or 1, id_prefix="chatcmpl")


@dataclass
class _Choice:
    """One answer as it is put together."""

    text: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[TokenText] | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None
    last: TextChunk = field(default_factory=TextChunk)

    def add(self, chunk: TextChunk) -> None:
        self.last = chunk
        self.text.append(chunk.text)
        for call in chunk.tool_calls:
            if call.index == len(self.tool_calls):
                self.tool_calls.append(
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
                )
            self.tool_calls[call.index]["function"]["arguments"] += call.arguments
        if chunk.logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs += chunk.logprobs
        if chunk.prompt_logprobs is not None:
            self.prompt_logprobs = generation.prompt_logprobs_list(chunk.prompt_logprobs)

    def as_dict(self, index: int) -> dict[str, Any]:
        text = "".join(self.text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
            message["content"] = text or None
        return {
            "index": index,
            "message": message,
            "logprobs": None if self.logprobs is None else _logprobs(self.logprobs),
            "finish_reason": self.last.finish_reason,
            "stop_reason": self.last.stop_reason,
        }


async def _whole(answer: Answer) -> dict[str, Any]:
    choices = [_Choice() for _ in range(answer.choices)]
    async with aclosing(answer.chunks) as chunks:
        async for index, chunk in chunks:
            choices[index].add(chunk)
    whole = {
        **_head(answer, "chat.completion"),
        "choices": [choice.as_dict(index) for index, choice in enumerate(choices)],
        "usage": generation.usage_dict([generation.usage_of(choice.last) for choice in choices], len(choices)),
    }
    if choices[0].prompt_logprobs is not None:
        whole["prompt_logprobs"] = choices[0].prompt_logprobs
    return whole


async def _events(answer: Answer, with_usage: bool) -> AsyncGenerator[bytes]:
    # Plain dictionaries and msgspec: this runs for every token of every stream, and a test holds what it sends
    # against `schemas.chat.ChatCompletionChunk`.
    head = _head(answer, "chat.completion.chunk")
    if with_usage:
        head["usage"] = None
    usages: list[Usage] = [Usage(prompt_tokens=0, completion_tokens=0)] * answer.choices
    try:
        for index in range(answer.choices):
            delta: dict[str, Any] = {"role": "assistant", "content": ""}
            yield event({**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
        async for index, chunk in answer.chunks:
            choice: dict[str, Any] = {"index": index, "delta": {}, "finish_reason": None}
            if chunk.prompt_logprobs is not None and index == 0:
                listed = generation.prompt_logprobs_list(chunk.prompt_logprobs)
                yield event({**head, "choices": [choice], "prompt_logprobs": listed})
            if chunk.text or chunk.tool_calls or chunk.logprobs:
                delta = {"content": chunk.text} if chunk.text or not chunk.tool_calls else {}
                if chunk.tool_calls:
                    delta["tool_calls"] = [_call_delta(call) for call in chunk.tool_calls]
                written = {**choice, "delta": delta}
                if chunk.logprobs is not None:
                    written["logprobs"] = _logprobs(chunk.logprobs)
                yield event({**head, "choices": [written]})
            if chunk.finish_reason is not None:
                usages[index] = generation.usage_of(chunk)
                ended = {**choice, "finish_reason": chunk.finish_reason, "stop_reason": chunk.stop_reason}
                yield event({**head, "choices": [ended]})
        if with_usage:
            yield event({**head, "choices": [], "usage": generation.usage_dict(usages, answer.choices)})
    except Exception as exc:
        yield generation.failure_event(exc)
    yield DONE


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.model.name,
        "system_fingerprint": answer.fingerprint,
    }


def _call_delta(call: ToolCallDelta) -> dict[str, Any]:
    if call.id is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


def _logprobs(tokens: Sequence[TokenText]) -> dict[str, Any]:
    return {"content": [{**_logprob(t), "top_logprobs": [_logprob(top) for top in t.top]} for t in tokens]}


def _logprob(token: TokenText) -> dict[str, Any]:
    return {"token": token.text, "logprob": generation.finite(token.logprob), "bytes": list(token.bytes)}
