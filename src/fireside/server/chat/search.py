"""Full-text search over what a person wrote and was answered: SQLite's FTS5, PostgreSQL's tsvector.

Words are matched whole, the last one by its beginning, whatever their case, and in SQLite whatever their accents.
Scripts that put no space between words, and queries without any word, are searched for as they stand, letter by letter.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement, Subquery, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.chat.tables import Conversation, Message

SNIPPET = 160  # characters
_BEFORE = 50  # of them before the first word found

_WORD = re.compile(r"[^\W_]+")
# Thai, Lao, Khmer, Burmese, kana, Han and Hangul: for the indexes a whole sentence of these is one word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"
)


def words_of(query: str) -> list[str]:
    return _WORD.findall(query)


def _condition(dialect: str, query: str, column: Any, table: str, field: str) -> ColumnElement[bool]:
    words = words_of(query)
    if not words or _UNSPACED.search(query):
        return column.icontains(query.strip(), autoescape=True)  # type: ignore[no-any-return]
    if dialect == "sqlite":
        match = " ".join(f'"{word}"' for word in words) + "*"
        hits = f"{table}.number IN (SELECT rowid FROM {table}_fts WHERE {table}_fts MATCH :words)"  # noqa: S608 - our names
        return text(hits).bindparams(words=match)  # type: ignore[return-value]  # a condition in all but its type
    match = " & ".join(f"'{word}'" for word in words) + ":*"
    return text(f"{document(table, field)} @@ to_tsquery('simple', :words)").bindparams(words=match)  # type: ignore[return-value]


def document(table: str, field: str) -> str:
    """As the index has it; PostgreSQL refuses to make a vector of much more text."""
    return f"to_tsvector('simple'::regconfig, left({table}.{field}, 200000))"


def find(session: AsyncSession, user_id: str, query: str) -> tuple[Subquery, ColumnElement[bool]]:
    """The latest message with the words (`number`) of each of the person's conversations (`conversation_id`) that has
    one; and the condition on conversations that their title has the words."""
    dialect = session.get_bind().dialect.name
    found = (
        select(Message.conversation_id, func.max(Message.number).label("number"))
        .join(Conversation, Conversation.id == Message.conversation_id)
        .where(Conversation.user_id == user_id, _condition(dialect, query, Message.content, "messages", "content"))
        .group_by(Message.conversation_id)
    )
    subquery = found.subquery("found")
    in_title = _condition(dialect, query, Conversation.title, "conversations", "title")
    return subquery, or_(subquery.c.number.is_not(None), in_title)


def snippet(content: str, query: str) -> str:
    """The part of a message around the first of the words."""
    folded = content.casefold()
    wanted = [query.strip(), *words_of(query)]
    places = [place for word in wanted if (place := folded.find(word.casefold())) >= 0]
    start = max(0, min(places[0] if places else 0, len(content)) - _BEFORE)
    part = " ".join(content[start : start + SNIPPET].split())
    return ("…" if start else "") + part + ("…" if start + SNIPPET < len(content) else "")
