"""`EngineClient`, the one door between text and tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

from fireside.engine.messages import EngineInfo, EngineStats, GenerationOutput, GenerationRequest
from fireside.errors import FiresideError


class EngineState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"  # the worker said it cannot serve this model, or died too often
    CLOSED = "closed"


class EngineError(FiresideError):
    """The base of what `generate` raises."""


class EngineBusy(EngineError):
    """The queue is full. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineUnavailable(EngineError):
    """The worker is starting, stuck, dead or closed; the same request may succeed later."""


class RequestRejected(EngineError):
    """This request can never be served as it is. `kind` is that of `messages.Rejected`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class EngineClient(Protocol):
    """Runs one model for many requests. Every implementation keeps these promises:

    `generate` yields outputs until one carries a finish reason. Closing the iterator early
    (`aclose`, or cancelling the task) cancels the request: its blocks are free within one step.
    Raises `EngineBusy`, `EngineUnavailable` or `RequestRejected`.
    """

    @property
    def state(self) -> EngineState: ...

    @property
    def reason(self) -> str:
        """Why requests cannot be served just now, as part of a sentence ("it is starting"); empty while they can."""

    @property
    def info(self) -> EngineInfo | None:
        """None until the engine has been ready once."""

    @property
    def stats(self) -> EngineStats: ...

    async def start(self) -> None:
        """Begins starting; returns at once. `wait_ready` waits."""

    async def wait_ready(self) -> EngineInfo:
        """Returns once requests can be served. Raises `EngineUnavailable` with the reason if that cannot be."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationOutput]: ...

    async def close(self) -> None:
        """Stops the engine; requests in flight fail with `EngineUnavailable`."""
