"""What the app's routes about conversations take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, StringConstraints, model_validator

from fireside.server.api.schemas.common import MAX_COUNT, Request, TokenCount
from fireside.server.paging import Id

MAX_CONTENT = 400_000  # characters; more than any context here holds


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds the character U+0000, which no message needs and PostgreSQL cannot keep")
    return text


Text = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[Text, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Content = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CONTENT)]
Instructions = Annotated[Text, StringConstraints(max_length=32_000)]
ModelName = Annotated[Text, StringConstraints(min_length=1, max_length=512)]
StatusName = Literal["running", "complete", "stopped", "interrupted", "failed"]


class Parameters(Request):
    """How to answer. What is left out is the conversation's, and else the model's own."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: TokenCount | None = Field(default=None, ge=1, description="Of one answer.")
    seed: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    system: Instructions | None = Field(default=None, description="System prompt.")

    def over(self, other: Parameters) -> Parameters:
        """These, and where they say nothing the other ones."""
        return Parameters.model_validate(other.model_dump(exclude_none=True) | self.model_dump(exclude_none=True))


class FromRow(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class MessageError(BaseModel):
    message: str
    code: str | None = None


class MessageOut(FromRow):
    """A node. While it is running, `content` and `reasoning` are what the run's events add to."""

    id: str
    created_at: datetime
    parent_id: str | None
    role: Literal["user", "assistant"]
    content: str
    reasoning: str | None
    status: StatusName
    error: MessageError | None
    model: str | None
    earlier_models: list[str | None] = Field(
        description="That had begun what `model` went on with; null for a person. Empty where one wrote all of it."
    )
    parameters: dict[str, Any] | None
    finish_reason: str | None = Field(description='"length": the answer was cut, and can be continued.')
    usage: dict[str, Any] | None
    run_id: str | None
    is_blind: bool = Field(description="It is being compared: which model wrote it is told once a choice is made.")

    @model_validator(mode="after")
    def _keep_secret(self) -> Self:
        if self.is_blind:
            self.model = self.usage = self.parameters = None  # see `told_model` and its like
        return self


class RunOut(FromRow):
    id: str
    created_at: datetime
    conversation_id: str | None
    message_id: str | None
    status: StatusName
    finished_at: datetime | None
    error: MessageError | None


class Hit(BaseModel):
    """Where a search found something. message_id: None for the title."""

    message_id: str | None
    snippet: str


class ConversationOut(FromRow):
    id: str
    created_at: datetime
    updated_at: datetime
    project_id: str | None
    title: str
    has_own_title: bool
    model: str | None
    parameters: Parameters
    current_leaf_id: str | None
    pinned_at: datetime | None
    archived_at: datetime | None


class ConversationItem(ConversationOut):
    hit: Hit | None = Field(default=None, description="With `q`: the latest message that has the words, or the title.")


class ConversationTree(ConversationOut):
    messages: list[MessageOut] = Field(description="All of them, on all branches, the oldest first.")


class NewConversation(Request):
    title: Name | None = None
    project_id: Id | None = None
    model: ModelName | None = None
    parameters: Parameters = Parameters()


class ConversationChange(Request):
    """What is left out stays."""

    title: Name | None = None
    project_id: Id | None = None
    pinned: bool | None = None
    archived: bool | None = None
    model: ModelName | None = None
    parameters: Parameters | None = Field(default=None, description="Those that are named; null takes one away.")
    current_leaf_id: Id | None = Field(
        default=None, description="Any message: the branch last written below it is shown."
    )


class ConversationIds(Request):
    ids: Annotated[list[Id], Field(min_length=1, max_length=1000)]


class Deleted(BaseModel):
    deleted: int


class Answering(Request):
    model: ModelName | None = None
    parameters: Parameters | None = None


class NewMessage(Answering):
    id: Id | None = Field(
        default=None, description="Made up by the client, so that a request sent twice is carried out once."
    )
    parent_id: Id | None = Field(default=None, description="The answer that this one follows; null at the beginning.")
    is_end: bool = Field(
        default=False, description="Nothing follows `parent_id` yet, as far as the person sees; if it does, refuse."
    )
    content: Content


class Edit(Answering):
    content: Content
    run: bool = Field(default=True, description="Have an edited question answered; means nothing for an edited answer.")


class Started(BaseModel):
    """message: what was asked, where that is new. answer: the message that the run writes."""

    message: MessageOut | None = None
    answer: MessageOut | None = None
    run: RunOut | None = None


class TemporaryTurn(Request):
    role: Literal["user", "assistant"]
    content: Content


class TemporaryChat(Answering):
    messages: Annotated[list[TemporaryTurn], Field(min_length=1, max_length=2048, fail_fast=True)]


class TemporaryRun(BaseModel):
    run: RunOut


# Events of a run


class TextEvent(BaseModel):
    """A piece of the answer."""

    type: Literal["text"]
    text: str


class ReasoningEvent(BaseModel):
    """A piece of what the model thinks before it answers."""

    type: Literal["reasoning"]
    reasoning: str


class ContextEvent(BaseModel):
    """The oldest messages were left out of the prompt, because the context has no room for them."""

    type: Literal["context"]
    left_out: int


class UsageEvent(BaseModel):
    type: Literal["usage"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class TitleEvent(BaseModel):
    """The model has named the conversation."""

    type: Literal["title"]
    title: str


class DoneEvent(BaseModel):
    """The last one."""

    type: Literal["done"]
    status: StatusName
    finish_reason: str | None
    error: MessageError | None
    is_pruned: bool = Field(
        description="The events before it are kept no longer, and were left out: the message holds what they said."
    )


class RunEventOut(
    RootModel[
        Annotated[
            TextEvent | ReasoningEvent | ContextEvent | UsageEvent | TitleEvent | DoneEvent, Field(discriminator="type")
        ]
    ]
):
    """What an event of `GET /api/runs/{run_id}/events` holds."""
