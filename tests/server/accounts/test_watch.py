"""Answers that last end with the right to hear them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, select, update

from fireside.server.accounts import watch
from fireside.server.accounts.administration import change_user
from fireside.server.accounts.identity import Identity, still_good
from fireside.server.accounts.tables import ApiKey, Role, User, UserSession
from fireside.server.accounts.tokens import digest
from fireside.server.db.base import now
from fireside.server.db.database import Database
from tests.server.accounts.people import browser, context_of, join, row_of, set_up
from tests.server.chat.people import Person, headers, sign_up
from tests.server.scripted_app import Scripted, running, says, scripted_app
from tests.waiting import until

LONG = "word " * 400


@asynccontextmanager
async def two_people(app: FastAPI, database: Database) -> AsyncIterator[tuple[Person, Person]]:
    with running(app) as url:
        tokens = [await sign_up(database, name) for name in ("ada", "bob")]
        async with (
            httpx.AsyncClient(base_url=url, headers=headers(tokens[0]), timeout=20) as ada,
            httpx.AsyncClient(base_url=url, headers=headers(tokens[1]), timeout=20) as bob,
        ):
            yield Person(ada), Person(bob)


@pytest.fixture
def app(script: Scripted, migrated_database: str, tmp_path: Path) -> FastAPI:
    script.answer = says(LONG, delay=0.005)
    return scripted_app(script, home=tmp_path, database_url=migrated_database)


@pytest.fixture
async def database(migrated_database: str) -> AsyncIterator[Database]:
    """Connections of the test's own: the server's belong to its loop."""
    database = Database(migrated_database)
    yield database
    await database.close()


async def by_a_deleted_session(database: Database, user_id: str) -> None:
    async with database.session() as session:
        await session.execute(delete(UserSession).where(UserSession.user_id == user_id))


async def by_an_administrator(database: Database, user_id: str) -> None:
    async with database.session() as session:
        await change_user(session, user_id, role=None, disabled=True, by=None, address=None)


async def by_time(database: Database, user_id: str) -> None:
    async with database.session() as session:
        await session.execute(update(UserSession).where(UserSession.user_id == user_id).values(expires_at=now()))


@pytest.mark.parametrize("how", [by_a_deleted_session, by_an_administrator, by_time])
async def test_streams_end_with_the_session(
    how: Callable[[Database, str], Awaitable[None]], app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    async with two_people(app, database) as (ada, bob):
        runs = [(await person.ask(await person.converse(title="t"), "Hi"))["run"]["id"] for person in (ada, bob)]
        hers, his = (asyncio.create_task(person.events(run)) for person, run in zip((ada, bob), runs, strict=True))
        await asyncio.sleep(0.3)
        async with database.session() as session:
            user_id = (await session.scalars(select(User.id).where(User.name == "ada"))).one()
        await how(database, user_id)
        begin = time.monotonic()
        events = await asyncio.wait_for(hers, 5)
        assert time.monotonic() - begin < 1.5
        assert events and events[-1][1]["type"] == "text"  # cut, and not the answer's end
        assert not his.done()
        await bob.post(f"runs/{runs[1]}/stop", status=200)
        assert (await his)[-1][1]["status"] == "stopped"
        assert context_of(app).watch._open == {} and not context_of(app).watch._by_user


async def test_who_comes_while_the_others_are_looked_up_is_not_taken_for_signed_out(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, may_answer = threading.Event(), threading.Event()

    async def slowly(*of: Any) -> set[Identity]:
        good = await still_good(*of)
        looking.set()
        await asyncio.to_thread(may_answer.wait, 10)
        return good

    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(watch, "still_good", slowly)
    async with two_people(app, database) as (ada, bob):
        runs = [(await person.ask(await person.converse(title="t"), "Hi"))["run"]["id"] for person in (ada, bob)]
        hers = asyncio.create_task(ada.events(runs[0]))
        assert await asyncio.to_thread(looking.wait, 10)
        his = asyncio.create_task(bob.events(runs[1]))
        await until(lambda: len(context_of(app).watch._open) == 2, 10)
        may_answer.set()
        assert [events[-1][1]["type"] for events in await asyncio.gather(hers, his)] == ["done", "done"]


async def test_a_stream_by_key_ends_with_the_key(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    async with two_people(app, database) as (ada, _):
        async with database.session() as session:
            owner = (await session.scalars(select(User).where(User.name == "ada"))).one()
            owner.role = Role.ADMIN  # without one, the server asks nobody for a key
            key = "fs-" + "k" * 43
            session.add(
                ApiKey(user_id=owner.id, name="k", prefix="fs", token_hash=digest(key), scopes=["inference"],
                       expires_at=now() + timedelta(days=1))
            )  # fmt: skip
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with httpx.AsyncClient(base_url=ada.http.base_url, timeout=20) as program:
            bearer = {"Authorization": f"Bearer {key}"}
            async with program.stream("POST", "/v1/chat/completions", json=body, headers=bearer) as stream:
                assert stream.status_code == 200
                lines = stream.aiter_lines()
                await anext(lines)
                async with database.session() as session:
                    await session.execute(update(ApiKey).values(revoked_at=now()))
                rest = [line async for line in lines]
            assert "data: [DONE]" not in rest and len(rest) < 400


async def test_nobody_listens_with_a_thousand_connections(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_OPEN_EACH", 3)
    async with two_people(app, database) as (ada, bob):
        run = (await ada.ask(await ada.converse(title="t"), "Hi"))["run"]["id"]
        open_ones = [asyncio.create_task(ada.events(run)) for _ in range(3)]
        await asyncio.sleep(0.3)
        refused = await ada.http.get(f"/api/runs/{run}/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_listeners")
        his = (await bob.ask(await bob.converse(title="t"), "Hi"))["run"]["id"]
        listening = asyncio.create_task(bob.events(his))
        await ada.post(f"runs/{run}/stop", status=200)
        await bob.post(f"runs/{his}/stop", status=200)
        await asyncio.gather(*open_ones, listening)
        assert (await ada.http.get(f"/api/runs/{run}/events")).status_code == 200


async def by_signing_out(client: httpx.AsyncClient, admin: httpx.AsyncClient, user_id: str) -> None:
    assert (await client.delete("/api/session")).status_code == 204


async def by_disabling(client: httpx.AsyncClient, admin: httpx.AsyncClient, user_id: str) -> None:
    assert (await admin.patch(f"/api/admin/users/{user_id}", json={"disabled": True})).status_code == 200


async def by_demoting(client: httpx.AsyncClient, admin: httpx.AsyncClient, user_id: str) -> None:
    assert (await admin.patch(f"/api/admin/users/{user_id}", json={"role": "member"})).status_code == 200


async def by_nothing(client: httpx.AsyncClient, admin: httpx.AsyncClient, user_id: str) -> None:
    pass


@pytest.mark.parametrize(
    ("how", "status"), [(by_signing_out, 499), (by_disabling, 499), (by_demoting, 499), (by_nothing, 200)]
)
async def test_a_request_that_was_still_arriving_does_nothing(
    how: Callable[[httpx.AsyncClient, httpx.AsyncClient, str], Awaitable[None]],
    status: int,
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An administrator makes herself one again by what she had begun to send before she was demoted."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    let_in, rest = asyncio.Event(), asyncio.Event()

    async def half_sent() -> AsyncIterator[bytes]:
        yield b'{"role": "admin",'
        let_in.set()
        await rest.wait()
        yield b' "disabled": false}'

    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        eve = await join(app, "Eve", Role.ADMIN)
        user_id = (await row_of(app, "Eve")).id
        half = browser(app)
        half.cookies.update(eve.cookies)
        headers = {"Content-Type": "application/json"}
        path = f"/api/admin/users/{user_id}"
        sending = asyncio.create_task(half.patch(path, content=half_sent(), headers=headers))
        await let_in.wait()
        await how(eve, ada, user_id)
        before = await row_of(app, "Eve")
        rest.set()
        assert (await sending).status_code == status
        after = await row_of(app, "Eve")
        assert (after.role, after.disabled_at) == (before.role, before.disabled_at)
