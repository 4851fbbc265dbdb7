"""Server-sent events byte by byte, several streams at once, and clients that hang up."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from starlette.types import Message

from fireside.engine.scripted import ScriptedAnswer
from fireside.server.api.schemas.chat import ChatCompletion, ChatCompletionChunk
from fireside.server.api.schemas.completions import Completion, CompletionChunk
from fireside.server.streaming import DONE, KEEP_ALIVE, EventStream, Primed, merge
from tests.server.scripted_app import Scripted, byte_tokenizer, says

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "Hi"}]
ENDLESS = ScriptedAnswer(token_ids=itertools.repeat(ord("x")), delay=0.01)


# The wire


async def test_the_bytes_of_a_stream(http: httpx.AsyncClient, script: Scripted) -> None:
    script.answer = says("a\n\né")
    response = await http.post(CHAT, json={"messages": USER, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert "content-length" not in response.headers
    events = response.content.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert all(event.startswith(b"data: {") for event in events[:-2])
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    # "é" is two tokens: no event ends in half a character.
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:-1]] == ["a", "\n", "\n", "é"]
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 257}
    assert all("usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"stream_options": {"include_usage": True}},
        {"logprobs": True, "top_logprobs": 2, "prompt_logprobs": 1, "n": 2},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        {"max_tokens": 0},
    ],
    ids=str,
)
async def test_chat_answers_are_what_the_schema_says(
    http: httpx.AsyncClient, script: Scripted, extra: dict[str, Any]
) -> None:
    script.answer = says('<tool_call>{"name": "f", "arguments": {}}</tool_call>' if "tools" in extra else "Hi")
    whole = await http.post(CHAT, json={"messages": USER, **extra})
    ChatCompletion.model_validate(whole.json(), extra="forbid")
    await _check_chunks(http, CHAT, {"messages": USER, **extra}, ChatCompletionChunk.model_validate)


@pytest.mark.parametrize("extra", [{}, {"logprobs": 2, "echo": True, "prompt_logprobs": 1, "n": 2}], ids=str)
async def test_completions_are_what_the_schema_says(http: httpx.AsyncClient, extra: dict[str, Any]) -> None:
    whole = await http.post(COMPLETIONS, json={"prompt": "abc", **extra})
    Completion.model_validate(whole.json(), extra="forbid")
    await _check_chunks(http, COMPLETIONS, {"prompt": "abc", **extra}, CompletionChunk.model_validate)


async def _check_chunks(http: httpx.AsyncClient, path: str, body: dict[str, Any], validate: Callable[..., Any]) -> None:
    response = await http.post(path, json={**body, "stream": True})
    *events, done, _ = response.content.split(b"\n\n")
    assert done == b"data: [DONE]" and events
    for event in events:
        validate(json.loads(event.removeprefix(b"data: ")), extra="forbid")


async def test_a_failure_on_the_way_is_an_event_in_the_envelope(http: httpx.AsyncClient, script: Scripted) -> None:
    script.answer = says("Hello", crash_after=2)
    response = await http.post(COMPLETIONS, json={"prompt": "a", "stream": True})
    assert response.status_code == 200
    *_, failed, done, _ = response.content.split(b"\n\n")
    error = json.loads(failed.removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_unavailable")
    assert done + b"\n\n" == DONE


# Clients that hang up


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
async def test_hanging_up_stops_the_engine(
    base_url: str, script: Scripted, caplog: pytest.LogCaptureFixture, stream: bool, n: int, path: str
) -> None:
    script.answer = ENDLESS
    body = {"messages": USER} if path == CHAT else {"prompt": "Hi", "max_tokens": 1500}
    async with httpx.AsyncClient(base_url=base_url) as http:
        asking = asyncio.create_task(_ask(http, path, {**body, "n": n, "stream": stream}))
        await _until(lambda: script.client.in_flight == n and script.client.stats.generated_tokens > 3 * n)
        asking.cancel()
    await _until(lambda: script.client.in_flight == 0)
    assert len(script.client.cancelled) == n
    generated = script.client.stats.generated_tokens
    await asyncio.sleep(0.05)
    assert script.client.stats.generated_tokens == generated
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("stream", [False, True])
async def test_hanging_up_before_the_first_token(base_url: str, script: Scripted, stream: bool) -> None:
    script.answer = ScriptedAnswer(token_ids=[1], delay=60)
    async with httpx.AsyncClient(base_url=base_url) as http:
        asking = asyncio.create_task(_ask(http, CHAT, {"messages": USER, "stream": stream}))
        await _until(lambda: script.client.in_flight == 1)
        asking.cancel()
    await _until(lambda: script.client.in_flight == 0)


async def _ask(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    async with http.stream("POST", path, json=body, timeout=60) as response:
        async for _ in response.aiter_bytes():
            pass


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens inside the server
            await asyncio.sleep(0.005)


# The parts


class Counting:
    """An async generator of 0, 1, 2, ... that notes whether it was closed."""

    def __init__(self, *, fail_at: int | None = None, delay_of_first: float = 0) -> None:
        self.closed = False
        self.fail_at = fail_at
        self.delay_of_first = delay_of_first

    async def items(self) -> AsyncGenerator[int]:
        try:
            await asyncio.sleep(self.delay_of_first)
            for number in range(10):
                if number == self.fail_at:
                    raise ValueError(number)
                yield number
                await asyncio.sleep(0)
        finally:
            self.closed = True


@pytest.mark.parametrize("count", [1, 4])
async def test_merge_keeps_the_order_of_each(count: int) -> None:
    sources = [Counting() for _ in range(count)]
    seen: list[list[int]] = [[] for _ in range(count)]
    async for index, item in merge([source.items() for source in sources]):
        seen[index].append(item)
    assert seen == [list(range(10))] * count


@pytest.mark.parametrize("count", [1, 4])
async def test_closing_a_merge_closes_every_source(count: int) -> None:
    sources = [Counting() for _ in range(count)]
    async with aclosing(merge([source.items() for source in sources])) as merged:
        await anext(merged)
    assert all(source.closed for source in sources)


async def test_one_failure_ends_a_merge() -> None:
    sources = [Counting(), Counting(fail_at=2), Counting()]
    with pytest.raises(ValueError, match="2"):
        async for _ in merge([source.items() for source in sources]):
            pass
    assert all(source.closed for source in sources)


async def test_primed_raises_early_failures_and_only_those() -> None:
    with pytest.raises(ValueError, match="0"):
        await Primed(Counting(fail_at=0).items()).start(patience=5)
    late = Primed(Counting(fail_at=1).items())
    await late.start(patience=5)
    with pytest.raises(ValueError, match="1"):
        assert [item async for item in late] == [0]


async def test_primed_loses_nothing_when_patience_ends() -> None:
    source = Counting(delay_of_first=0.05)
    primed = Primed(source.items())
    await primed.start(patience=0.001)
    assert [item async for item in primed] == list(range(10))


@pytest.mark.parametrize("delay", [0, 60])
async def test_a_primed_stream_that_nobody_reads_is_closed(delay: float) -> None:
    source = Counting(delay_of_first=delay)
    primed = Primed(source.items())
    await primed.start(patience=0.01)
    await primed.aclose()
    assert source.closed


async def test_comments_keep_a_silent_stream_alive() -> None:
    source: Primed[int] = Primed(Counting(delay_of_first=0.2).items())
    await source.start(patience=0)

    async def events() -> AsyncGenerator[bytes]:
        async for item in source:
            yield b"data: %d\n\n" % item

    sent: list[bytes] = []
    await _respond(EventStream(events(), source, keep_alive_seconds=0.02), sent, disconnect=asyncio.Event())
    first = sent.index(b"data: 0\n\n")
    assert sent[:first] == [KEEP_ALIVE] * first and first >= 2
    assert sent[-1] == b""


async def test_an_event_stream_whose_client_is_gone_already() -> None:
    counted = Counting(delay_of_first=60)
    source: Primed[int] = Primed(counted.items())
    await source.start(patience=0.01)

    async def events() -> AsyncGenerator[bytes]:
        async for item in source:
            yield b"%d" % item

    gone = asyncio.Event()
    gone.set()
    await _respond(EventStream(events(), source), [], disconnect=gone)
    assert counted.closed


async def _respond(stream: EventStream, sent: list[bytes], disconnect: asyncio.Event) -> None:
    async def receive() -> Message:
        await disconnect.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])

    await stream({"type": "http"}, receive, send)


def test_the_tokenizer_of_these_tests_is_of_bytes() -> None:
    assert byte_tokenizer().encode("aé") == [97, 0xC3, 0xA9]
