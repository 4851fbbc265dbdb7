"""What the routes of sharing take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from fireside.server.api.schemas.common import Request
from fireside.server.chat.schemas import FromRow
from fireside.server.paging import Id


class ShareWish(Request):
    """What a link is to show, and for how long."""

    leaf_id: Id | None = Field(
        default=None, description="Any message: the branch last written below it. null: the branch that is shown."
    )
    expires: Literal["day", "week", "month", "never"] | None = Field(
        default=None,
        description="From now on. null: a month for a new link, and for one that is there as long as it had.",
    )
    reasoning: bool = Field(default=False, description="Show what the model thought, too.")
    instructions: bool = Field(default=False, description="Show the custom instructions it was given, too.")


class ShareOptions(BaseModel):
    reasoning: bool
    instructions: bool


class ShareOut(FromRow):
    """updated_at: as of when it shows the conversation."""

    id: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    conversation_id: str
    leaf_id: str
    title: str
    token: str = Field(description="The link is /s/ and this.")
    options: ShareOptions


class Revoked(BaseModel):
    revoked: int


class SharedToken(Request):
    token: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="Of a link that somebody shared.")
