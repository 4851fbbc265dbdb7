"""Imports that are refused, interrupted, cancelled or cut off by the end of their server: nothing comes in part."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import zipfile
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from fireside.server.chat.tables import Conversation, Message
from fireside.server.deps import Context
from fireside.server.moving import jobs, portions, store
from fireside.server.moving.jobs import Importer
from fireside.server.moving.tables import Import
from tests.server.chat.people import Person
from tests.server.moving.exports import branched, encoded, node
from tests.server.moving.test_export import without_ids
from tests.server.moving.uploads import imported, over, trees, upload


async def test_what_one_conversation_is_refused_for_stops_no_other(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing of it is there: PostgreSQL and SQLite roll back alike."""
    real = store._turn_to

    def turn(conversation: Any, given: Any, *args: Any, **how: Any) -> None:
        real(conversation, given, *args, **how)
        if given.title == "Bad":
            conversation.user_id = "f" * 32  # nobody's

    monkeypatch.setattr(store, "_turn_to", turn)
    report = await imported(ada, encoded([branched(conversation_id="1", title="Bad"), branched()]))
    assert report["conversations"] == 1
    assert [(one["reason"], one["title"]) for one in report["skipped"]] == [("refused", "Bad")]
    assert [tree["title"] for tree in await trees(ada)] == ["Candles"]


