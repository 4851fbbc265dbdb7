"""From the tables before feedback to those with it."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from fireside.server.db import migrations
from fireside.server.db.base import new_id
from fireside.server.db.database import Database

USER = "INSERT INTO users (id, created_at, email, name, password_hash, role, instructions, preferences)"
CONVERSATION = (
    "INSERT INTO conversations (number, id, created_at, updated_at, user_id, title, has_own_title, parameters)"
)
MESSAGE = "INSERT INTO messages (number, id, created_at, conversation_id, role, content, status, model)"


async def test_answers_of_before_stay_and_are_no_secret(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "HEAD", "0001")
    before = Database(empty_database)
    await before.open()
    ids = {"user": new_id(), "conversation": new_id(), "message": new_id()}
    async with before.session() as session:
        await session.execute(text(f"{USER} VALUES (:user, 0, 'a@example.org', 'Ada', '', 'member', '', '{{}}')"), ids)
        await session.execute(text(f"{CONVERSATION} VALUES (1, :conversation, 0, 0, :user, '', false, '{{}}')"), ids)
        await session.execute(
            text(f"{MESSAGE} VALUES (1, :message, 0, :conversation, 'assistant', 'Hi', 'complete', 'm')"), ids
        )
    await before.close()
    monkeypatch.undo()
    after = Database(empty_database)
    await after.open()
    async with after.session() as session:
        (row,) = await session.execute(text("SELECT id, content, model, model_version, is_blind FROM messages"))
        assert tuple(row) == (ids["message"], "Hi", "m", None, False)
        values = ":id, 0, 0, :user, :conversation, 'rating', :message, NULL, 'up', '[]', '', true"
        rating = f"INSERT INTO feedback VALUES ({values})"
        await session.execute(text(rating), ids | {"id": new_id()})
        await session.execute(text("DELETE FROM conversations"))
        assert (await session.execute(text("SELECT count(*) FROM feedback"))).scalar() == 0
    await after.close()
