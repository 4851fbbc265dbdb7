"""What people think of answers, which weights wrote them, and what these were shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("messages", sa.Column("model_version", sa.String(64)))
    op.add_column("messages", sa.Column("is_blind", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("messages", sa.Column("system", sa.Text()))
    op.add_column("messages", sa.Column("left_out", sa.Integer()))
    op.add_column("messages", sa.Column("is_copied", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("messages", sa.Column("earlier_writers", sa.JSON()))
    op.create_table(
        "feedback_consents",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        _to("users", "user_id", "fk_feedback_consents_user_id"),
        sa.Column("is_given", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("user_id", name="uq_feedback_consents_user_id"),
    )
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        _to("users", "user_id", "fk_feedback_user_id"),
        _to("conversations", "conversation_id", "fk_feedback_conversation_id"),
        sa.Column("kind", sa.String(16), nullable=False),
        _to("messages", "message_id", "fk_feedback_message_id"),
        _to("messages", "other_id", "fk_feedback_other_id", nullable=True),
        sa.Column("verdict", sa.String(16)),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("consent", sa.Boolean(), nullable=False),
    )
    for column in ("user_id", "conversation_id", "message_id", "other_id"):
        op.create_index(f"ix_feedback_{column}", "feedback", [column])
    is_rating = sa.text("kind = 'rating'")
    op.create_index(
        "uq_feedback_rating",
        "feedback",
        ["message_id"],
        unique=True,
        sqlite_where=is_rating,
        postgresql_where=is_rating,
    )


def _to(table: str, name: str, constraint: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(
        name, sa.String(32), sa.ForeignKey(f"{table}.id", name=constraint, ondelete="CASCADE"), nullable=nullable
    )
