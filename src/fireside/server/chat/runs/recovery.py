"""What a server that died left running is told as it is, by the next one at its start."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, select

from fireside.server.chat.runs.journal import UNSTORABLE, write_endings
from fireside.server.chat.runs.live import Ending, LiveRun, encode
from fireside.server.chat.tables import JournalEntry, Message, Run, Status
from fireside.server.db.base import now
from fireside.server.db.database import Database
from fireside.server.db.trouble import may_pass

INTERRUPTED = {"message": "the server was stopped while this was written", "code": "interrupted"}

logger = logging.getLogger(__name__)


async def recover(database: Database) -> None:
    """Runs that a dead server left running: their messages get what was said, and say that they are cut."""
    async with database.session() as session:
        said: dict[str, list[str]] = {}
        entries = select(JournalEntry.run_id, JournalEntry.events).order_by(JournalEntry.number)
        for run_id, events in await session.execute(entries):
            said.setdefault(run_id, []).extend(events.split("\n"))
        cut = select(Run, Message).join(Message, Message.id == Run.message_id).where(Run.status == Status.RUNNING)
        rows = (await session.execute(cut)).all()
    for run, message in rows:
        live = LiveRun(
            id=run.id,
            user_id=run.user_id,
            message_id=message.id,
            base_content=message.content,
            base_reasoning=message.reasoning or "",
            ending=Ending(status=Status.INTERRUPTED, error=INTERRUPTED),
            finished_at=now(),
        )
        await _write_ending(database, live, said.get(run.id, []))
    async with database.session() as session:
        await session.execute(delete(JournalEntry).execution_options(synchronize_session=False))
    if rows:
        logger.warning("%d answers were cut off when the server ended; they can be continued", len(rows))


async def _write_ending(database: Database, live: LiveRun, lines: Sequence[str]) -> None:
    """In a transaction of its own: one that cannot be read or written keeps no server from starting."""
    assert live.ending is not None
    try:
        for line in lines:
            live.say(msgspec.json.decode(line))
        async with database.session() as session:
            await write_endings(await session.connection(), [(live, [*lines, encode(live.ending.event)])])
    except Exception as error:
        if may_pass(error):
            raise
        logger.exception("what run %s said cannot be recovered", live.id)
        live.ending = UNSTORABLE
        live.take_back()
        async with database.session() as session:
            await write_endings(await session.connection(), [(live, [encode(UNSTORABLE.event)])])
