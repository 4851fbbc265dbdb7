"""Coming in and going out: setup, signing up, signing in, a forgotten password."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts import audit
from fireside.server.accounts.accounts import Accounts
from fireside.server.accounts.deps import Client
from fireside.server.accounts.limits import network_of
from fireside.server.accounts.schemas import NewAccount, NewPassword, Setup, SignIn, SignUp
from fireside.server.accounts.tables import ApiKey, LinkKind, OneTimeLink, Role, User, UserSession
from fireside.server.accounts.tokens import digest, new_token
from fireside.server.db.base import now
from fireside.server.errors import ApiError, invalid

SignedIn = tuple[User, str]
"""Who, and the token of the new session."""


async def set_up(accounts: Accounts, client: Client, body: Setup) -> SignedIn:
    """Makes the administrator. Raises `ApiError` 404 for a link that is not good any more."""
    limit, network = accounts.limits.links_by_address, network_of(client.address)
    limit.take(network)
    if await accounts.has_administrator():
        raise _no_such_link()
    await _check_link(accounts, LinkKind.SETUP, body.token)
    signed_in = await _make_account(accounts, client, body, LinkKind.SETUP, body.token)
    limit.give_back(network)
    return signed_in


async def sign_up(accounts: Accounts, client: Client, body: SignUp) -> SignedIn:
    """Makes an account: of an invitation's role, or a member's where sign-up is open."""
    limit, network = accounts.limits.sign_up_by_address, network_of(client.address)
    limit.take(network)
    if body.token is None:
        if accounts.settings.sign_up != "open" or not await accounts.has_administrator():
            raise ApiError(403, "an invitation is needed", type="permission_error", code="invitation_needed")
        return await _make_account(accounts, client, body, None, None)
    await _check_link(accounts, LinkKind.INVITATION, body.token)
    signed_in = await _make_account(accounts, client, body, LinkKind.INVITATION, body.token)
    limit.give_back(network)  # a class that signs up from one address holds one invitation each
    return signed_in


async def sign_in(accounts: Accounts, client: Client, body: SignIn, *, replaces: str | None) -> SignedIn:
    """`replaces` is the token that the browser came with, which is good no longer: nobody can have planted it.

    Raises `ApiError` 401, in the same words and after the same work for an unknown address and a wrong password.
    """
    email = body.email
    by_address, network = accounts.limits.sign_in_by_address, network_of(client.address)
    by_address.take(network)
    accounts.limits.sign_in_by_email.take(email)
    async with accounts.database.session() as session:
        user = await session.scalar(select(User).where(User.email == email))
    is_right = await accounts.passwords.verify(body.password, user.password_hash if user else None)
    async with accounts.database.session() as session:
        current = await hold_verified(session, user) if user is not None and is_right else None
        if current is None:
            audit.note(session, "sign_in_failed", by=None, address=client.address, target=user.id if user else None)
            await session.commit()
            raise ApiError(
                401,
                "the e-mail address or the password is wrong",
                type="authentication_error",
                code="wrong_credentials",
            )
        if current.disabled_at is not None:
            raise ApiError(
                403, "an administrator has disabled this account", type="permission_error", code="account_disabled"
            )
        if replaces is not None:
            await session.execute(delete(UserSession).where(UserSession.token_hash == digest(replaces)))
        token = start_session(accounts, session, client, current)
        await session.execute(
            delete(UserSession).where(UserSession.user_id == current.id, UserSession.expires_at <= now())
        )
        audit.note(session, "sign_in", by=current.id, address=client.address)
    by_address.give_back(network)
    accounts.limits.sign_in_by_email.give_back(email)
    return current, token


async def sign_out(session: AsyncSession, token: str) -> None:
    await session.execute(delete(UserSession).where(UserSession.token_hash == digest(token)))


async def reset_password(accounts: Accounts, client: Client, body: NewPassword) -> SignedIn:
    """Sets a password anew by a link. Who forgot theirs may have lost more: every browser that was signed in with the
    old one is signed out, and the person's keys are revoked."""
    limit, network = accounts.limits.links_by_address, network_of(client.address)
    limit.take(network)
    await _check_link(accounts, LinkKind.RESET, body.token)
    password_hash = await accounts.passwords.hash(body.password)
    async with accounts.database.session() as session:
        link = await _use_link(session, LinkKind.RESET, body.token)
        user = await session.get(User, link.user_id, with_for_update=True) if link.user_id else None
        if user is None or user.disabled_at is not None:
            raise _no_such_link()
        await set_password(session, user, password_hash)
        revoked = await session.execute(
            update(ApiKey)
            .where(ApiKey.user_id == user.id, ApiKey.revoked_at.is_(None))
            .values(revoked_at=now())
            .execution_options(synchronize_session=False)
        )
        link.used_by = user.id
        token = start_session(accounts, session, client, user)
        keys: int = revoked.rowcount  # type: ignore[attr-defined]
        audit.note(session, "password_reset", by=user.id, address=client.address, keys_revoked=keys)
    limit.give_back(network)
    return user, token


