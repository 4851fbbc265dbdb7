"""`/api/admin`: people, invitations, the audit log. For administrators alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy import select

from fireside.server.accounts import administration, audit
from fireside.server.accounts.admin_schemas import (
    AccountView,
    AuditView,
    InvitationView,
    LinkView,
    NewInvitation,
    UserChange,
)
from fireside.server.accounts.deps import Admin, CurrentClient, require_admin
from fireside.server.accounts.tables import LinkKind, OneTimeLink, User
from fireside.server.body import BoundedRoute
from fireside.server.deps import CurrentContext, DatabaseSession
from fireside.server.errors import not_found
from fireside.server.paging import Id, Page, Paging, newest_first

router = APIRouter(
    prefix="/api/admin", route_class=BoundedRoute, tags=["administration"], dependencies=[Depends(require_admin)]
)

PartOfName = Annotated[
    str | None, Query(max_length=100, pattern=r"^[^\x00]*$", description="Part of a name or an e-mail address.")
]


@router.get("/users")
async def list_users(session: DatabaseSession, page: Paging, q: PartOfName = None) -> Page[AccountView]:
    return await administration.list_users(session, q, page)


@router.patch("/users/{id}")
async def change_user(
    id: Id, body: UserChange, admin: Admin, session: DatabaseSession, context: CurrentContext, client: CurrentClient
) -> AccountView:
    """A person who is disabled is signed out at once, their answers stop, and their keys rest."""
    user = await administration.change_user(
        session, id, role=body.role, disabled=body.disabled, by=admin.id, address=client.address
    )
    if body.disabled:
        await session.commit()
        context.abandon(id)
    return AccountView.model_validate(user)


@router.delete("/users/{id}", status_code=204)
async def remove_user(
    id: Id, admin: Admin, session: DatabaseSession, context: CurrentContext, client: CurrentClient
) -> None:
    """Removes a person with all that is theirs."""
    await administration.remove_user(session, id)
    by = None if admin.id == id else admin.id
    audit.note(session, "user_removed", by=by, address=client.address, target=id)
    await session.commit()
    context.abandon(id)


@router.post("/users/{id}/reset", status_code=201)
async def new_reset_link(id: Id, admin: Admin, session: DatabaseSession, client: CurrentClient) -> LinkView:
    """A link by which a person sets a new password. Good for a day."""
    if await session.get(User, id) is None:
        raise not_found("user")
    lasts = timedelta(hours=administration.RESET_HOURS)
    link, token = await administration.new_link(
        session, LinkKind.RESET, lasts, by=admin.id, address=client.address, user_id=id
    )
    return _view(link, token)


@router.get("/invitations")
async def list_invitations(session: DatabaseSession, page: Paging) -> Page[InvitationView]:
    query = select(OneTimeLink).where(OneTimeLink.kind == LinkKind.INVITATION)
    rows, cursor = await newest_first(session, query, OneTimeLink, page)
    return Page(items=[InvitationView.model_validate(row) for row in rows], next_cursor=cursor)


@router.post("/invitations", status_code=201)
async def invite(body: NewInvitation, admin: Admin, session: DatabaseSession, client: CurrentClient) -> LinkView:
    lasts = timedelta(days=body.expires_in_days)
    link, token = await administration.new_link(
        session, LinkKind.INVITATION, lasts, by=admin.id, address=client.address, role=body.role
    )
    return _view(link, token)


@router.delete("/invitations/{id}", status_code=204)
async def revoke_invitation(id: Id, admin: Admin, session: DatabaseSession, client: CurrentClient) -> None:
    await administration.revoke_invitation(session, id, by=admin.id, address=client.address)


@router.get("/audit")
async def list_audit(
    session: DatabaseSession,
    page: Paging,
    q: PartOfName = None,
    action: Annotated[str | None, Query(max_length=40, pattern=r"^[a-z_]*$")] = None,
) -> Page[AuditView]:
    """By or to whoever is named so."""
    return await administration.list_audit(session, q, action, page)


def _view(link: OneTimeLink, token: str) -> LinkView:
    return LinkView(id=link.id, path=f"{administration.PATHS[link.kind]}#{token}", expires_at=link.expires_at)
