"""Accounts and conversations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _accounts()
    _chat()


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


def _numbered() -> tuple[sa.Column[int], sa.Column[str], sa.Column[int]]:
    return (
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )


def _chat() -> None:
    op.create_table(
        "projects",
        *_identified(),
        _user("user_id", "fk_projects_user_id", "CASCADE", nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=False),
    )
    op.create_index("ix_projects_user_id", "projects", ["user_id"])
    op.create_table(
        "prompts",
        *_identified(),
        _user("user_id", "fk_prompts_user_id", "CASCADE", nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.UniqueConstraint("user_id", "name", name="uq_prompts_user_id_name"),
    )
    op.create_index("ix_prompts_user_id", "prompts", ["user_id"])
    op.create_table(
        "conversations",
        *_numbered(),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        _user("user_id", "fk_conversations_user_id", "CASCADE", nullable=False),
        sa.Column(
            "project_id",
            sa.String(32),
            sa.ForeignKey("projects.id", name="fk_conversations_project_id", ondelete="SET NULL"),
        ),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("has_own_title", sa.Boolean(), nullable=False),
        sa.Column("model", sa.String(512)),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("current_leaf_id", sa.String(32)),
        sa.Column("pinned_at", sa.BigInteger()),
        sa.Column("archived_at", sa.BigInteger()),
        sa.UniqueConstraint("id", name="uq_conversations_id"),
    )
    op.create_index("ix_conversations_user_id_updated_at", "conversations", ["user_id", "updated_at"])
    op.create_index("ix_conversations_project_id", "conversations", ["project_id"])
    op.create_table(
        "messages",
        *_numbered(),
        _to("conversations", "conversation_id", "fk_messages_conversation_id"),
        sa.Column("parent_id", sa.String(32), sa.ForeignKey("messages.id", name="fk_messages_parent_id")),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("reasoning", sa.Text()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("model", sa.String(512)),
        sa.Column("parameters", sa.JSON()),
        sa.Column("finish_reason", sa.String(16)),
        sa.Column("usage", sa.JSON()),
        sa.Column("run_id", sa.String(32)),
        sa.UniqueConstraint("id", name="uq_messages_id"),
    )
    op.create_index("ix_messages_conversation_id", "messages", ["conversation_id"])
    op.create_index("ix_messages_parent_id", "messages", ["parent_id"])
    op.create_table(
        "runs",
        *_identified(),
        _user("user_id", "fk_runs_user_id", "CASCADE", nullable=False),
        _to("conversations", "conversation_id", "fk_runs_conversation_id"),
        _to("messages", "message_id", "fk_runs_message_id"),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("error", sa.JSON()),
        sa.Column("events", sa.Text()),
    )
    for column in ("user_id", "conversation_id", "message_id", "status", "finished_at"):
        op.create_index(f"ix_runs_{column}", "runs", [column])
    op.create_table(
        "run_journal",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False
        ),
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
    )
    for table, column in (("messages", "content"), ("conversations", "title")):
        if op.get_context().dialect.name == "sqlite":
            _index_words(table, column)
        else:
            op.execute(
                f"CREATE INDEX ix_{table}_words ON {table} "
                f"USING gin (to_tsvector('simple'::regconfig, left({column}, 200000)))"
            )


def _to(table: str, name: str, constraint: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(
        name, sa.String(32), sa.ForeignKey(f"{table}.id", name=constraint, ondelete="CASCADE"), nullable=nullable
    )


def _index_words(table: str, column: str) -> None:
    """An FTS5 index that keeps no text of its own, up to date by triggers. https://sqlite.org/fts5.html, 4.4.3"""
    index = f"{table}_fts"
    op.execute(
        f"CREATE VIRTUAL TABLE {index} USING fts5({column}, content='{table}', content_rowid='number', "
        "tokenize='unicode61 remove_diacritics 2')"
    )
    add = f"INSERT INTO {index}(rowid, {column}) VALUES (new.number, new.{column});"  # noqa: S608 - our own names
    remove = f"INSERT INTO {index}({index}, rowid, {column}) VALUES ('delete', old.number, old.{column});"  # noqa: S608
    op.execute(f"CREATE TRIGGER {index}_insert AFTER INSERT ON {table} BEGIN {add} END")
    op.execute(f"CREATE TRIGGER {index}_delete AFTER DELETE ON {table} BEGIN {remove} END")
    op.execute(f"CREATE TRIGGER {index}_update AFTER UPDATE OF {column} ON {table} BEGIN {remove} {add} END")
