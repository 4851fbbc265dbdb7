"""The one connection to the database: SQLite in the home folder by default, PostgreSQL by a setting."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fireside.errors import FiresideError
from fireside.server.db import open_apart, sqlite_connection
from fireside.server.db.serving_lock import ConnectionLock, FileLock

KEPT_BACKUPS = 5

logger = logging.getLogger(__name__)

# At the level of debugging it writes every statement's values into the log.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)

# Pages of the write-ahead log after which a commit waits until they are in the database and on the disk. SQLite's 1,000
# would let every hundredth of the commits that streams make wait; 16 MiB are read again within a moment after a crash.
_CHECKPOINT = "wal_autocheckpoint=4000"

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
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._lock = FileLock(Path(self.url.database or "")) if self.is_sqlite else ConnectionLock()
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
            await self.own_connection()
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
                await connection.close()
                raise
            if holder is not None:
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
                _own_file(Path(self.url.database))
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
                    await asyncio.to_thread(self._back_up)
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
        return await asyncio.to_thread(self._back_up)

    @property
    def backup_folder(self) -> Path:
        """Of SQLite."""
        return Path(self.url.database or "").parent / "backups"

    async def backups(self) -> list[tuple[Path, os.stat_result]]:
        """Those of this database that are there, the newest first."""
        if not self.is_sqlite:
            return []
        stem = Path(self.url.database or "").stem

        def found() -> list[tuple[Path, os.stat_result]]:
            paths = sorted(self.backup_folder.glob(f"{stem}-*.db"), reverse=True)
            told = []
            for path in paths:
                with suppress(OSError):  # deleted a moment ago
                    told.append((path, path.stat()))
            return told

        return await asyncio.to_thread(found)

    async def size(self) -> int | None:
        """Bytes that it takes; None if that cannot be told."""
        if self.is_sqlite:
            return await asyncio.to_thread(_size_of, Path(self.url.database or ""))
        async with self._engine.connect() as connection:
            return (await connection.execute(text("SELECT pg_database_size(current_database())"))).scalar()

    @property
    def where(self) -> str:
        """For people; without a password."""
        return self.url.database or "" if self.is_sqlite else self.url.render_as_string(hide_password=True)

    def _unusable(self, error: Exception) -> DatabaseError:
        reason = error.orig if isinstance(error, DBAPIError) else error
        return DatabaseError(f"the database {self.where} cannot be used: {reason}")

    def _in_use(self, holder: str) -> DatabaseInUse:
        return DatabaseInUse(
            f"another Fireside serves the database {self.where} already ({holder}): stop it, or give this one a "
            "database of its own (home or database_url). fireside admin works beside it"
        )

    def _back_up(self) -> Path:
        source = Path(self.url.database or "")
        folder = self.backup_folder
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / f"{source.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db"
        partial = target.with_suffix(".partial")
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # VACUUM takes an empty file
        connection = sqlite3.connect(source)
        try:
            connection.execute("VACUUM INTO ?", (str(partial),))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        finally:
            connection.close()
        partial.replace(target)
        for old in sorted(folder.glob(f"{source.stem}-*.db"))[:-KEPT_BACKUPS]:
            with suppress(OSError):
                old.unlink()
        return target


def _own_file(path: Path) -> None:
    """For its owner's eyes only, before there is anything in it; what SQLite puts beside it takes the same mode.

    Files that are there and that others may read are closed to them: the database, its log, its backups. A file that is
    there already is never opened: closing it would drop the locks that SQLite's own connections in this process have on
    it, and another process could then delete the log that they write to
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        backups = path.parent / "backups"
        for found in (*(path.with_name(path.name + end) for end in ("", "-wal", "-shm")), *backups.glob("*.db")):
            _close_to_others(found, 0o600)
        _close_to_others(backups, 0o700)


def _close_to_others(path: Path, mode: int) -> None:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(mode)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("others may be able to read %s, and that cannot be changed: %s", path, error.strerror)


def _size_of(path: Path) -> int | None:
    """With the log, in which what was written last is until it is moved."""
    with suppress(OSError):
        log = path.with_name(f"{path.name}-wal")
        return path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    return None


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=5000")
    deadline = time.monotonic() + 5
    while _journal_mode(cursor) != "wal":
        # A file becomes WAL once and for all. Beside another connection that may fail at once, whatever the timeout is.
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", _CHECKPOINT):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _journal_mode(cursor: Any) -> str:
    cursor.execute("PRAGMA journal_mode")
    mode: str = cursor.fetchone()[0]
    return mode


async def _version(connection: AsyncConnection) -> str | None:
    """Of the tables that are there; None for an empty database."""
    has_table = await connection.run_sync(lambda sync: sync.dialect.has_table(sync, "alembic_version"))
    if not has_table:
        return None
    return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
