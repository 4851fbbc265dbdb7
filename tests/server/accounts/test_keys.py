"""Keys for programs: what opens `/v1`, and when it does not any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from fireside.server.accounts.profile import MAX_KEYS
from fireside.server.accounts.tables import ApiKey, Role, User
from fireside.server.db.base import now
from tests.server.accounts.people import PASSWORD, browser, code_of, context_of, join, row_of, set_up

CHAT = {"model": "default", "messages": [{"role": "user", "content": "Hi"}]}


async def made(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await client.post("/api/keys", json={"name": "laptop"} | more)
    assert response.status_code == 201, response.text
    key: dict[str, Any] = response.json()
    return key


async def opens(app: FastAPI, key: str, path: str = "/v1/chat/completions") -> tuple[int, str | None]:
    headers = {b"Authorization": b"Bearer " + key.encode("latin-1")}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://other.example", headers=headers) as program:
        response = await (program.post(path, json=CHAT) if "completions" in path else program.get(path))
    return code_of(response)


async def test_a_key_opens_inference_and_nothing_else(app: FastAPI) -> None:
    ada = await set_up(app)
    key = (await made(ada))["key"]
    assert await opens(app, key) == (200, None)
    assert await opens(app, key, "/v1/models") == (200, None)
    for path in ("/metrics", "/version", "/openapi.json", "/nothing"):
        assert await opens(app, key, path) == (403, "insufficient_permissions"), path
    for wrong in (key[:-1], key + "x", key.upper(), "fs-", "fs-" + "x" * 5000, "fs-é"):
        assert (await opens(app, wrong))[0] == 401


async def test_once_there_are_people_the_api_asks_who_one_is(app: FastAPI) -> None:
    stranger = browser(app)
    assert (await stranger.post("/v1/chat/completions", json=CHAT)).status_code == 200  # this machine's alone so far
    ada = await set_up(app)
    assert code_of(await stranger.post("/v1/chat/completions", json=CHAT)) == (401, "invalid_api_key")
    for path in ("/v1/models", "/metrics", "/version", "/openapi.json", "/nothing", "//v1/models", "/v1/models/"):
        assert (await stranger.get(path)).status_code == 401, path
    assert (await stranger.get("/healthz")).status_code == (await stranger.get("/")).status_code == 200
    assert (await ada.post("/v1/chat/completions", json=CHAT)).status_code == 200  # by cookie
    assert (await ada.get("/v1/models")).status_code == 200


async def test_a_key_is_shown_once_and_kept_as_a_digest(app: FastAPI) -> None:
    ada = await set_up(app)
    key = await made(ada)
    listed = (await ada.get("/api/keys")).json()["items"]
    assert [entry["id"] for entry in listed] == [key["id"]]
    assert key["key"].startswith(listed[0]["prefix"]) and len(listed[0]["prefix"]) < 10
    assert key["key"] not in (await ada.get("/api/keys")).text


async def test_keys_end(app: FastAPI) -> None:
    ada = await set_up(app)
    revoked, expiring = await made(ada), await made(ada, expires_in_days=1)
    assert await opens(app, revoked["key"]) == await opens(app, expiring["key"]) == (200, None)
    listed = {entry["id"]: entry for entry in (await ada.get("/api/keys")).json()["items"]}
    assert listed[revoked["id"]]["last_used_at"] is not None and listed[revoked["id"]]["expires_at"] is None
    assert (await ada.delete(f"/api/keys/{revoked['id']}")).status_code == 204
    assert code_of(await ada.delete(f"/api/keys/{revoked['id']}")) == (404, "not_found")
    async with context_of(app).database.session() as session:
        await session.execute(
            update(ApiKey).where(ApiKey.id == expiring["id"]).values(expires_at=now() - timedelta(seconds=1))
        )
    assert await opens(app, revoked["key"]) == await opens(app, expiring["key"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("values", [{"disabled_at": now()}, {"role": Role.GUEST}], ids=["disabled", "guest"])
async def test_keys_rest_while_their_owner_may_have_none(app: FastAPI, values: dict[str, object]) -> None:
    await set_up(app)
    bob = await join(app, "Bob")
    key = (await made(bob))["key"]
    assert await opens(app, key) == (200, None)
    async with context_of(app).database.session() as session:
        await session.execute(update(User).where(User.name == "Bob").values(values))
    assert await opens(app, key) == (401, "invalid_api_key")


async def test_there_are_only_so_many(app: FastAPI) -> None:
    ada = await set_up(app)
    keys = [await made(ada) for _ in range(MAX_KEYS - 1)]
    at_once = await asyncio.gather(*(ada.post("/api/keys", json={"name": "last"}) for _ in range(6)))
    assert sorted(response.status_code for response in at_once) == [201] + [409] * 5
    assert code_of(await ada.post("/api/keys", json={"name": "one more"})) == (409, "too_many_keys")
    await ada.delete(f"/api/keys/{keys[0]['id']}")
    await made(ada)


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": "a", "scopes": ["admin"]}, {"name": "a", "scopes": []}, {"name": "a", "key": "x"}],
)
async def test_what_makes_no_key(app: FastAPI, body: dict[str, object]) -> None:
    ada = await set_up(app)
    assert (await ada.post("/api/keys", json=body)).status_code == 400


async def test_a_wrong_key_is_not_made_up_for_by_a_cookie(app: FastAPI) -> None:
    ada = await set_up(app)
    response = await ada.get("/v1/models", headers={"Authorization": "Bearer fs-wrong"})
    assert code_of(response) == (401, "invalid_api_key")


async def test_what_tells_of_the_server_is_for_administrators(app: FastAPI) -> None:
    admin, guest = await set_up(app), await join(app, "Bob", Role.GUEST)
    for path in ("/metrics", "/version", "/openapi.json"):
        assert (await admin.get(path)).status_code == 200
        assert (await guest.get(path)).status_code == 403
    assert (await guest.get("/v1/models")).status_code == 200


async def test_a_new_password_by_a_link_revokes_keys(app: FastAPI) -> None:
    """Who forgot a password may have lost more; who knows it changes it without that."""
    ada = await set_up(app)
    bob = await join(app, "Bob")
    key = (await bob.post("/api/keys", json={"name": "laptop"})).json()["key"]
    program = {"Authorization": f"Bearer {key}"}
    changed = await bob.patch("/api/me", json={"old_password": PASSWORD, "password": PASSWORD + "!"})
    assert changed.status_code == 200
    assert (await browser(app).get("/v1/models", headers=program)).status_code == 200
    link = (await ada.post(f"/api/admin/users/{(await row_of(app, 'Bob')).id}/reset")).json()
    token = link["path"].partition("#")[2]
    response = await browser(app).post("/api/reset", json={"token": token, "password": "another long password"})
    assert response.status_code == 200, response.text
    assert (await browser(app).get("/v1/models", headers=program)).status_code == 401
    entry = (await ada.get("/api/admin/audit")).json()["items"][0]
    assert (entry["action"], entry["detail"]) == ("password_reset", {"keys_revoked": 1})
