"""Invitations, open sign-up, and passwords set anew by a link."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from fastapi import FastAPI

from fireside.server.accounts.administration import change_user
from fireside.server.accounts.tables import Role
from tests.server.accounts.people import (
    PASSWORD,
    browser,
    code_of,
    context_of,
    invitation,
    is_signed_in,
    join,
    person,
    row_of,
    set_up,
    sign_in,
)
from tests.server.scripted_app import Scripted, scripted_app


@pytest.mark.parametrize("role", [Role.ADMIN, Role.MEMBER, Role.GUEST])
async def test_an_invitation_makes_one_account_of_its_role(app: FastAPI, role: Role) -> None:
    await set_up(app)
    token = await invitation(app, role)
    first = await browser(app).post("/api/users", json=person("Bob", token=token))
    assert first.status_code == 201 and first.json()["user"]["role"] == role
    second = await browser(app).post("/api/users", json=person("Eve", token=token))
    assert code_of(second) == (404, "link_not_found")


async def test_of_two_at_once_one_gets_the_account(app: FastAPI) -> None:
    await set_up(app)
    token = await invitation(app)
    bodies = [person(name, token=token) for name in ("Bob", "Eve", "Kim", "Lou")]
    answers = await asyncio.gather(*(browser(app).post("/api/users", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201, 404, 404, 404]


async def test_links_end_and_are_of_one_kind(app: FastAPI) -> None:
    await set_up(app)
    ended = await invitation(app, lasts=timedelta(seconds=-1))
    good = await invitation(app, Role.ADMIN)
    client = browser(app)
    assert code_of(await client.post("/api/users", json=person("Bob", token=ended))) == (404, "link_not_found")
    assert code_of(await client.post("/api/setup", json=person("Bob", token=good))) == (404, "link_not_found")
    reset = await client.post("/api/reset", json={"token": good, "password": PASSWORD})
    assert code_of(reset) == (404, "link_not_found")


async def test_an_address_has_one_account_however_it_is_written(app: FastAPI) -> None:
    await set_up(app)
    token = await invitation(app)
    for email in ("ada@example.com", "ADA@Example.com", "\uff41da@example.com"):
        response = await browser(app).post("/api/users", json=person("Eve", token=token, email=email))
        assert code_of(response) == (400, "email_taken")
    assert code_of(await browser(app).post("/api/users", json=person("Bob", token=token))) == (201, None)  # still good


async def test_without_an_invitation_nobody_signs_up(app: FastAPI) -> None:
    await set_up(app)
    assert code_of(await browser(app).post("/api/users", json=person("Bob"))) == (403, "invitation_needed")


async def test_open_sign_up(script: Scripted) -> None:
    app = scripted_app(script, sign_up="open")
    async with app.router.lifespan_context(app):
        early = await browser(app).post("/api/users", json=person("Bob"))
        assert code_of(early) == (403, "invitation_needed")  # before there is an administrator
        await set_up(app)
        response = await browser(app).post("/api/users", json=person("Bob"))
        assert response.status_code == 201 and response.json()["user"]["role"] == "member"
        statuses = [
            (await browser(app).post("/api/users", json=person(f"Bot{i}", email="ada@example.com"))).status_code
            for i in range(29)
        ]
        assert statuses == [400] * 28 + [429]  # thirty in all that got nowhere or needed no invitation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", "short"),
        ("password", "x" * 201),
        ("name", ""),
        ("name", " \t"),
        ("name", "x" * 101),
        ("name", "\0"),
    ],
)
async def test_what_makes_no_account(app: FastAPI, field: str, value: str) -> None:
    response = await browser(app).post("/api/users", json=person("Bob", token="x") | {field: value})
    assert response.status_code == 400 and response.json()["error"]["param"] == field
    assert len(value.strip()) < 2 or value not in response.text


async def test_a_forgotten_password(app: FastAPI) -> None:
    ada = await set_up(app)
    bob = await join(app, "Bob")
    id = (await row_of(app, "Bob")).id
    old, link = [(await ada.post(f"/api/admin/users/{id}/reset")).json()["path"] for _ in range(2)]
    assert link.startswith("/reset#")
    fresh = browser(app)
    body = {"token": old.partition("#")[2], "password": "a new pass phrase"}
    assert code_of(await fresh.post("/api/reset", json=body)) == (404, "link_not_found")  # the second replaced it
    body["token"] = link.partition("#")[2]
    assert (await fresh.post("/api/reset", json=body)).json()["user"]["name"] == "Bob"
    assert await is_signed_in(fresh) and not await is_signed_in(bob)
    assert code_of(await browser(app).post("/api/reset", json=body)) == (404, "link_not_found")
    await sign_in(app, "Bob", "a new pass phrase")
    wrong = await bob.post("/api/session", json={"email": "bob@example.com", "password": PASSWORD})
    assert code_of(wrong) == (401, "wrong_credentials")


async def test_who_is_disabled_gets_in_by_no_link(app: FastAPI) -> None:
    ada = await set_up(app)
    await join(app, "Bob")
    id = (await row_of(app, "Bob")).id
    token = (await ada.post(f"/api/admin/users/{id}/reset")).json()["path"].partition("#")[2]
    async with context_of(app).database.session() as session:
        await change_user(session, id, role=None, disabled=True, by=None, address=None)
    response = await browser(app).post("/api/reset", json={"token": token, "password": "a new pass phrase"})
    assert code_of(response) == (404, "link_not_found")


async def test_the_same_password_from_another_keyboard(app: FastAPI) -> None:
    """Composed and decomposed letters look the same to whoever types them."""
    await set_up(app)
    token = await invitation(app)
    await browser(app).post("/api/users", json=person("Bob", token=token, password="caf\u00e9 cr\u00e8me"))
    await sign_in(app, "Bob", "cafe\u0301 cre\u0300me")
