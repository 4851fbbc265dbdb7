"""What the administrators' routes take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fireside.server.accounts.tables import Role
from fireside.server.api.schemas.common import Request

# Strict bodies take no text for an enum unless they are told to.
GivenRole = Annotated[Role, Field(strict=False)]


class UserChange(Request):
    role: GivenRole | None = None
    disabled: bool | None = None


class NewInvitation(Request):
    role: GivenRole = Role.MEMBER
    expires_in_days: Annotated[int, Field(ge=1, le=90)] = 7


class AccountView(BaseModel):
    """A person, as administrators see them: nothing of what they wrote."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    created_at: datetime
    email: str
    name: str
    role: Role
    disabled_at: datetime | None
    last_seen_at: datetime | None = Field(None, description="By a browser that is still signed in.")
    keys: int = Field(0, description="API keys that open something now.")


class InvitationView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    created_at: datetime
    role: Role
    created_by: str | None
    expires_at: datetime
    used_at: datetime | None
    used_by: str | None


class LinkView(BaseModel):
    """A one-time link: `path` behind the server's address."""

    id: str
    path: str = Field(description="Holds the secret, shown this once.")
    expires_at: datetime


class AuditView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    created_at: datetime
    user_id: str | None
    user_name: str | None = Field(
        None, description="As it is now; null for the terminal, and who is not known or gone."
    )
    address: str | None = Field(description="Null: from the terminal.")
    action: str
    target: str | None
    target_name: str | None = Field(None, description="Of the person that was meant, as it is now.")
    detail: dict[str, Any]
