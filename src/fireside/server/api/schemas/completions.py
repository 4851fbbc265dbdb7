"""`POST /v1/completions`, in OpenAI's terms.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from fireside.server.api.schemas.chat import ResponseFormat
from fireside.server.api.schemas.common import (
    MAX_CHOICES,
    MAX_COUNT,
    MAX_TOP_LOGPROBS,
    CompletionUsage,
    PromptLogprobs,
    TokenCount,
    TokenId,
)
from fireside.server.api.schemas.generation import GenerationFields

MAX_PROMPTS = 1024

TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_COUNT, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
TokenIdLists = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]


class CompletionRequest(GenerationFields):
    prompt: str | TokenIds | Texts | TokenIdLists = Field(description="Text or token ids to continue, one or several.")
    max_tokens: TokenCount | None = Field(16, description="0 with `echo` only scores the prompt.")
    echo: bool | None = Field(None, description="Begin the answer with the prompt.")
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    best_of: int | None = Field(
        None, ge=0, le=MAX_CHOICES, description="Draw so many, answer with the `n` of highest mean log-probability."
    )
    suffix: str | None = Field(
        None,
        description="Refused: the models here were not trained to fill gaps. Ignored for a name that is mapped.",
    )
    response_format: ResponseFormat | None = Field(None, description="As in vLLM.")


class CompletionLogprobs(BaseModel):
    text_offset: list[int]
    token_logprobs: list[float] = Field(
        description="In nats. 0 for the first token of an echoed prompt, which nothing comes before."
    )
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None = Field(None, description="The stop string or token id that ended it, if one did.")
    prompt_logprobs: PromptLogprobs | None = None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage
    system_fingerprint: str | None


class CompletionChunkChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    stop_reason: str | int | None = None
    prompt_logprobs: PromptLogprobs | None = None


class CompletionChunk(BaseModel):
    """One `data:` event. The stream ends with `data: [DONE]`; a failure on the way is an event with `error`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[CompletionChunkChoice]
    usage: CompletionUsage | None = None
