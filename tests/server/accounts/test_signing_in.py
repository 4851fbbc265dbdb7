"""Setup, signing in and out, and what a browser is given."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts import passwords
from fireside.server.accounts.administration import change_user
from fireside.server.accounts.tables import UserSession
from fireside.server.db.base import now
from tests.server.accounts.people import (
    PASSWORD,
    browser,
    code_of,
    context_of,
    is_signed_in,
    join,
    person,
    reset_link,
    row_of,
    set_up,
    sign_in,
)

CREDENTIALS = {"email": "ada@example.com", "password": PASSWORD}
WRONG = CREDENTIALS | {"password": "wrong"}


async def test_the_first_start_makes_one_administrator(app: FastAPI) -> None:
    ada, eve = browser(app), browser(app)
    before = (await ada.get("/api/session")).json()
    assert before == {
        "user": None,
        "needs_setup": True,
        "sign_up": "invitation",
        "sharing": True,
        "version": None,
        "locale": None,
    }
    token = await context_of(app).accounts.new_setup_token()
    wrong = await eve.post("/api/setup", json=person("Eve", token="wrong"))
    assert code_of(wrong) == (404, "link_not_found")
    response = await ada.post("/api/setup", json=person("Ada", token=token))
    assert response.status_code == 201
    assert response.json()["user"]["role"] == "admin"
    assert code_of(await eve.post("/api/setup", json=person("Eve", token=token))) == (404, "link_not_found")
    assert await context_of(app).accounts.new_setup_token() is None
    after = (await ada.get("/api/session")).json()
    assert (after["user"]["email"], after["needs_setup"]) == ("ada@example.com", False)
    assert after["version"]


async def test_a_new_setup_link_replaces_the_one_before(app: FastAPI) -> None:
    accounts = context_of(app).accounts
    old, new = await accounts.new_setup_token(), await accounts.new_setup_token()
    client = browser(app)
    assert code_of(await client.post("/api/setup", json=person(token=old))) == (404, "link_not_found")
    assert code_of(await client.post("/api/setup", json=person(token=new))) == (201, None)


async def test_signing_in_and_out(app: FastAPI) -> None:
    await set_up(app)
    ada = browser(app)
    response = await ada.post("/api/session", json=CREDENTIALS | {"email": " ADA@example.com "})
    assert response.status_code == 200
    cookie = response.headers["set-cookie"].lower()
    assert cookie.startswith("fireside_session_8000=") and "httponly" in cookie and "samesite=lax" in cookie
    assert "path=/" in cookie and "secure" not in cookie and "domain" not in cookie
    assert (await ada.get("/api/session")).json()["user"]["name"] == "Ada"
    kept = dict(ada.cookies)
    assert (await ada.delete("/api/session")).status_code == 204
    assert not ada.cookies
    ada.cookies.update(kept)
    assert not await is_signed_in(ada)


async def test_over_https_no_other_host_can_set_the_cookie(app: FastAPI) -> None:
    await set_up(app)
    ada = browser(app, base_url="https://chat.example.com")
    response = await ada.post("/api/session", json=CREDENTIALS)
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-fireside_session=") and "; Secure" in cookie and "Domain" not in cookie
    assert await is_signed_in(ada)
    other = browser(app, base_url="https://chat.example.com")
    other.cookies["fireside_session_8000"] = ada.cookies["__Host-fireside_session"]  # as a subdomain could set it
    assert not await is_signed_in(other)


async def test_a_session_that_was_planted_is_not_the_one_that_signs_in(app: FastAPI) -> None:
    """Session fixation: somebody else knows the cookie that a browser comes with."""
    await set_up(app)
    eve = await join(app, "Eve")
    for planted in ("made-up", eve.cookies["fireside_session_8000"]):
        ada = browser(app)
        ada.cookies.set("fireside_session_8000", planted, domain="localhost.local")
        response = await ada.post("/api/session", json=CREDENTIALS)
        given = response.cookies["fireside_session_8000"]
        assert response.status_code == 200 and given != planted
        attacker = browser(app)
        attacker.cookies["fireside_session_8000"] = planted
        assert not await is_signed_in(attacker)


async def test_every_sign_in_has_a_token_of_its_own(app: FastAPI) -> None:
    await set_up(app)
    first, second = await sign_in(app, "Ada"), await sign_in(app, "Ada")
    assert first.cookies["fireside_session_8000"] != second.cookies["fireside_session_8000"]
    old = browser(app)
    old.cookies["fireside_session_8000"] = first.cookies["fireside_session_8000"]
    assert (await first.post("/api/session", json=CREDENTIALS)).status_code == 200
    assert await is_signed_in(first) and await is_signed_in(second) and not await is_signed_in(old)


async def test_an_unknown_address_and_a_wrong_password_cannot_be_told_apart(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(app)
    hasher = passwords._hasher()
    checked = []

    def verify(password: str, stored: str) -> bool:
        checked.append(stored)
        return type(hasher).verify(hasher, password, stored)

    monkeypatch.setattr(hasher, "verify", verify)
    client = browser(app)
    known = await client.post("/api/session", json=WRONG)
    unknown = await client.post("/api/session", json=WRONG | {"email": "nobody@example.com"})
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)
    assert known.status_code == 401
    of_ada, of_nobody = checked  # the same work: one hash each, with the same parameters
    assert of_ada != of_nobody and of_ada.split("$")[:4] == of_nobody.split("$")[:4]
    assert len(of_ada) == len(of_nobody)


async def test_sessions_end(app: FastAPI) -> None:
    await set_up(app)
    ada = await sign_in(app, "Ada")
    async with context_of(app).database.session() as session:
        until = await session.scalar(select(func.max(UserSession.expires_at)))
        assert until is not None and abs(until - now() - timedelta(days=30)) < timedelta(minutes=1)
        await session.execute(update(UserSession).values(expires_at=now()))
    assert not await is_signed_in(ada)
    assert code_of(await ada.get("/api/me")) == (401, "not_signed_in")
    await sign_in(app, "Ada")
    async with context_of(app).database.session() as session:
        assert await session.scalar(select(func.count()).select_from(UserSession)) == 1  # what has ended is gone


async def test_when_a_session_was_last_seen_is_written_now_and_then(app: FastAPI) -> None:
    ada = await set_up(app)
    before = now() - timedelta(days=1)
    async with context_of(app).database.session() as session:
        await session.execute(update(UserSession).values(last_seen_at=before))
    (entry,) = (await ada.get("/api/sessions")).json()["items"]
    assert entry["last_seen_at"] > f"{before:%Y-%m-%dT%H:%M:%S}Z" and entry["is_current"]


async def test_who_is_disabled_is_out_at_once(app: FastAPI) -> None:
    await set_up(app)
    bob = await join(app, "Bob")
    async with context_of(app).database.session() as session:
        id = (await row_of(app, "Bob")).id
        await change_user(session, id, role=None, disabled=True, by=None, address=None)
    assert not await is_signed_in(bob)
    credentials = {"email": "bob@example.com", "password": PASSWORD}
    assert code_of(await bob.post("/api/session", json=credentials)) == (403, "account_disabled")
    wrong = await bob.post("/api/session", json=credentials | {"password": "wrong"})
    assert code_of(wrong) == (401, "wrong_credentials")  # nobody learns it who does not know the password


async def test_signing_in_while_the_password_is_replaced(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before, and is ended by it, or after, and is refused: never in between."""
    await set_up(app)
    old, owner = browser(app), browser(app)
    body = {"token": await reset_link(app, "Ada"), "password": "another pass phrase"}
    execute = AsyncSession.execute
    resets: list[asyncio.Task[httpx.Response]] = []

    async def slowly(session: AsyncSession, *of: Any, **how: Any) -> Any:
        if not resets:  # the password has been looked at, and the session is not written yet
            resets.append(asyncio.create_task(owner.post("/api/reset", json=body)))
            await asyncio.wait(resets, timeout=0.2)
        return await execute(session, *of, **how)

    monkeypatch.setattr(AsyncSession, "execute", slowly)
    await old.post("/api/session", json=CREDENTIALS)
    assert (await resets[0]).status_code == 200
    assert await is_signed_in(owner) and not await is_signed_in(old)


