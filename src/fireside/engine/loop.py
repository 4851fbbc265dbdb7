"""`EngineLoop`: a thread of its own for an engine, which other threads talk to by messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from fireside.engine.client import EngineBusy, RequestRejected
from fireside.engine.messages import (
    Cancel,
    EngineStats,
    FromWorker,
    GenerationOutput,
    GenerationRequest,
    Outputs,
    Rejected,
    Shutdown,
    Submit,
    ToWorker,
)


class SteppedEngine(Protocol):
    """What the loop needs of `engine.Engine`. All of it is called from the loop's thread alone."""

    @property
    def has_work(self) -> bool: ...

    @property
    def stats(self) -> EngineStats: ...

    def submit(self, request: GenerationRequest) -> None: ...

    def cancel(self, request_id: str) -> None: ...

    def step(self) -> Sequence[GenerationOutput | Rejected]: ...

    def close(self) -> None: ...


class Inbox:
    """Messages for a loop, which wake it. May be filled before the loop exists."""

    def __init__(self) -> None:
        self._messages: deque[ToWorker] = deque()
        self._arrived = threading.Condition()

    def put(self, message: ToWorker) -> None:
        with self._arrived:
            self._messages.append(message)
            self._arrived.notify()

    def take(self, *, wait: bool) -> list[ToWorker]:
        """All messages that are there; if there is none and `wait`, sleeps until one comes."""
        with self._arrived:
            while wait and not self._messages:
                self._arrived.wait()
            messages = list(self._messages)
            self._messages.clear()
        return messages


class EngineLoop:
    """Takes messages, steps while there is work, sleeps while there is none, and emits what came out.

    `stats` is a snapshot after the last step, safe to read from any thread.
    """

    def __init__(self, engine: SteppedEngine, inbox: Inbox, emit: Callable[[FromWorker], None]) -> None:
        self._engine = engine
        self._inbox = inbox
        self._emit = emit
        self._idle = False
        self._turns = 0
        self._turns_seen = -1
        self.stats = engine.stats

    def run(self) -> None:
        """Returns at `Shutdown`. What a step raises ends the loop: the engine's state cannot be trusted after it."""
        while True:
            self._idle = not self._engine.has_work
            messages = self._inbox.take(wait=self._idle)
            self._idle = False
            for message in messages:
                if isinstance(message, Shutdown):
                    self._engine.close()
                    return
                self._handle(message)
            if self._engine.has_work:
                self._emit_results(self._engine.step())
            self.stats = self._engine.stats
            self._turns += 1

    def is_alive(self) -> bool:
        """Whether the loop idles, or has finished a turn since this was last asked: False while a step is stuck."""
        turns, self._turns_seen = self._turns_seen, self._turns
        return self._idle or turns != self._turns_seen

    def _handle(self, message: Submit | Cancel) -> None:
        if isinstance(message, Cancel):
            self._engine.cancel(message.request_id)
            return
        request_id = message.request.id
        try:
            self._engine.submit(message.request)
        except EngineBusy as error:
            self._emit(Rejected(request_id, "queue_full", str(error)))
        except RequestRejected as error:
            self._emit(Rejected(request_id, error.kind, str(error)))

    def _emit_results(self, results: Sequence[GenerationOutput | Rejected]) -> None:
        outputs = tuple(result for result in results if isinstance(result, GenerationOutput))
        if outputs:
            self._emit(Outputs(outputs))
        for result in results:
            if isinstance(result, Rejected):
                self._emit(result)
