"""`/api/feedback`, and what is said of messages: thumbs, preferences and comparisons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.deps import CurrentUser
from fireside.server.body import BoundedRoute
from fireside.server.chat.choice import Choice
from fireside.server.chat.schemas import MessageOut
from fireside.server.deps import Context, CurrentContext, DatabaseSession
from fireside.server.errors import not_found
from fireside.server.feedback import comparisons, service
from fireside.server.feedback.schemas import (
    CastVote,
    ComparisonOut,
    ConsentChange,
    ConsentOut,
    FeedbackItem,
    FeedbackOut,
    NewComparison,
    Preference,
    Rating,
    Withdrawn,
)
from fireside.server.paging import Id, Page, Paging

router = APIRouter(route_class=BoundedRoute, tags=["feedback"])

_Result = TypeVar("_Result")


@router.get("/api/feedback")
async def list_feedback(
    user: CurrentUser,
    session: DatabaseSession,
    page: Paging,
    conversation: Annotated[Id | None, Query(description="What was said in one conversation.")] = None,
) -> Page[FeedbackItem]:
    """What the person gave, the newest first."""
    return await service.list_page(session, user.id, page, conversation)


@router.delete("/api/feedback")
async def withdraw_all(user: CurrentUser, session: DatabaseSession) -> Withdrawn:
    """All that the person gave, for good."""
    return Withdrawn(withdrawn=await service.withdraw(session, user.id, None))


@router.get("/api/feedback/consent")
async def get_consent(user: CurrentUser, session: DatabaseSession) -> ConsentOut:
    return await service.consent_of(session, user.id)


@router.put("/api/feedback/consent")
async def set_consent(body: ConsentChange, user: CurrentUser, context: CurrentContext) -> ConsentOut:
    """Whether what the person gives may be used to train models here: from now on, or what they gave before too."""

    async def change(session: AsyncSession) -> ConsentOut:
        return await service.set_consent(
            session, user.id, is_given=body.is_given, including_earlier=body.including_earlier
        )

    return await _again_if_raced(context, change)


@router.delete("/api/feedback/{feedback_id}", status_code=204)
async def withdraw(feedback_id: Id, user: CurrentUser, session: DatabaseSession) -> None:
    """For good. A comparison without a vote ends, and tells which model wrote what."""
    if not await service.withdraw(session, user.id, feedback_id):
        raise not_found("feedback")


@router.put("/api/messages/{message_id}/rating")
async def rate(message_id: Id, body: Rating, user: CurrentUser, context: CurrentContext) -> FeedbackOut:
    """A thumb, in place of the one that there may be."""

    async def change(session: AsyncSession) -> FeedbackOut:
        return FeedbackOut.model_validate(await service.rate(session, user, message_id, body))

    return await _again_if_raced(context, change)


@router.put("/api/messages/{message_id}/preference")
async def prefer(message_id: Id, body: Preference, user: CurrentUser, session: DatabaseSession) -> FeedbackOut:
    """Of an answer that was given again, against the one before."""
    return FeedbackOut.model_validate(await service.prefer(session, user, message_id, body))


@router.post("/api/messages/{message_id}/comparison", status_code=201)
async def compare(message_id: Id, body: NewComparison, user: CurrentUser, context: CurrentContext) -> ComparisonOut:
    """Two more answers, beside this one, to choose from. Until then nothing tells which model writes which."""
    with context.runs.room(user.id), context.runs.room(user.id), Choice(context.models) as choice:
        async with context.database.session() as session:
            record, begun = await comparisons.begin(session, user, message_id, body, choice)
            with context.runs.launching([made.plan for made in begun if made.plan is not None]):
                await session.commit()
            left, right = (MessageOut.model_validate(made.answer) for made in begun)
            return ComparisonOut(feedback=FeedbackOut.model_validate(record), left=left, right=right)


@router.post("/api/feedback/{feedback_id}/vote")
async def vote(feedback_id: Id, body: CastVote, user: CurrentUser, session: DatabaseSession) -> ComparisonOut:
    """Once. The winner's branch goes on, and the messages tell who wrote them."""
    record, left, right = await comparisons.vote(session, user, feedback_id, body.verdict)
    return ComparisonOut(
        feedback=FeedbackOut.model_validate(record),
        left=MessageOut.model_validate(left),
        right=MessageOut.model_validate(right),
    )


async def _again_if_raced(context: Context, work: Callable[[AsyncSession], Awaitable[_Result]]) -> _Result:
    """What makes a row or changes the one there is: of two at once, the second finds the first one's."""
    try:
        async with context.database.session() as session:
            return await work(session)
    except IntegrityError:
        async with context.database.session() as session:
            return await work(session)
