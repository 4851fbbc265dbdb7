"""The scripted engine keeps the promises that `EngineClient` makes, since the server's tests rely on it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import repeat
from typing import Any

import pytest

from fireside.engine.client import EngineBusy, EngineClient, EngineState, EngineUnavailable, RequestRejected
from fireside.engine.messages import FinishReason, GenerationOutput, GenerationRequest, SamplingParams
from fireside.engine.scripted import ScriptedAnswer, ScriptedClient


def request(id: str = "r", prompt: tuple[int, ...] = (1, 2, 3), **fields: Any) -> GenerationRequest:
    return GenerationRequest(id=id, prompt_ids=prompt, sampling=SamplingParams(**{"max_tokens": 8, **fields}))


async def collect(client: EngineClient, asked: GenerationRequest) -> list[GenerationOutput]:
    return [output async for output in client.generate(asked)]


def ids(outputs: list[GenerationOutput]) -> list[int]:
    return [token_id for output in outputs for token_id in output.token_ids]


async def started(*args: Any, **fields: Any) -> ScriptedClient:
    client = ScriptedClient(*args, **fields)
    await client.start()
    return client


async def test_answers_in_turn_then_the_last_one_again() -> None:
    client: EngineClient = await started([[5, 6], [7]])
    assert [ids(await collect(client, request(str(number)))) for number in range(3)] == [[5, 6], [7], [7]]


async def test_stop_token_ends_the_answer_and_is_named() -> None:
    client = await started(lambda asked: [asked.prompt_ids[0] + 10, 0, 99])
    outputs = await collect(client, request(stop_token_ids=(0,)))
    assert ids(outputs) == [11, 0]
    assert (outputs[-1].finish_reason, outputs[-1].stopped_by) == (FinishReason.STOP, 0)
    assert ids(await collect(client, request(stop_token_ids=(0,), min_tokens=2))) == [11, 0, 99]


async def test_max_tokens_ends_an_endless_answer() -> None:
    client = await started([ScriptedAnswer(token_ids=repeat(4), tokens_per_output=3)])
    outputs = await collect(client, request())
    assert [output.token_ids for output in outputs] == [(4, 4, 4), (4, 4, 4), (4, 4)]
    assert [output.finish_reason for output in outputs] == [None, None, FinishReason.LENGTH]
    assert ids(await collect(client, request(max_tokens=0))) == []


async def test_logprobs_only_where_asked_for() -> None:
    client = await started([[5, 6]])
    with_logprobs = await collect(client, request(logprobs=2, prompt_logprobs=0))
    assert [entry.top for output in with_logprobs for entry in output.logprobs or ()] == [
        ((5, -0.125), (6, -1.0)),
        ((6, -0.125), (7, -1.0)),
    ]
    scored = [output.prompt_logprobs for output in with_logprobs if output.prompt_logprobs is not None]
    assert len(scored) == 1
    assert scored[0][0] is None
    assert len(scored[0]) == 3
    without = await collect(client, request())
    assert all(output.logprobs is None and output.prompt_logprobs is None for output in without)


async def test_closing_early_is_recorded_as_a_cancel() -> None:
    client = await started([ScriptedAnswer(token_ids=repeat(4))])
    async with aclosing(client.generate(request("early"))) as outputs:
        await anext(outputs)
        assert client.in_flight == 1
    assert (client.cancelled, client.finished, client.in_flight) == (["early"], [], 0)
    await collect(client, request("whole"))
    assert (client.cancelled, client.finished) == (["early"], ["whole"])
    assert [asked.id for asked in client.requests] == ["early", "whole"]


async def test_full_queue() -> None:
    client = await started([ScriptedAnswer(token_ids=repeat(4))], max_requests=1)
    async with aclosing(client.generate(request("first"))) as outputs:
        await anext(outputs)
        with pytest.raises(EngineBusy) as caught:
            await collect(client, request("second"))
        assert caught.value.retry_after > 0
    assert len(await collect(client, request("third"))) == 8


async def test_crash_mid_answer_ends_all_and_is_recovered_from() -> None:
    client = await started(
        lambda asked: ScriptedAnswer(token_ids=repeat(4), crash_after=2 if asked.id == "fatal" else None, delay=0.001)
    )
    bystander = asyncio.create_task(collect(client, request("bystander", max_tokens=10_000)))
    await asyncio.sleep(0.01)
    with pytest.raises(EngineUnavailable, match="may be sent again"):
        await collect(client, request("fatal"))
    with pytest.raises(EngineUnavailable):
        await bystander
    assert client.state is EngineState.RESTARTING
    with pytest.raises(EngineUnavailable):
        await collect(client, request("too early"))
    await client.start()
    assert len(await collect(client, request("after"))) == 8
    assert client.cancelled == []


async def test_scripted_errors_and_states() -> None:
    client = ScriptedClient([ScriptedAnswer(error=RequestRejected("no", "grammar"))])
    assert client.info is None
    waiting = asyncio.create_task(client.wait_ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    await client.start()
    assert (await waiting).max_context > 0
    with pytest.raises(RequestRejected) as caught:
        await collect(client, request())
    assert caught.value.kind == "grammar"
    await client.close()
    assert client.state is EngineState.CLOSED
    with pytest.raises(EngineUnavailable):
        await client.wait_ready()
