from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.server.chat.people import Person, person
from tests.server.scripted_app import Scripted, scripted_app


@pytest.fixture
def app(script: Scripted, migrated_database: str, tmp_path: Path) -> FastAPI:
    """Not started, on each kind of database in turn."""
    return scripted_app(script, home=tmp_path, database_url=migrated_database)


@pytest.fixture
async def ada(app: FastAPI) -> AsyncIterator[Person]:
    async with app.router.lifespan_context(app), person(app, "ada") as ada:
        yield ada


@pytest.fixture
async def bob(app: FastAPI, ada: Person) -> AsyncIterator[Person]:
    """Somebody else on the same server."""
    async with person(app, "bob") as bob:
        yield bob
