"""`EventLog`: what runs say is on disk before anybody sees it, at the cost of one transaction for all of them.

Group commit: what is appended while one transaction is written and `INTERVAL` passes goes into the next. The busier the
server, the more text an event holds, and the fewer there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.chat.runs.live import Ending, Event, LiveRun, coalesced, encode, frame
from fireside.server.chat.tables import Message, Run, RunEvent
from fireside.server.db.base import now
from fireside.server.db.database import Database

INTERVAL = 0.04  # seconds
_RETRY_SECONDS = 1.0

_EVENTS = RunEvent.__table__
assert isinstance(_EVENTS, Table)
_INSERT_EVENTS = insert(_EVENTS)

logger = logging.getLogger(__name__)


@dataclass
class _Piece:
    """What one run contributes to a transaction."""

    run: LiveRun
    data: list[str]
    ending: Ending | None

    @property
    def first(self) -> int:
        return len(self.run.frames) + 1

    def rows(self) -> list[dict[str, Any]]:
        return [{"run_id": self.run.id, "sequence": n, "data": data} for n, data in enumerate(self.data, self.first)]

    def deliver(self) -> None:
        self.run.deliver([frame(n, data) for n, data in enumerate(self.data, self.first)])
        if self.ending is not None:
            self.run.close()


class EventLog:
    """`start` before anything is appended; `close` writes what is left."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dirty: dict[LiveRun, None] = {}
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
        if run.is_over:  # it was deleted
            return
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
            while not await self._commit(pieces):
                if self._is_closing:
                    logger.error("the last words of %d runs are lost", len(pieces))
                    for piece in pieces:
                        piece.run.close()
                    return
                await asyncio.sleep(_RETRY_SECONDS)
            for piece in pieces:
                piece.deliver()
            if not self._is_closing:
                await asyncio.sleep(INTERVAL)

    def _take(self) -> list[_Piece]:
        pieces = []
        for run in self._dirty:
            pieces.append(_Piece(run, [encode(event) for event in coalesced(run.pending)], run.ending))
            run.pending.clear()
        self._dirty.clear()
        return pieces

    async def _commit(self, pieces: list[_Piece]) -> bool:
        """False if it failed and may succeed later. Pieces of runs that were deleted are taken out."""
        kept = [piece for piece in pieces if piece.run.message_id is not None]
        if not kept:
            return True
        try:
            try:
                await self._insert(kept)
            except IntegrityError:
                if not await self._drop_deleted(pieces, kept):
                    raise
                return await self._commit(pieces)
        except Exception:
            logger.exception("events of %d runs cannot be written just now, and wait", len(kept))
            return False
        return True

    async def _insert(self, pieces: Iterable[_Piece]) -> None:
        async with self._database.session() as session:
            await session.execute(_INSERT_EVENTS, [row for piece in pieces for row in piece.rows()])
            for piece in pieces:
                if piece.ending is not None:
                    await write_ending(session, piece.run, piece.ending)

    async def _drop_deleted(self, pieces: list[_Piece], kept: Iterable[_Piece]) -> bool:
        """Whether some of the runs were deleted. Nobody wants to hear the rest of them."""
        ids = [piece.run.id for piece in kept]
        async with self._database.session() as session:
            existing = set(await session.scalars(select(Run.id).where(Run.id.in_(ids))))
        deleted = [piece for piece in kept if piece.run.id not in existing]
        for piece in deleted:
            pieces.remove(piece)
            piece.run.close()
        return bool(deleted)


async def write_ending(session: AsyncSession, run: LiveRun, ending: Ending) -> None:
    """The message as it stays. The run's last event is the caller's to write."""
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
        .values(status=ending.status, finished_at=now(), error=ending.error)
        .execution_options(synchronize_session=False)
    )
