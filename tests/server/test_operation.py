"""Health, metrics, tokens, and what the process costs before anybody asks anything."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fireside import __version__
from fireside.engine.client import EngineState
from fireside.engine.messages import EngineStats
from tests.server.scripted_app import Scripted, scripted_app

USER = [{"role": "user", "content": "Hi"}]


async def test_ready_follows_the_engine(http: httpx.AsyncClient, script: Scripted) -> None:
    assert (await http.get("/readyz")).status_code == 200
    script.client.crash()
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    error = response.json()["error"]
    assert (error["code"], error["message"]) == ("engine_unavailable", "tiny cannot answer yet: it is restarting")
    script.client.crash(EngineState.FAILED, "its weights are damaged")
    message = (await http.get("/readyz")).json()["error"]["message"]
    assert message == "tiny cannot answer: its weights are damaged"
    assert (await http.get("/healthz")).status_code == 200
    await script.client.start()
    assert (await http.get("/readyz")).status_code == 200


async def test_strangers_are_not_told_why_it_is_not_ready(script: Scripted) -> None:
    """With keys configured, /readyz is asked by those who have none, and a reason may name files."""
    app = scripted_app(script, api_keys="a-key")
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        script.client.crash(EngineState.FAILED, "/secret/path is damaged")
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert "secret" not in response.text


async def test_the_lifespan_starts_and_closes_the_engine(script: Scripted) -> None:
    app = scripted_app(script)
    assert script.client.state is EngineState.STARTING
    async with app.router.lifespan_context(app):
        assert script.client.state is EngineState.READY
    assert script.client.state is EngineState.CLOSED


async def test_version(http: httpx.AsyncClient) -> None:
    assert (await http.get("/version")).json() == {"version": __version__}


async def metric(http: httpx.AsyncClient, name: str, **labels: str) -> float:
    """Read by the official parser, which is what says that the format is right."""
    text = (await http.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"no {name} {labels} in:\n{text}")


async def test_metrics(http: httpx.AsyncClient, script: Scripted) -> None:
    await http.post("/v1/chat/completions", json={"messages": USER})
    await http.post("/v1/chat/completions", json={"messages": USER, "stream": True, "max_tokens": 5})
    await http.post("/v1/chat/completions", json={"messages": USER, "n": 0})
    await http.get("/v1/models/tiny")
    await http.get("/made/up/path")
    chat = {"method": "POST", "route": "/v1/chat/completions"}
    assert await metric(http, "fireside_http_requests_total", **chat, status="200") == 2
    assert await metric(http, "fireside_http_requests_total", **chat, status="400") == 1
    models = {"method": "GET", "route": "/v1/models/{model:path}", "status": "200"}
    assert await metric(http, "fireside_http_requests_total", **models) == 1
    unmatched = {"method": "GET", "route": "unmatched", "status": "404"}
    assert await metric(http, "fireside_http_requests_total", **unmatched) == 1
    prompt = len(script.client.requests[0].prompt_ids)
    assert await metric(http, "fireside_prompt_tokens_total", model="tiny") == 2 * prompt
    assert await metric(http, "fireside_completion_tokens_total", model="tiny") == len("Hello there.") + 1 + 5
    assert await metric(http, "fireside_time_to_first_token_seconds_count", model="tiny") == 2
    assert await metric(http, "fireside_time_per_output_token_seconds_count", model="tiny") == 2
    assert await metric(http, "fireside_generations_in_progress") == 0
    assert await metric(http, "fireside_engine_state", model="tiny", state="ready") == 1
    assert await metric(http, "fireside_engine_blocks_free", model="tiny") == 128
    assert await metric(http, "fireside_engine_prompt_tokens_total", model="tiny") == 2 * prompt


async def test_guesses_are_counted_by_source(
    http: httpx.AsyncClient, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = EngineStats(drafted_tokens={"lookup": 9, "draft_model": 4}, accepted_tokens={"lookup": 7, "draft_model": 0})
    monkeypatch.setattr(type(script.client), "stats", stats)
    assert await metric(http, "fireside_engine_drafted_tokens_total", model="tiny", source="lookup") == 9
    assert await metric(http, "fireside_engine_accepted_tokens_total", model="tiny", source="lookup") == 7
    assert await metric(http, "fireside_engine_drafted_tokens_total", model="tiny", source="draft_model") == 4
    assert await metric(http, "fireside_engine_accepted_tokens_total", model="tiny", source="draft_model") == 0


async def test_each_app_counts_for_itself(http: httpx.AsyncClient) -> None:
    await http.post("/v1/chat/completions", json={"messages": USER})
    other = scripted_app(Scripted())
    transport = httpx.ASGITransport(other)
    async with (
        other.router.lifespan_context(other),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        assert "fireside_prompt_tokens_total{" not in (await client.get("/metrics")).text


async def test_tokenize_and_back(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/tokenize", json={"prompt": "aé", "return_token_strs": True})).json()
    assert answer["tokens"] == [97, 0xC3, 0xA9]
    assert (answer["count"], answer["max_model_len"]) == (3, 2048)
    assert answer["token_strs"][0] == "a"
    assert (await http.post("/detokenize", json={"tokens": answer["tokens"]})).json() == {"prompt": "aé"}


async def test_tokenize_counts_a_conversation_as_chat_does(http: httpx.AsyncClient, script: Scripted) -> None:
    counted = (await http.post("/tokenize", json={"messages": USER})).json()
    assert "token_strs" not in counted
    await http.post("/v1/chat/completions", json={"messages": USER})
    assert tuple(counted["tokens"]) == script.client.requests[0].prompt_ids


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": USER}, "prompt"),
        ("/detokenize", {"tokens": [258]}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
    ],
)
async def test_bad_tokens(http: httpx.AsyncClient, path: str, body: dict[str, object], param: str) -> None:
    response = await http.post(path, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_the_server_process_stays_light() -> None:
    """Torch and its like are the worker's. Memory is what a person sees in `ps`."""
    program = """
import sys
from tests.server.peak_memory import peak_mib
from tests.server.scripted_app import Scripted, scripted_app
app = scripted_app(Scripted())
app.openapi()
heavy = {"torch", "numpy", "transformers"} & sys.modules.keys()
assert not heavy, heavy
print(peak_mib())
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 120
