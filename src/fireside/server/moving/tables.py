"""What was imported, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fireside.server.db.base import Base, Identified


class Import(Identified, Base):
    """One upload. report: see `schemas.ImportReport`; empty while it runs. skipped: its list, which is only read where
    it is shown."""

    __tablename__ = "imports"
    __table_args__ = (Index(None, "user_id"),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16))
    finished_at: Mapped[datetime | None]
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    skipped: Mapped[list[Any]] = mapped_column(default=list, deferred=True)


class ImportedConversation(Identified, Base):
    """Which conversation a conversation from elsewhere became, so that it comes but once.

    messages: the id here of every message from there, by its id there.
    """

    __tablename__ = "imported_conversations"
    __table_args__ = (UniqueConstraint("user_id", "source", "source_id"),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    source: Mapped[str] = mapped_column(String(16))
    source_id: Mapped[str] = mapped_column(String(128))
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    messages: Mapped[dict[str, Any]]
