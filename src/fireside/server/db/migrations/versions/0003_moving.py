"""Shared links, imports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("conversations", sa.Column("is_arriving", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "shares",
        *_identified(),
        _to("users", "user_id", "fk_shares_user_id"),
        _to("conversations", "conversation_id", "fk_shares_conversation_id"),
        sa.Column("leaf_id", sa.String(32), nullable=False),
        sa.Column("token", sa.String(43), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("snapshot", sa.JSON(), nullable=False),
        sa.UniqueConstraint("token_hash", name="uq_shares_token_hash"),
    )
    op.create_table(
        "imports",
        *_identified(),
        _to("users", "user_id", "fk_imports_user_id"),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("skipped", sa.JSON(), nullable=False),
    )
    op.create_table(
        "imported_conversations",
        *_identified(),
        _to("users", "user_id", "fk_imported_conversations_user_id"),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("source_id", sa.String(128), nullable=False),
        _to("conversations", "conversation_id", "fk_imported_conversations_conversation_id"),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.UniqueConstraint(
            "user_id", "source", "source_id", name="uq_imported_conversations_user_id_source_source_id"
        ),
    )
    for table, column in (
        ("shares", "user_id"),
        ("shares", "conversation_id"),
        ("imports", "user_id"),
        ("imported_conversations", "conversation_id"),
    ):
        op.create_index(f"ix_{table}_{column}", table, [column])


def _identified() -> tuple[sa.Column[str], sa.Column[int]]:
    return sa.Column("id", sa.String(32), primary_key=True), sa.Column("created_at", sa.BigInteger(), nullable=False)


def _to(table: str, name: str, constraint: str) -> sa.Column[str]:
    return sa.Column(
        name, sa.String(32), sa.ForeignKey(f"{table}.id", name=constraint, ondelete="CASCADE"), nullable=False
    )
