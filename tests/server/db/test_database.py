"""The database: made, migrated, backed up, and for its owner's eyes only."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import IntegrityError

from fireside.server.app import create_app  # and with it all tables
from fireside.server.db import migrations
from fireside.server.db.backups import KEPT_BACKUPS
from fireside.server.db.base import Base, UtcDateTime, new_id, now
from fireside.server.db.database import Database, DatabaseError
from tests.cli.programs import environment
from tests.server.databases import why_no_postgresql

assert create_app


async def version_of(database: Database) -> str | None:
    async with database.session() as session:
        return (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar()


async def test_the_steps_make_the_tables_that_are_declared(empty_database: str) -> None:
    """Alembic's own comparison, of columns, types, indexes and constraints; and the foreign keys' actions, which it
    leaves out where a database keeps them under other names."""
    database = Database(empty_database)
    await database.open()
    assert await version_of(database) == migrations.HEAD
    declared = Base.metadata

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": ours})
        return list(compare_metadata(context, declared))

    def ours(_: object, name: str | None, kind: str, *__: object) -> bool:
        if kind == "table":
            return name in declared.tables  # SQLite's search index has tables of its own
        return not str(name).endswith("_words")  # and PostgreSQL's is over an expression, which nothing reads back

    async with database._engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_the_comparison_finds_a_column_that_is_missing(empty_database: str) -> None:
    database = Database(empty_database)
    await database.open()
    async with database._engine.begin() as connection:
        await connection.execute(text("ALTER TABLE users DROP COLUMN instructions"))
        found = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={}), Base.metadata)
        )
    assert any("instructions" in str(difference) for difference in found)
    await database.close()


async def test_two_that_start_at_once(empty_database: str) -> None:
    databases = [Database(empty_database) for _ in range(4)]
    await asyncio.gather(*(database.open() for database in databases))
    assert {await version_of(database) for database in databases} == {migrations.HEAD}
    for database in databases:
        await database.open()  # again, which is nothing
        await database.close()


async def test_a_step_that_fails_leaves_nothing_behind(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = migrations.upgrade

    def fails(connection: Connection) -> None:
        real(connection)
        connection.execute(text("SELECT * FROM no_such_table"))

    monkeypatch.setattr(migrations, "upgrade", fails)
    database = Database(empty_database)
    with pytest.raises(DatabaseError, match=r"cannot be used: .*no_such_table"):
        await database.open()
    async with database._engine.connect() as connection:
        assert not await connection.run_sync(lambda sync: sync.dialect.has_table(sync, "users"))
        assert not await connection.run_sync(lambda sync: sync.dialect.has_table(sync, "alembic_version"))
    monkeypatch.undo()
    await database.open()
    assert await version_of(database) == migrations.HEAD
    await database.close()


async def test_tables_of_a_newer_version_are_left_alone(empty_database: str) -> None:
    database = Database(empty_database)
    await database.open()
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"newer Fireside \(tables 9999\): update this one, or restore a backup"):
        await database.open()
    assert await version_of(database) == "9999"
    await database.close()


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of the version before this one, with somebody in it. Its step to this one adds a table."""
    versions = Path(migrations.__file__).parent / "versions"
    folder = tmp_path / "migrations" / "versions"
    folder.mkdir(parents=True)
    for step in versions.glob("*.py"):
        (folder / step.name).write_bytes(step.read_bytes())
    step = f"""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "next", "{migrations.HEAD}"
def upgrade(): op.create_table("added", sa.Column("id", sa.Integer()))
"""
    (folder / "next.py").write_text(step)
    path = tmp_path / "fireside.db"

    async def make() -> None:
        database = Database(f"sqlite:///{path}")
        await database.open()
        async with database.session() as session:
            await session.execute(text("INSERT INTO audit_log VALUES ('a', 0, NULL, NULL, 'kept', NULL, '{}')"))
        await database.close()

    asyncio.run(make())
    monkeypatch.setattr(migrations, "__file__", str(tmp_path / "migrations" / "__init__.py"))
    monkeypatch.setattr(migrations, "HEAD", "next")
    return path


def test_before_a_migration_there_is_a_backup(earlier: Path) -> None:
    async def run() -> None:
        database = Database(f"sqlite:///{earlier}")
        await database.open()
        assert await version_of(database) == "next"
        await database.open()
        await database.close()

    asyncio.run(run())
    (backup,) = (earlier.parent / "backups").iterdir()  # one, and nothing half done
    for path, tables in ((backup, 0), (earlier, 1)):
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT action FROM audit_log").fetchall() == [("kept",)]
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'added'").fetchone() == (tables,)
        connection.close()


