"""What the routes about feedback take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from fireside.server.api.schemas.common import Request
from fireside.server.chat.schemas import FromRow, MessageOut, ModelName, Parameters, Text

Reason = Literal[
    "correct", "helpful", "clear", "well_written",
    "incorrect", "unhelpful", "unclear", "too_long", "too_short", "ignored_instructions", "harmful",
]  # fmt: skip
Comment = Annotated[Text, StringConstraints(strip_whitespace=True, max_length=2_000)]
Vote = Literal["left", "right", "both_good", "both_bad"]
KindName = Literal["rating", "edit", "regeneration", "comparison"]
VerdictName = Literal["up", "down", "better", "worse", "same", "left", "right", "both_good", "both_bad"]


class Rating(Request):
    verdict: Literal["up", "down"]
    reasons: Annotated[list[Reason], Field(default_factory=list, max_length=11)]
    comment: Comment = ""


class Preference(Request):
    verdict: Literal["better", "worse", "same"] = Field(description="Than the answer that was there before.")


class NewComparison(Request):
    """models: one that answers twice, or two; none: the conversation's own, twice."""

    models: Annotated[list[ModelName], Field(default_factory=list, max_length=2)]
    parameters: Parameters | None = None


class CastVote(Request):
    verdict: Vote


class ConsentChange(Request):
    is_given: bool
    including_earlier: bool = Field(description="It holds for what was given before as well.")


class ConsentOut(BaseModel):
    """Whether feedback may be used to train models here."""

    is_given: bool | None = Field(description="null: the person was not asked yet, and nothing is used.")
    changed_at: datetime | None


class FeedbackOut(FromRow):
    id: str
    created_at: datetime
    changed_at: datetime
    kind: KindName
    verdict: VerdictName | None = Field(description="null: a comparison without a vote, or nothing was said.")
    reasons: list[str]
    comment: str
    consent: bool = Field(description="It may be used to train models here.")
    conversation_id: str
    message_id: str = Field(description="The answer; of a comparison, the left one.")
    other_id: str | None = Field(description="What it was held against; of a comparison, the right one.")


class FeedbackItem(FeedbackOut):
    title: str = Field(description="Of the conversation.")
    excerpt: str = Field(description="How the answer begins.")
    model: str | None = Field(description="That wrote the answer; null while a comparison has no vote.")
    other_model: str | None


class ComparisonOut(BaseModel):
    feedback: FeedbackOut
    left: MessageOut
    right: MessageOut


class Withdrawn(BaseModel):
    withdrawn: int


# For administrators


class Interval(BaseModel):
    """A share with its 95 % confidence interval (Wilson's)."""

    rate: float
    low: float
    high: float


class ModelStanding(BaseModel):
    """One model's weights. Ties count half for each side."""

    model: str
    version: str | None = Field(description="A digest of the weights; null where it is not known.")
    wins: int
    losses: int
    ties: int
    win_rate: Interval | None
    up: int
    down: int
    up_rate: Interval | None


class PairStanding(BaseModel):
    first: int = Field(description="Index in `models`.")
    second: int
    wins: int = Field(description="Of the first.")
    losses: int
    ties: int


class Leaderboard(BaseModel):
    models: list[ModelStanding] = Field(description="The highest win rate first.")
    pairs: list[PairStanding]
    exportable: int = Field(description="Records that may be used to train models.")
