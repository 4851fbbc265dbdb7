"""Writing down a conversation that was read from an export: all of it or nothing, and each but once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from fireside.server.chat.runs.titles import first_words
from fireside.server.chat.schemas import Parameters
from fireside.server.chat.tables import Conversation, Message, Project
from fireside.server.db.base import new_id, now
from fireside.server.feedback.tables import Feedback
from fireside.server.moving import native, parsed
from fireside.server.moving.tables import ImportedConversation

_ROWS = 200  # in one statement
_AT_ONCE = 2_000_000  # characters that are added to a conversation; others wait for half a second


@dataclass(frozen=True)
class Stored:
    """is_new: the conversation was not there before. messages: how many were added, or went on. is_whole: nothing is
    left to be added."""

    is_new: bool
    messages: int
    is_whole: bool = True


async def store(session: AsyncSession, user_id: str, given: parsed.Conversation, end: int) -> Stored:
    """Within the session's unit of work: of a new conversation the first `end` messages, which nobody sees until all of
    them are there; of one that came before all that is new, at once if that is not very much."""
    origin = (
        await session.scalars(
            select(ImportedConversation).where(
                ImportedConversation.user_id == user_id,
                ImportedConversation.source == given.source,
                ImportedConversation.source_id == given.source_id,
            )
        )
    ).one_or_none()
    known: dict[str, str] = dict(origin.messages) if origin else {}
    conversation = await _existing(session, user_id, given, origin)
    if conversation is not None and origin is None:  # an export of what is still here
        ids = select(Message.id).where(Message.conversation_id == conversation.id)
        known = {message_id: message_id for message_id in await session.scalars(ids)}
    is_new = conversation is None or conversation.is_arriving
    messages = given.messages
    if is_new or sum(length(message) for message in messages if message.source_id not in known) > _AT_ONCE:
        messages = messages[:end]
    grown = await _go_on(session, messages, known) if conversation is not None else 0
    added = [message for message in messages if message.source_id not in known]
    is_whole = len(messages) == len(given.messages)
    if conversation is not None and not conversation.is_arriving and not added and not grown:
        return Stored(is_new=False, messages=0, is_whole=is_whole)
    if conversation is None:
        conversation = await _create(session, user_id, given)
    # Later ids are later messages, and those of one millisecond are in no order.
    ids_of_added = sorted(new_id() for _ in added)
    known |= {message.source_id: message_id for message, message_id in zip(added, ids_of_added, strict=True)}
    await _insert(session, conversation, given, added, known)
    _turn_to(conversation, given, messages, known, set(ids_of_added), is_new=is_new)
    conversation.is_arriving = is_new and not is_whole
    if origin is None:
        origin = ImportedConversation(user_id=user_id, source=given.source, source_id=given.source_id)
        origin.conversation_id = conversation.id
        session.add(origin)
    origin.messages = known
    await session.flush()
    return Stored(is_new, grown + len(added), is_whole)


async def remove(session: AsyncSession, user_id: str, given: parsed.Conversation) -> None:
    """What there is of a conversation that came for the first time, and cannot come as a whole."""
    came = select(ImportedConversation.conversation_id).where(
        ImportedConversation.user_id == user_id,
        ImportedConversation.source == given.source,
        ImportedConversation.source_id == given.source_id,
    )
    await session.execute(
        delete(Conversation)
        .where(Conversation.user_id == user_id, Conversation.id.in_(came))
        .execution_options(synchronize_session=False)
    )


async def remove_unfinished(session: AsyncSession) -> None:
    """Of a server that died, all that had not come as a whole. While one runs it is what comes just now."""
    unfinished = delete(Conversation).where(Conversation.is_arriving)
    await session.execute(unfinished.execution_options(synchronize_session=False))


def length(message: parsed.Message) -> int:
    return len(message.content) + len(message.reasoning or "")


async def _go_on(session: AsyncSession, messages: Sequence[parsed.Message], known: dict[str, str]) -> int:
    """Writes down what became of messages that had not come to their ends, and under which ids they are known now.

    One that was answered or judged here stays what it was then; its whole turn comes beside it.
    """
    taken = {known[message.source_id] for message in messages if message.source_id in known}
    answer = aliased(Message)
    count = 0
    for message in messages:
        if message.source_id in known:
            continue
        before = next((known[piece] for piece in reversed(message.pieces) if piece in known), None)
        if before is None or before in taken:
            continue
        result = await session.execute(
            update(Message)
            .where(
                Message.id == before,
                ~select(answer.id).where(answer.parent_id == before).exists(),
                ~select(Feedback.id).where((Feedback.message_id == before) | (Feedback.other_id == before)).exists(),
            )
            .values(
                content=message.content,
                reasoning=message.reasoning,
                status=message.status,
                finish_reason=message.finish_reason,
            )
            .execution_options(synchronize_session=False)
        )
        if result.rowcount:  # type: ignore[attr-defined]
            taken.add(before)
            known[message.source_id] = before
            count += 1
    return count


async def _existing(
    session: AsyncSession, user_id: str, given: parsed.Conversation, origin: ImportedConversation | None
) -> Conversation | None:
    if origin is None and given.source != native.SOURCE:
        return None
    wanted = origin.conversation_id if origin else given.source_id
    own = select(Conversation).where(Conversation.id == wanted, Conversation.user_id == user_id)
    return (await session.scalars(own)).one_or_none()


async def _create(session: AsyncSession, user_id: str, given: parsed.Conversation) -> Conversation:
    times = [message.created_at for message in given.messages if message.created_at]
    created_at = given.created_at or min(times, default=None) or now()
    updated_at = max(given.updated_at or max(times, default=created_at), created_at)
    title = " ".join(given.title.split())
    if len(title) > parsed.MAX_TITLE:
        title = title[: parsed.MAX_TITLE - 1] + "…"
    conversation = Conversation(
        id=new_id(),
        user_id=user_id,
        created_at=created_at,
        updated_at=updated_at,
        title=title or first_words(next((m.content for m in given.messages if m.role == "user"), "")),
        has_own_title=given.has_own_title and bool(title),
        model=given.model,
        parameters=_parameters(given),
        pinned_at=updated_at if given.is_pinned else None,
        archived_at=updated_at if given.is_archived else None,
        project_id=await _project(session, user_id, given.project),
    )
    session.add(conversation)
    await session.flush()
    return conversation


def _parameters(given: parsed.Conversation) -> dict[str, object]:
    """Those that can be ours; each for itself, so that one which cannot takes no other with it."""
    kept: dict[str, object] = {}
    for name, value in given.parameters.items():
        if value is None or name not in Parameters.model_fields or value == "":
            continue
        if name in ("temperature", "top_p") and not isinstance(value, bool) and not isinstance(value, str):
            try:
                value = float(value)
            except (TypeError, ValueError, OverflowError):
                continue
        try:
            kept |= Parameters.model_validate({name: value}).model_dump(exclude_none=True)
        except ValueError:
            continue
    return kept


async def _project(session: AsyncSession, user_id: str, wanted: tuple[str, str] | None) -> str | None:
    """The person's project of that name, made if there is none."""
    if wanted is None:
        return None
    name, instructions = wanted
    own = select(Project.id).where(Project.user_id == user_id, Project.name == name).order_by(Project.id).limit(1)
    if (found := await session.scalar(own)) is not None:
        return found
    project = Project(id=new_id(), user_id=user_id, name=name, instructions=instructions)
    session.add(project)
    await session.flush()
    return project.id


