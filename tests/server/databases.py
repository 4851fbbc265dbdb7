"""Databases for tests: an SQLite file each, and where PostgreSQL is installed, one of those each as well."""

from __future__ import annotations

import asyncio
import itertools
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fireside.server.db.database import Database


def in_thread(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs it to its end, whether or not there is a loop in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def migrate(url: str) -> None:
    database = Database(url)
    try:
        await database.open()
    finally:
        await database.close()


@cache
def migrated_sqlite() -> bytes:
    """A file as the first start leaves it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fireside.db"
        in_thread(migrate(f"sqlite:///{path}"))
        return path.read_bytes()


class PostgreSQL:
    """A server of the tests' own, in memory's speed: what a crash of the machine would lose is not wanted."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count()
        self._migrated: str | None = None

    def empty(self) -> str:
        return self._create()

    def migrated(self) -> str:
        """The same one every time, emptied: to make one takes longer than most tests."""
        if self._migrated is None:
            self._migrated = self._create()
            in_thread(migrate(self._migrated))
        else:
            self._execute(_EMPTY, self._migrated)
        return self._migrated

    def _create(self) -> str:
        name = f"test{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://fireside@127.0.0.1:{self._port}/{name}"

    def _execute(self, statement: str, url: str | None = None) -> None:
        import asyncpg

        async def execute() -> None:
            connection = await asyncpg.connect(url or self._url("postgres"))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        in_thread(execute())


# Only what has rows: to truncate a table takes a new file, and most tests write to few.
_EMPTY = """
SET lock_timeout = '10s';
DO $$ DECLARE name text; found boolean; filled text[] := '{}'; BEGIN
    FOR name IN SELECT quote_ident(tablename) FROM pg_tables
                WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO found;
        IF found THEN filled := filled || name; END IF;
    END LOOP;
    IF filled <> '{}' THEN EXECUTE 'TRUNCATE ' || array_to_string(filled, ', ') || ' CASCADE'; END IF;
END $$
"""


def why_no_postgresql() -> str | None:
    """Why there is none for tests; None if there is."""
    if _program("initdb") is None:
        return "PostgreSQL is not installed (on Debian and Ubuntu: apt install postgresql)"
    if os.getuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        return "PostgreSQL does not run as root, and there is no user named postgres"
    return None


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    with TemporaryDirectory(prefix="fireside-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        owner = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = owner.pw_name if owner else None
        run = [str(_program("initdb")), "-D", name, "-U", "fireside", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*run, "--locale=C"], check=True, capture_output=True, user=user, cwd=name)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        options = f"-p {port} -h 127.0.0.1 -k {name} -F -c synchronous_commit=off -c full_page_writes=off"
        control = [str(_program("pg_ctl")), "-D", name, "-w", "-s"]
        start = [*control, "-l", str(folder / "log"), "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, user=user, cwd=name)
        try:
            yield PostgreSQL(port)
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, user=user, cwd=name)


def _program(name: str) -> Path | None:
    if found := shutil.which(name):
        return Path(found)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))  # where Debian hides them
    return versions[-1] if versions else None
