"""Tables of conversations and what belongs to them. Everything is somebody's, and goes when they go."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fireside.server.db.base import ID_LENGTH, Base, Identified, UtcDateTime, new_id, now


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


class Status(StrEnum):
    """Of a message and of the run that writes it."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"  # by its owner
    INTERRUPTED = "interrupted"  # by the end of the server
    FAILED = "failed"


class Numbered:
    """As `Identified`, but keyed by a number, which an index for full-text search can point to.

    SQLite's own row numbers would not do: VACUUM, and so every backup, may give others.
    """

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    id: Mapped[str] = mapped_column(String(ID_LENGTH), unique=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


def _owner() -> Mapped[str]:
    return mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)


class Project(Identified, Base):
    """A folder of conversations. `instructions` are told to the model in each of them."""

    __tablename__ = "projects"

    user_id: Mapped[str] = _owner()
    name: Mapped[str] = mapped_column(String(200))
    instructions: Mapped[str] = mapped_column(Text, default="")


class Prompt(Identified, Base):
    """A text kept under a name, which the composer offers after a slash."""

    __tablename__ = "prompts"
    __table_args__ = (UniqueConstraint("user_id", "name"),)

    user_id: Mapped[str] = _owner()
    name: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)


class Conversation(Numbered, Base):
    """The root of a tree of messages.

    model: None for the server's default. parameters: see `schemas.Parameters`. current_leaf_id: the message at the end
    of the branch that was last looked at; no foreign key, since messages point here. is_arriving: an import has written
    down a part of it, and nobody sees it before it is whole.
    """

    __tablename__ = "conversations"
    __table_args__ = (Index(None, "user_id", "updated_at"),)

    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id", ondelete="SET NULL"), index=True)
    title: Mapped[str] = mapped_column(String(200), default="")
    has_own_title: Mapped[bool] = mapped_column(default=False)  # given by a person: no model writes over it
    model: Mapped[str | None] = mapped_column(String(512))
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    current_leaf_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    pinned_at: Mapped[datetime | None]
    archived_at: Mapped[datetime | None]
    is_arriving: Mapped[bool] = mapped_column(default=False)


class Message(Numbered, Base):
    """A node of the tree.

    While `status` is running, `content` and `reasoning` are what was there before; what its run adds is in the events.
    run_id: the run that wrote it last; no foreign key, since runs point here. model_version: a digest of the
    weights that wrote it. is_blind: it is being compared, and nobody is told which model wrote it. system, left_out:
    the system prompt that an answer was given to, and how many of the oldest messages its model was not shown; None
    where that is not known of all of it. is_copied: it was not written here, but came with a shared link or an import
    (or is one that did, in other words), and may be somebody else's. earlier_writers: where another model went on with
    what one had begun, those before it (model, weights, parameters, finish_reason), each with the `end` of its text in
    `content`; None where one wrote all of it.
    """

    __tablename__ = "messages"

    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    # No cascade from message to message, of which SQLite follows a thousand: they go with their conversation, at once.
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id"), index=True)
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text)
    reasoning: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), default=Status.COMPLETE)
    error: Mapped[dict[str, Any] | None]
    model: Mapped[str | None] = mapped_column(String(512))
    parameters: Mapped[dict[str, Any] | None]
    finish_reason: Mapped[str | None] = mapped_column(String(16))  # "length" for an answer that was cut
    usage: Mapped[dict[str, Any] | None]
    run_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    model_version: Mapped[str | None] = mapped_column(String(64))
    is_blind: Mapped[bool] = mapped_column(default=False)
    system: Mapped[str | None] = mapped_column(Text, deferred=True)  # long, and read for exports alone
    left_out: Mapped[int | None]
    is_copied: Mapped[bool] = mapped_column(default=False)
    earlier_writers: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))

    @property
    def earlier_models(self) -> list[str | None]:
        """Of `earlier_writers`. What is being compared has none."""
        return [writer["model"] for writer in self.earlier_writers or ()]

    @property
    def told_models(self) -> str:
        """All that wrote it, for people to read."""
        return ", ".join(model for model in (*self.earlier_models, self.told_model) if model)

    @property
    def told_model(self) -> str | None:
        """For whoever may read the message: the model, unless that is a secret until its owner has chosen."""
        return None if self.is_blind else self.model

    @property
    def told_usage(self) -> dict[str, Any] | None:
        """A count of tokens says which tokenizer counted."""
        return None if self.is_blind else self.usage

    @property
    def told_parameters(self) -> dict[str, Any] | None:
        """Where nobody says any, each model has its own."""
        return None if self.is_blind else self.parameters


class Run(Identified, Base):
    """One generation into one message.

    events: what it said, one event a line as JSON; None while it runs, and some time after its end.
    """

    __tablename__ = "runs"

    user_id: Mapped[str] = _owner()
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(16), default=Status.RUNNING, index=True)
    finished_at: Mapped[datetime | None] = mapped_column(index=True)
    error: Mapped[dict[str, Any] | None]
    events: Mapped[str | None] = mapped_column(Text)


class JournalEntry(Base):
    """What running runs have said since their beginning, for a server that comes after one that died.

    By time and not by run: what all runs say in one moment lies together and is few pages to write. Nothing points to a
    run, so that nothing has to be looked up; entries of ended runs go soon after.
    """

    __tablename__ = "run_journal"

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    run_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    events: Mapped[str] = mapped_column(Text)
