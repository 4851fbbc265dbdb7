"""`Journal`: what runs say is on disk before anybody sees it, at the cost of one transaction for all of them.

Group commit: what is appended while one transaction is written and `INTERVAL` passes goes into the next. The busier the
server, the more text an event holds, and the fewer there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Table, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.chat.runs.live import Ending, Event, LiveRun, coalesced, encode
from fireside.server.chat.tables import JournalEntry, Message, Run
from fireside.server.db.base import now
from fireside.server.db.database import Database

INTERVAL = 0.04  # seconds
_RETRY_SECONDS = 1.0

_ENTRIES = JournalEntry.__table__
assert isinstance(_ENTRIES, Table)
_INSERT = insert(_ENTRIES)

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
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Everything that was appended is durable and delivered, or given up and logged."""
        self._is_closing = True
        self._wake.set()
        if self._writer is not None:
            await self._writer

    def append(self, run: LiveRun, event: Event) -> None:
        run.said.append(event)
        run.pending.append(event)
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
            async with self._database.session() as session:
                await session.execute(_INSERT, entries)
                for piece in ended:
                    lines = [*piece.run.lines, *piece.lines]
                    await write_ending(session, piece.run, lines)
                if ended:
                    await self._trim(session, ended, entries[-1]["number"])
        except Exception:
            logger.exception("what %d runs say cannot be written just now", len(pieces))
            return False
        self._next_entry += len(entries)
        for piece in ended:
            del self._first_entries[piece.run]
        return True

    async def _trim(self, session: AsyncSession, ended: Sequence[_Piece], last_entry: int) -> None:
        """Forgets all that is older than the runs that go on."""
        over = {piece.run for piece in ended}
        first = min((n for run, n in self._first_entries.items() if run not in over), default=last_entry + 1)
        await session.execute(delete(_ENTRIES).where(_ENTRIES.c.number < first))


async def write_ending(session: AsyncSession, run: LiveRun, lines: Sequence[str]) -> None:
    """Run and message as they stay. Writes nothing of a run that was deleted."""
    ending = run.ending
    assert ending is not None
    await session.execute(
        update(Message)
        .where(Message.id == run.message_id)
        .values(
            content=run.content,
            reasoning=run.reasoning or None,
            status=ending.status,
            error=ending.error,
            usage=ending.usage,
            finish_reason=ending.finish_reason,
        )
        .execution_options(synchronize_session=False)
    )
    await session.execute(
        update(Run)
        .where(Run.id == run.id)
        .values(status=ending.status, finished_at=run.finished_at, error=ending.error, events="\n".join(lines))
        .execution_options(synchronize_session=False)
    )
