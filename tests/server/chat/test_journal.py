"""Writing what runs say: what can never be written harms nobody else, and what cannot be just now waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, event, func, select, text

from fireside.engine.messages import GenerationRequest
from fireside.engine.scripted import ScriptedAnswer
from fireside.server.chat.runs import hub as hub_module
from fireside.server.chat.runs.answering import Answered
from fireside.server.chat.runs.hub import RunHub
from fireside.server.chat.runs.live import Event
from fireside.server.chat.tables import JournalEntry, Message, Run, Status
from fireside.server.db.base import new_id
from fireside.server.db.trouble import is_for_good, may_pass
from tests.server.accounts.people import context_of
from tests.server.chat.people import Person, said
from tests.server.scripted_app import Scripted, byte_tokenizer, says

LONG = "It was a dark and stormy night; the rain fell in torrents. " * 3


def bad_when(question: str) -> Callable[[GenerationRequest], ScriptedAnswer]:
    def answer(request: GenerationRequest) -> ScriptedAnswer:
        is_bad = question in byte_tokenizer().decode(request.prompt_ids, skip_special_tokens=False)
        return says("Fine. Fine. Fine. Fine. Then: @", delay=0.004) if is_bad else says(LONG, delay=0.002)

    return answer


async def test_a_temporary_one_that_cannot_be_said_ends_as_well(
    ada: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write_answer(plan: Any, fitted: Any, metrics: Any, emit: Callable[[Event], None]) -> Answered:
        emit({"type": "text", "text": "\ud83d"})
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(hub_module, "write_answer", write_answer)
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    runs = [(await ada.post("temporary", body))["run"]["id"] for _ in range(2)]
    for run in runs:
        assert (await asyncio.wait_for(ada.events(run), 5))[-1][1]["error"]["code"] == "not_storable"


@pytest.mark.parametrize("character", ["\0", "\ud83d"])
async def test_one_that_can_never_be_written_ends_alone(
    character: str, ada: Person, app: FastAPI, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if what keeps such characters away from here had a hole. SQLite takes the first of them."""
    script.answer = bad_when("bad")

    async def write_answer(plan: Any, fitted: Any, metrics: Any, emit: Callable[[Event], None]) -> Answered:
        def damaged(said: Event) -> None:
            emit({"type": "text", "text": said["text"].replace("@", character)} if said["type"] == "text" else said)

        return await real(plan, fitted, metrics, damaged)

    real = hub_module.write_answer
    monkeypatch.setattr(hub_module, "write_answer", write_answer)
    good = await ada.ask(await ada.converse(title="t"), "good")
    conversation = await ada.converse(title="t")
    bad = await ada.ask(conversation, "bad")
    events, others = await asyncio.wait_for(
        asyncio.gather(ada.events(bad["run"]["id"]), ada.events(good["run"]["id"])), 30
    )
    assert said(others) == LONG
    message = await ada.message(conversation, bad["answer"]["id"])
    if character == "\0" and context_of(app).database.is_sqlite:
        assert message["status"] == "complete"
        return
    assert events[-1][1] == {
        "type": "done",
        "status": "failed",
        "finish_reason": None,
        "error": {"message": "the rest of this answer cannot be stored: try again", "code": "not_storable"},
        "is_pruned": False,
    }
    assert (message["status"], message["error"]["code"]) == ("failed", "not_storable")
    assert message["content"].startswith("Fine.") and said(events).startswith("Fine.")
    assert (await ada.get(f"runs/{bad['run']['id']}"))["status"] == "failed"
    assert script.client.in_flight == 0
    async with context_of(app).database.session() as session:
        assert await session.scalar(select(func.count()).select_from(JournalEntry)) == 0
    monkeypatch.undo()
    again = await ada.post(f"messages/{bad['answer']['id']}/continue")
    await ada.events(again["run"]["id"])
    assert (await ada.message(conversation, bad["answer"]["id"]))["status"] == "complete"


