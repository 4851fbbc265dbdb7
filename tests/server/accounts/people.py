"""People in front of the server: browsers, each with cookies of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import select

from fireside.server.accounts.administration import new_link
from fireside.server.accounts.tables import LinkKind, Role, User
from fireside.server.deps import Context

PASSWORD = "correct horse battery staple"
CSRF = {"X-Fireside": "1"}


def context_of(app: FastAPI) -> Context:
    context: Context = app.state.context
    return context


def browser(app: FastAPI, *, address: str = "127.0.0.1", base_url: str = "http://localhost:8000") -> httpx.AsyncClient:
    """That nobody has signed in with yet. It sends the header that our page sends."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 50_000))
    return httpx.AsyncClient(transport=transport, base_url=base_url, headers=CSRF)


def person(name: str = "Ada", **more: Any) -> dict[str, Any]:
    return {"name": name, "email": f"{name.lower()}@example.com", "password": PASSWORD} | more


async def set_up(app: FastAPI, name: str = "Ada") -> httpx.AsyncClient:
    """The administrator's browser, signed in."""
    token = await context_of(app).accounts.new_setup_token()
    client = browser(app)
    response = await client.post("/api/setup", json=person(name, token=token))
    assert response.status_code == 201, response.text
    return client


async def invitation(app: FastAPI, role: Role = Role.MEMBER, lasts: timedelta = timedelta(days=1)) -> str:
    async with context_of(app).database.session() as session:
        _, token = await new_link(session, LinkKind.INVITATION, lasts, by=None, address=None, role=role)
        return token


async def join(app: FastAPI, name: str, role: Role = Role.MEMBER) -> httpx.AsyncClient:
    """The browser of somebody who was invited, signed in."""
    client = browser(app)
    response = await client.post("/api/users", json=person(name, token=await invitation(app, role)))
    assert response.status_code == 201, response.text
    return client


async def sign_in(app: FastAPI, name: str, password: str = PASSWORD, **how: Any) -> httpx.AsyncClient:
    """Another browser of somebody who has an account."""
    client = browser(app, **how)
    response = await client.post("/api/session", json={"email": f"{name.lower()}@example.com", "password": password})
    assert response.status_code == 200, response.text
    return client


async def reset_link(app: FastAPI, name: str) -> str:
    """The token of a link to a new password."""
    user_id = (await row_of(app, name)).id
    async with context_of(app).database.session() as session:
        _, token = await new_link(session, LinkKind.RESET, timedelta(days=1), by=None, address=None, user_id=user_id)
        return token


async def row_of(app: FastAPI, name: str) -> User:
    async with context_of(app).database.session() as session:
        return (await session.scalars(select(User).where(User.name == name))).one()


def code_of(response: httpx.Response) -> tuple[int, str | None]:
    """Its status, and the error's code."""
    return response.status_code, response.json()["error"]["code"] if response.is_error else None


async def is_signed_in(client: httpx.AsyncClient) -> bool:
    return (await client.get("/api/session")).json()["user"] is not None
