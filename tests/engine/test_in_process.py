"""`InProcessClient` keeps the promises of `EngineClient` with the engine in a thread."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from fireside.engine.client import EngineBusy, EngineState, EngineUnavailable, RequestRejected
from fireside.engine.in_process import InProcessClient
from fireside.engine.messages import GenerationRequest, SamplingParams
from tests.engine.fake_worker import INFO, RAISE, REJECT_LATER, CountingEngine


def request(id: str, *prompt: int, max_tokens: int = 4) -> GenerationRequest:
    return GenerationRequest(id=id, prompt_ids=prompt, sampling=SamplingParams(max_tokens=max_tokens))


async def collect(client: InProcessClient, asked: GenerationRequest) -> list[int]:
    return [token async for output in client.generate(asked) for token in output.token_ids]


async def started(**fields: Any) -> InProcessClient:
    client = InProcessClient(CountingEngine(**fields), INFO)
    await client.start()
    assert await client.wait_ready() == INFO
    return client


async def test_serves_many_and_closes() -> None:
    engine = CountingEngine()
    client = InProcessClient(engine, INFO)
    await client.start()
    answers = await asyncio.gather(*(collect(client, request(str(n), 10 * n)) for n in range(64)))
    assert answers == [[10 * n + i for i in range(1, 5)] for n in range(64)]
    endless = asyncio.create_task(collect(client, request("endless", 1, max_tokens=10**9)))
    await asyncio.sleep(0.02)
    assert not engine.is_closed
    await client.close()
    assert engine.is_closed, "or its prefixes are lost"
    with pytest.raises(EngineUnavailable, match="closed"):
        await endless
    with pytest.raises(EngineUnavailable, match="closed"):
        await collect(client, request("late", 1))
    assert client.state is EngineState.CLOSED


async def test_closing_the_iterator_cancels_in_the_engine() -> None:
    client = await started()
    async with aclosing(client.generate(request("endless", 1, max_tokens=10**9))) as outputs:
        await anext(outputs)
    async with asyncio.timeout(60):
        while client.stats.preemptions == 0:  # noqa: ASYNC110 - a number of another thread's
            await asyncio.sleep(0.005)
    assert client.stats.running == 0
    await client.close()


async def test_refusals() -> None:
    client = await started(max_waiting=1)
    with pytest.raises(RequestRejected):
        await collect(client, request("long", *range(200)))
    with pytest.raises(RequestRejected):
        await collect(client, request("later", REJECT_LATER))
    async with aclosing(client.generate(request("first", 1, max_tokens=10**9))) as outputs:
        await anext(outputs)
        with pytest.raises(EngineBusy):
            await collect(client, request("second", 1))
    await client.close()


async def test_an_error_in_a_step_fails_the_engine_with_its_reason() -> None:
    client = await started()
    assert client.reason == ""
    with pytest.raises(EngineUnavailable, match="RuntimeError: a step failed"):
        await collect(client, request("poison", RAISE))
    assert (client.state, client.reason) == (EngineState.FAILED, "RuntimeError: a step failed")
    with pytest.raises(EngineUnavailable, match="a step failed"):
        await client.wait_ready()
    await client.close()


async def test_a_client_that_was_not_started() -> None:
    client = InProcessClient(CountingEngine(), INFO)
    with pytest.raises(EngineUnavailable, match="not started"):
        await collect(client, request("early", 1))
    await client.close()
