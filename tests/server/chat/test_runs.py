"""Runs and their listeners: the same events for all, whenever they come and from wherever they go on."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, text, update

from fireside.engine.scripted import ScriptedAnswer
from fireside.server.accounts.tables import User
from fireside.server.chat.runs.hub import EVENTS_KEPT, RunHub
from fireside.server.chat.runs.live import coalesced, text_of
from fireside.server.chat.tables import JournalEntry, Message, Run, Status
from fireside.server.db.base import new_id, now
from fireside.server.deps import Context
from tests.server.chat.people import Person, headers, parsed, person, said, sign_up
from tests.server.scripted_app import Scripted, running, says, scripted_app
from tests.waiting import until

LONG = "It was a dark and stormy night; the rain fell in torrents. "


def context_of(app: FastAPI) -> Context:
    context: Context = app.state.context
    return context


@given(st.lists(st.sampled_from(["text", "reasoning", "usage"])))
def test_coalescing_keeps_text_and_order(kinds: list[str]) -> None:
    events: list[dict[str, Any]] = [
        {"type": kind, kind: str(n)} if kind != "usage" else {"type": kind, "n": n} for n, kind in enumerate(kinds)
    ]
    shorter = coalesced(events)
    for kind in ("text", "reasoning"):
        assert text_of(shorter, kind) == text_of(events, kind)
    assert all(not a["type"] == b["type"] != "usage" for a, b in pairwise(shorter))
    assert [event for event in shorter if event["type"] == "usage"] == [e for e in events if e["type"] == "usage"]


async def test_every_listener_sees_the_same_events(script: Scripted) -> None:
    """Two at once, one late, one after the end, one who goes on behind every number there is; on a real socket."""
    script.answer = says(LONG, delay=0.004)
    app = scripted_app(script)
    with running(app) as url:
        token = await sign_up(context_of(app).database, "ada")
        async with httpx.AsyncClient(base_url=url, headers=headers(token)) as http:
            ada = Person(http)
            started = await ada.ask(await ada.converse(title="t"), "Hi")
            run = started["run"]["id"]

            async def late() -> list[tuple[int, dict[str, Any]]]:
                await asyncio.sleep(0.15)
                return await ada.events(run)

            first, second, third = await asyncio.gather(ada.events(run), ada.events(run), late())
            assert said(first) == LONG and first == second == third
            assert [number for number, _ in first] == list(range(1, len(first) + 1)) and len(first) > 4
            assert await ada.events(run) == first
            for after in range(len(first) + 3):
                assert await ada.events(run, after) == first[after:]
            by_query = await http.get(f"/api/runs/{run}/events", params={"after": 3})
            assert parsed(by_query.text) == first[3:]
            for bad in ("-1", "x", "99999999999"):
                refused = await http.get(f"/api/runs/{run}/events", headers={"Last-Event-ID": bad})
                assert refused.status_code == 400


async def test_a_reader_who_is_cut_off_misses_nothing(ada: Person, app: FastAPI, script: Scripted) -> None:
    script.answer = says(LONG, delay=0.003)
    started = await ada.ask(await ada.converse(title="t"), "Hi")
    run = started["run"]["id"]
    hub = context_of(app).runs
    seen: list[tuple[int, dict[str, Any]]] = []
    while not seen or seen[-1][1]["type"] != "done":
        events = hub.events(run, seen[-1][0] if seen else 0)
        seen += parsed((await anext(events)).decode())  # one piece, and the connection breaks
        await events.aclose()
    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    assert said(seen) == LONG and seen == await ada.events(run)


async def test_what_was_seen_is_on_disk(ada: Person, app: FastAPI, script: Scripted) -> None:
    """Held against the database at every piece that a listener gets."""
    script.answer = says(LONG, delay=0.003)
    started = await ada.ask(await ada.converse(title="t"), "Hi")
    context = context_of(app)
    last = 0
    async for data in context.runs.events(started["run"]["id"], 0):
        async with context.database.session() as session:
            entries = await session.scalars(select(JournalEntry.events).order_by(JournalEntry.number))
            stored = [line for events in entries for line in events.split("\n")]
            if not stored:  # it is over
                stored = (await session.scalars(select(Run.events))).one().split("\n")
        for last, event in parsed(data.decode()):
            assert json.loads(stored[last - 1]) == event
    assert last > 4


async def test_a_listener_who_leaves_stops_nothing(script: Scripted) -> None:
    script.answer = says(LONG, delay=0.002)
    app = scripted_app(script)
    with running(app) as url:
        token = await sign_up(context_of(app).database, "ada")
        async with httpx.AsyncClient(base_url=url, headers=headers(token)) as http:
            ada = Person(http)
            conversation = await ada.converse(title="t")
            started = await ada.ask(conversation, "Hi")
            async with http.stream("GET", f"/api/runs/{started['run']['id']}/events") as stream:
                await anext(stream.aiter_lines())
            assert said(await ada.events(started["run"]["id"])) == LONG
            assert (await ada.message(conversation, started["answer"]["id"]))["content"] == LONG


async def test_the_end_of_the_server_interrupts(script: Scripted, app: FastAPI) -> None:
    script.answer = says(LONG * 20, delay=0.004)
    context = context_of(app)
    async with app.router.lifespan_context(app), person(app, "ada") as ada:
        started = await ada.ask(await ada.converse(title="t"), "Hi")
        await asyncio.sleep(0.15)
        listening = asyncio.create_task(ada.events(started["run"]["id"]))
        await asyncio.sleep(0.02)
    events = await listening
    assert events[-1][1]["status"] == "interrupted"
    assert script.client.in_flight == 0
    async with context.database.session() as session:
        message = (await session.scalars(select(Message).where(Message.id == started["answer"]["id"]))).one()
        assert (message.status, message.content) == ("interrupted", said(events))
        assert 0 < len(message.content) < len(LONG * 20)
    await context.database.close()


async def test_what_a_dead_server_left_is_recovered(ada: Person, app: FastAPI, script: Scripted) -> None:
    """Rows as they are when a server is killed while it goes on with an answer. (`test_crash.py` kills a real one.)"""
    script.answer = says("Once")
    conversation = await ada.converse(title="t")
    _, answer = await ada.asked(conversation, "Hi")
    context, run_id = context_of(app), new_id()
    async with context.database.session() as session:
        user_id = (await session.scalars(select(User.id))).one()
        session.add(Run(id=run_id, user_id=user_id, conversation_id=conversation, message_id=answer["id"]))
        await session.flush()
        lines = '{"type":"text","text":" upon"}\n{"type":"reasoning","reasoning":"Hm"}', '{"type":"text","text":" a"}'
        entries = [(1, run_id, lines[0]), (2, "another", "{}"), (3, run_id, lines[1])]
        session.add_all(JournalEntry(number=n, run_id=run, events=events) for n, run, events in entries)
        await session.execute(
            update(Message).where(Message.id == answer["id"]).values(status=Status.RUNNING, run_id=run_id)
        )
    for _ in range(2):  # the second finds nothing to do
        hub = RunHub(context.database, context.metrics)
        await hub.start()
        await hub.close()
    message = await ada.message(conversation, answer["id"])
    assert (message["content"], message["reasoning"], message["status"]) == ("Once upon a", "Hm", "interrupted")
    events = await ada.events(run_id)
    assert [number for number, _ in events] == [1, 2, 3, 4]
    assert events[-1][1]["status"] == (await ada.get(f"runs/{run_id}"))["status"] == "interrupted"
    script.answer = says(" time.")
    more = await ada.post(f"messages/{answer['id']}/continue")
    await ada.events(more["run"]["id"])
    whole = await ada.message(conversation, answer["id"])
    assert (whole["content"], whole["status"], whole["error"]) == ("Once upon a time.", "complete", None)


async def test_old_events_are_pruned(ada: Person, app: FastAPI) -> None:
    conversation = await ada.converse(title="t")
    _, old = await ada.asked(conversation, "Hi")
    _, new = await ada.asked(conversation, "Hi")
    context = context_of(app)
    async with context.database.session() as session:
        await session.execute(update(Run).where(Run.id == old["run_id"]).values(finished_at=now() - EVENTS_KEPT * 1.01))
    await context.runs.prune()
    events = await ada.events(old["run_id"], 0)
    assert [(event["type"], event["is_pruned"]) for _, event in events] == [("done", True)]
    whole = await ada.events(new["run_id"])
    assert said(whole) == (await ada.message(conversation, old["id"]))["content"]
    assert whole[-1][1]["is_pruned"] is False


async def test_events_wait_while_the_database_cannot_write(
    ada: Person, app: FastAPI, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.answer = says("Hello there.", delay=0.005)
    monkeypatch.setattr("fireside.server.chat.runs.journal._FIRST_PAUSE", 0.02)
    context = context_of(app)
    async with context.database.session() as session:
        await session.execute(text("ALTER TABLE run_journal RENAME TO elsewhere"))
    started = await ada.ask(await ada.converse(title="t"), "Hi")
    listening = asyncio.create_task(ada.events(started["run"]["id"]))
    await asyncio.sleep(0.2)
    assert not listening.done()
    async with context.database.session() as session:
        await session.execute(text("ALTER TABLE elsewhere RENAME TO run_journal"))
    assert said(await asyncio.wait_for(listening, 5)) == "Hello there."


@pytest.mark.parametrize("migrated_database", ["postgresql"], indirect=True)
async def test_a_lost_connection_to_postgresql_loses_nothing(
    app: FastAPI, ada: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fireside.server.chat.runs.journal._FIRST_PAUSE", 0.02)
    script.answer = says(LONG, delay=0.01)
    conversation = await ada.converse(title="t")
    started = await ada.ask(conversation, "Hi")
    for _ in range(2):
        await asyncio.sleep(0.15)
        async with context_of(app).database.session() as session:
            await session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
    assert said(await ada.events(started["run"]["id"])) == LONG
    assert (await ada.message(conversation, started["answer"]["id"]))["content"] == LONG


async def test_a_person_who_is_deleted_takes_nobody_along(
    ada: Person, bob: Person, app: FastAPI, script: Scripted
) -> None:
    """The events of both are written together, and the end of one has nowhere to go."""
    script.answer = says(LONG * 5, delay=0.002)
    gone = await ada.ask(await ada.converse(title="t"), "Hi")
    stays = await bob.ask(await bob.converse(title="t"), "Hi")
    listening = asyncio.create_task(ada.events(gone["run"]["id"]))
    await asyncio.sleep(0.1)
    async with context_of(app).database.session() as session:
        user_id = (await session.scalars(select(User.id).where(User.name == "ada"))).one()
        await session.execute(delete(User).where(User.id == user_id))
    context_of(app).runs.abandon(user_id)
    await asyncio.sleep(0.02)
    assert script.client.in_flight == 1
    assert said(await bob.events(stays["run"]["id"])) == LONG * 5
    await asyncio.wait_for(listening, 5)
    assert await _rows(app) == [2, 1, 0]


async def test_what_is_written_for_a_person_who_is_disabled_ends(
    ada: Person, bob: Person, app: FastAPI, script: Scripted
) -> None:
    script.answer = ScriptedAnswer(token_ids=[ord("x")] * 5000, delay=0.005)
    kept = await bob.ask(await bob.converse(title="t"), "Hi")
    await bob.post("temporary", {"messages": [{"role": "user", "content": "Hi"}]})
    await ada.ask(await ada.converse(title="t"), "Hi")
    async with context_of(app).database.session() as session:
        await session.execute(update(User).where(User.name == "ada").values(role="admin"))
        user_id = (await session.scalars(select(User.id).where(User.name == "bob"))).one()
    await until(lambda: script.client.in_flight == 3, 10)
    await ada.patch(f"admin/users/{user_id}", {"disabled": True})
    await until(lambda: script.client.in_flight == 1, 10)  # Ada's goes on
    await bob.get("conversations", 401)
    await until(lambda: context_of(app).runs.find(kept["run"]["id"]) is None, 10)
    async with context_of(app).database.session() as session:
        run = (await session.scalars(select(Run).where(Run.id == kept["run"]["id"]))).one()
    assert run.status == Status.STOPPED


# Temporary chats


async def test_only_so_many_temporary_answers_are_kept_for_a_person(
    ada: Person, bob: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fireside.server.chat.runs.hub.MAX_TEMPORARY_KEPT", 3)
    script.answer = says("Hi.")
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    other = (await bob.post("temporary", chat))["run"]["id"]
    runs = []
    for _ in range(5):
        runs.append((await ada.post("temporary", chat))["run"]["id"])
        await ada.events(runs[-1])
    await asyncio.sleep(0.05)
    assert [(await ada.http.get(f"/api/runs/{run}")).status_code for run in runs] == [404, 404, 200, 200, 200]
    await bob.get(f"runs/{other}")


async def test_a_temporary_chat_touches_no_table(ada: Person, app: FastAPI, script: Scripted) -> None:
    script.answer = says(LONG, delay=0.002)
    body = {
        "messages": [
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"},
        ],
        "parameters": {"system": "Be brief."},
    }
    before = await _rows(app)
    run = (await ada.post("temporary", body))["run"]
    assert run["status"] == "running" and run["message_id"] is None
    both = await asyncio.gather(ada.events(run["id"]), ada.events(run["id"]))
    assert both[0] == both[1] and said(both[0]) == LONG
    assert await ada.events(run["id"], 3) == both[0][3:]
    assert (await ada.get(f"runs/{run['id']}"))["status"] == "complete"
    assert script.prompt(-1) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\n3<|im_end|>\n<|im_start|>assistant\n"
    )
    assert await _rows(app) == before
    await ada.post("temporary", {"messages": body["messages"][:2]}, 400)


async def test_a_temporary_run_is_stopped_and_forgotten(
    ada: Person, bob: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fireside.server.chat.runs.hub.TEMPORARY_KEPT_SECONDS", 0.05)
    script.answer = ScriptedAnswer(token_ids=[ord("x")] * 2000, delay=0.005)
    run = (await ada.post("temporary", {"messages": [{"role": "user", "content": "Hi"}]}))["run"]["id"]
    await bob.get(f"runs/{run}", 404)
    await bob.post(f"runs/{run}/stop", status=404)
    assert (await ada.post(f"runs/{run}/stop", status=200))["status"] == "stopped"
    await asyncio.sleep(0.1)
    await ada.get(f"runs/{run}", 404)


async def _rows(app: FastAPI) -> list[int | None]:
    async with context_of(app).database.session() as session:
        return [await session.scalar(select(func.count()).select_from(table)) for table in (Message, Run, JournalEntry)]
