"""What is asked and answered: `/api/conversations/{id}/messages` and `/api/messages`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext

from fastapi import APIRouter
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.deps import CurrentUser
from fireside.server.body import BoundedRoute
from fireside.server.chat import conversations, messages
from fireside.server.chat.choice import Choice
from fireside.server.chat.messages import Begun
from fireside.server.chat.schemas import Answering, Edit, MessageOut, NewMessage, RunOut, Started
from fireside.server.chat.tables import Role
from fireside.server.deps import Context, CurrentContext
from fireside.server.feedback import service as feedback
from fireside.server.paging import Id

router = APIRouter(route_class=BoundedRoute, tags=["messages"])


@router.post("/api/conversations/{conversation_id}/messages", status_code=201)
async def send_message(conversation_id: Id, body: NewMessage, user: CurrentUser, context: CurrentContext) -> Started:
    """Asks, and begins to answer. A request that is repeated with the same `id` gets what the first one got."""

    async def send(session: AsyncSession, choice: Choice) -> Begun:
        conversation = await conversations.get(session, user.id, conversation_id)
        return await messages.send(session, user, conversation, body, choice)

    try:
        return await _carry_out(context, user.id, send)
    except IntegrityError:
        if body.id is None:
            raise
        return await _carry_out(context, user.id, send)  # the same request, sent twice at once: the other one was first


@router.post("/api/messages/{message_id}/regenerate", status_code=201)
async def regenerate(message_id: Id, body: Answering, user: CurrentUser, context: CurrentContext) -> Started:
    """Another answer, beside this one."""

    async def again(session: AsyncSession, choice: Choice) -> Begun:
        (begun,) = await messages.answer_again(session, user, message_id, [body], choice)
        if begun.answer is not None:
            await feedback.note_regeneration(session, user, begun.answer, message_id)
        return begun

    return await _carry_out(context, user.id, again)


@router.post("/api/messages/{message_id}/edit", status_code=201)
async def edit(message_id: Id, body: Edit, user: CurrentUser, context: CurrentContext) -> Started:
    """The same message in other words, beside this one. `message` is the new one."""

    async def change(session: AsyncSession, choice: Choice) -> Begun:
        begun = await messages.edit(session, user, message_id, body, choice)
        if begun.message is not None and begun.message.role == Role.ASSISTANT:
            await feedback.note_edit(session, user, begun.message, message_id)
        return begun

    return await _carry_out(context, user.id if body.run else None, change)


@router.post("/api/messages/{message_id}/continue", status_code=201)
async def go_on(message_id: Id, body: Answering, user: CurrentUser, context: CurrentContext) -> Started:
    """An answer that was cut is written on, in the same message."""
    return await _carry_out(
        context, user.id, lambda session, choice: messages.go_on(session, user, message_id, body, choice)
    )


async def _carry_out(
    context: Context, runs_of: str | None, work: Callable[[AsyncSession, Choice], Awaitable[Begun]]
) -> Started:
    """In a transaction of its own, since a run may begin only when its row is there for others to see.

    runs_of: whose run it may begin; None: it begins none.
    """
    room = context.runs.room(runs_of) if runs_of is not None else nullcontext()
    with room, Choice(context.models) as choice:
        async with context.database.writing_session() as session:
            begun = await work(session, choice)
            with context.runs.launching([] if begun.plan is None else [begun.plan]):
                await session.commit()
            return Started(
                message=None if begun.message is None else MessageOut.model_validate(begun.message),
                answer=None if begun.answer is None else MessageOut.model_validate(begun.answer),
                run=None if begun.run is None else RunOut.model_validate(begun.run),
            )