def test_without_a_backup_there_is_no_migration(earlier: Path) -> None:
    (earlier.parent / "backups").write_text("in the way")

    async def run() -> None:
        database = Database(f"sqlite:///{earlier}")
        with pytest.raises(DatabaseError, match="backups"):
            await database.open()
        await database.close()

    asyncio.run(run())
    connection = sqlite3.connect(earlier)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'added'").fetchone() == (0,)
    connection.close()


async def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)  # the most careless of all
    try:
        folder = tmp_path / "new"
        database = Database(f"sqlite:///{folder / 'fireside.db'}")
        await database.open()
        async with database.session() as session:
            await session.execute(text("DELETE FROM users"))
            backup = await database.back_up()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("fireside.db*")}
        await database.close()
    finally:
        os.umask(before)
    assert modes == {"fireside.db": 0o600, "fireside.db-wal": 0o600, "fireside.db-shm": 0o600}
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert stat.S_IMODE(backup.parent.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700


VISITOR = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO audit_log VALUES ('visitor', 0, NULL, NULL, 'x', NULL, '{}')")
connection.commit()
connection.close()
"""


async def test_another_process_that_comes_and_goes_takes_nothing_along(tmp_path: Path) -> None:
    """Who closes the last connection deletes the write-ahead log. If our own locks were gone, as they are once this
    process has opened the file and closed it, that would be the visitor, and what we write from then on would be lost.
    """
    path = tmp_path / "fireside.db"
    database = Database(f"sqlite:///{path}")
    await database.open()
    async with database.session() as session:
        await session.execute(text("SELECT * FROM audit_log"))
    await database.open()  # as the app's start does, after the command's
    await database.back_up()
    await database.size()
    visit = [sys.executable, "-c", VISITOR, str(path)]
    await asyncio.to_thread(subprocess.run, visit, check=True)
    async with database.session() as session:
        await session.execute(text("INSERT INTO audit_log VALUES ('ours', 0, NULL, NULL, 'x', NULL, '{}')"))
    await asyncio.to_thread(subprocess.run, [*visit[:2], VISITOR.replace("visitor", "second"), visit[3]], check=True)
    await database.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT id FROM audit_log ORDER BY id").fetchall() == [
        ("ours",),
        ("second",),
        ("visitor",),
    ]
    connection.close()


async def test_the_newest_backups_are_kept(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'fireside.db'}")
    await database.open()
    made = [await database.back_up() for _ in range(KEPT_BACKUPS + 2)]
    await database.close()
    assert sorted((tmp_path / "backups").iterdir()) == made[-KEPT_BACKUPS:]


async def test_what_a_killed_process_left_of_a_backup_goes(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'fireside.db'}")
    await database.open()
    await database.back_up()
    left, writing, other = (tmp_path / "backups" / f"{name}.partial" for name in ("fireside-1", "fireside-2", "else-1"))
    for path in (left, writing, other):
        path.touch()
    for path in (left, other):
        os.utime(path, (0, 0))
    await database.back_up()
    assert not left.exists() and writing.exists() and other.exists()
    await database.close()


@pytest.mark.parametrize("query", ["password=s3cret", "passfile=%2Fs3cret&ssl=disable"])
def test_a_password_in_the_query_is_not_told(query: str) -> None:
    database = Database(f"postgresql://me:s3cret@host/name?{query}")
    assert "s3cret" not in database.where + str(database._unusable(OSError())) + str(database._in_use(""))
    assert database.where.endswith("://me:***@host/name")


async def test_sqlite_is_set_up_to_last(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'fireside.db'}")
    await database.open()
    async with database.session() as session:
        pragmas = [
            (await session.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        ]
    assert pragmas == ["wal", 1, 1, 5000]
    await database.close()


async def test_foreign_keys_are_kept(migrated_database: str) -> None:
    database = Database(migrated_database)
    with pytest.raises(IntegrityError):
        async with database.session() as session:
            await session.execute(text("INSERT INTO audit_log VALUES ('a', 0, 'nobody', NULL, 'x', NULL, '{}')"))
    await database.close()


async def test_a_unit_of_work_is_whole_or_not_at_all(migrated_database: str) -> None:
    database = Database(migrated_database)
    insert = text("INSERT INTO audit_log VALUES (:id, 0, NULL, NULL, 'x', NULL, '{}')")
    with pytest.raises(RuntimeError):
        async with database.session() as session:
            await session.execute(insert, {"id": "a"})
            await session.commit()
            await session.execute(insert, {"id": "b"})
            raise RuntimeError
    async with database.session() as session:
        assert (await session.execute(text("SELECT id FROM audit_log"))).scalars().all() == ["a"]
    await database.close()


async def test_one_who_reads_and_then_writes_is_not_in_anothers_way(migrated_database: str) -> None:
    """With a snapshot taken at the read, SQLite would refuse the write at once: the database is locked."""
    database = Database(migrated_database)
    insert = text("INSERT INTO audit_log VALUES (:id, 0, NULL, NULL, 'x', NULL, '{}')")
    async with database.session() as first:
        await first.execute(text("SELECT count(*) FROM audit_log"))
        async with database.session() as second:
            await second.execute(insert, {"id": "b"})
        assert (await first.execute(text("SELECT count(*) FROM audit_log"))).scalar() == 1
        await first.execute(insert, {"id": "a"})
    await database.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me:sekret@host/name", "must begin with sqlite or postgresql"),
        ("sekret", "must begin with sqlite or postgresql"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
    ],
)
def test_urls_that_cannot_be_used(url: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message) as caught:
        Database(url)
    assert "sekret" not in str(caught.value)


async def test_what_cannot_be_reached_is_one_sentence_without_a_password(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database at all, but longer than its header " * 10)
    urls = [f"sqlite:///{tmp_path / 'folder'}", f"sqlite:///{tmp_path / 'text'}"]
    if why_no_postgresql() is None:
        urls.append("postgresql://me:sekret@127.0.0.1:1/name")
    for url in urls:
        database = Database(url)
        with pytest.raises(DatabaseError, match=r"the database .* cannot be used: ") as caught:
            await database.open()
        assert "sekret" not in str(caught.value) and "\n" not in str(caught.value)
        await database.close()


async def test_the_driver_never_logs_what_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    database = Database(f"sqlite:///{tmp_path / 'fireside.db'}")
    await database.open()
    async with database.session() as session:
        await session.execute(text("SELECT :word"), {"word": "sekret"})
        with pytest.raises(Exception, match="no such table") as caught:
            await session.execute(text("SELECT * FROM none WHERE a = :word"), {"word": "sekret"})
    await database.close()
    assert "sekret" not in caplog.text + str(caught.value)


def test_ids_are_of_version_7_and_in_order() -> None:
    """RFC 9562, 5.7: 48 bits of milliseconds, then the version, the variant, and what nobody guesses."""
    before = int(now().timestamp() * 1000)
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for id in ids:
        assert len(id) == 32 and id[12] == "7" and id[16] in "89ab"
        assert before <= int(id[:12], 16) <= int(now().timestamp() * 1000)
    assert [id[:12] for id in ids] == sorted(id[:12] for id in ids)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 11, 24, 10, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    ],
)
def test_times_come_back_to_the_microsecond(moment: datetime) -> None:
    column, dialect = UtcDateTime(), DefaultDialect()
    stored = column.process_bind_param(moment, dialect)
    assert isinstance(stored, int)
    assert column.process_result_value(stored, dialect) == moment
    with pytest.raises(ValueError, match="zone"):
        column.process_bind_param(moment.replace(tzinfo=None), dialect)


async def test_in_a_process_of_its_own(empty_database: str, tmp_path: Path) -> None:
    """What a server starts with; Alembic stays out of its memory. A refusal is as it would be here."""
    code = """
import asyncio, sys
from fireside.server.db.database import Database, DatabaseError
async def main():
    database = Database(sys.argv[1])
    try:
        await database.open(apart=True)
    except DatabaseError as error:
        print(error)
    await database.close()
asyncio.run(main())
assert "alembic" not in sys.modules
"""
    run, here = [sys.executable, "-c", code, empty_database], environment(tmp_path)
    assert await asyncio.to_thread(subprocess.check_output, run, cwd=tmp_path, env=here) == b""
    database = Database(empty_database)
    assert await version_of(database) == migrations.HEAD
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert b"newer Fireside (tables 9999): update this one" in await asyncio.to_thread(
        subprocess.check_output, run, env=here
    )
    await database.close()
