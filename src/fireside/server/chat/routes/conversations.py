"""`/api/conversations`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from fireside.server.accounts.deps import CurrentUser
from fireside.server.body import BoundedRoute
from fireside.server.chat import conversations
from fireside.server.chat.schemas import (
    ConversationChange,
    ConversationIds,
    ConversationItem,
    ConversationOut,
    ConversationTree,
    Deleted,
    NewConversation,
)
from fireside.server.deps import CurrentContext, DatabaseSession
from fireside.server.paging import Id, Page, Paging

router = APIRouter(prefix="/api/conversations", route_class=BoundedRoute, tags=["conversations"])


@router.get("")
async def list_conversations(
    user: CurrentUser,
    session: DatabaseSession,
    page: Paging,
    q: Annotated[
        str | None,
        Query(min_length=1, max_length=200, pattern=r"^[^\x00]*$", description="Words in titles and messages."),
    ] = None,
    project: Annotated[Id | None, Query(description="Those of one project.")] = None,
    archived: Annotated[bool, Query(description="Those that are archived instead of those that are not.")] = False,
    pinned: Annotated[bool | None, Query(description="Only those that are pinned, or that are not.")] = None,
) -> Page[ConversationItem]:
    """What was written to last first. With `q`, archived ones too, and each says where it has the words."""
    return await conversations.list_page(
        session,
        user.id,
        page,
        query=q,
        project_id=project,
        archived=archived if q is None or archived else None,
        pinned=pinned,
    )


@router.post("", status_code=201)
async def create_conversation(body: NewConversation, user: CurrentUser, session: DatabaseSession) -> ConversationOut:
    return ConversationOut.model_validate(await conversations.create(session, user.id, body))


@router.post("/delete")
async def delete_conversations(
    body: ConversationIds, user: CurrentUser, session: DatabaseSession, context: CurrentContext
) -> Deleted:
    """Several at once. What is not there is not counted."""
    deleted = await conversations.delete_all(session, user.id, body.ids)
    await session.commit()
    await context.runs.stop_in(user.id, body.ids)
    return Deleted(deleted=deleted)


@router.get("/{conversation_id}")
async def get_conversation(conversation_id: Id, user: CurrentUser, session: DatabaseSession) -> ConversationTree:
    """With all of its messages."""
    return await conversations.tree(session, await conversations.get(session, user.id, conversation_id))


@router.patch("/{conversation_id}")
async def change_conversation(
    conversation_id: Id, body: ConversationChange, user: CurrentUser, session: DatabaseSession
) -> ConversationOut:
    conversation = await conversations.get(session, user.id, conversation_id)
    await conversations.change(session, user.id, conversation, body)
    return ConversationOut.model_validate(conversation)


@router.delete("/{conversation_id}", status_code=204)
async def delete_conversation(
    conversation_id: Id, user: CurrentUser, session: DatabaseSession, context: CurrentContext
) -> None:
    if not await conversations.delete_all(session, user.id, [conversation_id]):
        raise conversations.not_found("conversation")
    await session.commit()
    await context.runs.stop_in(user.id, [conversation_id])
