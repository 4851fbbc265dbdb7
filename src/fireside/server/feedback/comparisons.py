"""Which of two answers is better? Neither the app nor its API tells which model wrote which until the vote."""

from __future__ import annotations

import random

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.tables import User
from fireside.server.chat import conversations, messages
from fireside.server.chat.choice import Choice
from fireside.server.chat.messages import Begun
from fireside.server.chat.schemas import Answering, ConversationChange, Parameters
from fireside.server.chat.tables import Message, Status
from fireside.server.db.base import now
from fireside.server.errors import ApiError, not_found
from fireside.server.feedback import service
from fireside.server.feedback.schemas import NewComparison, Vote
from fireside.server.feedback.tables import Feedback, Kind

_shuffle = random.SystemRandom().shuffle


async def begin(
    session: AsyncSession, user: User, message_id: str, new: NewComparison, choice: Choice
) -> tuple[Feedback, list[Begun]]:
    """Two more answers to the question that `message_id` answers, the left one first. Raises as `answer_again` does,
    and 409 where both would say the same."""
    conversation, _ = await messages.find(session, user, message_id)
    given = new.parameters or Parameters()
    hows = [Answering(model=name, parameters=given) for name in new.models] or [Answering(parameters=given)]
    hows *= 3 - len(hows)
    # The order decides the side and the ids, and both must tell nothing.
    _shuffle(hows)
    left, right = await messages.answer_again(session, user, message_id, hows, choice, is_blind=True)
    assert left.answer is not None and right.answer is not None
    if left.answer.model == right.answer.model:
        asked = left.answer.parameters or {}
        if asked.get("temperature") == 0 or "seed" in asked:
            raise ApiError(
                409,
                "with temperature 0 or a seed a model answers the same twice; change that, or compare it with another",
                code="same_twice",
            )
    record = await service.add(session, user, conversation, Kind.COMPARISON, left.answer, right.answer)
    conversation.current_leaf_id = left.answer.id
    await session.flush()
    return record, [left, right]


async def vote(session: AsyncSession, user: User, feedback_id: str, verdict: Vote) -> tuple[Feedback, Message, Message]:
    """Once; the branch of the winner goes on, of the left one in a tie.

    Raises `ApiError`: 404, 409 while one of the two is written, or for a second vote.
    """
    record = await find(session, user, feedback_id)
    wanted = select(Message).where(Message.id.in_([record.message_id, record.other_id]))
    both = {message.id: message for message in await session.scalars(wanted)}
    if len(both) < 2:  # deleted since it was found
        raise not_found("comparison")
    left, right = both[record.message_id], both[record.other_id or ""]
    if Status.RUNNING in (left.status, right.status):
        raise ApiError(409, "an answer is still being written", code="still_running")
    consent = await service.consent_now(session, user.id)
    cast = await session.execute(
        update(Feedback)
        .where(Feedback.id == record.id, Feedback.verdict.is_(None))
        .values(verdict=verdict, consent=consent, changed_at=now())
        .execution_options(synchronize_session=False)
    )
    if cast.rowcount == 0:  # type: ignore[attr-defined]
        await find(session, user, feedback_id)  # it may have been withdrawn in between
        raise ApiError(409, "the choice is made already; withdraw it to take it back", code="already_chosen")
    await service.reveal(session, [record.message_id, record.other_id])
    conversation = await conversations.get(session, user.id, record.conversation_id)
    winner = right if verdict == "right" else left
    await conversations.change(session, user.id, conversation, ConversationChange(current_leaf_id=winner.id))
    for row in (record, left, right):
        await session.refresh(row)
    return record, left, right


async def find(session: AsyncSession, user: User, feedback_id: str) -> Feedback:
    """Raises `ApiError` 404."""
    own = select(Feedback).where(
        Feedback.id == feedback_id, Feedback.user_id == user.id, Feedback.kind == Kind.COMPARISON
    )
    if (record := (await session.scalars(own)).one_or_none()) is None:
        raise not_found("comparison")
    return record
