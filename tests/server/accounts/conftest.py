from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from fireside.server.accounts import passwords
from tests.server.scripted_app import Scripted, scripted_app


@pytest.fixture
async def app(script: Scripted, migrated_database: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Started, on each kind of database in turn."""
    app = scripted_app(script, home=tmp_path, database_url=migrated_database)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """argon2id that takes no time. What it takes in earnest is a test of its own."""
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    monkeypatch.setattr(passwords, "PASSES", 1)
    passwords._hasher.cache_clear()
    yield
    passwords._hasher.cache_clear()
