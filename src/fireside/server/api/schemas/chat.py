"""`POST /v1/chat/completions`, in OpenAI's terms.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from fireside.server.api.schemas.common import (
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    CompletionUsage,
    JSONObject,
    PromptLogprobs,
    Request,
    TokenCount,
)
from fireside.server.api.schemas.generation import GenerationFields

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


# Messages


class TextPart(Request):
    type: Literal["text"]
    text: str


class RefusalPart(Request):
    type: Literal["refusal"]
    refusal: str


TextParts = Annotated[list[TextPart], Field(min_length=1, max_length=4096, fail_fast=True)]
AssistantParts = Annotated[
    list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]],
    Field(min_length=1, max_length=4096, fail_fast=True),
]


class SystemMessage(Request):
    role: Literal["system", "developer"]
    content: str | TextParts
    name: str | None = None


class UserMessage(Request):
    role: Literal["user"]
    content: str | TextParts
    name: str | None = None


class FunctionCall(Request):
    name: str
    arguments: str = Field(description="JSON, as text.")


class ToolCall(Request):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = Field(None, description="Taken and ignored: clients send deltas back as they came.")


class AssistantMessage(Request):
    role: Literal["assistant"]
    content: str | AssistantParts | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    reasoning_content: str | None = None
    annotations: list[Any] | None = Field(None, description="Taken and ignored, as the rest below.")
    audio: None = None
    function_call: None = None


class ToolMessage(Request):
    role: Literal["tool"]
    content: str | TextParts
    tool_call_id: str
    name: str | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


# Tools and the form of the answer


class FunctionDefinition(Request):
    name: Name
    description: str | None = None
    parameters: JSONObject | None = None
    strict: bool | None = None


class Tool(Request):
    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Request):
    name: Name


class NamedToolChoice(Request):
    type: Literal["function"]
    function: FunctionName


class AllowedTools(Request):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedToolChoice], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class AllowedToolsChoice(Request):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = (
    Literal["none", "auto", "required"] | Annotated[NamedToolChoice | AllowedToolsChoice, Field(discriminator="type")]
)


class TextFormat(Request):
    type: Literal["text"]


class JSONObjectFormat(Request):
    type: Literal["json_object"]


class JSONSchema(Request):
    name: Name
    description: str | None = None
    schema_: JSONObject | None = Field(None, alias="schema")
    strict: bool | None = None


class JSONSchemaFormat(Request):
    type: Literal["json_schema"]
    json_schema: JSONSchema


ResponseFormat = Annotated[TextFormat | JSONObjectFormat | JSONSchemaFormat, Field(discriminator="type")]


class Prediction(Request):
    type: Literal["content"]
    content: str | TextParts

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatCompletionRequest(GenerationFields):
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: TokenCount | None = Field(None, description="Default: what is left of the context.")
    max_tokens: TokenCount | None = Field(None, description="Older name of `max_completion_tokens`, which wins.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    prediction: Prediction | None = Field(None, description="What the answer may look like; it then comes sooner.")

    continue_final_message: bool | None = Field(None, description="As in vLLM. Go on writing the last message.")
    chat_template_kwargs: JSONObject | None = Field(None, description="As in vLLM. More values for the template.")

    # OpenAI's own service takes these. They ask for nothing that this server has, so they change nothing here.
    metadata: dict[str, str] | None = None
    modalities: list[Literal["text"]] | None = None
    audio: JSONObject | None = None
    moderation: JSONObject | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JSONObject | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None
    web_search_options: JSONObject | None = None
    # The predecessor of `tools`. Only the call that forbids calling is taken.
    functions: list[FunctionDefinition] | None = None
    function_call: Literal["none"] | None = None


# The answer


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: None = None


class FunctionCallOut(BaseModel):
    name: str
    arguments: str


class ToolCallOut(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCallOut


class AssistantAnswer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallOut] = Field(default_factory=list)


FinishReason = Literal["stop", "length", "tool_calls"]


class ChatChoice(BaseModel):
    index: int
    message: AssistantAnswer
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None = Field(None, description="The stop string or token id that ended it, if one did.")


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    system_fingerprint: str | None
    prompt_logprobs: PromptLogprobs | None = None


# A chunk of a streamed answer


class FunctionDelta(BaseModel):
    name: str | None = None
    arguments: str


class ToolCallDeltaOut(BaseModel):
    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCallDeltaOut] | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None
    stop_reason: str | int | None = None


class ChatCompletionChunk(BaseModel):
    """One `data:` event. The stream ends with `data: [DONE]`; a failure on the way is an event with `error`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    prompt_logprobs: PromptLogprobs | None = None
