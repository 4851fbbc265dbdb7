"""`InProcessClient`: the engine in a thread of this process, for scripts and tests. No restart, no isolation."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator

from fireside.engine.client import EngineState, EngineUnavailable
from fireside.engine.loop import EngineLoop, Inbox, SteppedEngine
from fireside.engine.messages import (
    EngineInfo,
    EngineStats,
    FromWorker,
    GenerationOutput,
    GenerationRequest,
    Shutdown,
    ToWorker,
)
from fireside.engine.streams import Streams

_LOG = logging.getLogger(__name__)


class InProcessClient:
    """Implements `EngineClient` with what `load_engine` returns: `InProcessClient(*load_engine(config))`.

    Belongs to the event loop that calls `start`.
    """

    def __init__(self, engine: SteppedEngine, info: EngineInfo) -> None:
        self._info = info
        self._state = EngineState.STARTING
        self._reason = "it was not started"
        self._inbox = Inbox()
        self._streams = Streams()
        self._loop = EngineLoop(engine, self._inbox, self._emit)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._events: asyncio.AbstractEventLoop | None = None

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def info(self) -> EngineInfo | None:
        return self._info

    @property
    def stats(self) -> EngineStats:
        return self._loop.stats

    async def start(self) -> None:
        if self._state is EngineState.STARTING:
            self._events = asyncio.get_running_loop()
            self._state, self._reason = EngineState.READY, ""
            self._thread.start()

    async def wait_ready(self) -> EngineInfo:
        self._require_ready()
        return self._info

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationOutput, None]:
        return self._streams.run(request, self._send)

    async def close(self) -> None:
        """Waits for the step in progress."""
        if self._state is EngineState.CLOSED:
            return
        self._end(EngineState.CLOSED, "it was closed")
        self._inbox.put(Shutdown())
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _send(self, message: ToWorker) -> None:
        self._require_ready()
        self._inbox.put(message)

    def _require_ready(self) -> None:
        if self._state is not EngineState.READY:
            raise EngineUnavailable(f"The engine cannot answer: {self._reason}.")

    def _end(self, state: EngineState, reason: str) -> None:
        self._state, self._reason = state, reason
        self._streams.fail_all(f"The engine stopped while it was answering: {reason}.")

    # In the engine's thread.

    def _run(self) -> None:
        try:
            self._loop.run()
        except Exception as error:
            _LOG.exception("The engine's thread ended")
            assert self._events is not None
            self._events.call_soon_threadsafe(self._end, EngineState.FAILED, f"{type(error).__name__}: {error}")

    def _emit(self, message: FromWorker) -> None:
        assert self._events is not None
        self._events.call_soon_threadsafe(self._streams.receive, message)
