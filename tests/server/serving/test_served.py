"""Models that are loaded, made the default, remembered and unloaded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from fireside.engine.client import EngineState
from fireside.models.local import DamagedModel
from fireside.server.serving import served as served_module
from fireside.server.serving.served import ServedModels
from fireside.server.serving.tables import ServedModel
from fireside.settings import Settings
from tests.server.accounts.people import code_of, context_of, join, set_up, sign_in
from tests.server.chat.people import Person
from tests.server.scripted_app import Scripted, ScriptedLibrary
from tests.server.serving.models_room import USER, do, load, says_of, served, states, until_it_is, view
from tests.waiting import Pause, until


async def test_a_model_is_loaded_and_unloaded(ada: httpx.AsyncClient) -> None:
    assert await states(ada) == {"tiny": "ready", "second": "available"}
    refused = await ada.post("/v1/chat/completions", json={"model": "second", "messages": USER})
    assert code_of(refused) == (404, "model_not_found")
    await load(ada)
    await load(ada)  # again, which is nothing
    assert await states(ada) == {"tiny": "ready", "second": "ready"}
    assert await served(ada) == [["tiny", "second"]] * 4
    assert await says_of(ada, "second") == "I am the second."
    assert await says_of(ada, "tiny") == await says_of(ada, "default") == "Hello there."
    assert (await do(ada, "unload")).status_code == 202
    await until_it_is(ada, "available")
    assert await served(ada) == [["tiny"]] * 4
    refused = await ada.post("/v1/chat/completions", json={"model": "second", "messages": USER})
    assert code_of(refused) == (404, "model_not_found")
    actions = [entry["action"] for entry in (await ada.get("/api/admin/audit")).json()["items"]]
    assert actions[:3] == ["model_unloaded", "model_loaded", "model_loaded"]


async def test_what_cannot_be_done(ada: httpx.AsyncClient, library: ScriptedLibrary) -> None:
    for action in ("load", "unload", "restart"):
        assert code_of(await do(ada, action, "../../etc"))[0] == 404
        assert code_of(await do(ada, action, "no-such")) == (404, "model_not_found")
        assert (await do(ada, action, "x" * 300)).status_code == 400
    assert code_of(await do(ada, "unload", "tiny")) == (409, "is_default")
    assert code_of(await do(ada, "unload", when="later")) == (400, "invalid_value")
    assert (await ada.patch("/api/admin/models/second", json={"is_default": False})).status_code == 400
    assert code_of(await ada.patch("/api/admin/models/second", json={"is_default": True})) == (404, "model_not_found")
    whole = library.models

    def models() -> dict[str, Any]:
        return whole() | {"broken": DamagedModel("broken", Path("broken"), "broken/model.gguf ends too early")}

    library.models = models  # type: ignore[method-assign]
    assert (await view(ada, "broken"))["reason"] == "broken/model.gguf ends too early"
    response = await do(ada, "load", "broken")
    assert code_of(response) == (409, "model_damaged") and "ends too early" in response.text


async def test_another_default(ada: httpx.AsyncClient, app: FastAPI) -> None:
    await load(ada)
    context_of(app).models.get("second").engine.crash()  # type: ignore[attr-defined]
    response = await ada.patch("/api/admin/models/second", json={"is_default": True})
    assert code_of(response) == (409, "model_not_ready")
    await context_of(app).models.get("second").engine.start()
    response = await ada.patch("/api/admin/models/second", json={"is_default": True})
    assert [(item["name"], item["is_default"]) for item in response.json()["items"]] == [
        ("second", True),
        ("tiny", False),
    ]
    assert await served(ada) == [["second", "tiny"], ["second", "tiny"], ["second", "tiny"], ["tiny", "second"]]
    assert await says_of(ada, "default") == "I am the second."
    assert code_of(await do(ada, "unload")) == (409, "is_default")
    assert (await do(ada, "unload", "tiny")).status_code == 202
    assert [model["id"] for model in (await ada.get("/v1/models")).json()["data"]] == ["second"]


async def test_another_default_lasts(start: Callable[..., FastAPI]) -> None:
    """The next server begins with what the settings say, and finds what was chosen; another setting is heeded."""
    app = start()
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        await load(ada)
        response = await ada.patch("/api/admin/models/second", json={"is_default": True})
        assert response.status_code == 200
    for setting, default in (("smollm2-135m", "second"), ("another", "tiny")):
        app = start(model=setting)
        async with app.router.lifespan_context(app):
            models = context_of(app).models
            await until(partial(models.knows, "second"), 5)
            await asyncio.gather(*context_of(app).served._tasks)
            assert models.default.name == default, setting


async def test_a_default_that_comes_back_late_gives_way_to_one_chosen_meanwhile(
    start: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start()
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        await load(ada)
        await until_it_is(ada, "ready")
        await ada.patch("/api/admin/models/second", json={"is_default": True})
    app, pause = start(), Pause()
    engine = context_of(app).models.get("tiny").engine
    monkeypatch.setattr(engine, "wait_ready", pause.before(engine.wait_ready))
    async with app.router.lifespan_context(app):
        ada = await sign_in(app, "Ada")
        await pause.is_there.wait()
        assert (await ada.patch("/api/admin/models/tiny", json={"is_default": True})).status_code == 200
        pause.go.set()
        await until_it_is(ada, "ready")
        assert context_of(app).models.default.name == "tiny"


async def test_an_option_at_the_start_wins_over_what_was_chosen(start: Callable[..., FastAPI]) -> None:
    """The way out for a default that cannot be loaded."""
    app = start()
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        await load(ada)
        await ada.patch("/api/admin/models/second", json={"is_default": True})
    app = start()
    context = context_of(app)
    context.served = ServedModels(
        _given(context.settings), context.models, context.database, context.runs, context.served._library
    )
    async with app.router.lifespan_context(app):
        await asyncio.gather(*context.served._tasks)
        assert [model.name for model in context.models] == ["tiny", "second"]


def _given(settings: Settings) -> Settings:
    given = settings.model_copy()
    given._sources = {"model": "option"}
    return given


async def test_what_was_loaded_is_loaded_again(start: Callable[..., FastAPI]) -> None:
    app = start()
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        await load(ada)
        await ada.patch("/api/admin/models/second", json={"parameters": {"temperature": 0.1}})
    app = start()
    async with app.router.lifespan_context(app):
        models = context_of(app).models
        assert models.parameters == {"second": {"temperature": 0.1}}
        await asyncio.gather(*context_of(app).served._tasks)
        assert models.get("second").engine.state is EngineState.READY
    app = start(library={})  # its files are no longer there
    async with app.router.lifespan_context(app):
        ada = await sign_in(app, "Ada")
        await until_it_is(ada, "failed")
        assert "there is no model 'second'" in (await view(ada, "second"))["reason"]
        assert await says_of(ada, "default") == "Hello there."


async def test_there_must_be_memory_for_it(ada: httpx.AsyncClient, library: ScriptedLibrary) -> None:
    library.free = 500_000_000
    response = await do(ada, "load")
    assert code_of(response) == (409, "not_enough_memory")
    assert "second needs about 1.0 GB of memory, and 0.5 GB are free: unload another" in response.text
    assert await states(ada) == {"tiny": "ready", "second": "available"}
    library.free = 1_100_000_000
    await load(ada)
    # A quarter of what the weights leave.
    assert library.caches["second"] == 100_000_000 // 4


async def test_a_cache_that_is_not_filled_yet_is_spoken_for(
    ada: httpx.AsyncClient, library: ScriptedLibrary, second: Scripted
) -> None:
    library.free = 10_000_000_000
    library.scripts["third"] = second
    before = (await ada.get("/api/admin/models")).json()["free_bytes"]
    await load(ada)
    # Its engine has 128 blocks of 16 tokens of 10,000 bytes, none of which has been touched.
    after = (await ada.get("/api/admin/models")).json()["free_bytes"]
    assert before - after == 128 * 16 * 10_000
    library.opened["second"]._state = EngineState.STARTING  # and before it is ready, all that it will take
    least = library.NEED
    free = (await ada.get("/api/admin/models")).json()["free_bytes"]
    assert free == 10_000_000_000 - least.weights - least.cache(10_000_000_000)


async def test_a_failed_one_is_started_again(ada: httpx.AsyncClient, app: FastAPI, library: ScriptedLibrary) -> None:
    await load(ada)
    library.opened["second"].crash(EngineState.FAILED, "its weights are damaged")
    failed = await view(ada, "second")
    assert (failed["state"], failed["reason"]) == ("failed", "its weights are damaged")
    response = await ada.post("/v1/chat/completions", json={"model": "second", "messages": USER})
    assert code_of(response) == (503, "engine_unavailable")
    assert (await do(ada, "restart")).status_code == 202
    assert (await states(ada))["second"] == "ready"
    assert await says_of(ada, "second") == "I am the second."
    assert code_of(await do(ada, "restart", "tiny")) == (404, "model_not_found")  # whose files are not there


async def test_parameters_hold_where_nobody_says_otherwise(
    ada: httpx.AsyncClient, app: FastAPI, script: Scripted
) -> None:
    parameters = {"temperature": 0.25, "top_p": 0.5, "max_tokens": 9, "system": "Be brief."}
    response = await ada.patch("/api/admin/models/tiny", json={"parameters": parameters})
    assert response.status_code == 200
    assert {k: v for k, v in (await view(ada, "tiny"))["parameters"].items() if v is not None} == parameters
    person = Person(await join(app, "Bob"))
    conversation = await person.converse()
    await person.asked(conversation, "Hi")
    request = next(r for r in script.client.requests if r.id.startswith("run-"))
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.max_tokens) == (0.25, 0.5, 9)
    assert "<|im_start|>system\nBe brief.<|im_end|>" in script.prompt(script.client.requests.index(request))
    own = {"temperature": 1.5, "system": "Be long."}
    _, answer = await person.asked(await person.converse(parameters=own), "Hi")
    request = next(r for r in script.client.requests if r.id == f"run-{answer['run_id']}")
    assert (request.sampling.temperature, request.sampling.top_p) == (1.5, 0.5)
    assert "system\nBe long.<|im_end|>" in script.prompt(script.client.requests.index(request))
    temporary = await person.post("temporary", {"messages": USER})
    await person.events(temporary["run"]["id"])
    assert script.client.requests[-1].sampling.temperature == 0.25
    # A program says for itself.
    await ada.post("/v1/chat/completions", json={"messages": USER})
    assert script.client.requests[-1].sampling.temperature == 1.0
    for wrong in ({"temperature": 3}, {"top_p": 0}, {"system": "x" * 40_000}, {"speed": 1}):
        response = await ada.patch("/api/admin/models/tiny", json={"parameters": wrong})
        assert response.status_code == 400, wrong
    assert (await ada.patch("/api/admin/models/tiny", json={"parameters": {}})).status_code == 200
    assert set((await view(ada, "tiny"))["parameters"].values()) == {None}


@pytest.mark.parametrize("is_here", [True, False])
async def test_one_that_could_not_be_restored_is_tried_again_or_given_up(
    start: Callable[..., FastAPI], second: Scripted, is_here: bool
) -> None:
    app = start()
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        await load(ada)
        await ada.patch("/api/admin/models/second", json={"is_default": True, "parameters": {"top_p": 0.5}})
    app = start(library={"second": second} if is_here else {})
    library = context_of(app).served._library
    assert isinstance(library, ScriptedLibrary)
    library.free = 0
    async with app.router.lifespan_context(app):
        ada = await sign_in(app, "Ada")
        await until_it_is(ada, "failed")
        failed = await view(ada, "second")
        assert (failed["is_served"], (await view(ada, "tiny"))["is_served"]) == (False, True)
        assert (await do(ada, "load")).status_code == (409 if is_here else 404)
        if is_here:
            library.free = 10**11
            await load(ada)
            assert (await states(ada))["second"] == "ready"
            await do(ada, "unload")
            await until_it_is(ada, "available")
            context_of(app).served._problems["second"] = "as it was"
            await context_of(app).served._remember("second", is_loaded=True, chosen_over="smollm2-135m")
        assert (await do(ada, "unload")).status_code == 202
        assert (await states(ada)).get("second") == ("available" if is_here else None)
        assert code_of(await do(ada, "unload")) == (404, "model_not_found")
    app = start()
    async with app.router.lifespan_context(app):
        await asyncio.gather(*context_of(app).served._tasks)
        assert not context_of(app).models.knows("second")
        assert context_of(app).models.parameters == ({"second": {"top_p": 0.5}} if is_here else {})


async def test_a_cache_that_the_settings_size_is_what_it_needs(
    ada: httpx.AsyncClient, library: ScriptedLibrary
) -> None:
    library.NEED = replace(library.NEED, set_cache=3_000_000_000)  # type: ignore[misc]
    library.free = 3_900_000_000
    assert code_of(await do(ada, "load")) == (409, "not_enough_memory")
    library.free = 4_000_000_000
    await load(ada)
    library.opened["second"]._state = EngineState.STARTING
    assert (await ada.get("/api/admin/models")).json()["free_bytes"] == 0


async def test_files_are_read_in_threads(
    ada: httpx.AsyncClient, library: ScriptedLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = set()

    def noted(read: Callable[..., Any]) -> Callable[..., Any]:
        def note(*args: Any) -> Any:
            readers.add(threading.current_thread())
            return read(*args)

        return note

    for name in ("models", "need", "free_memory", "open"):
        monkeypatch.setattr(library, name, noted(getattr(library, name)))
    await load(ada)
    await ada.get("/api/admin/models")
    await do(ada, "restart")
    assert readers and threading.current_thread() not in readers


async def test_the_default_is_remembered_whole_or_not_at_all(
    ada: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(ada)
    write = served_module._write

    async def fail(session: Any, name: str, **values: Any) -> None:
        await write(session, name, **values)
        if name == "second":
            raise RuntimeError

    monkeypatch.setattr(served_module, "_write", fail)
    assert (await ada.patch("/api/admin/models/second", json={"is_default": True})).status_code == 500
    assert context_of(app).models.default.name == "tiny"
    async with context_of(app).database.session() as session:
        rows = (await session.execute(select(ServedModel.name, ServedModel.chosen_over))).all()
    assert [tuple(row) for row in rows] == [("second", None)]
