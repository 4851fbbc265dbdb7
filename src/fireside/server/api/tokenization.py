"""`POST /tokenize` and `POST /detokenize`, as vLLM has them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from fireside.assistant.errors import ContextLengthExceeded
from fireside.assistant.text import ChatPrompt
from fireside.assistant.text_model import TextModel
from fireside.server.api.generation import check_token_ids
from fireside.server.api.messages import chat_prompt
from fireside.server.api.schemas.chat import ChatCompletionRequest, Message, Tool
from fireside.server.api.schemas.common import MAX_TOOLS, JSONObject, ModelName, TokenId
from fireside.server.api.schemas.common import Request as RequestBody
from fireside.server.body import MAX_JSON_SEPARATORS, BoundedRoute
from fireside.server.deps import CurrentContext
from fireside.server.errors import invalid
from fireside.server.streaming import unless_disconnected
from fireside.tokenizers.tokenizer import TooManyTokens

router = APIRouter(route_class=BoundedRoute, tags=["tokens"])

MAX_TOKENS = MAX_JSON_SEPARATORS  # no more ids than `/detokenize` could take back


class TokenizeRequest(RequestBody):
    """Either `prompt`, as in completions, or `messages`, as in chat completions."""

    model: ModelName = "default"
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: JSONObject | None = None
    add_special_tokens: bool | None = Field(None, description="Of a prompt: whether the tokenizer may add its bos.")
    return_token_strs: bool | None = None


class TokenizeResponse(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(RequestBody):
    model: ModelName = "default"
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


class DetokenizeResponse(BaseModel):
    prompt: str


@router.post("/tokenize", response_model=TokenizeResponse, response_model_exclude_unset=True)
async def tokenize(body: TokenizeRequest, request: Request, context: CurrentContext) -> dict[str, Any]:
    model = context.models.get(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise invalid("prompt", "give either prompt or messages")
    if body.messages is not None:
        conversation = ChatCompletionRequest.model_construct(
            messages=body.messages,
            tools=body.tools,
            continue_final_message=body.continue_final_message,
            chat_template_kwargs=body.chat_template_kwargs,
        )
        work = _conversation_ids(model, chat_prompt(conversation, None, context.settings.max_messages))
    else:
        assert body.prompt is not None
        add_bos = False if body.add_special_tokens is False else None
        work = asyncio.to_thread(model.tokenizer.encode, body.prompt, add_bos=add_bos, limit=MAX_TOKENS // 2)
    try:
        ids = await unless_disconnected(request.receive, work)
    except (TooManyTokens, ContextLengthExceeded) as exc:
        param = "prompt" if body.messages is None else "messages"
        raise invalid(param, f"has more than {MAX_TOKENS:,} tokens, too many to list") from exc
    answer = {"count": len(ids), "max_model_len": model.context_length, "tokens": ids}
    if body.return_token_strs:
        answer["token_strs"] = [model.tokenizer.decode([i], skip_special_tokens=False) for i in ids]
    return answer


async def _conversation_ids(model: TextModel, prompt: ChatPrompt) -> list[int]:
    return [*await model.encode(prompt, limit=MAX_TOKENS // 2)]


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, context: CurrentContext) -> DetokenizeResponse:
    model = context.models.get(body.model)
    ids = check_token_ids("tokens", body.tokens, model)
    return DetokenizeResponse(prompt=await asyncio.to_thread(model.tokenizer.decode, ids, skip_special_tokens=False))