async def hold_verified(session: AsyncSession, user: User) -> User | None:
    """The person as they are now, whom nobody else changes before this unit of work ends.

    None if the password is not the one any more that `user` had, by which it was verified, or if they are gone.
    """
    statement = update(User).where(User.id == user.id, User.password_hash == user.password_hash)
    held = statement.values(password_hash=User.password_hash).execution_options(synchronize_session=False)
    current: User | None = await session.scalar(held.returning(User))
    return current


async def set_password(session: AsyncSession, user: User, password_hash: str) -> None:
    """Whoever knew the old one is out: all sessions end, and links to set another are good no longer."""
    user.password_hash = password_hash
    await session.execute(delete(UserSession).where(UserSession.user_id == user.id))
    await session.execute(delete(OneTimeLink).where(OneTimeLink.user_id == user.id, OneTimeLink.used_at.is_(None)))


def start_session(accounts: Accounts, session: AsyncSession, client: Client, user: User) -> str:
    """The token of a new session of `user`'s."""
    token = new_token()
    session.add(
        UserSession(
            token_hash=digest(token),
            user_id=user.id,
            expires_at=now() + timedelta(days=accounts.settings.session_days),
            user_agent=client.user_agent,
            address=client.address,
        )
    )
    return token


async def _make_account(
    accounts: Accounts, client: Client, body: NewAccount, kind: LinkKind | None, token: str | None
) -> SignedIn:
    password_hash = await accounts.passwords.hash(body.password)  # before it is said whether the address is taken
    try:
        async with accounts.database.session() as session:
            link = await _use_link(session, kind, token) if kind and token else None
            role = Role.ADMIN if kind is LinkKind.SETUP else (link and link.role) or Role.MEMBER
            user = User(email=body.email, name=body.name, password_hash=password_hash, role=role)
            session.add(user)
            await session.flush()
            if link is not None:
                link.used_by = user.id
            new = start_session(accounts, session, client, user)
            action = "setup" if kind is LinkKind.SETUP else "sign_up"
            audit.note(session, action, by=user.id, address=client.address, target=link.id if link else None)
    except IntegrityError:  # all of it is undone, the use of the link too
        raise invalid("email", "has an account already; sign in instead", "email_taken") from None
    return user, new


async def _check_link(accounts: Accounts, kind: LinkKind, token: str) -> None:
    """Before a password is hashed for it, which is the work that a stranger could make us do."""
    async with accounts.database.session() as session:
        if await session.scalar(select(OneTimeLink.id).where(*_is_good(kind, token))) is None:
            raise _no_such_link()


async def _use_link(session: AsyncSession, kind: LinkKind, token: str) -> OneTimeLink:
    """In one statement: of two who open a link at the same moment one finds it used."""
    statement = update(OneTimeLink).where(*_is_good(kind, token)).values(used_at=now()).returning(OneTimeLink)
    link = await session.scalar(statement)
    if link is None:
        raise _no_such_link()
    return link


def _is_good(kind: LinkKind, token: str) -> tuple[ColumnElement[bool], ...]:
    return (
        OneTimeLink.token_hash == digest(token),
        OneTimeLink.kind == kind,
        OneTimeLink.used_at.is_(None),
        OneTimeLink.expires_at > now(),
    )


def _no_such_link() -> ApiError:
    return ApiError(404, "this link was used, has expired or never was; ask for a new one", code="link_not_found")