async def test_a_crash_in_the_middle_leaves_whole_conversations_and_a_second_import_completes_it(
    ada: Person, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded([branched(conversation_id=str(number), title=str(number)) for number in range(5)])
    real = store._insert
    count = 0

    async def insert(session: Any, *rest: Any) -> None:
        nonlocal count
        count += 1
        await real(session, *rest)
        if count == 3:
            raise SystemError("power cut")

    monkeypatch.setattr(store, "_insert", insert)
    monkeypatch.setattr(jobs.log, "exception", lambda *_: None)
    ended = await over(ada, (await upload(ada, data))["id"])
    assert ended["status"] == "failed" and "its log" in ended["report"]["problem"]
    there = await trees(ada)
    assert [tree["title"] for tree in there] == ["1", "0"] and all(len(tree["messages"]) == 7 for tree in there)
    context: Context = app.state.context
    async with context.database.session() as session:
        assert len((await session.scalars(select(Message.id))).all()) == 14
    report = await imported(ada, data)
    assert (report["conversations"], report["unchanged"]) == (3, 2)


def locked(*_: Any) -> OperationalError:
    """As SQLite raises it while another process writes for too long."""
    reason = sqlite3.OperationalError("database is locked")
    reason.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return OperationalError("INSERT", {}, reason)


async def test_what_the_database_refuses_for_a_while_comes_all_the_same(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if it goes on for long, the import says that it was interrupted, and goes on when it comes again."""
    real, refusals = store._insert, 2

    async def insert(*args: Any) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise locked()
        await real(*args)

    monkeypatch.setattr(store, "_insert", insert)
    monkeypatch.setattr(portions, "WAITS", (0.01, 0.01))
    data = encoded([branched(), branched(conversation_id="2")])
    assert (await imported(ada, data))["conversations"] == 2
    refusals = 3
    more = encoded([branched(conversation_id="3")])
    ended = await over(ada, (await upload(ada, more))["id"])
    assert (ended["status"], ended["report"]["skipped"]) == ("interrupted", [])
    assert (await imported(ada, more))["conversations"] == 1


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "_CHARACTERS", 30)
    monkeypatch.setattr(portions, "_MESSAGES", 2)


async def test_a_large_conversation_comes_in_portions(ada: Person, bob: Person, small_portions: None) -> None:
    """And is then as if it had come at once."""
    real, sizes = store._insert, []

    async def insert(*args: Any) -> None:
        sizes.append(len(args[3]))
        await real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_insert", insert)
        report = await imported(ada, encoded([branched(current_node="a1")]))
    assert (report["conversations"], report["messages"]) == (1, 7) and sizes == [1, 1, 1, 1, 2, 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "_CHARACTERS", 9_999)
        patch.setattr(portions, "_MESSAGES", 9)
        await imported(bob, encoded([branched(current_node="a1")]))
    ((mine,), (theirs,)) = await trees(ada), await trees(bob)
    assert without_ids(mine) == without_ids(theirs)


async def test_of_a_large_conversation_that_is_refused_nothing_stays(
    ada: Person, small_portions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store._turn_to

    def turn(conversation: Any, given: Any, *args: Any, **how: Any) -> None:
        real(conversation, given, *args, **how)
        if len(given.messages) == 7:
            conversation.user_id = "f" * 32

    monkeypatch.setattr(store, "_turn_to", turn)
    report = await imported(ada, encoded([branched()]))
    assert [one["reason"] for one in report["skipped"]] == ["refused"] and await trees(ada) == []


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_what_came_in_part_before_a_crash_is_seen_nowhere(
    ada: Person, app: FastAPI, small_portions: None, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    """Nor between two portions. It goes on where it was, or from the beginning after a restart."""
    context: Context = app.state.context
    data, real, count = encoded([branched()]), portions.store, 0
    between: list[Any] = []

    async def seen() -> list[Any]:
        with zipfile.ZipFile(io.BytesIO((await ada.http.get("/api/me/export")).content)) as archive:
            files = [name for name in archive.namelist() if name.startswith("conversations/")]
        return [*await trees(ada), *(await ada.get("conversations", q="candle"))["items"], *files]

    async def rows(column: Any) -> list[Any]:
        async with context.database.session() as session:
            return list(await session.scalars(select(column)))

    async def store_until_the_power_fails(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            between.extend(await seen())
            asked = await ada.http.get(f"/api/conversations/{(await rows(Conversation.id))[0]}")
            between.append(asked.status_code)
            raise SystemError("power cut")
        return await real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(portions, "store", store_until_the_power_fails)
        patch.setattr(jobs.log, "exception", lambda *_: None)
        ended = await over(ada, (await upload(ada, data))["id"])
    assert (ended["status"], between) == ("failed", [404])
    assert await seen() == [] and len(await rows(Message.id)) == 3
    if is_restarted:
        await Importer(context.settings, context.database).start()
        assert await rows(Conversation.id) == await rows(Message.id) == []
    report = await imported(ada, data)
    assert (report["conversations"], report["messages"]) == (1, 7 if is_restarted else 4)
    (tree,) = await trees(ada)
    assert len(tree["messages"]) == 7 and len(await seen()) == 4
    await Importer(context.settings, context.database).start()
    assert await trees(ada) == [tree]


async def test_what_is_new_of_a_conversation_that_is_there_comes_at_once(
    ada: Person, small_portions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is more than a portion; what is very much comes in portions as well."""
    await imported(ada, encoded([branched()]))
    real, sizes = store._insert, []

    async def insert(*args: Any) -> None:
        sizes.append(len(args[3]))
        await real(*args)

    monkeypatch.setattr(store, "_insert", insert)
    whole = branched()
    for limit, name in ((9_999, "at once "), (50, "in portions ")):
        monkeypatch.setattr(store, "_AT_ONCE", limit)
        sizes.clear()
        above = "a4"
        for number in range(6):
            key = f"{name}{number}"
            whole["mapping"][above]["children"] = [key]
            whole["mapping"][key] = node(key, above, [], "assistant" if number % 2 else "user", f"{name} {number}" * 2)
            above = key
        report = await imported(ada, encoded([whole]))
        assert (report["changed"], report["messages"]) == (1, 6)
        assert sizes == [6] if limit > 50 else len(sizes) > 1, sizes


async def test_a_server_that_ends_meanwhile_and_starts_again_imports_again(
    ada: Person, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: Context = app.state.context
    real, is_storing, go_on = portions.store, asyncio.Event(), asyncio.Event()

    async def slowly(*args: Any) -> Any:
        is_storing.set()
        await go_on.wait()
        return await real(*args)

    monkeypatch.setattr(portions, "store", slowly)
    data = encoded([branched(conversation_id=str(number)) for number in range(3)])
    made = await upload(ada, data)
    await is_storing.wait()
    closing = asyncio.create_task(context.imports.close())
    await asyncio.sleep(0)
    assert not closing.done()  # what is being written down is written down first
    go_on.set()
    await closing
    ended = await ada.get(f"imports/{made['id']}")
    assert (ended["status"], ended["report"]["conversations"]) == ("interrupted", 1)
    await upload(ada, data, status=429)
    await context.imports.start()
    report = await imported(ada, data)
    assert (report["conversations"], report["unchanged"]) == (2, 1)


async def test_an_import_ends_where_the_disk_is_full(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([1 << 40, 1 << 40, 0])
    usage = type("Usage", (), {"free": property(lambda _: next(free))})
    monkeypatch.setattr(jobs.shutil, "disk_usage", lambda _: usage())
    data = encoded([branched(), branched(conversation_id="2")])
    ended = await over(ada, (await upload(ada, data))["id"])
    assert ended["status"] == "failed" and "no room" in ended["report"]["problem"]
    assert len(await trees(ada)) == 1


async def test_a_report_that_could_not_be_kept_is_of_an_interrupted_import(ada: Person, app: FastAPI) -> None:
    context: Context = app.state.context
    made = await upload(ada, encoded([branched()]))
    await over(ada, made["id"])
    async with context.database.session() as session:
        await session.execute(update(Import).values(status="running", report={}))
    assert (await ada.get(f"imports/{made['id']}"))["status"] == "interrupted"
    assert (await ada.get("imports"))["items"][0]["status"] == "interrupted"


async def test_after_a_crash_of_the_server_it_is_told_as_interrupted(ada: Person, app: FastAPI) -> None:
    context: Context = app.state.context
    made = await upload(ada, encoded([branched()]))
    await over(ada, made["id"])
    async with context.database.session() as session:
        await session.execute(update(Import).values(status="running", report={}))
    await Importer(context.settings, context.database).start()
    assert (await ada.get(f"imports/{made['id']}"))["status"] == "interrupted"


async def test_cancelling_keeps_what_is_whole(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    real, two_done, go_on = portions.store, asyncio.Event(), asyncio.Event()
    count = 0

    async def slow(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            two_done.set()
            await go_on.wait()
        return await real(*args)

    monkeypatch.setattr(portions, "store", slow)
    data = encoded([branched(conversation_id=str(number), padding="x" * 70_000) for number in range(9)])
    made = await upload(ada, data)
    await two_done.wait()
    running = await ada.get(f"imports/{made['id']}")
    assert running["status"] == "running" and 0.2 < running["progress"] < 0.7
    assert running["report"]["conversations"] == 2
    await upload(ada, data, status=409)
    answer = await ada.http.post(f"/api/imports/{made['id']}/cancel", json={})
    assert answer.status_code == 204
    go_on.set()
    ended = await over(ada, made["id"])
    assert ended["status"] == "cancelled" and ended["report"]["conversations"] == 3
    assert len(await trees(ada)) == 3
    assert (await imported(ada, data))["conversations"] == 6


async def test_an_import_of_nobody_any_more_ends(ada: Person, bob: Person, app: FastAPI) -> None:
    context: Context = app.state.context
    me = (await bob.get("me"))["id"]
    data = encoded([branched(conversation_id=str(number)) for number in range(200)])
    made = await upload(bob, data)
    context.abandon(me)
    assert (await over(bob, made["id"]))["status"] == "cancelled"
    assert len((await bob.get("conversations", limit=100))["items"]) < 100
