"""What several routes take and give."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Bounds that keep a request's cost in proportion to its size. OpenAI's are narrower where both have one.
MAX_CHOICES = 128
MAX_STOP_STRINGS = 16
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128
MAX_COUNT = 2**31 - 1  # of tokens; also the largest token id
MAX_PRIORITY = 100  # either way; enough to tell kinds of work apart, while clients' time stamps all count the same


class Request(BaseModel):
    """Base of request bodies: no coercion ("1" is not 1), no unknown fields, no infinities."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("a number in it is too large") from None
    return value


JSONObject = Annotated[dict[str, Any], AfterValidator(_finite)]
TokenId = Annotated[int, Field(ge=0, le=MAX_COUNT)]
TokenCount = Annotated[int, Field(ge=0, le=MAX_COUNT)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
ModelName = Annotated[str, Field(min_length=1, max_length=512, examples=["default"])]


class StreamOptions(Request):
    include_usage: bool | None = Field(None, description="Send one more chunk, with usage and no choices.")
    include_obfuscation: bool | None = Field(None, description="Taken and ignored: chunks are never padded.")


class PromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Prompt tokens found in the prefix cache.")


class CompletionTokensDetails(BaseModel):
    """Only with a `prediction`."""

    accepted_prediction_tokens: int = Field(description="Tokens guessed from the prediction that the answer has.")
    rejected_prediction_tokens: int = Field(description="Tokens guessed from the prediction that it has not.")


class CompletionUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | None = None


class PromptLogprob(BaseModel):
    """vLLM's form. `rank` is null for a token that is not among the likeliest that were asked for."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptLogprobs = Annotated[
    list[dict[str, PromptLogprob] | None],
    Field(description="For each prompt token, by token id: itself and the likeliest at its place."),
]
