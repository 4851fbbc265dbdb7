"""`WorkerClient` with a real worker process: what it promises when all is well, and when the worker dies or hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fireside.engine.client import EngineBusy, EngineClient, EngineState, EngineUnavailable, RequestRejected
from fireside.engine.messages import FinishReason, GenerationOutput, GenerationRequest, SamplingParams, WorkerConfig
from fireside.engine.supervisor import RestartPolicy, WorkerClient
from tests.engine.fake_worker import EXIT, HANG, INFO, RAISE, REJECT_LATER

SOON = 60.0  # seconds; what must happen happens in a few milliseconds, but the machine may be busy
QUICK = RestartPolicy(first_delay=0.01, max_delay=0.05, stable_after=0.0, max_deaths=3)


def request(id: str = "r", *prompt: int, max_tokens: int = 5) -> GenerationRequest:
    return GenerationRequest(id=id, prompt_ids=prompt or (1,), sampling=SamplingParams(max_tokens=max_tokens))


async def collect(client: EngineClient, asked: GenerationRequest) -> list[int]:
    outputs = [output async for output in client.generate(asked)]
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    return [token_id for output in outputs for token_id in output.token_ids]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - stats come by heartbeats, which set no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def worker(mode: str = "serve", **fields: Any) -> AsyncIterator[WorkerClient]:
    """A client that was started, and is closed at the end."""
    config = WorkerConfig(model="m", name="fake", heartbeat_interval=0.02, max_waiting=fields.pop("max_waiting", 1000))
    script = Path(__file__).with_name("fake_worker.py")
    client = WorkerClient(
        config,
        command=(sys.executable, str(script), "--mode", mode),
        **{"heartbeat_timeout": SOON, "restart_policy": QUICK, **fields},
    )
    await client.start()
    try:
        yield client
    finally:
        await client.close()
        assert client.state is EngineState.CLOSED
        assert client.worker_pid is None


async def test_serves_64_requests_at_once() -> None:
    async with worker() as client:
        assert client.state is EngineState.STARTING
        assert await client.wait_ready() == INFO == client.info
        answers = await asyncio.gather(*(collect(client, request(str(n), 100 * n)) for n in range(64)))
        assert answers == [[100 * n + i for i in range(1, 6)] for n in range(64)]
        await until(lambda: client.stats.steps > 0 and client.stats.running == 0)


async def test_a_request_before_ready_is_told_so() -> None:
    async with worker() as client:
        with pytest.raises(EngineUnavailable, match="starting"):
            await collect(client, request())


async def test_a_slow_reader_delays_nobody() -> None:
    async with worker() as client:
        await client.wait_ready()
        async with aclosing(client.generate(request("slow", max_tokens=300))) as slow:
            first = await anext(slow)
            assert await collect(client, request("quick", max_tokens=300)) == list(range(2, 302))
            rest = [output async for output in slow]
        assert [token for output in (first, *rest) for token in output.token_ids] == list(range(2, 302))


async def test_closing_the_iterator_cancels_in_the_engine() -> None:
    async with worker() as client:
        await client.wait_ready()
        async with aclosing(client.generate(request("endless", max_tokens=10**9))) as outputs:
            await anext(outputs)
            await until(lambda: client.stats.running == 1)
        await until(lambda: client.stats.running == 0 and client.stats.preemptions == 1)


async def test_cancelling_the_task_cancels_in_the_engine() -> None:
    async with worker() as client:
        await client.wait_ready()
        task = asyncio.create_task(collect(client, request("endless", max_tokens=10**9)))
        await until(lambda: client.stats.running == 1)
        task.cancel()
        await until(lambda: client.stats.running == 0 and client.stats.preemptions == 1)


async def test_refusals_reach_the_one_who_asked() -> None:
    async with worker(max_waiting=1) as client:
        await client.wait_ready()
        with pytest.raises(RequestRejected) as rejected:
            await collect(client, request("long", *range(200)))
        assert rejected.value.kind == "context_length"
        with pytest.raises(RequestRejected) as rejected:
            await collect(client, request("later", REJECT_LATER))
        assert rejected.value.kind == "grammar"
        async with aclosing(client.generate(request("first", max_tokens=10**9))) as outputs:
            await anext(outputs)
            with pytest.raises(EngineBusy):
                await collect(client, request("second"))
            with pytest.raises(RequestRejected, match="in flight already"):
                await collect(client, request("first"))
            await anext(outputs)


async def test_an_id_can_be_used_again_once_its_request_has_ended() -> None:
    async with worker() as client:
        await client.wait_ready()
        for _ in range(3):
            assert await collect(client, request("same")) == [2, 3, 4, 5, 6]
        async with aclosing(client.generate(request("same", max_tokens=10**9))) as outputs:
            await anext(outputs)
            await until(lambda: client.stats.running == 1)
        await until(lambda: client.stats.running == 0)
        assert await collect(client, request("same")) == [2, 3, 4, 5, 6]


async def test_kill_mid_answer_fails_it_and_restarts() -> None:
    async with worker() as client:
        await client.wait_ready()
        bystanders = [asyncio.create_task(collect(client, request(f"b{n}", max_tokens=10**9))) for n in range(3)]
        async with aclosing(client.generate(request("victim", max_tokens=10**9))) as outputs:
            await anext(outputs)
            pid = client.worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineUnavailable, match=r"restarted.*may be sent again"):
                async for _ in outputs:
                    pass
        for bystander in bystanders:
            with pytest.raises(EngineUnavailable):
                await bystander
        assert client.state is EngineState.RESTARTING
        with pytest.raises(EngineUnavailable, match="SIGKILL"):
            await collect(client, request())
        async with asyncio.timeout(SOON):
            await client.wait_ready()
        assert client.worker_pid != pid
        assert await collect(client, request("again")) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("trouble", [EXIT, RAISE])
async def test_a_worker_that_dies_in_a_step_is_restarted(trouble: int, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    async with worker(log_path=log) as client:
        await client.wait_ready()
        with pytest.raises(EngineUnavailable, match="may be sent again"):
            await collect(client, request("poison", trouble))
        async with asyncio.timeout(SOON):
            await client.wait_ready()
        assert len(await collect(client, request())) == 5
    text = log.read_text()
    assert text.count("serving fake") == 2
    assert ("a step failed" in text) is (trouble == RAISE)


async def test_a_stuck_step_is_noticed() -> None:
    async with worker(heartbeat_timeout=1.0) as client:
        await client.wait_ready()
        async with asyncio.timeout(SOON):
            with pytest.raises(EngineUnavailable, match=r"no sign of life.*may be sent again"):
                await collect(client, request("stuck", HANG, max_tokens=100))
            await client.wait_ready()
        assert len(await collect(client, request())) == 5


async def test_a_stopped_process_is_noticed() -> None:
    async with worker(heartbeat_timeout=1.0) as client:
        await client.wait_ready()
        assert client.worker_pid is not None
        os.kill(client.worker_pid, signal.SIGSTOP)
        async with asyncio.timeout(SOON):
            with pytest.raises(EngineUnavailable, match="no sign of life"):
                await collect(client, request())
            await client.wait_ready()


@pytest.mark.parametrize(
    ("mode", "reason"), [("fatal", "the weights are damaged; fetch them again"), ("bug", "RuntimeError: out of luck")]
)
async def test_a_model_that_cannot_be_served_is_not_tried_again(mode: str, reason: str, tmp_path: Path) -> None:
    async with worker(mode, log_path=tmp_path / "log") as client:
        async with asyncio.timeout(SOON):
            with pytest.raises(EngineUnavailable, match=reason):
                await client.wait_ready()
        assert client.state is EngineState.FAILED
        assert reason in client.reason
        with pytest.raises(EngineUnavailable, match=reason):
            await collect(client, request())


@pytest.mark.parametrize(
    ("mode", "reason"), [("die", "3 times in a row.*status 3"), ("garbage", "something else than frames")]
)
async def test_too_many_quick_deaths_are_the_end(mode: str, reason: str, tmp_path: Path) -> None:
    async with worker(mode, log_path=tmp_path / "log") as client:
        async with asyncio.timeout(SOON):
            with pytest.raises(EngineUnavailable, match=reason):
                await client.wait_ready()
        assert client.state is EngineState.FAILED


async def test_a_load_that_hangs_is_given_up() -> None:
    async with worker("hang", start_timeout=0.5) as client:
        async with asyncio.timeout(SOON):
            with pytest.raises(EngineUnavailable, match="no sign of life"):
                await client.wait_ready()


async def test_a_command_that_does_not_exist() -> None:
    client = WorkerClient(WorkerConfig(model="m", name="x"), command=("/nonexistent",), restart_policy=QUICK)
    await client.start()
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineUnavailable, match="could not be started"):
            await client.wait_ready()
    await client.close()


@pytest.mark.parametrize("mode", ["serve", "hang"])
async def test_close_fails_what_is_in_flight_and_leaves_no_process(mode: str) -> None:
    async with worker(mode) as client:
        pid = None
        task: asyncio.Task[list[GenerationOutput] | list[int]] | None = None
        if mode == "serve":
            await client.wait_ready()
            task = asyncio.create_task(collect(client, request(max_tokens=10**9)))
            await until(lambda: client.stats.running == 1)
        await until(lambda: client.worker_pid is not None)
        pid = client.worker_pid
        assert pid is not None
        async with asyncio.timeout(SOON):
            await client.close()
        if task is not None:
            with pytest.raises(EngineUnavailable, match="closed"):
                await task
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(EngineUnavailable):
            await client.wait_ready()


async def test_close_waits_for_a_worker_that_saves(tmp_path: Path) -> None:
    async with worker("save", log_path=tmp_path / "log") as client:  # takes two seconds for it
        await client.wait_ready()
    assert "closed" in (tmp_path / "log").read_text()


def test_restart_delays_double_up_to_a_limit() -> None:
    policy = RestartPolicy(first_delay=0.5, max_delay=3.0)
    assert [policy.delay(deaths) for deaths in (1, 2, 3, 4, 50)] == [0.5, 1.0, 2.0, 3.0, 3.0]
