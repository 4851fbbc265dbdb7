from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.server.accounts.conftest import cheap_hashes as cheap_hashes
from tests.server.accounts.people import context_of, set_up
from tests.server.scripted_app import Scripted, ScriptedLibrary, says, scripted_app


@pytest.fixture
def second() -> Scripted:
    """A model that is on the machine, and not loaded."""
    return Scripted(answer=says("I am the second."))


@pytest.fixture
async def app(script: Scripted, second: Scripted, migrated_database: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Started, on each kind of database in turn."""
    app = scripted_app(script, library={"second": second}, home=tmp_path, database_url=migrated_database)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def ada(app: FastAPI) -> httpx.AsyncClient:
    """The administrator's browser."""
    return await set_up(app)


@pytest.fixture
def library(app: FastAPI) -> ScriptedLibrary:
    found = context_of(app).served._library
    assert isinstance(found, ScriptedLibrary)
    return found


@pytest.fixture
def start(second: Scripted, migrated_database: str, tmp_path: Path) -> Callable[..., FastAPI]:
    """One server after the other on the same home and database."""
    where: dict[str, Any] = {"home": tmp_path, "database_url": migrated_database}
    return lambda **how: scripted_app(Scripted(), **({"library": {"second": second}} | where | how))
