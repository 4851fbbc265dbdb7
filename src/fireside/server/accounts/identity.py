"""Who sends a request: found once, by the access middleware, before any route."""

from __future__ import annotations

from collections.abc import Sequence
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
_AT_ONCE = 500  # ids in one statement

# Built once: every request asks.
_SESSIONS = (
    select(UserSession, User)
    .join(User, User.id == UserSession.user_id)
    .where(UserSession.expires_at > bindparam("time", type_=UtcDateTime), User.disabled_at.is_(None))
)
_KEYS = (
    select(ApiKey, User)
    .join(User, User.id == ApiKey.user_id)
    .where(ApiKey.revoked_at.is_(None), User.disabled_at.is_(None), User.role != Role.GUEST)
    .where((ApiKey.expires_at > bindparam("time", type_=UtcDateTime)) | ApiKey.expires_at.is_(None))
)
_BY_KEY = _KEYS.where(ApiKey.token_hash == bindparam("token_hash"))
_BY_TOKEN = _SESSIONS.where(UserSession.token_hash == bindparam("token_hash"))


@dataclass(frozen=True, eq=False)
class Identity:
    """`user` is a person, or the owner of the key. None: a key from the settings, or a server open to its machine."""

    user: User | None = None
    session_id: str | None = None
    """The signed-in browser; None for a key."""
    scopes: frozenset[str] | None = None
    """What a key of a person's is good for; None: whatever its owner may do."""
    key_id: str | None = None
    """The key of a person's; None for a browser."""


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
        row = (await session.execute(_BY_KEY, {"time": time, "token_hash": digest(key)})).one_or_none()
        if row is None:
            return None
        found, user = row
        if found.last_used_at is None or time - found.last_used_at > _SEEN_EVERY:
            await session.execute(update(ApiKey).where(ApiKey.id == found.id).values(last_used_at=time))
    return Identity(user, scopes=frozenset(found.scopes), key_id=found.id)


async def still_good(database: Database, identities: Sequence[Identity]) -> set[Identity]:
    """Those of them whose session or key would be let in now, in the same role or as an administrator."""
    roles: dict[str | None, Role] = {}
    async with database.session() as session:
        for field, statement, row in (("session_id", _SESSIONS, UserSession), ("key_id", _KEYS, ApiKey)):
            ids = {id for identity in identities if (id := getattr(identity, field)) is not None}
            while ids:
                chunk = [ids.pop() for _ in range(min(len(ids), _AT_ONCE))]
                found = statement.with_only_columns(row.id, User.role).where(row.id.in_(chunk))
                roles.update({id: role for id, role in await session.execute(found, {"time": now()})})

    def is_good(identity: Identity) -> bool:
        role = roles.get(identity.session_id or identity.key_id)
        return role is Role.ADMIN or (role is not None and identity.user is not None and identity.user.role is role)

    return set(filter(is_good, identities))


def identity_of(connection: HTTPConnection) -> Identity | None:
    """As the access middleware found it. None on routes that are open to everybody."""
    identity: Identity | None = getattr(connection.state, "identity", None)
    return identity
