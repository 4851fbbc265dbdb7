"""What the accounts of one server share while it runs."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select

from fireside.server.accounts.administration import new_link
from fireside.server.accounts.limits import Limits
from fireside.server.accounts.passwords import Passwords
from fireside.server.accounts.tables import LinkKind, OneTimeLink, Role, User
from fireside.server.db.database import Database
from fireside.settings import Settings

SETUP_HOURS = 24


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
