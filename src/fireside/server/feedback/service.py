"""What somebody gives, sees and takes back of their feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.tables import User
from fireside.server.chat import messages
from fireside.server.chat.tables import Conversation, Message, Role, Status
from fireside.server.db.base import now
from fireside.server.errors import ApiError, not_found
from fireside.server.feedback.schemas import ConsentOut, FeedbackItem, FeedbackOut, Preference, Rating
from fireside.server.feedback.tables import Feedback, FeedbackConsent, Kind, Verdict
from fireside.server.paging import Page, PageRequest, newest_first

_EXCERPT = 200  # characters


async def rate(session: AsyncSession, user: User, message_id: str, given: Rating) -> Feedback:
    """A thumb, in place of the one that there may be.

    Raises `ApiError`: 404, 400 for a question, 409 for an answer that is written or compared. Two at once for the same
    answer are an IntegrityError for one of them.
    """
    conversation, message = await messages.find(session, user, message_id)
    if message.role != Role.ASSISTANT:
        raise ApiError(400, "only an answer can be rated", code="wrong_role")
    check_settled(message)
    found = select(Feedback).where(Feedback.kind == Kind.RATING, Feedback.message_id == message_id)
    record = (await session.scalars(found)).one_or_none()
    if record is None:
        record = await add(session, user, conversation, Kind.RATING, message)
    else:
        record.consent = await consent_now(session, user.id)
    record.verdict, record.comment, record.changed_at = given.verdict, given.comment, now()
    record.reasons = list(dict.fromkeys(given.reasons))
    await session.flush()
    return record


async def prefer(session: AsyncSession, user: User, message_id: str, given: Preference) -> Feedback:
    """What somebody thinks of an answer that was given again. Raises `ApiError` 404 for one that was not, or 409."""
    _, message = await messages.find(session, user, message_id)
    check_settled(message)
    found = select(Feedback).where(Feedback.kind == Kind.REGENERATION, Feedback.message_id == message_id)
    if (record := (await session.scalars(found)).one_or_none()) is None:
        raise not_found("answer that was given again")
    record.consent = await consent_now(session, user.id)
    record.verdict, record.changed_at = given.verdict, now()
    await session.flush()
    return record


async def note_regeneration(session: AsyncSession, user: User, answer: Message, before_id: str) -> None:
    """That somebody wanted another answer. `answer` is the new one."""
    conversation, before = await messages.find(session, user, before_id)
    if not before.is_blind:
        await add(session, user, conversation, Kind.REGENERATION, answer, before)


async def note_edit(session: AsyncSession, user: User, edited: Message, original_id: str) -> None:
    """That somebody would rather have had the answer in other words."""
    conversation, original = await messages.find(session, user, original_id)
    if edited.content != original.content:
        await add(session, user, conversation, Kind.EDIT, edited, original, Verdict.BETTER)


async def add(
    session: AsyncSession,
    user: User,
    conversation: Conversation,
    kind: Kind,
    message: Message,
    other: Message | None = None,
    verdict: Verdict | None = None,
) -> Feedback:
    """With its giver's consent as it is now."""
    consent = await consent_now(session, user.id)
    record = Feedback(
        user_id=user.id,
        conversation_id=conversation.id,
        kind=kind,
        message_id=message.id,
        other_id=None if other is None else other.id,
        verdict=verdict,
        consent=consent,
        reasons=[],
        comment="",
    )
    session.add(record)
    await session.flush()
    return record


def check_settled(*answers: Message) -> None:
    """That they are written, and that it is no secret who wrote them. Raises `ApiError` 409."""
    for answer in answers:
        if answer.status == Status.RUNNING:
            raise ApiError(409, "this answer is still being written", code="still_running")
        if answer.is_blind:
            raise ApiError(409, "this answer is being compared; choose between the two first", code="comparison_open")