@pytest.mark.parametrize("migrated_database", ["sqlite"], indirect=True)
async def test_a_full_disk_is_waited_for(ada: Person, app: FastAPI, script: Scripted) -> None:
    """SQLite's own answer to a disk without room, by its bound on pages."""
    engine = context_of(app).database._engine.sync_engine
    most_pages = 1

    def bound(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {most_pages}")

    script.answer = says(LONG * 8, delay=0.01, tokens_per_output=200)
    conversations = [await ada.converse(title="t") for _ in range(8)]
    started = [await ada.ask(conversation, "Hi") for conversation in conversations]
    event.listen(engine, "begin", bound)
    listening = [asyncio.create_task(ada.events(answer["run"]["id"])) for answer in started]
    refused = await ada.http.post("/api/conversations", json={"title": "x" * 200, "parameters": {"system": "x" * 9999}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
    assert refused.headers["retry-after"]
    await asyncio.sleep(0.4)
    assert not any(task.done() for task in listening)
    most_pages = 1_000_000
    for events in await asyncio.wait_for(asyncio.gather(*listening), 30):
        assert said(events) == LONG * 8
    for conversation, answer in zip(conversations, started, strict=True):
        assert (await ada.message(conversation, answer["answer"]["id"]))["content"] == LONG * 8


async def test_a_commit_whose_news_was_lost_is_not_written_twice(
    ada: Person, app: FastAPI, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fireside.server.chat.runs.journal._FIRST_PAUSE", 0.01)
    journal = context_of(app).runs._journal
    execute, failures = journal._execute, 0

    async def loses_the_news(pieces: Any) -> None:
        nonlocal failures
        await execute(pieces)
        if failures < 3:
            failures += 1
            raise ConnectionResetError("gone")

    monkeypatch.setattr(journal, "_execute", loses_the_news)
    script.answer = says(LONG, delay=0.002)
    started = await ada.ask(await ada.converse(title="t"), "Hi")
    events = ada.events(started["run"]["id"])
    listening = asyncio.create_task(events)
    await asyncio.sleep(0.1)
    async with context_of(app).database.session() as session:
        lines = [line for (entry,) in await session.execute(select(JournalEntry.events)) for line in entry.split("\n")]
    assert len(lines) == len(set(lines))
    assert said(await listening) == LONG and failures == 3


async def test_an_entry_that_cannot_be_read_keeps_no_server_from_starting(
    ada: Person, app: FastAPI, script: Scripted
) -> None:
    script.answer = says("Once")
    context = context_of(app)
    answers = []
    for _ in range(2):
        conversation = await ada.converse(title="t")
        answers.append((conversation, (await ada.asked(conversation, "Hi"))[1]["id"]))
    async with context.database.session() as session:
        user_id = (await session.scalars(select(Run.user_id).limit(1))).one()
        for number, (conversation, answer_id) in enumerate(answers):
            run_id = new_id()
            message = (await session.scalars(select(Message).where(Message.id == answer_id))).one()
            message.status, message.run_id = Status.RUNNING, run_id
            session.add(Run(id=run_id, user_id=user_id, conversation_id=conversation, message_id=answer_id))
            lines = "no JSON" if number == 0 else '{"type":"text","text":" upon"}'
            session.add(JournalEntry(number=number, run_id=run_id, events=lines))
    hub = RunHub(context.database, context.metrics)
    await hub.start()
    await hub.close()
    found = [await ada.message(*where) for where in answers]
    assert [(m["status"], m["content"]) for m in found] == [("failed", "Once"), ("interrupted", "Once upon")]


async def test_what_is_for_good_and_what_is_not(app: FastAPI, ada: Person) -> None:
    """As the drivers themselves say it."""
    database = context_of(app).database
    for statement, expected in (
        ("INSERT INTO run_journal VALUES (1, 'a', 'b'), (1, 'a', 'b')", True),
        ("INSERT INTO run_journal VALUES (1, 'a', NULL)", True),
        ("INSERT INTO no_such_table VALUES (1)", False),
    ):
        with pytest.raises(Exception) as caught:
            async with database.session() as session:
                await session.execute(text(statement))
        assert is_for_good(caught.value) is expected, caught.value
        assert not may_pass(caught.value)
    assert not is_for_good(ConnectionResetError("gone")) and may_pass(ConnectionResetError("gone"))
