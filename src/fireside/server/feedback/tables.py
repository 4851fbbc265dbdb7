"""What people think of answers. Everything goes with the conversation it is about, and with its owner."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from fireside.server.db.base import ID_LENGTH, Base, Identified, now


class Kind(StrEnum):
    """What a record is of, and which messages it names.

    A thumb: the answer. An edited answer: the new text and the old one. An answer given again: the new one and the one
    before. A comparison: the left one and the right one.
    """

    RATING = "rating"
    EDIT = "edit"
    REGENERATION = "regeneration"
    COMPARISON = "comparison"


class Verdict(StrEnum):
    """Of a rating; of an edit or a regeneration, on the message against the other; of a comparison."""

    UP = "up"
    DOWN = "down"
    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    LEFT = "left"
    RIGHT = "right"
    BOTH_GOOD = "both_good"
    BOTH_BAD = "both_bad"


MESSAGE_WINS = frozenset({Verdict.BETTER, Verdict.LEFT})
OTHER_WINS = frozenset({Verdict.WORSE, Verdict.RIGHT})


class Feedback(Identified, Base):
    """One judgement. Model, weights, parameters and prompt are those of the messages it names.

    verdict: None for a comparison without a vote, and for an answer given again of which nothing was said. consent: it
    may be exported to train models.
    """

    __tablename__ = "feedback"
    __table_args__ = (
        Index(
            "uq_feedback_rating",
            "message_id",
            unique=True,
            sqlite_where=text("kind = 'rating'"),
            postgresql_where=text("kind = 'rating'"),
        ),
    )

    changed_at: Mapped[datetime] = mapped_column(default=now)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    other_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    verdict: Mapped[str | None] = mapped_column(String(16))
    reasons: Mapped[list[Any]] = mapped_column(default=list)
    comment: Mapped[str] = mapped_column(Text, default="")
    consent: Mapped[bool]


class FeedbackConsent(Identified, Base):
    """A person's answer to whether models here may learn from their feedback; no row: they were not asked yet.

    id: what they are called in exports. It is made up, so that nothing leads from it to them but this row.
    """

    __tablename__ = "feedback_consents"

    user_id: Mapped[str] = mapped_column(String(ID_LENGTH), ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    is_given: Mapped[bool]
    changed_at: Mapped[datetime] = mapped_column(default=now)
