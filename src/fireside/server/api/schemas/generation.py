"""The fields that chat completions and completions share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fireside.server.api.schemas.common import (
    MAX_CHOICES,
    MAX_PRIORITY,
    MAX_STOP_STRINGS,
    MAX_TOP_LOGPROBS,
    JSONObject,
    ModelName,
    Request,
    StopString,
    StreamOptions,
    TokenCount,
    TokenId,
)

_VLLM = "As in vLLM. "


class StructuredOutputs(Request):
    """vLLM's newer form of the `guided_*` fields. Exactly one is given."""

    json_: JSONObject | str | None = Field(None, alias="json")
    regex: str | None = Field(None, min_length=1)
    choice: Annotated[list[str], Field(min_length=1, max_length=1024, fail_fast=True)] | None = None
    json_object: Literal[True] | None = None


class GenerationFields(Request):
    model: ModelName = "default"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="How many answers.")

    temperature: float | None = Field(None, ge=0, le=2, description="0 always takes the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=4096, description="From token ids (as strings) to what is added to their logits."
    )
    seed: int | None = Field(
        None, ge=-(2**63), le=2**63 - 1, description="The same seed and request give the same answer, always."
    )
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS, fail_fast=True)] | None = None
    user: str | None = Field(None, description="Taken and ignored.")

    top_k: int | None = Field(None, ge=-1, le=2**31 - 1, description=_VLLM + "0 and -1: no limit.")
    min_p: float | None = Field(None, ge=0, le=1, description=_VLLM)
    repetition_penalty: float | None = Field(None, gt=0, le=10, description=_VLLM + "Over prompt and answer.")
    min_tokens: TokenCount | None = Field(None, description=_VLLM + "No stop token before so many.")
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = Field(
        None, description=_VLLM
    )
    ignore_eos: bool | None = Field(None, description=_VLLM + "Go on to the limit.")
    skip_special_tokens: bool | None = Field(None, description=_VLLM)
    include_stop_str_in_output: bool | None = Field(None, description=_VLLM)
    priority: int | None = Field(
        None,
        ge=-(2**63),
        le=2**63 - 1,
        description=f"{_VLLM}Lower is sooner; 0 by default. Beyond ±{MAX_PRIORITY} it counts as that.",
    )
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS, description=_VLLM)
    guided_json: JSONObject | str | None = Field(None, description=_VLLM + "A JSON schema, or its text.")
    guided_regex: str | None = Field(None, min_length=1, description=_VLLM)
    guided_choice: Annotated[list[str], Field(min_length=1, max_length=1024, fail_fast=True)] | None = Field(
        None, description=_VLLM
    )
    structured_outputs: StructuredOutputs | None = Field(None, description=_VLLM)

    @model_validator(mode="before")
    @classmethod
    def _drop_null_bias(cls, data: Any) -> Any:
        """A bias of 0 changes nothing, whatever it is said to be for; OpenAI's own client suite biases "foo" by 0."""
        if isinstance(data, dict) and isinstance(bias := data.get("logit_bias"), dict):
            return {**data, "logit_bias": {key: value for key, value in bias.items() if value != 0}}
        return data
