"""`Journal`: what runs say is on disk before anybody sees it, at the cost of one transaction for all of them.

Group commit: what is appended while one transaction is written and `INTERVAL` passes goes into the next. The busier the
server, the more text an event holds, and the fewer there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, bindparam, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fireside.server.chat.runs.live import Ending, Event, LiveRun, coalesced, encode
from fireside.server.chat.tables import JournalEntry, Message, Run
from fireside.server.db.base import now
from fireside.server.db.database import Database

INTERVAL = 0.04  # seconds
_RETRY_SECONDS = 1.0

_ENTRIES, _RUNS, _MESSAGES = JournalEntry.__table__, Run.__table__, Message.__table__
assert isinstance(_ENTRIES, Table) and isinstance(_RUNS, Table) and isinstance(_MESSAGES, Table)
_INSERT = insert(_ENTRIES)
_END_RUN = update(_RUNS).where(_RUNS.c.id == bindparam("of"))
_END_MESSAGE = update(_MESSAGES).where(_MESSAGES.c.id == bindparam("of"))

logger = logging.getLogger(__name__)


@dataclass
class _Piece:
    """What one run contributes to a transaction, one line an event."""

    run: LiveRun
    lines: list[str]
    ending: Ending | None


class Journal:
    """`start` on an empty table, before anything is appended; `close` writes what is left."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dirty: dict[LiveRun, None] = {}
        self._first_entries: dict[LiveRun, int] = {}  # of runs that are not over
        self._next_entry = 1
        self._wake = asyncio.Event()
        self._is_closing = False
        # Of its own, so that it never waits for one behind a crowd of requests.
        self._connection: AsyncConnection | None = None
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Everything that was appended is durable and delivered, or given up and logged."""
        self._is_closing = True
        self._wake.set()
        if self._writer is not None:
            await self._writer
        if self._connection is not None:
            await self._connection.close()

    def append(self, run: LiveRun, event: Event) -> None:
        run.say(event)
        self._dirty[run] = None
        self._wake.set()

    def finish(self, run: LiveRun, ending: Ending) -> None:
        """The last event; message and run are written in the transaction that makes it durable."""
        run.ending, run.finished_at = ending, now()
        self.append(run, ending.event)

    async def _write(self) -> None:
        while not (self._is_closing and not self._dirty):
            await self._wake.wait()
            self._wake.clear()
            pieces = self._take()
            while not await self._commit([piece for piece in pieces if not piece.run.is_temporary]):
                if self._is_closing:
                    break
                await asyncio.sleep(_RETRY_SECONDS)
            for piece in pieces:
                piece.run.deliver(piece.lines)
                if piece.ending is not None:
                    piece.run.close()
            if not self._is_closing:
                await asyncio.sleep(INTERVAL)

    def _take(self) -> list[_Piece]:
        pieces = []
        for run in self._dirty:
            pieces.append(_Piece(run, [encode(event) for event in coalesced(run.pending)], run.ending))
            run.pending.clear()
        self._dirty.clear()
        return pieces

    async def _commit(self, pieces: Sequence[_Piece]) -> bool:
        """False if it failed and may succeed later."""
        if not pieces:
            return True
        entries = []
        for number, piece in enumerate(pieces, self._next_entry):
            self._first_entries.setdefault(piece.run, number)
            entries.append({"number": number, "run_id": piece.run.id, "events": "\n".join(piece.lines)})
        ended = [piece for piece in pieces if piece.ending is not None]
        try:
            await self._execute(entries, ended)
        except Exception:
            logger.exception("what %d runs say cannot be written just now", len(pieces))
            return False
        self._next_entry += len(entries)
        for piece in ended:
            del self._first_entries[piece.run]
        return True

    async def _execute(self, entries: Sequence[dict[str, Any]], ended: Sequence[_Piece]) -> None:
        if self._connection is None:
            self._connection = await self._database.connect()
        async with self._connection.begin():
            await self._connection.execute(_INSERT, entries)
            if ended:
                await write_endings(self._connection, [(p.run, [*p.run.lines, *p.lines]) for p in ended])
                # All that is older than the runs that go on is not needed any more.
                over = {piece.run for piece in ended}
                going_on = (number for run, number in self._first_entries.items() if run not in over)
                first = min(going_on, default=entries[-1]["number"] + 1)
                await self._connection.execute(delete(JournalEntry).where(JournalEntry.number < first))


async def write_endings(connection: AsyncConnection, ended: Sequence[tuple[LiveRun, Sequence[str]]]) -> None:
    """Runs and their messages as they stay, with all their lines. Writes nothing of a run that was deleted."""
    runs, messages = [], []
    for run, lines in ended:
        ending = run.ending
        assert ending is not None
        runs.append(
            {
                "of": run.id,
                "status": ending.status,
                "finished_at": run.finished_at,
                "error": ending.error,
                "events": "\n".join(lines),
            }
        )
        messages.append(
            {
                "of": run.message_id,
                "content": run.content,
                "reasoning": run.reasoning or None,
                "status": ending.status,
                "error": ending.error,
                "usage": ending.usage,
                "finish_reason": ending.finish_reason,
            }
        )
    await connection.execute(_END_MESSAGE, messages)
    await connection.execute(_END_RUN, runs)
