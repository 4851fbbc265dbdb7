"""Importing over HTTP, to its end."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import update

from fireside.server.chat.tables import Message
from fireside.server.deps import Context
from tests.server.chat.people import Person


async def upload(person: Person, data: bytes, name: str = "export.zip", status: int = 201) -> Any:
    answer = await person.http.post("/api/imports", params={"name": name}, content=data)
    assert answer.status_code == status, answer.text
    return answer.json()


async def over(person: Person, import_id: str) -> Any:
    for _ in range(4000):
        if (found := await person.get(f"imports/{import_id}"))["status"] != "running":
            return found
        await asyncio.sleep(0.005)
    raise AssertionError("the import does not end")


async def imported(person: Person, data: bytes) -> Any:
    """The report."""
    ended = await over(person, (await upload(person, data))["id"])
    assert ended["status"] == "complete", ended
    return ended["report"]


async def trees(person: Person, **query: Any) -> list[Any]:
    """All conversations, whole, the last written to first."""
    items = (await person.get("conversations", limit=100, **query))["items"]
    return [await person.get(f"conversations/{item['id']}") for item in items]


async def thought(person: Person, message_id: str, reasoning: str) -> None:
    """As a model that thinks leaves it; the scripted one has no marks for that."""
    context: Context = person.http._transport.app.state.context  # type: ignore[attr-defined]
    async with context.database.session() as session:
        await session.execute(update(Message).where(Message.id == message_id).values(reasoning=reasoning))
