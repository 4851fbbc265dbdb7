from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from tests.server.chat.people import Person, person


@pytest.fixture
async def ada(app: FastAPI) -> AsyncIterator[Person]:
    async with app.router.lifespan_context(app), person(app, "ada") as ada:
        yield ada


@pytest.fixture
async def bob(app: FastAPI, ada: Person) -> AsyncIterator[Person]:
    """Somebody else on the same server."""
    async with person(app, "bob") as bob:
        yield bob
