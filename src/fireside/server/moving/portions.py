"""Writing down a conversation beside people who write, too: in transactions that nobody waits for long, and again where
the database is in trouble for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from fireside.server.db.database import Database
from fireside.server.db.trouble import is_for_good, may_pass
from fireside.server.moving.parsed import Conversation, Message
from fireside.server.moving.store import Stored, length, remove, store

_CHARACTERS = 250_000  # in one transaction, if one message has not more
_MESSAGES = 500
_SHORT = 0.02  # seconds, behind which a transaction is followed by a pause
_LONGEST_PAUSE = 0.1  # seconds: SQLite asks again after as long
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between attempts


async def store_all(database: Database, user_id: str, given: Conversation, check: Callable[[], None]) -> Stored:
    """All of it. Raises what the last attempt raised; of a new conversation nobody sees anything then, nor where this
    server dies before its last portion. It goes on where it was if it comes again, and is removed at the next start;
    one that is refused for good at once.

    check: is called before each attempt; what it raises goes through.
    """
    is_new, messages = False, 0
    try:
        for end in _ends(given.messages):
            stored = await _attempt(database, user_id, given, end, check)
            is_new, messages = is_new or stored.is_new, messages + stored.messages
            if stored.is_whole:
                break
    except Exception as error:
        if is_new and is_for_good(error):
            async with database.writing_session() as session:
                await remove(session, user_id, given)
        raise
    return Stored(is_new, messages)


async def _attempt(
    database: Database, user_id: str, given: Conversation, end: int, check: Callable[[], None]
) -> Stored:
    for wait in (*WAITS, None):
        check()
        began = time.monotonic()
        try:
            async with database.writing_session() as session:
                stored = await store(session, user_id, given, end)
        except Exception as error:
            if wait is None or not may_pass(error):
                raise
            await asyncio.sleep(wait)
            continue
        if (took := time.monotonic() - began) > _SHORT:
            await asyncio.sleep(min(took, _LONGEST_PAUSE))
        return stored
    raise AssertionError("the last attempt returns or raises")


def _ends(messages: list[Message]) -> Iterator[int]:
    """Where the portions end; the last one at the end of `messages`."""
    size = begin = 0
    for place, message in enumerate(messages):
        added = length(message)
        if place > begin and (size + added > _CHARACTERS or place - begin >= _MESSAGES):
            yield place
            size, begin = 0, place
        size += added
    yield len(messages)
