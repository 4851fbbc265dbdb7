"""One server at a time for a database, and everything else beside it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fireside.server.chat.runs.hub import RunHub
from fireside.server.db.database import Database, DatabaseInUse
from fireside.server.deps import Context
from tests.cli.programs import SCRIPTED, environment, fireside
from tests.cli.test_serve import served
from tests.server.accounts.people import context_of
from tests.server.chat.people import Person, person, said
from tests.server.databases import PostgreSQL
from tests.server.scripted_app import Scripted, says, scripted_app
from tests.waiting import until

LONG = "It was a dark and stormy night; the rain fell in torrents. " * 4
END_OTHERS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_a_second_server_is_refused_until_the_first_has_ended(migrated_database: str) -> None:
    first, second = Database(migrated_database), Database(migrated_database)
    await first.take()
    await first.take()  # again, as the app's start does after the command's
    for _ in range(2):
        with pytest.raises(DatabaseInUse, match=r"serves the database .* already .*: stop it, or give this one"):
            await second.take()
    async with second.session() as session:  # what does not serve goes on
        await session.execute(text("SELECT 1"))
    await first.close()
    await second.take()
    await second.close()


async def test_running_answers_are_not_recovered_from_under_a_server(migrated_database: str, tmp_path: Path) -> None:
    script = Scripted(says(LONG, delay=0.003))
    app = scripted_app(script, home=tmp_path, database_url=migrated_database)
    other = Database(migrated_database)
    async with app.router.lifespan_context(app), person(app, "ada") as ada:
        started = await ada.ask(await ada.converse(title="t"), "Hi")
        context = context_of(app)
        with pytest.raises(DatabaseInUse):
            await RunHub(other, context.metrics).start()
        assert said(await ada.events(started["run"]["id"])) == LONG
    await other.close()


async def test_a_link_to_the_same_file_is_the_same_database(tmp_path: Path) -> None:
    (tmp_path / "fireside.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "fireside.db")
    first, second = (Database(f"sqlite:///{tmp_path / name}") for name in ("fireside.db", "link.db"))
    await first.take()
    with pytest.raises(DatabaseInUse):
        await second.take()
    await first.close()


HOLDER = """
import asyncio, sys
from fireside.server.db.database import Database
async def main():
    database = Database(sys.argv[1])
    await database.take()
    print("taken", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_killed_process_holds_nothing(migrated_database: str, tmp_path: Path) -> None:
    holder = subprocess.Popen(  # noqa: ASYNC220 - which reads its line as it blocks
        [sys.executable, "-c", HOLDER, migrated_database], stdout=subprocess.PIPE, env=environment(tmp_path)
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"taken\n"
        database = Database(migrated_database)
        expected = f"process {holder.pid}" if database.is_sqlite else "backend"
        with pytest.raises(DatabaseInUse, match=expected):
            await database.take()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        for _ in range(100):  # PostgreSQL notices within a moment
            try:
                await database.take()
                break
            except DatabaseInUse:
                await asyncio.sleep(0.05)
        else:
            raise AssertionError("a dead process still has it")
        await database.close()
    finally:
        holder.kill()
        holder.communicate()


async def test_a_lost_connection_is_taken_again(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.migrated()
    first, second = Database(url), Database(url)
    await first.take()
    async with second.session() as session:
        await session.execute(END_OTHERS)
    await first.drop_own_connection()
    await first.own_connection()
    with pytest.raises(DatabaseInUse):
        await second.take()
    # One that the server believes to be alive, after the network was cut, is our own and no reason to give up.
    lost, first._own = first._own, None
    await first.own_connection()
    assert lost is not None
    await lost.invalidate()
    await first.close()
    await second.take()
    await second.close()


@dataclass
class Answering:
    """A server in the middle of an answer. ended: set when it learns that another one has its place."""

    context: Context
    script: Scripted
    ada: Person
    conversation: str
    message: str
    ended: asyncio.Event


@asynccontextmanager
async def answering(url: str, home: Path) -> AsyncIterator[Answering]:
    script, ended = Scripted(says(LONG * 10, delay=0.003)), asyncio.Event()
    app = scripted_app(script, home=home, database_url=url)
    async with app.router.lifespan_context(app), person(app, "ada") as ada:
        context_of(app).runs.on_taken_over = ended.set
        conversation = await ada.converse(title="t")
        started = await ada.ask(conversation, "Hi")
        await until(lambda: script.client.stats.generated_tokens > 20, 5)
        yield Answering(context_of(app), script, ada, conversation, started["answer"]["id"], ended)


async def test_a_server_whose_place_was_taken_writes_no_more(
    postgresql_server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql_server.migrated()
    other = Database(url)
    async with answering(url, tmp_path) as first:
        context = first.context
        own_connection, taken = context.database.own_connection, asyncio.Event()

        async def slowly() -> AsyncConnection:  # so that the other one is there first
            await taken.wait()
            return await own_connection()

        monkeypatch.setattr(context.database, "own_connection", slowly)
        async with other.session() as session:
            await session.execute(END_OTHERS)
        await other.take()
        taken.set()
        await asyncio.wait_for(first.ended.wait(), 20)
        path = f"/api/conversations/{first.conversation}/messages"
        refused = await first.ada.http.post(path, json={"content": "Hi"})
        assert refused.json()["error"]["code"] == "server_replaced"
        assert first.script.client.in_flight == 0
        successor = RunHub(other, context.metrics)
        await successor.start()
        kept = await first.ada.message(first.conversation, first.message)
        assert kept["status"] == "interrupted"
    async with other.session() as session:  # the end of the first one has changed nothing
        rows = await session.execute(text("SELECT status, content FROM messages WHERE role = 'assistant'"))
        assert [tuple(row) for row in rows] == [(kept["status"], kept["content"])]
    await successor.close()
    await other.close()


async def test_a_server_that_was_replaced_and_comes_back_writes_no_more(
    postgresql_server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the other one has ended since, and the lock is free."""
    url = postgresql_server.migrated()
    async with answering(url, tmp_path) as first:
        context = first.context
        with monkeypatch.context() as cut_off:

            async def fail() -> AsyncConnection:
                raise ConnectionError

            cut_off.setattr(context.database, "own_connection", fail)
            await context.database.drop_own_connection()
            other = Database(url)
            successor = RunHub(other, context.metrics)
            for _ in range(100):  # until PostgreSQL has noticed that the connection is gone
                try:
                    await successor.start()
                    break
                except DatabaseInUse:
                    await asyncio.sleep(0.02)
            kept = await first.ada.message(first.conversation, first.message)
            assert kept["status"] == "interrupted"
            await successor.close()
            await other.close()
        await asyncio.wait_for(first.ended.wait(), 20)
        await until(lambda: not first.script.client.in_flight, 5)
        assert await first.ada.message(first.conversation, kept["id"]) == kept
    again = Database(url)
    await again.take()  # nothing is left that holds it
    await again.close()


def test_two_serve_commands(tmp_path: Path) -> None:
    with served(tmp_path) as (process, _):
        second = subprocess.run(
            [sys.executable, "-c", SCRIPTED, "serve", "--port", "0"],
            capture_output=True, text=True, env=environment(tmp_path), timeout=60, check=False,
        )  # fmt: skip
        assert (second.returncode, second.stdout) == (1, "")
        expected = f"fireside: another Fireside serves the database {tmp_path / 'fireside.db'} already"
        assert second.stderr.splitlines()[1:] == [
            f"{expected} (process {process.pid}): stop it, or give this one a database of its own (home or "
            "database_url). fireside admin works beside it"
        ]
        for command in (["users"], ["invite"], ["backup"]):
            assert fireside("admin", *command, home=tmp_path).returncode == 0
