"""Models that are unloaded or started again while they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.engine.client import EngineState
from fireside.server.chat import messages
from tests.server.accounts.people import code_of, context_of, set_up, sign_in
from tests.server.chat.people import Person
from tests.server.chat.test_meanwhile import commits_by
from tests.server.scripted_app import Scripted, ScriptedLibrary, says
from tests.server.serving.models_room import USER, do, load, says_of, served, states, until_it_is, view
from tests.waiting import Pause, until

SLOW = says("A long answer, of many words. " * 4, delay=0.01)


@pytest.fixture
async def writing(ada: httpx.AsyncClient, app: FastAPI, second: Scripted) -> dict[str, Any]:
    """What was started: an answer in the app that the second model is writing."""
    second.answer = SLOW
    await load(ada)
    person = Person(ada)
    conversation = await person.converse(model="second", title="Mine")  # so that no title is written
    started = await person.ask(conversation, "Tell me")
    client = context_of(app).models.get("second").engine
    await until(lambda: client.stats.generated_tokens > 20, 5)
    return {"person": person, "conversation": conversation, **started}


async def test_unloading_asks_while_answers_are_written(
    ada: httpx.AsyncClient, writing: dict[str, Any], library: ScriptedLibrary
) -> None:
    assert (await view(ada, "second"))["answering"] == 1
    response = await do(ada, "unload")
    assert code_of(response) == (409, "answers_running") and "1 answers" in response.text
    assert (await do(ada, "unload", when="finished")).status_code == 202
    assert (await states(ada))["second"] == "unloading"
    assert await served(ada) == [["tiny"]] * 4  # nobody gets it any more
    assert code_of(await do(ada, "load")) == (409, "unloading")
    person: Person = writing["person"]
    await person.events(writing["run"]["id"])
    answer = await person.message(writing["conversation"], writing["answer"]["id"])
    assert (answer["status"], answer["content"]) == ("complete", "A long answer, of many words. " * 4)
    await until(lambda: library.opened["second"].state is EngineState.CLOSED, 5)
    await until_it_is(ada, "available")


@pytest.mark.parametrize("first", ["now", "finished"])
async def test_an_answer_is_interrupted_and_another_model_continues_it(
    ada: httpx.AsyncClient, writing: dict[str, Any], library: ScriptedLibrary, script: Scripted, first: str
) -> None:
    assert (await do(ada, "unload", when=first)).status_code == 202
    if first == "finished":  # that takes too long
        assert (await do(ada, "unload", when="now")).status_code == 202
    person: Person = writing["person"]
    events = await person.events(writing["run"]["id"])
    assert events[-1][1]["status"] == "interrupted"
    answer = await person.message(writing["conversation"], writing["answer"]["id"])
    assert answer["status"] == "interrupted" and answer["content"].startswith("A long answer")
    assert answer["error"]["code"] == "model_unloaded" and "another can continue it" in answer["error"]["message"]
    await until(lambda: library.opened["second"].state is EngineState.CLOSED, 5)
    script.answer = says("That is all.")
    started = await person.post(f"messages/{answer['id']}/continue")
    await person.events(started["run"]["id"])
    continued = await person.message(writing["conversation"], answer["id"])
    assert (continued["status"], continued["model"]) == ("complete", "tiny")
    assert continued["content"] == answer["content"] + "That is all."


async def test_programs_that_stream_are_told(ada: httpx.AsyncClient, app: FastAPI, second: Scripted) -> None:
    second.answer = SLOW
    await load(ada)
    body = {"model": "second", "messages": USER, "stream": True}
    asking = asyncio.create_task(ada.post("/v1/chat/completions", json=body))
    client = context_of(app).models.get("second").engine
    await until(lambda: client.stats.generated_tokens > 20, 5)
    assert code_of(await do(ada, "unload")) == (409, "answers_running")
    assert (await do(ada, "unload", when="now")).status_code == 202
    response = await asking
    assert "engine_unavailable" in response.text


async def test_models_come_and_go_while_many_ask(ada: httpx.AsyncClient, app: FastAPI, second: Scripted) -> None:
    """Every request ends in an answer or a refusal that says why, and nothing is left behind."""
    second.answer = says("I am the second, at length. " * 3, delay=0.001)

    async def ask(number: int) -> tuple[int, str | None]:
        await asyncio.sleep(number * 0.004)
        return code_of(await ada.post("/v1/chat/completions", json={"model": "second", "messages": USER}))

    asked = [asyncio.create_task(ask(number)) for number in range(60)]
    for _ in range(6):
        assert (await do(ada, "load")).status_code in (202, 409)  # it may still be going
        await asyncio.sleep(0.02)
        assert (await do(ada, "unload", when="now")).status_code in (202, 404)
        await asyncio.sleep(0.02)
    answers = await asyncio.gather(*asked)
    assert set(answers) <= {(200, None), (404, "model_not_found"), (503, "engine_unavailable")}
    await until_it_is(ada, "available")
    assert context_of(app).served._leaving == {}
    assert await says_of(ada, "tiny") == "Hello there."


async def test_a_server_that_ends_interrupts_what_a_leaving_model_writes(
    start: Callable[..., FastAPI], second: Scripted
) -> None:
    second.answer = says("A long answer, of many words. " * 20, delay=0.01)
    app = start()
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        await load(ada)
        person = Person(ada)
        conversation = await person.converse(model="second", title="Mine")
        started = await person.ask(conversation, "Tell me")
        await until(lambda: context_of(app).models.get("second").engine.stats.generated_tokens > 20, 5)
        assert (await do(ada, "unload", when="finished")).status_code == 202
    app = start()
    async with app.router.lifespan_context(app):
        answer = await Person(await sign_in(app, "Ada")).message(conversation, started["answer"]["id"])
    assert (answer["status"], answer["error"]["code"]) == ("interrupted", "interrupted")
    assert answer["content"].startswith("A long answer")


async def test_a_restart_that_cannot_be_leaves_the_model_as_it_is(
    ada: httpx.AsyncClient, writing: dict[str, Any], library: ScriptedLibrary
) -> None:
    old = library.opened["second"]
    assert code_of(await do(ada, "restart")) == (409, "answers_running")
    library.free = -1_000_001  # with its own gigabyte, there is room for its weights and not for a cache
    assert code_of(await do(ada, "restart", when="now")) == (409, "not_enough_memory")
    script = library.scripts.pop("second")
    assert code_of(await do(ada, "restart", when="now")) == (404, "model_not_found")
    assert old.state is EngineState.READY and (await view(ada, "second"))["answering"] == 1
    library.scripts["second"] = script
    library.free = 20_480_000
    assert (await do(ada, "restart", when="now")).status_code == 202
    assert (old.state, library.opened["second"].state) == (EngineState.CLOSED, EngineState.READY)
    events = await writing["person"].events(writing["run"]["id"])
    assert events[-1][1]["status"] == "interrupted"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": USER, "n": 2}),
        ("completions", {"prompt": ["Hi", "Ho"], "echo": True, "max_tokens": 5}),
    ],
)
async def test_an_answer_counts_from_its_request_on(
    ada: httpx.AsyncClient, app: FastAPI, path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(ada)
    model = context_of(app).models.get("second")
    encode, may_go_on, is_asked = model.encode, asyncio.Event(), asyncio.Event()

    async def slowly(*args: Any, **options: Any) -> Any:
        is_asked.set()
        await may_go_on.wait()
        return await encode(*args, **options)

    monkeypatch.setattr(model, "encode", slowly)
    asking = asyncio.create_task(ada.post(f"/v1/{path}", json={"model": "second", **body}))
    await is_asked.wait()
    assert code_of(await do(ada, "unload")) == (409, "answers_running")
    assert (await do(ada, "unload", when="finished")).status_code == 202
    may_go_on.set()
    response = await asking
    assert response.status_code == 200, response.text
    await until_it_is(ada, "available")


@pytest.mark.parametrize("step", ["chosen", "committed"])
async def test_an_answer_in_the_app_is_written_by_the_model_that_was_chosen(
    ada: httpx.AsyncClient, app: FastAPI, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where any other name means the default."""
    context_of(app).models.map_unknown = True
    monkeypatch.setattr("fireside.server.serving.served._LOOK_SECONDS", 0.01)
    await load(ada)
    person, pause = Person(ada), Pause()
    conversation = await person.converse(model="second", title="Mine")
    if step == "chosen":
        monkeypatch.setattr(messages, "system_of", pause.before(messages.system_of))
    else:
        monkeypatch.setattr(messages, "send", commits_by(pause.behind(AsyncSession.commit), monkeypatch))
    asking = asyncio.create_task(person.ask(conversation, "Hi"))
    await pause.is_there.wait()
    assert code_of(await do(ada, "unload")) == (409, "answers_running")
    assert (await do(ada, "unload", when="finished")).status_code == 202
    await asyncio.sleep(0.05)  # several looks at whether it may go
    pause.go.set()
    started = await asking
    await person.events(started["run"]["id"])
    answer = await person.message(conversation, started["answer"]["id"])
    assert (answer["status"], answer["content"], answer["model"]) == ("complete", "I am the second.", "second")
    await until_it_is(ada, "available")


async def test_a_restart_that_waits_for_nobody_ends_no_answer_that_began_meanwhile(
    ada: httpx.AsyncClient, app: FastAPI, second: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    second.answer = SLOW
    await load(ada)
    old, pause = context_of(app).models.get("second"), Pause()
    # Between the first look and the end of the old one lie all the files.
    monkeypatch.setattr(context_of(app).served, "_reckon", pause.before(context_of(app).served._reckon))
    restarting = asyncio.create_task(do(ada, "restart"))
    await pause.is_there.wait()
    person = Person(ada)
    conversation = await person.converse(model="second", title="Mine")
    started = await person.ask(conversation, "Tell me")
    pause.go.set()
    assert code_of(await restarting) == (409, "answers_running")
    await person.events(started["run"]["id"])
    assert (await person.message(conversation, started["answer"]["id"]))["status"] == "complete"
    assert context_of(app).models.get("second") is old and old.engine.state is EngineState.READY
