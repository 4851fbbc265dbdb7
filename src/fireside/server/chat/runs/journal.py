"""`Journal`: what runs say is on disk before anybody sees it, at the cost of one transaction for all of them.

Group commit: what is appended while one transaction is written and `INTERVAL` passes goes into the next. The busier the
server, the more text an event holds, and the fewer there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Table, bindparam, delete, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from fireside.server.chat.runs.live import Ending, Event, LiveRun, coalesced, encode
from fireside.server.chat.tables import JournalEntry, Message, Run, Status
from fireside.server.db.base import now
from fireside.server.db.database import Database, DatabaseInUse
from fireside.server.db.trouble import is_for_good

INTERVAL = 0.04  # seconds
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 5.0  # seconds between tries, each twice as long as the one before
_MOST_SECONDS = 30.0  # for one transaction, after which its connection is taken for lost
_LOOK_SECONDS = 10.0  # without anything to write, after which it is looked whether the database is still ours

UNSTORABLE = Ending(
    status=Status.FAILED,
    error={"message": "the rest of this answer cannot be stored: try again", "code": "not_storable"},
)

_RUNS, _MESSAGES = Run.__table__, Message.__table__
assert isinstance(_RUNS, Table) and isinstance(_MESSAGES, Table)
# A connection may be lost between a commit and the news of it: what is there already is not written twice.
_INSERT = text(
    "INSERT INTO run_journal (number, run_id, events) VALUES (:number, :run_id, :events) "
    "ON CONFLICT (number) DO NOTHING"
)
_END_RUN = update(_RUNS).where(_RUNS.c.id == bindparam("of"))
_END_MESSAGE = update(_MESSAGES).where(_MESSAGES.c.id == bindparam("of"))

logger = logging.getLogger(__name__)


@dataclass
class _Piece:
    """What one run contributes to a transaction, one line an event.

    number: of its entry, the same however often it is tried. flaw: why it can never be written.
    """

    run: LiveRun
    number: int
    lines: list[str]
    ending: Ending | None
    flaw: Exception | None = None


class Journal:
    """`start` on an empty table, before anything is appended; `close` writes what is left.

    on_taken_over: called if another server has taken the database; nothing is written from then on.
    """

    def __init__(self, database: Database, on_taken_over: Callable[[], None]) -> None:
        self._database = database
        self._on_taken_over = on_taken_over
        self._dirty: dict[LiveRun, None] = {}
        self._first_entries: dict[LiveRun, int] = {}  # of runs that are not over
        self._next_entry = 1
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._is_taken_over = False
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Everything that was appended is durable and delivered, or given up and logged."""
        self._closing.set()
        self._wake.set()
        if self._writer is not None:
            await self._writer

    def append(self, run: LiveRun, event: Event) -> None:
        if run.ending is None or event["type"] == "done":  # one that was given up may still speak
            run.say(event)
            self._mark(run)

    def finish(self, run: LiveRun, ending: Ending) -> None:
        """The last event; message and run are written in the transaction that makes it durable."""
        if run.ending is None:
            run.ending, run.finished_at = ending, now()
            self.append(run, ending.event)

    def _mark(self, run: LiveRun) -> None:
        self._dirty[run] = None
        self._wake.set()

    async def _write(self) -> None:
        while not (self._closing.is_set() and not self._dirty):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
            self._wake.clear()
            pieces = []
            for piece in self._take():
                if piece.run.is_temporary:
                    self._hand_on(piece, is_durable=True)
                else:
                    pieces.append(piece)
            is_durable = await (self._store(pieces) if pieces else self._look())
            for piece in pieces:
                self._hand_on(piece, is_durable=is_durable)
            if not self._closing.is_set():
                await asyncio.sleep(INTERVAL)

    def _hand_on(self, piece: _Piece, *, is_durable: bool) -> None:
        if is_durable:  # nobody sees what is not on disk
            piece.run.deliver(piece.lines)
        if piece.ending is not None:
            piece.run.close()

    def _take(self) -> list[_Piece]:
        pieces = []
        dirty, self._dirty = self._dirty, {}
        for run in dirty:
            piece = _Piece(run, 0, [], run.ending)
            try:
                piece.lines = [encode(event) for event in coalesced(run.pending)]
            except (ValueError, TypeError) as error:  # half a character, for one, is nothing that UTF-8 can say
                piece.flaw = error
            run.pending.clear()
            if not run.is_temporary:
                piece.number = self._next_entry
                self._next_entry += 1
                self._first_entries.setdefault(run, piece.number)
            elif piece.flaw is not None:
                self._give_up(piece, piece.flaw)
            pieces.append(piece)
        return pieces

    async def _store(self, pieces: Sequence[_Piece]) -> bool:
        """False if it had to be left. A run that can never be written ends, and keeps nobody else's from it."""
        if all(piece.flaw is None for piece in pieces):
            try:
                return await self._commit(pieces)
            except Exception as error:
                if len(pieces) == 1:
                    pieces[0].flaw = error
        for piece in pieces:
            if not await self._store_alone(piece):
                return False
        return True

    async def _store_alone(self, piece: _Piece) -> bool:
        try:
            if piece.flaw is None:
                return await self._commit([piece])
        except Exception as error:
            piece.flaw = error
        assert piece.flaw is not None
        self._give_up(piece, piece.flaw)
        try:
            return await self._commit([piece])
        except Exception:  # its message says "running" until the next start says otherwise
            logger.exception("the end of run %s cannot be written", piece.run.id)
            self._first_entries.pop(piece.run, None)
            return True

    def _give_up(self, piece: _Piece, why: Exception) -> None:
        """Ends a run with what is durable of it, and with a message that says so."""
        logger.error("what run %s says can never be written, so it ends: %s", piece.run.id, why)
        run = piece.run
        piece.ending = run.ending = UNSTORABLE
        run.finished_at = run.finished_at or now()
        if run.task is not None:
            run.task.cancel()
        run.take_back()
        self._dirty.pop(run, None)
        piece.lines = [encode(UNSTORABLE.event)]

    async def _commit(self, pieces: Sequence[_Piece]) -> bool:
        """Tries until it is done; False if it was left because this server ends. Raises what no trying will mend."""
        pause = _FIRST_PAUSE
        while not self._is_taken_over:
            try:
                async with asyncio.timeout(_MOST_SECONDS):
                    await self._execute(pieces)
            except DatabaseInUse as error:
                self._leave(error)
            except Exception as error:
                if not self._database.is_sqlite or not isinstance(error, DBAPIError):
                    await self._database.drop_own_connection()
                if is_for_good(error):
                    raise
                logger.warning("what %d runs say cannot be written just now: %s", len(pieces), error)
                if self._closing.is_set():
                    return False
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause)
                pause = min(2 * pause, _LAST_PAUSE)
            else:
                for piece in pieces:
                    if piece.ending is not None:
                        del self._first_entries[piece.run]
                return True
        return False

    async def _look(self) -> bool:
        """Whether the database is still ours: a connection that was lost is made again before anybody waits for it."""
        try:
            if not self._database.is_sqlite and not self._is_taken_over:
                connection = await self._database.own_connection()
                await connection.execute(text("SELECT 1"))
                await connection.rollback()
        except DatabaseInUse as error:
            self._leave(error)
        except Exception as error:
            logger.warning("the database cannot be reached just now: %s", error)
            await self._database.drop_own_connection()
        return True

    def _leave(self, error: DatabaseInUse) -> None:
        logger.critical("this server writes nothing any more: %s", error)
        self._is_taken_over = True
        self._on_taken_over()

    async def _execute(self, pieces: Sequence[_Piece]) -> None:
        entries = [{"number": p.number, "run_id": p.run.id, "events": "\n".join(p.lines)} for p in pieces]
        ended = [piece for piece in pieces if piece.ending is not None]
        connection = await self._database.own_connection()
        async with connection.begin():
            await connection.execute(_INSERT, entries)
            if ended:
                await write_endings(connection, [(p.run, [*p.run.lines, *p.lines]) for p in ended])
                # All that is older than the runs that go on is not needed any more.
                over = {piece.run for piece in ended}
                going_on = (number for run, number in self._first_entries.items() if run not in over)
                first = min(going_on, default=pieces[-1].number + 1)
                await connection.execute(delete(JournalEntry).where(JournalEntry.number < first))


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
                "left_out": run.left_out,
            }
        )
    await connection.execute(_END_MESSAGE, messages)
    await connection.execute(_END_RUN, runs)
