"""From every earlier version's tables, with rows in all of them, to this one's: nothing is lost, and nothing differs.

Whoever writes a new step has nothing to add here.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Boolean, Column, Connection, Integer, MetaData, Table, insert, inspect, select
from sqlalchemy.types import TypeEngine

from fireside.server.db import migrations
from fireside.server.db.base import Base
from fireside.server.db.database import Database
from fireside.server.deps import Context  # and with it all tables
from tests.server.db.test_database import version_of

assert Context

EARLIER = sorted(migrations.known() - {migrations.HEAD})
ROWS = 2
Rows = dict[str, list[dict[str, Any]]]
"""By table, in order."""


@pytest.mark.parametrize("revision", EARLIER)
async def test_every_earlier_version_comes_here_with_all_that_it_holds(
    revision: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(migrations, "HEAD", revision)
        old = Database(empty_database)
        await old.open()
        assert await version_of(old) == revision
        async with old._engine.begin() as connection:
            before = await connection.run_sync(fill)
        await old.close()
    assert len(before) > 8 and all(len(rows) == ROWS for rows in before.values())

    new = Database(empty_database)
    await new.open()
    assert await version_of(new) == migrations.HEAD
    async with new._engine.connect() as connection:
        assert await connection.run_sync(contents, before) == before
        assert await connection.run_sync(differences) == []
    await new.close()
    if new.is_sqlite:
        _check_backup(Path(new.url.database or ""), revision, before)


def test_the_steps_are_one_chain() -> None:
    """In the order of their names, each from the one before."""
    assert [*EARLIER, migrations.HEAD] == [f"{number:04}" for number in range(1, len(migrations.known()) + 1)]


def fill(connection: Connection) -> Rows:
    """Rows in every table, made up from what the database says of its columns; the second points to the first."""
    metadata = MetaData()
    metadata.reflect(connection, resolve_fks=True)
    tables = [table for table in metadata.sorted_tables if not _is_indexs_own(table.name)]
    made: Rows = {}
    for table in tables:
        rows = made[table.name] = []
        for number in range(ROWS):
            values = {column.name: _value(table, column, number, made) for column in table.columns}
            connection.execute(insert(table).values(values))
            rows.append(values)
    return made


def _is_indexs_own(table: str) -> bool:
    """Of SQLite's full-text search, or of Alembic."""
    return "_fts" in table or table == "alembic_version"


def _value(table: Table, column: Column[Any], number: int, made: Rows) -> Any:
    for key in column.foreign_keys:
        target = made.get(key.column.table.name, [])
        if len(target) > number or (target and key.column.table is table):
            return target[min(number, len(target) - 1)][key.column.name]
        return None  # the first of a tree
    kind: TypeEngine[Any] = column.type
    if isinstance(kind, JSON):
        return {"kept": number}
    if isinstance(kind, Boolean):
        return bool(number)
    if isinstance(kind, Integer):
        return number + 1
    length = getattr(kind, "length", None) or 200
    return f"{number} kept in {table.name}.{column.name}"[:length]


def contents(connection: Connection, wanted: Rows) -> Rows:
    """The same tables and columns as they are now."""
    metadata = MetaData()
    metadata.reflect(connection)
    found: Rows = {}
    for name, rows in wanted.items():
        table = metadata.tables[name]
        columns = [table.c[column] for column in rows[0]]
        found[name] = [
            dict(row) for row in connection.execute(select(*columns).order_by(*table.primary_key)).mappings()
        ]
    return found


def differences(connection: Connection) -> list[object]:
    """By Alembic's comparison, and of what foreign keys do, which it leaves out."""

    def ours(_: object, name: str | None, kind: str, *__: object) -> bool:
        return name in Base.metadata.tables if kind == "table" else not str(name).endswith("_words")

    context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": ours})
    found = list(compare_metadata(context, Base.metadata))
    for table in Base.metadata.sorted_tables:
        is_there = {
            (tuple(key["constrained_columns"]), key["referred_table"], (key["options"].get("ondelete") or "").upper())
            for key in inspect(connection).get_foreign_keys(table.name)
        }
        declared = {
            (tuple(constraint.column_keys), constraint.referred_table.name, (constraint.ondelete or "").upper())
            for constraint in table.foreign_key_constraints
        }
        if is_there != declared:
            found.append((table.name, is_there ^ declared))
    return found


def _check_backup(database: Path, revision: str, before: Rows) -> None:
    (backup,) = (database.parent / "backups").iterdir()
    connection = sqlite3.connect(backup)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
    for table in before:
        assert connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() == (ROWS,)
    connection.close()
