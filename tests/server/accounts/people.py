"""People in front of the server: browsers, each with cookies of their own."""

from __future__ import annotations

from typing import Any

import httpx
from fastapi import FastAPI

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
