from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.server.databases import PostgreSQL, migrated_sqlite, postgresql, why_no_postgresql
from tests.server.scripted_app import Scripted, running, scripted_app


@pytest.fixture
def script() -> Scripted:
    return Scripted()


@pytest.fixture
def app(script: Scripted) -> FastAPI:
    return scripted_app(script)


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """In-process HTTP, no socket."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            yield client


@pytest.fixture
def base_url(app: FastAPI) -> Iterator[str]:
    """A real server on a real socket."""
    with running(app) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    if reason := why_no_postgresql():
        pytest.skip(reason)
    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with nothing in it, of either kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fireside.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.empty()


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with this version's tables, of either kind in turn. Tests leave the tables as they are."""
    if request.param == "sqlite":
        path = tmp_path / "fireside.db"
        path.write_bytes(migrated_sqlite())
        return f"sqlite:///{path}"
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    return server.migrated()
