"""Who sends a request: found once, by the access middleware, before any route."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, select, update
from starlette.requests import HTTPConnection

from fireside.server.accounts.tables import ApiKey, Role, User, UserSession
from fireside.server.accounts.tokens import KEY_PREFIX, digest
from fireside.server.db.base import UtcDateTime, now
from fireside.server.db.database import Database

INFERENCE = "inference"
_SEEN_EVERY = timedelta(minutes=5)  # that "last seen" is written anew; more often would be a write for every request
_MAX_TOKEN = 256

# Built once: every request asks.
_SESSIONS = (
    select(UserSession, User)
    .join(User, User.id == UserSession.user_id)
    .where(UserSession.expires_at > bindparam("time", type_=UtcDateTime), User.disabled_at.is_(None))
)
_BY_TOKEN = _SESSIONS.where(UserSession.token_hash == bindparam("token_hash"))


@dataclass(frozen=True)
class Identity:
    """`user` is a person, or the owner of the key. None: a key from the settings, or a server open to its machine."""

    user: User | None = None
    session_id: str | None = None
    """The signed-in browser; None for a key."""
    scopes: frozenset[str] | None = None
    """What a key of a person's is good for; None: whatever its owner may do."""


async def by_session(database: Database, token: str) -> Identity | None:
    """Whose browser has this token; None if it is nobody's, has expired, or its person is disabled."""
    if len(token) > _MAX_TOKEN:
        return None
    time = now()
    async with database.session() as session:
        row = (await session.execute(_BY_TOKEN, {"time": time, "token_hash": digest(token)})).one_or_none()
        if row is None:
            return None
        found, user = row
        if time - found.last_seen_at > _SEEN_EVERY:
            await session.execute(update(UserSession).where(UserSession.id == found.id).values(last_seen_at=time))
    return Identity(user, session_id=found.id)


async def by_key(database: Database, key: str) -> Identity | None:
    """Whose key this is; None if it is nobody's, is revoked or has expired, or its person may have none any more."""
    if not key.startswith(KEY_PREFIX) or len(key) > _MAX_TOKEN:
        return None
    time = now()
    async with database.session() as session:
        row = (
            await session.execute(
                select(ApiKey, User)
                .join(User, User.id == ApiKey.user_id)
                .where(ApiKey.token_hash == digest(key), ApiKey.revoked_at.is_(None))
                .where((ApiKey.expires_at > time) | ApiKey.expires_at.is_(None))
                .where(User.disabled_at.is_(None), User.role != Role.GUEST)
            )
        ).one_or_none()
        if row is None:
            return None
        found, user = row
        if found.last_used_at is None or time - found.last_used_at > _SEEN_EVERY:
            await session.execute(update(ApiKey).where(ApiKey.id == found.id).values(last_used_at=time))
    return Identity(user, scopes=frozenset(found.scopes))


def identity_of(connection: HTTPConnection) -> Identity | None:
    """As the access middleware found it. None on routes that are open to everybody."""
    identity: Identity | None = getattr(connection.state, "identity", None)
    return identity
