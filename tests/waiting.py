"""For what happens elsewhere and tells nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def until(is_so: Callable[[], bool], seconds: float) -> None:
    """Raises TimeoutError if it is not so in time."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


class Pause:
    """Holds the first one who comes until `go` is set. `is_there` says that they have come."""

    def __init__(self) -> None:
        self.is_there, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        if not self.is_there.is_set():
            self.is_there.set()
            await self.go.wait()

    def before(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def paused(*args: Any, **options: Any) -> Any:
            await self()
            return await function(*args, **options)

        return paused

    def behind(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def paused(*args: Any, **options: Any) -> Any:
            result = await function(*args, **options)
            await self()
            return result

        return paused
