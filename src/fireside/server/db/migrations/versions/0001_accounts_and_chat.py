"""Accounts and conversations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _accounts()


def _identified() -> tuple[sa.Column[str], sa.Column[int]]:
    return sa.Column("id", sa.String(32), primary_key=True), sa.Column("created_at", sa.BigInteger(), nullable=False)


def _user(name: str, constraint: str, ondelete: str, *, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(
        name, sa.String(32), sa.ForeignKey("users.id", name=constraint, ondelete=ondelete), nullable=nullable
    )


def _accounts() -> None:
    op.create_table(
        "users",
        *_identified(),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("locale", sa.String(35)),
        sa.Column("instructions", sa.Text(), nullable=False),
        sa.Column("preferences", sa.JSON(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger()),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )
    op.create_table(
        "sessions",
        *_identified(),
        sa.Column("token_hash", sa.String(64), nullable=False),
        _user("user_id", "fk_sessions_user_id", "CASCADE", nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("user_agent", sa.String(300), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.UniqueConstraint("token_hash", name="uq_sessions_token_hash"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_table(
        "one_time_links",
        *_identified(),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16)),
        _user("user_id", "fk_one_time_links_user_id", "CASCADE"),
        _user("created_by", "fk_one_time_links_created_by", "SET NULL"),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger()),
        _user("used_by", "fk_one_time_links_used_by", "SET NULL"),
        sa.UniqueConstraint("token_hash", name="uq_one_time_links_token_hash"),
    )
    op.create_index("ix_one_time_links_user_id", "one_time_links", ["user_id"])
    op.create_table(
        "api_keys",
        *_identified(),
        _user("user_id", "fk_api_keys_user_id", "CASCADE", nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.UniqueConstraint("token_hash", name="uq_api_keys_token_hash"),
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    op.create_table(
        "audit_log",
        *_identified(),
        _user("user_id", "fk_audit_log_user_id", "SET NULL"),
        sa.Column("address", sa.String(64)),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("target", sa.String(32)),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
    op.create_index("ix_audit_log_user_id", "audit_log", ["user_id"])