async def list_page(
    session: AsyncSession, user_id: str, page: PageRequest, conversation_id: str | None
) -> Page[FeedbackItem]:
    """The person's own, of one conversation or of all."""
    query = select(Feedback).where(Feedback.user_id == user_id)
    if conversation_id is not None:
        query = query.where(Feedback.conversation_id == conversation_id)
    rows, cursor = await newest_first(session, query, Feedback, page)
    wanted = {id for row in rows for id in (row.message_id, row.other_id) if id is not None}
    columns = (Message.id, Message.model, Message.is_blind, func.substr(Message.content, 1, _EXCERPT).label("excerpt"))
    named = {row.id: row for row in await session.execute(select(*columns).where(Message.id.in_(wanted)))}
    about = {row.conversation_id for row in rows}
    chats = select(Conversation.id, Conversation.title).where(Conversation.id.in_(about))
    titles = {row.id: row.title for row in await session.execute(chats)}

    def model_of(message: Any) -> str | None:
        return None if message is None or message.is_blind else message.model

    items = []
    for row in rows:
        message, other = named.get(row.message_id), named.get(row.other_id or "")
        title = titles.get(row.conversation_id)
        if message is None or title is None:  # deleted since the first query
            continue
        items.append(
            FeedbackItem(
                **FeedbackOut.model_validate(row).model_dump(),
                title=title,
                excerpt=message.excerpt,
                model=model_of(message),
                other_model=model_of(other),
            )
        )
    return Page(items=items, next_cursor=cursor)


async def withdraw(session: AsyncSession, user_id: str, feedback_id: str | None) -> int:
    """One record or all of the person's: how many there were. What was compared is no secret any more."""
    gone = delete(Feedback).where(Feedback.user_id == user_id)
    if feedback_id is not None:
        gone = gone.where(Feedback.id == feedback_id)
    told = (Feedback.kind, Feedback.verdict, Feedback.message_id, Feedback.other_id)
    rows = (await session.execute(gone.returning(*told).execution_options(synchronize_session=False))).all()
    open_ones = [row for row in rows if row.kind == Kind.COMPARISON and row.verdict is None]
    await reveal(session, [id for row in open_ones for id in (row.message_id, row.other_id)])
    return len(rows)


async def reveal(session: AsyncSession, ids: Sequence[str | None]) -> None:
    """Who wrote these answers is no secret any more."""
    for start in range(0, len(ids), 500):
        await session.execute(update(Message).where(Message.id.in_(ids[start : start + 500])).values(is_blind=False))


async def consent_of(session: AsyncSession, user_id: str) -> ConsentOut:
    row = (await session.scalars(select(FeedbackConsent).where(FeedbackConsent.user_id == user_id))).one_or_none()
    return ConsentOut(is_given=row.is_given if row else None, changed_at=row.changed_at if row else None)


async def consent_now(session: AsyncSession, user_id: str) -> bool:
    """Whether the person consents, as it stays until this unit of work is over.

    A row that is written cannot be changed by anybody else in between: who takes consent back waits, and finds what was
    given under it. To be called before other rows of feedback are changed, since that is the order it is changed in.
    """
    held = update(FeedbackConsent).where(FeedbackConsent.user_id == user_id)
    held = held.values(is_given=FeedbackConsent.is_given).execution_options(synchronize_session=False)
    return bool(await session.scalar(held.returning(FeedbackConsent.is_given)))


async def set_consent(session: AsyncSession, user_id: str, *, is_given: bool, including_earlier: bool) -> ConsentOut:
    row = (await session.scalars(select(FeedbackConsent).where(FeedbackConsent.user_id == user_id))).one_or_none()
    if row is None:
        session.add(FeedbackConsent(user_id=user_id, is_given=is_given))
    else:
        row.is_given, row.changed_at = is_given, now()
    if including_earlier:
        await session.execute(update(Feedback).where(Feedback.user_id == user_id).values(consent=is_given))
    await session.flush()
    return await consent_of(session, user_id)