async def test_guessing_from_one_address_is_slowed(app: FastAPI) -> None:
    await set_up(app)
    eve = browser(app, address="203.0.113.5")
    statuses = [(await eve.post("/api/session", json=WRONG)).status_code for _ in range(21)]
    assert statuses == [401] * 20 + [429]
    response = await eve.post("/api/session", json=CREDENTIALS)  # not even the right one
    assert code_of(response) == (429, "too_many_attempts")
    assert 0 < int(response.headers["retry-after"]) <= 30
    await sign_in(app, "Ada", address="203.0.113.6")  # who owns the account is not locked out


async def test_guessing_at_one_account_from_many_addresses_is_slowed(app: FastAPI) -> None:
    await set_up(app)
    statuses = []
    for i in range(51):
        client = browser(app, address=f"2001:db8:0:{i:x}::1")
        statuses.append((await client.post("/api/session", json=WRONG)).status_code)
    assert statuses == [401] * 50 + [429]
    unknown = {"email": "nobody@example.com", "password": "x"}  # is counted alike, so that a 429 tells nothing
    for i in range(51):
        client = browser(app, address=f"2001:db8:1:{i:x}::1")
        statuses.append((await client.post("/api/session", json=unknown)).status_code)
    assert statuses[51:] == statuses[:51]


async def test_who_knows_the_password_uses_up_no_tries(app: FastAPI) -> None:
    await set_up(app)
    client = browser(app)
    assert {(await client.post("/api/session", json=CREDENTIALS)).status_code for _ in range(25)} == {200}


@pytest.mark.parametrize("email", ["", "ada", "a@b@c", "a b@c", "a@b\0", "a" * 251 + "@b.c", "\u202eada@example.com"])
async def test_what_is_no_address(app: FastAPI, email: str) -> None:
    response = await browser(app).post("/api/session", json=CREDENTIALS | {"email": email})
    assert response.status_code == 400 and response.json()["error"]["param"] == "email"


async def test_two_servers_of_one_host_have_cookies_of_their_own(app: FastAPI) -> None:
    await set_up(app)
    jar = browser(app)  # a browser keeps no cookie for a port
    first = await jar.post("http://localhost:8000/api/session", json=CREDENTIALS)
    second = await jar.post("http://localhost:8001/api/session", json=CREDENTIALS)
    third = await jar.post("http://localhost/api/session", json=CREDENTIALS)
    names = [response.headers["set-cookie"].partition("=")[0] for response in (first, second, third)]
    assert names == ["fireside_session_8000", "fireside_session_8001", "fireside_session"]
    await jar.delete("http://localhost:8001/api/session")
    assert sorted(jar.cookies) == ["fireside_session", "fireside_session_8000"]
    assert (await jar.get("http://localhost:8000/api/me")).status_code == 200


async def test_a_cookie_from_before_ports_were_in_its_name(app: FastAPI) -> None:
    ada = await set_up(app)
    old = browser(app)
    old.cookies.set("fireside_session", ada.cookies["fireside_session_8000"], domain="localhost.local")
    assert await is_signed_in(old)
    assert (await old.delete("/api/session")).status_code == 204
    assert not await is_signed_in(old) and "fireside_session" not in old.cookies
