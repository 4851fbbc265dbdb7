"""People, how they come in, and what was done by whom. Of every secret there is a digest only."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Enum, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fireside.server.db.base import ID_LENGTH, Base, Identified, now

DIGEST_LENGTH = 64  # SHA-256 in hex


class Role(StrEnum):
    """What a person may do: all; all but administer; talk only, without keys of their own."""

    ADMIN = "admin"
    MEMBER = "member"
    GUEST = "guest"


class LinkKind(StrEnum):
    """What opening a one-time link leads to: the first administrator, an account, a new password."""

    SETUP = "setup"
    INVITATION = "invitation"
    RESET = "reset"


def _stored(kind: type[StrEnum]) -> Enum:
    """As its text, in a plain column: a new value needs no migration."""
    return Enum(kind, native_enum=False, length=16, values_callable=lambda values: [value.value for value in values])


class User(Identified, Base):
    __tablename__ = "users"

    email: Mapped[str] = mapped_column(String(254), unique=True)
    """As `schemas.Email` normalises it."""
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[Role] = mapped_column(_stored(Role))
    locale: Mapped[str | None] = mapped_column(String(35))
    instructions: Mapped[str] = mapped_column(Text, default="")
    """What every model is told in every conversation of theirs."""
    preferences: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The app's own: theme, shortcuts and the like."""
    disabled_at: Mapped[datetime | None]


class UserSession(Identified, Base):
    """A browser that is signed in."""

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    last_seen_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    user_agent: Mapped[str] = mapped_column(String(300))
    address: Mapped[str] = mapped_column(String(64))


class OneTimeLink(Identified, Base):
    """A secret that leads somewhere once."""

    __tablename__ = "one_time_links"

    kind: Mapped[LinkKind] = mapped_column(_stored(LinkKind))
    token_hash: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    role: Mapped[Role | None] = mapped_column(_stored(Role))
    """That who opens an invitation gets."""
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    """Whose password is set anew."""
    created_by: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """None: from the terminal."""
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_by: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))


class ApiKey(Identified, Base):
    """Opens `/v1` for a program of its owner's."""

    __tablename__ = "api_keys"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(16))
    """What of it may be shown, to tell keys apart."""
    token_hash: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    scopes: Mapped[list[Any]]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Identified, Base):
    """What somebody did that others may have to know of. Never holds a secret, nor what was typed as one."""

    __tablename__ = "audit_log"

    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    """Who did it. None: nobody that was known, or the terminal."""
    address: Mapped[str | None] = mapped_column(String(64))
    """From where; None: from the terminal."""
    action: Mapped[str] = mapped_column(String(40))
    target: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
