"""What a person does with their own account: profile, browsers, keys, and its end."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts import audit
from fireside.server.accounts.accounts import Accounts
from fireside.server.accounts.administration import remove_user
from fireside.server.accounts.deps import Client
from fireside.server.accounts.schemas import NewKey, ProfileChange
from fireside.server.accounts.service import SignedIn, hold_verified, set_password, start_session
from fireside.server.accounts.tables import ApiKey, User, UserSession
from fireside.server.accounts.tokens import SHOWN_OF_KEY, digest, new_key
from fireside.server.db.base import now
from fireside.server.errors import ApiError, not_found

MAX_KEYS = 50  # at once, of one person
_REVOKED_KEPT = timedelta(days=90)  # in the list, after which the audit log alone remembers it


async def change_profile(session: AsyncSession, user: User, body: ProfileChange) -> User:
    """Everything but the password."""
    current = await _again(session, user)
    for field in body.model_fields_set & {"name", "locale", "instructions", "preferences"}:
        setattr(current, field, getattr(body, field))
    return current


async def change_password(accounts: Accounts, client: Client, user: User, old: str | None, new: str) -> SignedIn:
    """Ends every session of the person's, and begins a new one. Raises `ApiError` 403 if the old one is wrong."""
    await check_password(accounts, user, old, "old_password")
    password_hash = await accounts.passwords.hash(new)
    async with accounts.database.session() as session:
        current = await hold_verified(session, user)
        if current is None or current.disabled_at is not None:  # since it was checked
            raise _wrong_password("old_password")
        await set_password(session, current, password_hash)
        token = start_session(accounts, session, client, current)
        audit.note(session, "password_changed", by=user.id, address=client.address)
    return current, token


async def delete_account(accounts: Accounts, client: Client, user: User, password: str) -> None:
    """With all that is theirs. Raises `ApiError` 409 for the last administrator."""
    await check_password(accounts, user, password, "password")
    async with accounts.database.session() as session:
        removed = await remove_user(session, user.id)
        if removed.password_hash != user.password_hash or removed.disabled_at is not None:  # since it was checked
            raise _wrong_password("password")
        audit.note(session, "account_deleted", by=None, address=client.address, target=user.id)


async def check_password(accounts: Accounts, user: User, given: str | None, param: str) -> None:
    """That who sits at a browser which is signed in is its owner. Raises `ApiError` 403."""
    accounts.limits.passwords_by_user.take(user.id)
    if given is None or not await accounts.passwords.verify(given, user.password_hash):
        raise _wrong_password(param)
    accounts.limits.passwords_by_user.give_back(user.id)


def _wrong_password(param: str) -> ApiError:
    return ApiError(403, f"{param}: is not the password", type="permission_error", param=param, code="wrong_password")


async def end_session(session: AsyncSession, user: User, session_id: str) -> None:
    found = await session.scalar(
        delete(UserSession)
        .where(UserSession.id == session_id, UserSession.user_id == user.id)
        .returning(UserSession.id)
    )
    if found is None:
        raise not_found("session")


async def end_other_sessions(session: AsyncSession, user: User, current: str | None) -> None:
    await session.execute(delete(UserSession).where(UserSession.user_id == user.id, UserSession.id != current))


async def create_key(session: AsyncSession, client: Client, user: User, body: NewKey) -> tuple[ApiKey, str]:
    """The row, and the key itself, which nobody can see again. Raises `ApiError` 409 if there are too many."""
    time = now()
    await session.execute(select(User.id).where(User.id == user.id).with_for_update())  # keys are counted one by one
    await session.execute(delete(ApiKey).where(ApiKey.user_id == user.id, ApiKey.revoked_at < time - _REVOKED_KEPT))
    active = select(func.count()).where(ApiKey.user_id == user.id, ApiKey.revoked_at.is_(None))
    if (await session.scalar(active) or 0) >= MAX_KEYS:
        raise ApiError(409, f"there are {MAX_KEYS} keys already; revoke one first", code="too_many_keys")
    secret = new_key()
    key = ApiKey(
        user_id=user.id,
        name=body.name,
        prefix=secret[:SHOWN_OF_KEY],
        token_hash=digest(secret),
        scopes=list(body.scopes),
        expires_at=None if body.expires_in_days is None else time + timedelta(days=body.expires_in_days),
    )
    session.add(key)
    await session.flush()
    audit.note(session, "key_created", by=user.id, address=client.address, target=key.id)
    return key, secret


async def revoke_key(session: AsyncSession, client: Client, user: User, key_id: str) -> None:
    found = await session.scalar(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.user_id == user.id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now())
        .returning(ApiKey.id)
    )
    if found is None:
        raise not_found("key")
    audit.note(session, "key_revoked", by=user.id, address=client.address, target=key_id)


async def _again(session: AsyncSession, user: User) -> User:
    """The person as a row of this unit of work."""
    current = await session.get(User, user.id)
    if current is None:
        raise not_found("user")  # deleted while this request was on its way
    return current
