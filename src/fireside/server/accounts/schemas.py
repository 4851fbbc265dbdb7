"""What the routes of accounts take and give."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fireside.server.accounts.tables import Role
from fireside.server.api.schemas.common import JSONObject, Request

MIN_PASSWORD, MAX_PASSWORD = 8, 200
MAX_INSTRUCTIONS = 8_000
MAX_PREFERENCES = 16_000  # characters, as JSON

_LOCALE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"


def normal_email(value: str) -> str:
    """One spelling for one address: what looks the same or differs in case only is the same account."""
    value = unicodedata.normalize("NFKC", value).strip().lower()
    if len(value) > 254 or not re.fullmatch(r"[^\s@]+@[^\s@]+", value) or not value.isprintable():
        raise ValueError("must be an e-mail address")
    return value


def _normal_name(value: str) -> str:
    value = " ".join(unicodedata.normalize("NFC", value).split())
    if not value or not value.isprintable():
        raise ValueError("must be a name, in printable characters")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold a NUL character")  # which PostgreSQL cannot keep
    return value


def _small(value: dict[str, object]) -> dict[str, object]:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > MAX_PREFERENCES or "\\u0000" in text:
        raise ValueError(f"must have at most {MAX_PREFERENCES:,} characters as JSON, and no NUL")
    return value


Email = Annotated[str, Field(max_length=254), AfterValidator(normal_email)]
Name = Annotated[str, Field(max_length=100), AfterValidator(_normal_name)]
Password = Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]
GivenPassword = Annotated[str, Field(max_length=MAX_PASSWORD)]
Token = Annotated[str, Field(min_length=1, max_length=256)]
Locale = Annotated[str, Field(pattern=_LOCALE)]


class SignIn(Request):
    email: Email
    password: GivenPassword


class NewAccount(Request):
    name: Name
    email: Email
    password: Password


class Setup(NewAccount):
    token: Token = Field(description="Of the one-time link that the first start prints.")


class SignUp(NewAccount):
    token: Token | None = Field(None, description="Of an invitation; not needed where sign-up is open.")


class NewPassword(Request):
    token: Token = Field(description="Of a link that an administrator made.")
    password: Password


class ProfileChange(Request):
    """What is left out stays as it is (`model_fields_set` tells); the defaults mean nothing."""

    name: Name = Field(default_factory=str)
    locale: Locale | None = Field(None, description="null: as the browser says.")
    instructions: Annotated[str, Field(max_length=MAX_INSTRUCTIONS), AfterValidator(_without_nul)] = Field(
        default_factory=str, description="What every model is told in every conversation."
    )
    preferences: Annotated[JSONObject, AfterValidator(_small)] = Field(
        default_factory=dict, description="The app's own; replaced as a whole."
    )
    password: Password | None = Field(None, description="A new one; `old_password` has to come with it.")
    old_password: GivenPassword | None = None


class Confirmation(Request):
    password: GivenPassword = Field(description="The person's own, once more.")


class NewKey(Request):
    name: Name
    scopes: Annotated[tuple[Literal["inference"]], Field(strict=False)] = ("inference",)
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = Field(None, description="null: it does not expire.")


class UserView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    created_at: datetime
    email: str
    name: str
    role: Role
    locale: str | None
    instructions: str
    preferences: JSONObject


class SessionView(BaseModel):
    """What the page has to know before anything else."""

    user: UserView | None
    needs_setup: bool = Field(description="There is no administrator yet.")
    sign_up: Literal["invitation", "open"]
    sharing: bool = Field(description="Conversations can be shared by link.")
    version: str | None = Field(description="Of the server; null for those who are not signed in.")
    locale: str | None = Field(description="That the person chose; null: let the browser say.")


class SessionEntry(BaseModel):
    """A browser that is signed in."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    user_agent: str
    address: str
    is_current: bool = False


class KeyView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    created_at: datetime
    name: str
    prefix: str = Field(description="How the key begins, to tell it from others.")
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(KeyView):
    key: str = Field(description="Shown this once.")
