"""What administrators do, at the page or at the terminal: people, invitations, new passwords."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fireside.server.accounts import audit
from fireside.server.accounts.admin_schemas import AccountView, AuditView
from fireside.server.accounts.tables import ApiKey, AuditEntry, LinkKind, OneTimeLink, Role, User, UserSession
from fireside.server.accounts.tokens import digest, new_token
from fireside.server.db.base import now
from fireside.server.errors import ApiError, not_found
from fireside.server.paging import Page, PageRequest, newest_first

RESET_HOURS = 24

PATHS = {LinkKind.SETUP: "/setup", LinkKind.INVITATION: "/join", LinkKind.RESET: "/reset"}
"""Of the page, where each kind of link leads. The token stands behind a #, which no request and no log holds."""


async def change_user(
    session: AsyncSession,
    user_id: str,
    *,
    role: Role | None,
    disabled: bool | None,
    by: str | None,
    address: str | None,
) -> User:
    """Raises `ApiError` 404, or 409 if no administrator would be left."""
    values: dict[str, Any] = {}
    if role is not None:
        values["role"] = role
    if disabled is not None:
        values["disabled_at"] = now() if disabled else None
    if values:
        weakens = disabled or (role is not None and role is not Role.ADMIN)
        if weakens:
            await _lock_administrators(session)
        statement = update(User).where(User.id == user_id).values(values).returning(User.id)
        if weakens:
            statement = statement.where(_another_administrator(user_id))
        if await session.scalar(statement) is None:
            raise await _refusal(session, user_id)
        if disabled:
            await session.execute(delete(UserSession).where(UserSession.user_id == user_id))
        detail: dict[str, Any] = {} if role is None else {"role": role}
        if disabled is not None:
            detail["disabled"] = disabled
        audit.note(session, "user_changed", by=by, address=address, target=user_id, **detail)
    user = await session.get(User, user_id, populate_existing=True)
    if user is None:
        raise not_found("user")
    return user


async def list_users(session: AsyncSession, q: str | None, page: PageRequest) -> Page[AccountView]:
    """Those of whose name or e-mail address `q` is a part, newest first."""
    query = select(User)
    if q:
        query = query.where(_named_like(User, q))
    rows, cursor = await newest_first(session, query, User, page)
    ids = [row.id for row in rows]
    seen = await _of_each(session, UserSession.user_id, func.max(UserSession.last_seen_at), ids)
    is_good = ApiKey.revoked_at.is_(None) & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > now()))
    keys = await _of_each(session, ApiKey.user_id, func.count(), ids, is_good)
    items = [
        AccountView.model_validate(row).model_copy(
            update={"last_seen_at": seen.get(row.id), "keys": keys.get(row.id, 0)}
        )
        for row in rows
    ]
    return Page(items=items, next_cursor=cursor)


async def list_audit(session: AsyncSession, q: str | None, action: str | None, page: PageRequest) -> Page[AuditView]:
    """What was done, newest first: by or to those whose name or e-mail address `q` is a part of, of one kind only."""
    query = select(AuditEntry)
    if action:
        query = query.where(AuditEntry.action == action)
    if q:
        meant = select(User.id).where(_named_like(User, q))
        query = query.where(or_(AuditEntry.user_id.in_(meant), AuditEntry.target.in_(meant)))
    rows, cursor = await newest_first(session, query, AuditEntry, page)
    ids = {id for row in rows for id in (row.user_id, row.target) if id is not None}
    named = select(User.id, User.name).where(User.id.in_(ids))
    names = {id: name for id, name in await session.execute(named)}
    items = [
        AuditView.model_validate(row).model_copy(
            update={"user_name": names.get(row.user_id or ""), "target_name": names.get(row.target or "")}
        )
        for row in rows
    ]
    return Page(items=items, next_cursor=cursor)


async def remove_user(session: AsyncSession, user_id: str) -> User:
    """With all that is theirs, which the database's foreign keys see to. Gives them as they were in the end.

    Raises as `change_user` does.
    """
    await _lock_administrators(session)
    statement = delete(User).where(User.id == user_id, _another_administrator(user_id)).returning(User)
    removed: User | None = await session.scalar(statement.execution_options(synchronize_session=False))
    if removed is None:
        raise await _refusal(session, user_id)
    return removed


async def new_link(
    session: AsyncSession,
    kind: LinkKind,
    lasts: timedelta,
    *,
    by: str | None,
    address: str | None,
    role: Role | None = None,
    user_id: str | None = None,
) -> tuple[OneTimeLink, str]:
    """The row and its token. A new link to a person's password replaces those that nobody has used."""
    if user_id is not None:
        await session.execute(delete(OneTimeLink).where(OneTimeLink.user_id == user_id, OneTimeLink.used_at.is_(None)))
    token = new_token()
    link = OneTimeLink(
        kind=kind, token_hash=digest(token), role=role, user_id=user_id, created_by=by, expires_at=now() + lasts
    )
    session.add(link)
    await session.flush()
    if kind is not LinkKind.SETUP:
        audit.note(session, f"{kind}_made", by=by, address=address, target=user_id or link.id)
    return link, token


async def revoke_invitation(session: AsyncSession, link_id: str, *, by: str | None, address: str | None) -> None:
    """Raises `ApiError` 404."""
    removed = await session.scalar(
        delete(OneTimeLink)
        .where(OneTimeLink.id == link_id, OneTimeLink.kind == LinkKind.INVITATION, OneTimeLink.used_at.is_(None))
        .returning(OneTimeLink.id)
    )
    if removed is None:
        raise not_found("invitation")
    audit.note(session, "invitation_revoked", by=by, address=address, target=link_id)


def _named_like(user: type[User], part: str) -> ColumnElement[bool]:
    return or_(user.name.icontains(part, autoescape=True), user.email.icontains(part, autoescape=True))


async def _of_each(
    session: AsyncSession,
    person: InstrumentedAttribute[str],
    what: ColumnElement[Any],
    ids: Sequence[str],
    *where: ColumnElement[bool],
) -> dict[str, Any]:
    rows = await session.execute(select(person, what).where(person.in_(ids), *where).group_by(person))
    return {id: value for id, value in rows}


async def _lock_administrators(session: AsyncSession) -> None:
    """Two administrators who take each other's place do so in turn. (SQLite has one writer anyway.)"""
    active = select(User.id).where(User.role == Role.ADMIN, User.disabled_at.is_(None))
    await session.execute(active.order_by(User.id).with_for_update())


def _another_administrator(user_id: str) -> ColumnElement[bool]:
    """True for a person whom the server can do without: no administrator, or not the only one."""
    other = aliased(User)
    others = select(other.id).where(other.id != user_id, other.role == Role.ADMIN, other.disabled_at.is_(None))
    return or_(User.role != Role.ADMIN, User.disabled_at.is_not(None), others.exists())


async def _refusal(session: AsyncSession, user_id: str) -> ApiError:
    if await session.scalar(select(User.id).where(User.id == user_id)) is None:
        return not_found("user")
    return ApiError(409, "this is the last administrator; make another one first", code="last_administrator")
