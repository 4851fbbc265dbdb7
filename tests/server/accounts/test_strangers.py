"""Nobody reads, changes, guesses or counts what is another's. Routes are enumerated, so that none is forgotten."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi import FastAPI

from fireside.server.access import OPEN_API
from fireside.server.accounts.tables import Role
from fireside.server.db.base import new_id
from tests.server.accounts.people import PASSWORD, browser, code_of, is_signed_in, join, row_of, set_up
from tests.server.test_access import routes


def own(app: FastAPI) -> list[tuple[str, str]]:
    """The routes of the app that are for those who are signed in."""
    return [route for route in routes(app) if route[1].startswith("/api/") and route not in OPEN_API]


async def ask(client: httpx.AsyncClient, method: str, path: str, id: str | None = None) -> httpx.Response:
    return await client.request(method, re.sub(r"\{\w+\}", id or new_id(), path), json={})


async def test_nobody_is_let_in(app: FastAPI) -> None:
    await set_up(app)
    found = own(app)
    assert {("GET", "/api/me"), ("DELETE", "/api/keys/{id}"), ("GET", "/api/admin/audit")} <= set(found)
    stranger, guesser = browser(app), browser(app)
    guesser.cookies["fireside_session"] = "a" * 43
    for method, path in found:
        for client in (stranger, guesser):
            response = await ask(client, method, path)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"]
            if method != "HEAD":
                assert response.json()["error"]["code"] == "not_signed_in"


async def test_paths_that_are_no_route_are_closed_as_well(app: FastAPI) -> None:
    await set_up(app)
    for path in ("/api", "/api/", "/api/nothing", "/api/session/", "/api/admin", "/api//session", "/api/../api/me"):
        assert (await browser(app).get(path)).status_code == 401, path


async def test_open_routes_are_these(app: FastAPI) -> None:
    """Each is wanted by somebody who cannot be signed in yet."""
    assert {path for _, path in OPEN_API} == {"/api/session", "/api/setup", "/api/users", "/api/reset"}
    assert set(routes(app)) >= OPEN_API


@pytest.mark.parametrize("role", [Role.MEMBER, Role.GUEST])
async def test_administration_is_the_administrators(app: FastAPI, role: Role) -> None:
    await set_up(app)
    bob = await join(app, "Bob", role)
    target = (await row_of(app, "Ada")).id
    paths = [(method, path) for method, path in own(app) if path.startswith("/api/admin")]
    assert len(paths) >= 9
    for method, path in paths:
        for id in (target, new_id()):  # whether it exists is not told either
            assert code_of(await ask(bob, method, path, id)) == (403, "not_allowed"), (method, path)


async def test_what_is_another_persons_is_as_if_it_were_not(app: FastAPI) -> None:
    await set_up(app)
    bob, eve = await join(app, "Bob"), await join(app, "Eve")
    await bob.post("/api/keys", json={"name": "laptop"})
    kinds = {"/api/keys/{id}": "/api/keys", "/api/sessions/{id}": "/api/sessions"}
    with_id = {path for _, path in own(app) if "{id}" in path and path.startswith(("/api/keys", "/api/sessions"))}
    assert with_id == set(kinds)
    for path, listing in kinds.items():
        (entry,) = (await bob.get(listing)).json()["items"]
        for method in ("GET", "DELETE", "PATCH", "PUT"):
            answers = [await ask(eve, method, path, id) for id in (entry["id"], new_id())]
            assert answers[0].status_code == answers[1].status_code >= 400
            assert answers[0].text == answers[1].text
            assert dict(answers[0].headers) == dict(answers[1].headers)
        assert entry["id"] not in (await eve.get(listing)).text
        page = await eve.get(listing, params={"cursor": entry["id"][:-1] + "f"})  # a cursor is no way in
        assert entry["id"] not in page.text
    assert await is_signed_in(bob)
    assert len((await bob.get("/api/keys")).json()["items"]) == 1


async def test_no_key_opens_the_app(app: FastAPI) -> None:
    ada = await set_up(app)
    key = (await ada.post("/api/keys", json={"name": "laptop"})).json()["key"]
    for method, path in own(app):
        response = await browser(app).request(
            method, re.sub(r"\{\w+\}", new_id(), path), json={}, headers={"Authorization": f"Bearer {key}"}
        )
        assert response.status_code == 401, (method, path)


async def test_guests_make_no_keys(app: FastAPI) -> None:
    await set_up(app)
    guest = await join(app, "Guest", Role.GUEST)
    assert code_of(await guest.post("/api/keys", json={"name": "laptop"})) == (403, "not_allowed")
    assert (await guest.get("/api/keys")).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("id", ["x", "0" * 31, "0" * 33, "0" * 31 + "G", "%00", "' OR 1=1 --", "..%2f..%2fme"])
async def test_ids_that_are_none(app: FastAPI, id: str) -> None:
    ada = await set_up(app)
    assert (await ada.delete(f"/api/sessions/{id}")).status_code in (400, 404)
    assert await is_signed_in(ada)


async def test_nobody_gets_a_role_by_asking(app: FastAPI) -> None:
    await set_up(app)
    bob = await join(app, "Bob")
    for field in ("role", "id", "email", "password_hash", "disabled_at"):
        assert code_of(await bob.patch("/api/me", json={field: "admin"})) == (400, "unknown_parameter")
    body = {"name": "E", "email": "e@example.com", "password": PASSWORD, "token": "x", "role": "admin"}
    assert code_of(await browser(app).post("/api/users", json=body)) == (400, "unknown_parameter")
    assert (await bob.get("/api/me")).json()["role"] == "member"
