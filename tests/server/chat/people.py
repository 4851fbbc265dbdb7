"""People who are signed in, and what they do in the app."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
from fastapi import FastAPI

from fireside.server.accounts.tables import Role, User, UserSession
from fireside.server.accounts.tokens import digest
from fireside.server.db.base import new_id, now
from fireside.server.db.database import Database
from fireside.server.deps import Context


async def sign_up(database: Database, name: str, instructions: str = "") -> str:
    """Makes an account and gives the token of its session."""
    user_id, token = new_id(), f"token of {name}"
    async with database.session() as session:
        session.add(
            User(
                id=user_id,
                email=f"{name}@example.org",
                name=name,
                password_hash="",
                role=Role.MEMBER,
                instructions=instructions,
            )
        )
        await session.flush()
        session.add(
            UserSession(
                user_id=user_id,
                token_hash=digest(token),
                expires_at=now() + timedelta(days=1),
                user_agent="",
                address="",
            )
        )
    return token


def headers(token: str) -> dict[str, str]:
    return {"Cookie": f'fireside_session="{token}"', "X-Fireside": "1"}


class Person:
    """One who is signed in, over HTTP."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def post(self, path: str, body: dict[str, Any] | None = None, status: int = 201) -> Any:
        answer = await self.http.post(f"/api/{path}", json={} if body is None else body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = await self.http.get(f"/api/{path}", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def patch(self, path: str, body: dict[str, Any], status: int = 200) -> Any:
        answer = await self.http.patch(f"/api/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def delete(self, path: str, status: int = 204) -> None:
        answer = await self.http.delete(f"/api/{path}")
        assert answer.status_code == status, answer.text

    async def converse(self, **body: Any) -> str:
        conversation_id: str = (await self.post("conversations", body))["id"]
        return conversation_id

    async def ask(self, conversation_id: str, content: str, parent_id: str | None = None, **body: Any) -> Any:
        body = {"content": content, "parent_id": parent_id, **body}
        return await self.post(f"conversations/{conversation_id}/messages", body)

    async def asked(self, conversation_id: str, content: str, parent_id: str | None = None, **body: Any) -> Any:
        """The question's and the answer's message, once it is written."""
        started = await self.ask(conversation_id, content, parent_id, **body)
        await self.events(started["run"]["id"])
        return started["message"], await self.message(conversation_id, started["answer"]["id"])

    async def message(self, conversation_id: str, message_id: str) -> Any:
        tree = await self.get(f"conversations/{conversation_id}")
        return next(message for message in tree["messages"] if message["id"] == message_id)

    async def events(self, run_id: str, after: int | None = None) -> list[tuple[int, dict[str, Any]]]:
        """Everything from behind `after` to the end."""
        sent = {} if after is None else {"Last-Event-ID": str(after)}
        answer = await self.http.get(f"/api/runs/{run_id}/events", headers=sent)
        assert answer.status_code == 200, answer.text
        return parsed(answer.text)


def parsed(stream: str) -> list[tuple[int, dict[str, Any]]]:
    events = []
    for block in stream.split("\n\n"):
        if block and not block.startswith(":"):
            first, second = block.split("\n")
            events.append((int(first.removeprefix("id: ")), json.loads(second.removeprefix("data: "))))
    return events


def said(events: list[tuple[int, dict[str, Any]]]) -> str:
    return "".join(event["text"] for _, event in events if event["type"] == "text")


@asynccontextmanager
async def person(app: FastAPI, name: str, instructions: str = "") -> AsyncIterator[Person]:
    """In the test's own process, on an app whose lifespan has begun."""
    context: Context = app.state.context
    token = await sign_up(context.database, name, instructions)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost:8000", headers=headers(token)
    ) as client:
        yield Person(client)
