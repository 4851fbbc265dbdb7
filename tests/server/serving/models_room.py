"""What an administrator does with models and sees of them, through the API."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

USER = [{"role": "user", "content": "Hi"}]


async def states(ada: httpx.AsyncClient) -> dict[str, str]:
    return {item["name"]: item["state"] for item in (await ada.get("/api/admin/models")).json()["items"]}


async def until_it_is(ada: httpx.AsyncClient, state: str, name: str = "second") -> None:
    for _ in range(500):
        if (await states(ada)).get(name) == state:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def view(ada: httpx.AsyncClient, name: str) -> dict[str, Any]:
    items = (await ada.get("/api/admin/models")).json()["items"]
    found: dict[str, Any] = next(item for item in items if item["name"] == name)
    return found


async def served(ada: httpx.AsyncClient) -> list[list[str]]:
    """Everywhere where it is said which models there are."""
    programs = [model["id"] for model in (await ada.get("/v1/models")).json()["data"]]
    app = [model["id"] for model in (await ada.get("/api/models")).json()["items"]]
    health = [model["name"] for model in (await ada.get("/api/admin/health")).json()["models"]]
    text = (await ada.get("/metrics")).text
    metrics = [name for name in ("tiny", "second") if f'fireside_engine_running{{model="{name}"}}' in text]
    return [programs, app, health, metrics]


async def do(ada: httpx.AsyncClient, action: str, name: str = "second", **body: Any) -> httpx.Response:
    return await ada.post(f"/api/admin/models/{name}/{action}", json=body)


async def load(ada: httpx.AsyncClient, name: str = "second") -> None:
    response = await do(ada, "load", name)
    assert response.status_code == 202, response.text


async def says_of(ada: httpx.AsyncClient, model: str) -> str:
    answer = (await ada.post("/v1/chat/completions", json={"model": model, "messages": USER})).json()
    return str(answer["choices"][0]["message"]["content"])
