"""The database: SQLite in the home folder by default, PostgreSQL by a setting. A pool of connections, and one apart."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fireside.errors import FiresideError
from fireside.server.db import backups, open_apart, sqlite_connection, sqlite_file
from fireside.server.db.serving_lock import ConnectionLock, FileLock

# At the level of debugging it writes every statement's values into the log.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)

_SQLITE_CONNECTIONS = 16

_MIGRATION_LOCK = 0x46495245  # any number that nobody else locks
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


class DatabaseError(FiresideError):
    """The database cannot be opened, or brought to this version's tables; the message says why and what to do."""


class DatabaseInUse(DatabaseError):
    """Another server has it."""


class Database:
    """Sessions on the database, after `open` has brought its tables to this version's.

    A process that serves it calls `take` as well, which only one can at a time.
    """

    def __init__(self, url: str) -> None:
        """url: `sqlite:///FOLDER/FILE.db` or `postgresql://USER:PASSWORD@HOST/NAME`. Raises `DatabaseError`."""
        try:
            given = make_url(url)
            driver = _DRIVERS[given.get_backend_name()]
        except (SQLAlchemyError, KeyError):  # neither error may show the URL, which holds a password
            raise DatabaseError(f"database_url must begin with {' or '.join(_DRIVERS)}, followed by ://") from None
        self.url = given.set(drivername=driver)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database in (None, "", ":memory:"):
            raise DatabaseError("database_url must name a file: sqlite:////absolute/path/fireside.db")
        options: dict[str, Any] = {"hide_parameters": True}  # in errors: they are people's words, and digests
        if self.is_sqlite:
            options["connect_args"] = {"async_creator_fn": sqlite_connection.connect}
            # None beyond the pool, which would be opened anew, with a thread each, whenever there is a crowd.
            options |= {"pool_size": _SQLITE_CONNECTIONS, "max_overflow": 0}
        else:
            options |= {"pool_size": 10, "pool_pre_ping": True}
        try:
            self._engine: AsyncEngine = create_async_engine(self.url, **options)
        except ImportError as error:
            raise DatabaseError("PostgreSQL needs its driver: pip install 'fireside[postgres]'") from error
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", sqlite_file.prepare)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._lock = FileLock(self._path) if self.is_sqlite else ConnectionLock()
        self._own: AsyncConnection | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A unit of work: committed at its end, rolled back if it raises. It may commit in between as well.

        Every statement sees what was committed before it, in both databases (SQLite's driver begins a transaction
        only at the first change, so that a session which reads and then changes never finds its snapshot outdated).
        What must not be done twice therefore has to be one statement with its condition in it, or a constraint.
        """
        async with self._sessions() as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def writing_session(self) -> AsyncIterator[AsyncSession]:
        """A `session` for what many do in the same moment: in turn, where SQLite would have each but one sleep and try
        again."""
        async with self._turn if self.is_sqlite else nullcontext(), self.session() as session:
            yield session

    async def take(self) -> None:
        """Makes this process the only one that serves it, until `close`. Raises `DatabaseInUse` if another one does."""
        try:
            connection = await self.own_connection()
            if isinstance(self._lock, ConnectionLock):
                await self._lock.begin_serving(connection)
        except (SQLAlchemyError, OSError) as error:
            raise self._unusable(error) from error

    async def own_connection(self) -> AsyncConnection:
        """The connection of the one that serves, for one task at a time, which never waits behind a crowd of requests.

        It is made again after `drop_own_connection`. Raises `DatabaseInUse` if another server has come in between, and
        what the driver raises.
        """
        if self._own is not None:
            return self._own
        if isinstance(self._lock, FileLock):
            holder = self._lock.take()
            connection = await self._engine.connect() if holder is None else None
        else:
            connection = await self._engine.connect()
            try:
                holder = await self._lock.take(connection)
            except BaseException:
                await connection.invalidate()  # which may have the lock
                await connection.close()
                raise
            if holder is not None:
                await connection.invalidate()
                await connection.close()
        if connection is None or holder is not None:
            raise self._in_use(holder or "")
        self._own = connection
        return connection

    async def drop_own_connection(self) -> None:
        """After an error on it. What the lock depends on is never handed back to others."""
        connection, self._own = self._own, None
        if connection is not None:
            with suppress(Exception):
                if not self.is_sqlite:
                    await connection.invalidate()
                await connection.close()

    async def open(self, *, apart: bool = False) -> None:
        """Creates the tables, or migrates those of an earlier version behind a backup. Raises `DatabaseError`.

        apart: in another process, if there is anything to do, for the sake of this one's memory.
        """
        try:
            if self.is_sqlite and self.url.database:
                sqlite_file.own_file(Path(self.url.database))
            async with self._engine.connect() as connection:
                version = await _version(connection)
            from fireside.server.db import migrations

            if version == migrations.HEAD:
                return
            if apart:
                url = self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=False)
                if (reason := await asyncio.to_thread(open_apart.run, url)) is not None:
                    raise DatabaseError(reason)
                return
            if version is not None and version not in migrations.known():
                raise DatabaseError(
                    f"{self.where} was written by a newer Fireside (tables {version}): update this one, or restore a "
                    "backup"
                )
            async with self._alone_unless(version is None):
                if version is not None and self.is_sqlite:
                    await self.back_up()
                await self._migrate(version)
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    async def _migrate(self, version: str | None) -> None:
        from fireside.server.db import migrations

        async with self._engine.begin() as connection:
            # One process migrates; another that starts beside it waits here, and finds the work done. SQLite's driver
            # would begin no transaction for CREATE TABLE.
            await connection.execute(
                text("BEGIN IMMEDIATE" if self.is_sqlite else f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            )
            if await _version(connection) == version:
                await connection.run_sync(migrations.upgrade)

    @asynccontextmanager
    async def _alone_unless(self, is_empty: bool) -> AsyncIterator[None]:
        """No server of an earlier version goes on with tables that are changed under it. Raises `DatabaseInUse`."""
        if is_empty or self._own is not None:
            yield
            return
        await self.own_connection()
        try:
            yield
        finally:
            await self._let_go()

    async def close(self) -> None:
        await self._let_go()
        await self._engine.dispose()

    async def _let_go(self) -> None:
        if isinstance(self._lock, FileLock):
            await self.drop_own_connection()
            self._lock.release()
        elif self._own is not None:
            await self._lock.release(self._own)
            await self.drop_own_connection()

    async def back_up(self) -> Path:
        """A copy of the whole database beside it, of SQLite alone. Raises `DatabaseError`."""
        if not self.is_sqlite:
            raise DatabaseError("PostgreSQL is backed up by its own tools: pg_dump")
        try:
            return await asyncio.to_thread(backups.make, self._path)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(f"no backup can be made in {self.backup_folder}: {error}") from error

    @property
    def backup_folder(self) -> Path:
        """Of SQLite."""
        return backups.folder_of(self._path)

    async def backups(self) -> list[tuple[Path, os.stat_result]]:
        """Those of this database that are there, the newest first."""
        return await asyncio.to_thread(backups.found, self._path) if self.is_sqlite else []

    async def size(self) -> int | None:
        """Bytes that it takes; None if that cannot be told."""
        if self.is_sqlite:
            return await asyncio.to_thread(sqlite_file.size_of, self._path)
        async with self._engine.connect() as connection:
            return (await connection.execute(text("SELECT pg_database_size(current_database())"))).scalar()

    @property
    def where(self) -> str:
        """For people; without a password, which may be in the query as well."""
        if self.is_sqlite:
            return self.url.database or ""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def _path(self) -> Path:
        """Of SQLite."""
        return Path(self.url.database or "")

    def _unusable(self, error: Exception) -> DatabaseError:
        reason = error.orig if isinstance(error, DBAPIError) else error
        return DatabaseError(f"the database {self.where} cannot be used: {reason}")

    def _in_use(self, holder: str) -> DatabaseInUse:
        return DatabaseInUse(
            f"another Fireside serves the database {self.where} already ({holder}): stop it, or give this one a "
            "database of its own (home or database_url). fireside admin works beside it"
        )


async def _version(connection: AsyncConnection) -> str | None:
    """Of the tables that are there; None for an empty database."""
    has_table = await connection.run_sync(lambda sync: sync.dialect.has_table(sync, "alembic_version"))
    if not has_table:
        return None
    return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
