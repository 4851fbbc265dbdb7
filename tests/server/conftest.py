from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI

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
