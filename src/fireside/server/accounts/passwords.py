"""Hashing passwords, by argon2id in threads."""

from __future__ import annotations

import asyncio
import base64
import os
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from fireside.server.errors import ApiError

if TYPE_CHECKING:
    from pwdlib import PasswordHash

# OWASP's first choice of parameters with little memory: 19 MiB and two passes, tens of milliseconds.
# https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
_AT_ONCE = 2
_WAITING = 64

_Result = TypeVar("_Result")


@cache
def _hasher() -> PasswordHash:
    from pwdlib import PasswordHash  # with its C library, for the first who signs in
    from pwdlib.hashers.argon2 import Argon2Hasher

    return PasswordHash((Argon2Hasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES),))


def _of_nobody() -> str:
    """A hash that no password has."""
    salt, digest = (base64.b64encode(os.urandom(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${digest}"


class Passwords:
    """Few at once, so that a crowd at the door takes neither all processors nor all memory."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._of_nobody = _of_nobody()

    async def hash(self, password: str) -> str:
        """Raises `ApiError` 503 if too many wait already, as `verify` does."""
        return await self._in_turn(lambda: _hasher().hash(_normalised(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `password` has the hash. For None, which nobody's is, it takes as long to say no."""
        return await self._in_turn(lambda: _hasher().verify(_normalised(password), stored or self._of_nobody))

    async def _in_turn(self, work: Callable[[], _Result]) -> _Result:
        if self._waiting >= _WAITING:
            raise ApiError(
                503,
                "too many people are signing in at this moment; try again soon",
                type="server_error",
                code="busy",
                headers={"Retry-After": "5"},
            )
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def _normalised(password: str) -> str:
    """The same characters, whatever keyboard they came from. NIST SP 800-63B, 3.1.1.2."""
    return unicodedata.normalize("NFKC", password)
