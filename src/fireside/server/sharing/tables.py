"""Links that show one branch of a conversation to whoever has them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fireside.server.accounts.tables import DIGEST_LENGTH
from fireside.server.db.base import ID_LENGTH, Base, Identified, now

TOKEN_LENGTH = 43


class Share(Identified, Base):
    """What was shared, as it was at `updated_at`. It goes with its conversation and with its owner.

    A link is looked up by the digest of its token, as all secrets here are. The token itself is kept beside it, unlike
    those of sessions and keys, so that its owner can copy the link again: it opens nothing but the `snapshot`, which
    lies in the same row.
    """

    __tablename__ = "shares"
    __table_args__ = (Index(None, "user_id"),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    leaf_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    token: Mapped[str] = mapped_column(String(TOKEN_LENGTH))
    token_hash: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    title: Mapped[str] = mapped_column(String(200))
    options: Mapped[dict[str, Any]]
    """See `snapshots.Options`."""
    snapshot: Mapped[dict[str, Any]]
    """See `snapshots.Snapshot`."""
