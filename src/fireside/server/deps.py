"""What endpoints ask for, as FastAPI dependencies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from fireside.server.accounts.accounts import Accounts
from fireside.server.accounts.watch import Watch
from fireside.server.chat.runs.hub import RunHub
from fireside.server.db.database import Database
from fireside.server.metrics import Metrics
from fireside.server.moving.exporter import Exporter
from fireside.server.moving.jobs import Importer
from fireside.server.registry import ModelRegistry
from fireside.server.serving.library import Library
from fireside.server.serving.served import ServedModels
from fireside.server.sharing.pages import SharedPages
from fireside.settings import Settings


class Context:
    """What every endpoint may need; one per app. Raises `DatabaseError` for an unusable `database_url`."""

    def __init__(self, settings: Settings, models: ModelRegistry, library: Library | None = None) -> None:
        self.settings = settings
        self.models = models
        self.metrics = Metrics(models)
        self.database = Database(settings.database)
        self.accounts = Accounts(settings, self.database)
        self.watch = Watch(self.database)
        self.runs = RunHub(self.database, self.metrics)
        self.served = ServedModels(settings, models, self.database, self.runs, library or Library(settings))
        self.imports = Importer(settings, self.database)
        self.exports = Exporter()
        self.shared_pages = SharedPages(settings, self.database)

    def abandon(self, user_id: str) -> None:
        """Ends what is being done for somebody who was disabled or deleted, once that is committed: what they began
        before is found then."""
        self.runs.abandon(user_id)
        self.imports.abandon(user_id)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


CurrentContext = Annotated[Context, Depends(_context)]


async def _session(context: CurrentContext) -> AsyncIterator[AsyncSession]:
    async with context.database.session() as session:
        yield session


# Committed when the route's function has returned and before a byte of the answer is sent: what an answer says has
# been done is done, and no connection is held while a stream goes on.
DatabaseSession = Annotated[AsyncSession, Depends(_session, scope="function")]
