"""A person's own account: profile, browsers, password, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from fireside.server.accounts.administration import change_user
from fireside.server.accounts.tables import ApiKey, User, UserSession
from tests.server.accounts.people import (
    PASSWORD,
    browser,
    code_of,
    context_of,
    is_signed_in,
    join,
    reset_link,
    row_of,
    set_up,
    sign_in,
)

NEW = "another pass phrase"


async def test_the_profile(app: FastAPI) -> None:
    ada = await set_up(app)
    change = {"name": "Ada  L.", "locale": "pt-BR", "instructions": "Be brief.", "preferences": {"theme": "dark"}}
    changed = (await ada.patch("/api/me", json=change)).json()
    assert {key: changed[key] for key in change} == change | {"name": "Ada L."}
    assert (await ada.patch("/api/me", json={"locale": None})).json()["locale"] is None  # null is a value of its own
    again = (await ada.get("/api/me")).json()
    assert again == changed | {"locale": None}
    assert (await ada.get("/api/session")).json()["user"] == again


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("instructions", None),
        ("preferences", None),
        ("preferences", {"x": "y" * 16_000}),
        ("preferences", {"x": "a\0b"}),
        ("instructions", "x" * 8_001),
        ("instructions", "a\0b"),
        ("locale", "../../etc"),
        ("locale", "x" * 40),
    ],
)
async def test_what_no_profile_holds(app: FastAPI, field: str, value: object) -> None:
    ada = await set_up(app)
    before = (await ada.get("/api/me")).json()
    response = await ada.patch("/api/me", json={field: value, "name": "Eve"} if field != "name" else {field: value})
    assert response.status_code == 400 and response.json()["error"]["param"] == field
    assert (await ada.get("/api/me")).json() == before


async def test_a_new_password_signs_everybody_else_out(app: FastAPI) -> None:
    ada = await set_up(app)
    other = await sign_in(app, "Ada")
    stolen = browser(app)
    stolen.cookies["fireside_session_8000"] = ada.cookies["fireside_session_8000"]
    body = {"old_password": PASSWORD, "password": NEW}
    assert (await ada.patch("/api/me", json=body)).status_code == 200
    assert await is_signed_in(ada)
    assert not await is_signed_in(other) and not await is_signed_in(stolen)
    await sign_in(app, "Ada", NEW)


async def test_without_the_old_password_there_is_no_new_one(app: FastAPI) -> None:
    ada = await set_up(app)
    for body in ({"password": NEW}, {"password": NEW, "old_password": "wrong"}):
        response = await ada.patch("/api/me", json=body | {"name": "Eve"})
        assert code_of(response) == (403, "wrong_password")
    assert (await ada.get("/api/me")).json()["name"] == "Ada"
    statuses = [(await ada.patch("/api/me", json=body)).status_code for _ in range(9)]
    assert statuses == [403] * 8 + [429]  # whoever sits down at an open browser does not guess for long
    await sign_in(app, "Ada")


async def test_browsers_are_listed_and_signed_out(app: FastAPI) -> None:
    ada = await set_up(app)
    laptop, phone = await sign_in(app, "Ada"), await sign_in(app, "Ada", address="203.0.113.5")
    phone.headers["User-Agent"] = "x" * 1000
    entries = (await phone.get("/api/sessions")).json()["items"]
    assert [entry["address"] for entry in entries] == ["203.0.113.5", "127.0.0.1", "127.0.0.1"]  # newest first
    assert [entry["is_current"] for entry in entries] == [True, False, False]
    assert all("token" not in key for key in entries[0])
    assert (await phone.delete(f"/api/sessions/{entries[1]['id']}")).status_code == 204
    assert not await is_signed_in(laptop) and await is_signed_in(ada)
    assert (await phone.delete("/api/sessions")).status_code == 204
    assert not await is_signed_in(ada) and await is_signed_in(phone)


async def test_lists_come_in_pages(app: FastAPI) -> None:
    ada = await set_up(app)
    for _ in range(4):
        await sign_in(app, "Ada")
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await ada.get("/api/sessions", params=params)).json()
        seen += [entry["id"] for entry in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen, reverse=True)
    for params in ({"limit": 0}, {"limit": 101}, {"cursor": "\0"}, {"cursor": "' OR 1=1"}):
        assert (await ada.get("/api/sessions", params=params)).status_code == 400


async def test_the_end_of_an_account(app: FastAPI) -> None:
    await set_up(app)
    bob = await join(app, "Bob")
    await bob.post("/api/keys", json={"name": "laptop"})
    assert code_of(await bob.request("DELETE", "/api/me", json={"password": "wrong"})) == (403, "wrong_password")
    response = await bob.request("DELETE", "/api/me", json={"password": PASSWORD})
    assert response.status_code == 204 and not bob.cookies
    async with context_of(app).database.session() as session:
        counts = [
            await session.scalar(select(func.count()).select_from(table)) for table in (User, UserSession, ApiKey)
        ]
    assert counts == [1, 1, 0]
    credentials = {"email": "bob@example.com", "password": PASSWORD}
    assert code_of(await browser(app).post("/api/session", json=credentials)) == (401, "wrong_credentials")


async def test_the_last_administrator_stays(app: FastAPI) -> None:
    ada = await set_up(app)
    response = await ada.request("DELETE", "/api/me", json={"password": PASSWORD})
    assert code_of(response) == (409, "last_administrator")
    assert await is_signed_in(ada)


async def by_a_reset(app: FastAPI) -> None:
    body = {"token": await reset_link(app, "Bob"), "password": NEW}
    assert (await browser(app).post("/api/reset", json=body)).status_code == 200


async def by_disabling(app: FastAPI) -> None:
    user_id = (await row_of(app, "Bob")).id
    async with context_of(app).database.session() as session:
        await change_user(session, user_id, role=None, disabled=True, by=None, address=None)


@pytest.mark.parametrize("how", [by_a_reset, by_disabling])
@pytest.mark.parametrize(
    ("method", "body"),
    [("PATCH", {"old_password": PASSWORD, "password": "a thief's pass phrase"}), ("DELETE", {"password": PASSWORD})],
)
async def test_a_password_is_good_no_longer_that_was_replaced_while_it_was_checked(
    method: str,
    body: dict[str, str],
    how: Callable[[FastAPI], Awaitable[None]],
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await set_up(app)
    thief = await join(app, "Bob")
    passwords = context_of(app).accounts.passwords
    verify = passwords.verify
    verified, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(*of: Any) -> bool:
        is_right = await verify(*of)
        verified.set()
        await go_on.wait()
        return is_right

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "verify", slowly)
        asked = asyncio.create_task(thief.request(method, "/api/me", json=body))
        await verified.wait()
        await how(app)
        before = await row_of(app, "Bob")
        go_on.set()
        assert code_of(await asked) == (403, "wrong_password")
    after = await row_of(app, "Bob")
    assert (after.password_hash, after.disabled_at) == (before.password_hash, before.disabled_at)
    async with context_of(app).database.session() as session:
        await change_user(session, after.id, role=None, disabled=False, by=None, address=None)
    assert not await is_signed_in(thief)
