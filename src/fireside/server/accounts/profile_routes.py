"""`/api/me`, `/api/sessions`, `/api/keys`: a person's own account."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from fireside.server.accounts import cookies, profile
from fireside.server.accounts.deps import CurrentClient, CurrentUser, Member
from fireside.server.accounts.identity import identity_of
from fireside.server.accounts.schemas import (
    Confirmation,
    CreatedKey,
    KeyView,
    NewKey,
    ProfileChange,
    SessionEntry,
    UserView,
)
from fireside.server.accounts.tables import ApiKey, UserSession
from fireside.server.body import BoundedRoute
from fireside.server.db.base import now
from fireside.server.deps import CurrentContext, DatabaseSession
from fireside.server.paging import Id, Page, Paging, newest_first

router = APIRouter(prefix="/api", route_class=BoundedRoute, tags=["accounts"])


@router.get("/me")
async def get_me(user: CurrentUser) -> UserView:
    return UserView.model_validate(user)


@router.patch("/me")
async def change_me(
    body: ProfileChange,
    request: Request,
    response: Response,
    user: CurrentUser,
    context: CurrentContext,
    client: CurrentClient,
) -> UserView:
    """A new password ends every other session, and gives this one a new cookie."""
    if body.password is not None:
        user, token = await profile.change_password(context.accounts, client, user, body.old_password, body.password)
        cookies.give(response, request, token, context.settings.session_days)
    async with context.database.session() as session:
        return UserView.model_validate(await profile.change_profile(session, user, body))


@router.delete("/me", status_code=204)
async def delete_me(
    body: Confirmation,
    request: Request,
    response: Response,
    user: CurrentUser,
    context: CurrentContext,
    client: CurrentClient,
) -> None:
    """Deletes the account and all that is its own."""
    await profile.delete_account(context.accounts, client, user, body.password)
    context.abandon(user.id)
    cookies.take_back(response, request)


@router.get("/sessions")
async def list_sessions(
    request: Request, user: CurrentUser, session: DatabaseSession, page: Paging
) -> Page[SessionEntry]:
    """The browsers that are signed in."""
    query = select(UserSession).where(UserSession.user_id == user.id, UserSession.expires_at > now())
    rows, cursor = await newest_first(session, query, UserSession, page)
    entries = [SessionEntry.model_validate(row) for row in rows]
    identity = identity_of(request)
    for entry in entries:
        entry.is_current = identity is not None and entry.id == identity.session_id
    return Page(items=entries, next_cursor=cursor)


@router.delete("/sessions", status_code=204)
async def end_other_sessions(request: Request, user: CurrentUser, session: DatabaseSession) -> None:
    """Signs out every other browser."""
    identity = identity_of(request)
    await profile.end_other_sessions(session, user, identity.session_id if identity else None)


@router.delete("/sessions/{id}", status_code=204)
async def end_session(id: Id, user: CurrentUser, session: DatabaseSession) -> None:
    await profile.end_session(session, user, id)


@router.get("/keys")
async def list_keys(user: CurrentUser, session: DatabaseSession, page: Paging) -> Page[KeyView]:
    rows, cursor = await newest_first(session, select(ApiKey).where(ApiKey.user_id == user.id), ApiKey, page)
    return Page(items=[KeyView.model_validate(row) for row in rows], next_cursor=cursor)


@router.post("/keys", status_code=201)
async def create_key(body: NewKey, user: Member, session: DatabaseSession, client: CurrentClient) -> CreatedKey:
    """A key for `/v1`. Guests have none."""
    row, key = await profile.create_key(session, client, user, body)
    return CreatedKey(key=key, **KeyView.model_validate(row).model_dump())


@router.delete("/keys/{id}", status_code=204)
async def revoke_key(id: Id, user: CurrentUser, session: DatabaseSession, client: CurrentClient) -> None:
    await profile.revoke_key(session, client, user, id)
