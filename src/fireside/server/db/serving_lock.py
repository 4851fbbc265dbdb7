"""`ServingLock`: one server at a time for a database, since what a second one found running it would take for cut off.

For SQLite the lock is on a file beside the database, which the system lets go of with the process, however that ends.
For PostgreSQL it belongs to a connection, and whoever holds it does by that same connection what nobody else may
(`Journal`): without the lock there is no way to write it. One that lost its connection and takes the lock again learns
from a row of its own, which every server puts in the place of the one before, whether another has served meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fireside.server.db.base import Base, Identified, new_id

if sys.platform != "win32":
    import fcntl

_KEY = 0x53455256  # any number that nobody else locks

_HOLDER = text(
    "SELECT a.pid, a.client_addr::text FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = :key AND l.granted "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Serving(Identified, Base):
    """The server that served last, or still does: one row."""

    __tablename__ = "servings"


class FileLock:
    """On `PATH.lock`, whatever link leads to PATH. Not on PATH itself, whose locks are SQLite's own."""

    def __init__(self, database: Path) -> None:
        real = database.resolve()
        self.path = real.with_name(f"{real.name}.lock")
        self._file: int | None = None

    def take(self) -> str | None:
        """None if it is ours now; else who has it, for people. Raises `OSError` if the file cannot be made."""
        if self._file is not None or sys.platform == "win32":
            return None
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode(errors="replace").strip()
            os.close(file)
            return f"process {holder}" if holder.isdecimal() else "another process"
        except OSError:  # a file system without locks: better served than not
            os.close(file)
            return None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return None

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)  # the file stays: one that is removed could be locked by two, each their own
            self._file = None


class ConnectionLock:
    """PostgreSQL's, on whatever connection it is taken."""

    def __init__(self) -> None:
        self._backend: int | None = None  # that had it last
        self._serving: str | None = None

    async def begin_serving(self, connection: AsyncConnection) -> None:
        """Once `take` has succeeded. From then on, it fails if another server has begun to serve in between."""
        if self._serving is not None:
            return
        serving = new_id()
        async with connection.begin():
            await connection.execute(delete(Serving))
            await connection.execute(insert(Serving).values(id=serving))
        self._serving = serving

    async def take(self, connection: AsyncConnection) -> str | None:
        """None if the connection has it now; else who has it, for people.

        A connection of our own that broke may have it still, when the server has not noticed that it broke: it is
        ended. Raises what the driver raises.
        """
        for _ in range(20):
            if (await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY})).scalar():
                self._backend = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
                ours = select(Serving.id).where(Serving.id == self._serving)
                if self._serving is not None and (await connection.execute(ours)).one_or_none() is None:
                    return "one that began while this one could not reach the database"
                await connection.commit()
                return None
            holder = (await connection.execute(_HOLDER, {"key": _KEY})).one_or_none()
            if holder is not None and holder.pid != self._backend:
                await connection.rollback()
                return f"a connection from {holder.client_addr or 'the same machine'} (backend {holder.pid})"
            if holder is not None:
                await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": holder.pid})
            await asyncio.sleep(0.05)
        await connection.rollback()
        return "another connection"

    async def release(self, connection: AsyncConnection) -> None:
        self._serving = None
        with suppress(Exception):  # it is let go of with the connection, if not so
            await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _KEY})
            await connection.commit()
