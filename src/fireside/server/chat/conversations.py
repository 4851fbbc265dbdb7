"""Conversations: listing, finding, changing, deleting."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Row, and_, bindparam, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.chat import search
from fireside.server.chat.schemas import (
    ConversationChange,
    ConversationItem,
    ConversationTree,
    Hit,
    MessageOut,
    NewConversation,
)
from fireside.server.chat.tables import Conversation, Message, Project
from fireside.server.chat.tree import latest_leaf
from fireside.server.db.base import now
from fireside.server.errors import ApiError, invalid
from fireside.server.paging import Page, PageRequest

_OWN = select(Conversation).where(
    Conversation.id == bindparam("id"),
    Conversation.user_id == bindparam("user_id"),
    Conversation.is_arriving.is_(False),
)


def not_found(what: str) -> ApiError:
    """The same for what never was, what is gone, and what is somebody else's."""
    return ApiError(404, f"there is no such {what}", code="not_found")


async def get(session: AsyncSession, user_id: str, conversation_id: str) -> Conversation:
    """Raises `ApiError` 404."""
    found = await session.scalars(_OWN, {"id": conversation_id, "user_id": user_id})
    if (conversation := found.one_or_none()) is None:
        raise not_found("conversation")
    return conversation


async def create(session: AsyncSession, user_id: str, new: NewConversation) -> Conversation:
    """Raises `ApiError` 404 for a project that is not the person's."""
    await _check_project(session, user_id, new.project_id)
    conversation = Conversation(
        user_id=user_id,
        project_id=new.project_id,
        title=new.title or "",
        has_own_title=new.title is not None,
        model=new.model,
        parameters=new.parameters.model_dump(exclude_none=True),
    )
    session.add(conversation)
    await session.flush()
    return conversation


async def list_page(
    session: AsyncSession,
    user_id: str,
    page: PageRequest,
    *,
    query: str | None = None,
    project_id: str | None = None,
    archived: bool | None = False,
    pinned: bool | None = None,
) -> Page[ConversationItem]:
    """The person's conversations, what was written to last first. Raises `ApiError` 400 for a cursor that is none."""
    statement = select(Conversation).where(Conversation.user_id == user_id, Conversation.is_arriving.is_(False))
    if project_id is not None:
        statement = statement.where(Conversation.project_id == project_id)
    if archived is not None:
        statement = statement.where(Conversation.archived_at.is_not(None) == archived)
    if pinned is not None:
        statement = statement.where(Conversation.pinned_at.is_not(None) == pinned)
    if page.cursor is not None:
        time, last_id = _read_cursor(page.cursor)
        at_that_time = and_(Conversation.updated_at == time, Conversation.id < last_id)
        statement = statement.where(or_(Conversation.updated_at < time, at_that_time))
    statement = statement.order_by(Conversation.updated_at.desc(), Conversation.id.desc()).limit(page.limit + 1)
    if query is None:
        items = [ConversationItem.model_validate(row) for row in await session.scalars(statement)]
    else:
        found, matches = search.find(session, user_id, query)
        statement = statement.outerjoin(found, found.c.conversation_id == Conversation.id).where(matches)
        rows = (await session.execute(statement.add_columns(found.c.number))).all()
        items = await _with_hits(session, rows, query)
    shown = items[: page.limit]
    return Page(items=shown, next_cursor=_cursor(shown[-1]) if len(items) > page.limit else None)


def _cursor(last: ConversationItem) -> str:
    return base64.urlsafe_b64encode(f"{last.updated_at.isoformat()} {last.id}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        time, _, conversation_id = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().partition(" ")
        updated_at = datetime.fromisoformat(time)
        if updated_at.tzinfo is None or not re.fullmatch(r"[0-9a-f]{32}", conversation_id):
            raise ValueError("a time without its zone, or no id")
        updated_at = updated_at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid("cursor", "is not one that this server gave", "invalid_value") from None
    return updated_at, conversation_id


async def _with_hits(
    session: AsyncSession, rows: Sequence[Row[Conversation, int | None]], query: str
) -> list[ConversationItem]:
    numbers = [number for _, number in rows if number is not None]
    messages = {m.number: m for m in await session.scalars(select(Message).where(Message.number.in_(numbers)))}
    items = []
    for conversation, number in rows:
        message = messages.get(number) if number is not None else None
        hit = (
            Hit(message_id=None, snippet=conversation.title)
            if message is None
            else Hit(message_id=message.id, snippet=search.snippet(message.content, query))
        )
        items.append(ConversationItem.model_validate(conversation).model_copy(update={"hit": hit}))
    return items


async def tree(session: AsyncSession, conversation: Conversation) -> ConversationTree:
    rows = await session.scalars(
        select(Message).where(Message.conversation_id == conversation.id).order_by(Message.number)
    )
    messages = [MessageOut.model_validate(row) for row in rows]
    fields = {name: getattr(conversation, name) for name in ConversationTree.model_fields if name != "messages"}
    return ConversationTree(**fields, messages=messages)


async def change(session: AsyncSession, user_id: str, conversation: Conversation, wanted: ConversationChange) -> None:
    """Raises `ApiError` 404 for a project or message that is not there."""
    given = wanted.model_fields_set
    if wanted.title is not None:
        conversation.title, conversation.has_own_title = wanted.title, True
    if "project_id" in given:
        await _check_project(session, user_id, wanted.project_id)
        conversation.project_id = wanted.project_id
    if wanted.pinned is not None:
        conversation.pinned_at = (conversation.pinned_at or now()) if wanted.pinned else None
    if wanted.archived is not None:
        conversation.archived_at = (conversation.archived_at or now()) if wanted.archived else None
    if "model" in given:
        conversation.model = wanted.model
    if wanted.parameters is not None:
        await _hold(session, conversation)
        named = conversation.parameters | wanted.parameters.model_dump(exclude_unset=True)
        conversation.parameters = {name: value for name, value in named.items() if value is not None}
    if wanted.current_leaf_id is not None:
        nodes = (
            await session.execute(
                select(Message.id, Message.parent_id).where(Message.conversation_id == conversation.id)
            )
        ).all()
        try:
            conversation.current_leaf_id = latest_leaf(nodes, wanted.current_leaf_id)
        except KeyError:
            raise not_found("message") from None
    await session.flush()


async def _hold(session: AsyncSession, conversation: Conversation) -> None:
    """Its parameters as they are now, and as they stay for others until this unit of work is over.

    Raises `ApiError` 404 if it was deleted.
    """
    held = update(Conversation).where(Conversation.id == conversation.id).values(parameters=Conversation.parameters)
    found = await session.execute(held.execution_options(synchronize_session=False))
    if found.rowcount == 0:  # type: ignore[attr-defined]
        raise not_found("conversation")
    await session.refresh(conversation, ["parameters"])


async def delete_all(session: AsyncSession, user_id: str, ids: Sequence[str]) -> int:
    """How many there were. Their messages, runs and events go with them."""
    result = await session.execute(
        delete(Conversation)
        .where(Conversation.user_id == user_id, Conversation.id.in_(ids))
        .execution_options(synchronize_session=False)
    )
    return result.rowcount  # type: ignore[attr-defined,no-any-return]


async def _check_project(session: AsyncSession, user_id: str, project_id: str | None) -> None:
    if project_id is not None:
        own = select(Project.id).where(Project.id == project_id, Project.user_id == user_id)
        if (await session.execute(own)).first() is None:
            raise not_found("project")
