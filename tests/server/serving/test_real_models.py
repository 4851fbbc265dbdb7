"""With workers in processes of their own, and models from the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from fastapi import FastAPI

from fireside.cli.serving import _first_model
from fireside.engine.client import EngineState
from fireside.server.app import create_app
from fireside.server.serving.remembered import remembered_default
from fireside.settings import Settings
from tests.engine.tiny_model import write_tiny_model
from tests.server.accounts.people import context_of, set_up, sign_in
from tests.server.databases import migrated_sqlite
from tests.waiting import until

USER = [{"role": "user", "content": "Hi"}]


async def ready(app: FastAPI, name: str) -> None:
    async with asyncio.timeout(60):
        await context_of(app).models.get(name).engine.wait_ready()


async def says(ada: httpx.AsyncClient, model: str) -> str:
    body = {"model": model, "messages": USER, "max_tokens": 4, "temperature": 0}
    response = await ada.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


async def test_two_at_once_and_again_after_a_restart(tmp_path: Path) -> None:
    for name, layers in (("one", 1), ("two", 2)):
        write_tiny_model(tmp_path / "models" / name, num_hidden_layers=layers)
    (tmp_path / "logs").mkdir()
    (tmp_path / "fireside.db").write_bytes(migrated_sqlite())
    settings = Settings(home=tmp_path, model="one", kv_cache_memory="1 MiB", threads=1, draft_model=None)
    assert remembered_default(settings) is None and _first_model(settings).name == "one"
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        response = await ada.post("/api/admin/models/two/load")
        assert response.status_code == 202, response.text
        two = next(item for item in response.json()["items"] if item["name"] == "two")
        assert (two["format"], two["architecture"], two["context_length"]) == ("safetensors", "LlamaForCausalLM", 512)
        assert two["needs_bytes"] > two["size_bytes"] > 0
        await asyncio.gather(ready(app, "one"), ready(app, "two"))
        pids = {model.name: model.engine.worker_pid for model in context_of(app).models}  # type: ignore[attr-defined]
        assert len(set(pids.values())) == 2 and None not in pids.values()
        said = [await says(ada, name) for name in ("one", "two")]
        assert (await ada.patch("/api/admin/models/two", json={"is_default": True})).status_code == 200
    assert remembered_default(settings) == "two" and _first_model(settings).name == "two"
    assert remembered_default(settings.model_copy(update={"model": "else"})) is None
    given = settings.model_copy()
    given._sources = {"model": "option"}  # fireside serve --model one
    assert remembered_default(given) is None and _first_model(given).name == "one"

    again = create_app(settings)
    async with again.router.lifespan_context(again):
        models = context_of(again).models
        await until(lambda: models.default.name == "two" and models.default.engine.state is EngineState.READY, 30)
        ada = await sign_in(again, "Ada")
        assert [await says(ada, name) for name in ("one", "two")] == said
        assert (await ada.post("/api/admin/models/one/unload", json={})).status_code == 202
        await until(lambda: not context_of(again).served._leaving, 30)
        assert [model.name for model in models] == ["two"]
