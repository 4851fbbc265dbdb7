"""Exports that are made and sent beside everything else: what they hold, how many there are, and when they end."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import zipfile
from typing import Any

import pytest
from fastapi import FastAPI

from fireside.server.accounts.tables import User
from fireside.server.deps import Context
from fireside.server.documents.words import words_for
from fireside.server.moving import account, export, exporter
from fireside.server.moving.exporter import AccountResponse, Exporter
from tests.server.chat.people import Person
from tests.server.moving.exports import branched, encoded, native
from tests.server.moving.uploads import imported, trees


async def rated(person: Person, content: str) -> None:
    _, answer = await person.asked(await person.converse(), content)
    rating = await person.http.put(f"/api/messages/{answer['id']}/rating", json={"verdict": "up"})
    assert rating.status_code == 200, rating.text


async def test_no_connection_is_held_while_somebody_reads(ada: Person, app: FastAPI) -> None:
    context: Context = app.state.context
    await rated(ada, "Hi")
    await ada.post("prompts", {"name": "shorten", "content": "Shorten this"})
    async with context.database.session() as session:
        user = await session.get_one(User, (await ada.get("me"))["id"])
    pool: Any = context.database._engine.sync_engine.pool
    before, files = pool.checkedout(), 0
    for part in account.PARTS:
        async for _ in part(context.database, user, words_for("en")):
            files += 1
            assert pool.checkedout() == before, part
    assert files == 7


async def test_one_account_export_a_person_at_a_time(
    ada: Person, bob: Person, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*_: Any) -> Any:
        begun.set()
        await go_on.wait()
        yield "slow.json", b"[]"

    monkeypatch.setattr(account, "PARTS", [slow])
    first = asyncio.create_task(ada.http.get("/api/me/export"))
    await begun.wait()
    second = await ada.http.get("/api/me/export")
    assert (second.status_code, second.json()["error"]["code"]) == (429, "export_running")
    assert "retry-after" in second.headers
    monkeypatch.setattr(exporter, "MAX_AT_ONCE", 1)
    assert "other people" in (await bob.http.get("/api/me/export")).json()["error"]["message"]
    go_on.set()
    assert (await first).status_code == 200
    assert (await ada.http.get("/api/me/export")).status_code == 200  # the turn is over


async def test_an_account_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PATIENCE", 0.05)
    own = Exporter()

    async def pieces() -> Any:
        for _ in range(3):
            yield b"x"

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    for version in ("2.3", "2.4"):  # of ASGI, which say differently that somebody is gone
        scope: Any = {"type": "http", "asgi": {"spec_version": version}, "extensions": {}}
        response = AccountResponse(own, "ada", pieces(), media_type="application/zip")
        await asyncio.wait_for(response(scope, receive, send), 5)
    with own.turn("account", "ada"):
        own.close()


async def test_pages_are_made_in_threads_of_their_own_one_a_person(
    ada: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others check passwords."""
    begun, go_on = threading.Event(), threading.Event()
    names = []

    def slow(*_: Any, **__: Any) -> str:
        names.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(10)
        return "page"

    monkeypatch.setattr(export, "to_page", slow)
    addresses = []
    for person in (ada, bob):
        await imported(person, encoded([branched()]))
        addresses.append(f"/api/conversations/{(await trees(person))[0]['id']}/export?format=html")
    pages = [asyncio.create_task(ada.http.get(addresses[0]))]
    assert await asyncio.to_thread(begun.wait, 10)
    assert (await ada.http.get(addresses[0])).status_code == 429
    assert (await ada.http.get(addresses[0].replace("html", "markdown"))).status_code == 200
    pages.append(asyncio.create_task(bob.http.get(addresses[1])))
    go_on.set()
    assert [(await page).status_code for page in pages] == [200, 200]
    assert len(names) == 2 and all(name.startswith("export") for name in names)


async def test_a_page_has_no_more_characters_than_a_link_shows(ada: Person) -> None:
    value = native(project=None)
    for message in value["conversation"]["messages"]:
        message["content"] = "x" * 600_000
    await imported(ada, encoded(value))
    address = f"/api/conversations/{(await trees(ada))[0]['id']}/export"
    refused = await ada.http.get(address, params={"format": "html"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "too_long_for_a_page")
    assert len((await ada.http.get(address, params={"format": "markdown"})).content) > 1_200_000


async def test_conversations_of_one_name_are_all_in_it(ada: Person, bob: Person) -> None:
    """However many bytes a name takes, of which a file's may have so many."""
    title = "🕯" * 100
    await imported(ada, encoded([branched(conversation_id=str(number), title=title) for number in range(3)]))
    data = (await ada.http.get("/api/me/export")).content
    assert (await imported(bob, data))["conversations"] == 3


async def test_feedback_of_an_account_comes_in_pieces(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_FEEDBACK_AT_ONCE", 1)
    for content in ("One", "Two"):
        await rated(ada, content)
    with zipfile.ZipFile(io.BytesIO((await ada.http.get("/api/me/export")).content)) as archive:
        found = [json.loads(archive.read(name)) for name in archive.namelist() if name.startswith("feedback")]
    assert [len(rows) for rows in found[:2]] == [1, 1] and len({rows[0]["id"] for rows in found[:2]}) == 2


async def test_a_server_that_starts_again_exports_again() -> None:
    exporter = Exporter()
    for _ in range(2):
        assert await exporter.run(lambda: "done") == "done"
        exporter.close()


async def test_who_goes_away_leaves_a_file_that_is_closed(ada: Person, app: FastAPI) -> None:
    context: Context = app.state.context
    async with context.database.session() as session:
        user = await session.get_one(User, (await ada.get("me"))["id"])
    pieces = account.account_zip(context.database, Exporter(), user, words_for("en"))
    await anext(pieces)
    archive = pieces.ag_frame.f_locals["archive"]
    await pieces.aclose()
    assert archive.fp is None