async def _insert(
    session: AsyncSession,
    conversation: Conversation,
    given: parsed.Conversation,
    messages: Sequence[parsed.Message],
    ids: dict[str, str],
) -> None:
    times: dict[str, datetime] = {}
    for message in given.messages:
        # Without a time of its own a message is as old as the one before it.
        times[message.source_id] = message.created_at or times.get(message.parent or "") or conversation.created_at
    for start in range(0, len(messages), _ROWS):
        rows = [
            {
                "id": ids[message.source_id],
                "created_at": times[message.source_id],
                "conversation_id": conversation.id,
                "parent_id": None if message.parent is None else ids.get(message.parent),
                "role": message.role,
                "content": message.content,
                "reasoning": message.reasoning,
                "status": message.status,
                "error": message.error,
                "model": message.model,
                "parameters": message.parameters,
                "finish_reason": message.finish_reason,
                "usage": message.usage,
                "earlier_writers": message.earlier_writers,
                "is_copied": True,
            }
            for message in messages[start : start + _ROWS]
        ]
        await session.execute(insert(Message), rows)


def _turn_to(
    conversation: Conversation,
    given: parsed.Conversation,
    messages: Sequence[parsed.Message],
    ids: dict[str, str],
    added: set[str],
    *,
    is_new: bool,
) -> None:
    """Shows the branch that was shown there; but of what was gone on with here, the branch that is shown here."""
    current = ids.get(given.current or "") or (ids[messages[-1].source_id] if messages else None)
    shown = conversation.current_leaf_id
    if is_new or shown is None or (shown in set(ids.values()) and current in added):
        conversation.current_leaf_id = current
    if not is_new and given.updated_at is not None:
        conversation.updated_at = max(conversation.updated_at, given.updated_at)
