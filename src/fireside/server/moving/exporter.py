"""Exports that take a while: in threads of their own, which nothing else waits for, and one a person at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from fireside.server.errors import ApiError

_THREADS = 2
MAX_AT_ONCE = 8  # of each kind on one server, those whose readers take their time included
PATIENCE = 120.0  # seconds in which nothing is read of an account that is sent

Kind = Literal["file", "account"]
T = TypeVar("T")


class Exporter:
    """Those of one server."""

    def __init__(self) -> None:
        self._threads = _threads()
        self._turns: set[tuple[Kind, str]] = set()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = _threads()  # for a server that starts again; none has begun yet

    @contextmanager
    def turn(self, kind: Kind, user_id: str) -> Iterator[None]:
        """Raises `ApiError` 429 while another export of the person's is made, or too many other people's."""
        if (kind, user_id) in self._turns:
            raise _busy("another export of yours is being made; try again in a moment")
        if sum(other == kind for other, _ in self._turns) >= MAX_AT_ONCE:
            raise _busy("other people are exporting; try again in a few minutes")
        self._turns.add((kind, user_id))
        try:
            yield
        finally:
            self._turns.discard((kind, user_id))

    async def run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


class AccountResponse(StreamingResponse):
    """It has its turn for as long as it is sent, and ends where nobody reads it."""

    def __init__(self, exporter: Exporter, user_id: str, content: Any, **how: Any) -> None:
        super().__init__(content, **how)
        self._exporter, self._user_id = exporter, user_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_or_end(message: Message) -> None:
            await asyncio.wait_for(send(message), PATIENCE)

        with self._exporter.turn("account", self._user_id), suppress(TimeoutError, ClientDisconnect):
            await super().__call__(scope, receive, send_or_end)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="export")


def _busy(message: str) -> ApiError:
    return ApiError(429, message, type="rate_limit_error", code="export_running", headers={"Retry-After": "5"})
