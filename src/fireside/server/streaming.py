"""Answers in the making: server-sent events, several choices at once, and clients that hang up.

FastAPI has server-sent events of its own, but those commit to status 200 before the first event, and pass each event
through two queues. Here a failure before the first token is still a status, and a token costs one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fireside.server.errors import ClientDisconnected

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"  # a comment: clients skip it, proxies see that the connection lives
KEEP_ALIVE_SECONDS = 10.0

_json = msgspec.json.Encoder()


def event(data: Any) -> bytes:
    """One server-sent event that holds `data` as JSON (which never has a line break in it)."""
    return b"data: " + _json.encode(data) + b"\n\n"


class EventStream(Response):
    """Sends `events` as they come, and comments while none come.

    Closes `events`, and the `source` they are made from if there is one, as soon as the client hangs up.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        source: Primed[Any] | None = None,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._source = source
        self._keep_alive_seconds = keep_alive_seconds
        self._last_sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_all() -> None:
            async with aclosing(self._source or self._events), aclosing(self._events):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for data in self._events:
                    self._last_sent = time.monotonic()
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        self._last_sent = time.monotonic()
        # Who hung up need not be told; an exception could no more become a response.
        with contextlib.suppress(ClientDisconnected):
            async with _in_background(self._keep_alive(send)):
                await unless_disconnected(receive, send_all())

    async def _keep_alive(self, send: Send) -> None:
        while True:
            due = self._last_sent + self._keep_alive_seconds
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            else:
                self._last_sent = time.monotonic()
                await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end, or cancels it and raises `ClientDisconnected` as soon as the client hangs up.

    The request's body must have been read before.
    """
    task = asyncio.create_task(work)
    async with _in_background(_disconnect(receive)) as gone, _cancelling(task):
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None]) -> AsyncGenerator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    async with _cancelling(task):
        yield task


@contextlib.asynccontextmanager
async def _cancelling(task: asyncio.Task[Any]) -> AsyncGenerator[None]:
    """Leaves no task behind: cancels it, if it still runs, and waits until it has cleaned up."""
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def merge(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """The items of all streams as they come, each with its stream's index. The first failure ends them all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return

    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(maxsize=2 * len(streams))

    async def pump(index: int, stream: AsyncGenerator[T]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    await queue.put((index, item))
        except Exception as exc:
            await queue.put(exc)
        else:
            await queue.put(None)

    async with contextlib.AsyncExitStack() as stack:
        for index, stream in enumerate(streams):
            await stack.enter_async_context(_in_background(pump(index, stream)))
        running = len(streams)
        while running:
            match await queue.get():
                case None:
                    running -= 1
                case Exception() as failure:
                    raise failure
                case entry:
                    yield entry


class Primed(Generic[T]):
    """A stream that has begun: `start` raises what went wrong before the first item, so that it can be a status.

    A class and not a generator, because closing a generator that was never asked for an item runs none of its code.
    """

    def __init__(self, stream: AsyncGenerator[T]) -> None:
        self._stream = stream
        self._first: asyncio.Task[T | None] | None = None

    async def start(self, patience: float) -> None:
        """Returns once the first item is there, or after `patience` seconds without one."""
        self._first = asyncio.ensure_future(anext(self._stream, None))
        try:
            await asyncio.wait((self._first,), timeout=patience)
            if self._first.done():
                self._first.result()
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._first is None:
            return await anext(self._stream)
        item = await self._first
        self._first = None
        if item is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        if self._first is not None:
            async with _cancelling(self._first):
                pass
        await self._stream.aclose()
