"""`/api/shares`, and `/s/{token}`: the page behind a link, for everybody who has it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import defer

from fireside.server.accounts.deps import CurrentUser, Member, forbidden
from fireside.server.body import BoundedRoute
from fireside.server.chat.conversations import not_found
from fireside.server.chat.schemas import ConversationOut
from fireside.server.deps import Context, CurrentContext, DatabaseSession
from fireside.server.documents.words import words_for
from fireside.server.paging import Id, Page, Paging, newest_first
from fireside.server.sharing import service
from fireside.server.sharing.schemas import Revoked, SharedToken, ShareOut, ShareWish
from fireside.server.sharing.tables import Share

router = APIRouter(prefix="/api", route_class=BoundedRoute, tags=["sharing"])
page_router = APIRouter(route_class=BoundedRoute, include_in_schema=False)


def _check_on(context: Context) -> None:
    if not context.settings.sharing:
        raise forbidden("sharing is switched off on this server")


@router.post("/conversations/{conversation_id}/shares", status_code=201)
async def share_conversation(
    conversation_id: Id, body: ShareWish, user: Member, session: DatabaseSession, context: CurrentContext
) -> ShareOut:
    """A link to one branch, as it is now. Whoever has the link can read it, with or without an account."""
    _check_on(context)
    return ShareOut.model_validate(await service.create(session, user, conversation_id, body))


@router.get("/shares")
async def list_shares(
    user: CurrentUser,
    session: DatabaseSession,
    page: Paging,
    conversation: Annotated[Id | None, Query(description="Those of one conversation.")] = None,
) -> Page[ShareOut]:
    """The newest first, expired ones among them."""
    query = select(Share).where(Share.user_id == user.id).options(defer(Share.snapshot))
    if conversation is not None:
        query = query.where(Share.conversation_id == conversation)
    rows, next_cursor = await newest_first(session, query, Share, page)
    return Page(items=[ShareOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.post("/shares/{share_id}/update")
async def update_share(
    share_id: Id, body: ShareWish, user: Member, session: DatabaseSession, context: CurrentContext
) -> ShareOut:
    """The same link, to the conversation as it is now."""
    _check_on(context)
    return ShareOut.model_validate(await service.update(session, user, share_id, body))


@router.delete("/shares/{share_id}", status_code=204)
async def revoke_share(share_id: Id, user: CurrentUser, session: DatabaseSession) -> None:
    await service.revoke(session, user.id, share_id)


@router.delete("/shares")
async def revoke_all_shares(user: CurrentUser, session: DatabaseSession) -> Revoked:
    return Revoked(revoked=await service.revoke_all(session, user.id))


@router.post("/shares/continue", status_code=201)
async def continue_shared(
    body: SharedToken, user: CurrentUser, session: DatabaseSession, context: CurrentContext
) -> ConversationOut:
    """A copy of what somebody shared, as a conversation of one's own."""
    share = await service.find(session, body.token) if context.settings.sharing else None
    if share is None:
        raise not_found("shared link")
    return ConversationOut.model_validate(await service.go_on(session, user, share))


@page_router.get("/s/{token:path}")
async def shared_page(token: str, request: Request, context: CurrentContext) -> Response:
    """Unknown, expired, revoked and malformed links are one and the same, to the byte."""
    words = words_for(request.headers.get("accept-language", ""))
    return await context.shared_pages.respond(token, words)
