"""Hashing passwords: what it costs, and how many at once."""

from __future__ import annotations

import asyncio
import threading
import time

import argon2
import pytest

from fireside.server.accounts import passwords
from fireside.server.accounts.passwords import Passwords
from fireside.server.errors import ApiError


async def test_the_cost_is_what_owasp_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first choice below 46 MiB, read back from a hash by the library itself."""
    monkeypatch.undo()
    passwords._hasher.cache_clear()
    stored = await Passwords().hash("a pass phrase")
    parameters = argon2.extract_parameters(stored)
    assert parameters.type is argon2.Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19 * 1024, 2, 1)
    assert (parameters.salt_len, parameters.hash_len) == (16, 32)


async def test_right_wrong_and_nobody() -> None:
    hasher = Passwords()
    stored = await hasher.hash("a pass phrase")
    assert await hasher.hash("a pass phrase") != stored  # salted
    assert await hasher.verify("a pass phrase", stored)
    assert not await hasher.verify("A pass phrase", stored)
    assert not await hasher.verify("a pass phrase", None)


async def test_few_at_once_and_no_endless_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = passwords._hasher()
    running, most, lock = 0, 0, threading.Lock()

    def verify(password: str, stored: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return False

    monkeypatch.setattr(hasher, "verify", verify)
    ours = Passwords()
    results = await asyncio.gather(*(ours.verify("x", None) for _ in range(70)), return_exceptions=True)
    assert most == 2
    refused = [result for result in results if result is not False]
    assert len(refused) == 6
    assert all(isinstance(error, ApiError) and error.status_code == 503 for error in refused)
    assert await ours.verify("x", None) is False  # and then there is room again
