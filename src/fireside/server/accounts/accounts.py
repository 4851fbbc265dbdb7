"""What the accounts of one server share while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from fireside.server.accounts import audit
from fireside.server.accounts.administration import new_link
from fireside.server.accounts.limits import Limits
from fireside.server.accounts.passwords import Passwords
from fireside.server.accounts.tables import LinkKind, OneTimeLink, Role, User
from fireside.server.db.database import Database
from fireside.settings import Settings

SETUP_HOURS = 24
_PRUNE_SECONDS = 86_400.0

logger = logging.getLogger(__name__)


class Accounts:
    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.passwords = Passwords()
        self.limits = Limits()
        self._has_administrator = False

    async def has_administrator(self) -> bool:
        """Asked of the database until it is so, and then for ever: the last administrator cannot be removed."""
        if not self._has_administrator:
            async with self.database.session() as session:
                found = await session.scalar(select(User.id).where(User.role == Role.ADMIN).limit(1))
            self._has_administrator = found is not None
        return self._has_administrator

    async def is_private(self) -> bool:
        """Whether this server is its own machine's alone and asks nobody who they are: it has neither keys nor people.

        A server that other machines reach always asks, from its first start on.
        """
        if self.settings.api_keys or not self.settings.is_loopback:
            return False
        return not await self.has_administrator()

    async def new_setup_token(self) -> str | None:
        """Of a one-time link that makes the administrator, in place of earlier ones; None if there is one already."""
        if await self.has_administrator():
            return None
        async with self.database.session() as session:
            await session.execute(delete(OneTimeLink).where(OneTimeLink.kind == LinkKind.SETUP))
            _, token = await new_link(session, LinkKind.SETUP, timedelta(hours=SETUP_HOURS), by=None, address=None)
        return token

    @asynccontextmanager
    async def pruned(self) -> AsyncIterator[None]:
        """While it lasts, what is older than `audit_days` is forgotten: at once, and every day."""
        task = asyncio.create_task(self._prune_daily())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _prune_daily(self) -> None:
        while True:
            try:
                async with self.database.session() as session:
                    await audit.prune(session, self.settings.audit_days)
            except SQLAlchemyError as error:  # tomorrow is another day
                logger.warning("the audit log could not be pruned: %s", getattr(error, "orig", None) or error)
            await asyncio.sleep(_PRUNE_SECONDS)
