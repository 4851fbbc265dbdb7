"""What is done to the tree: asking, asking again, editing, going on. Each makes rows, and most of them a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from fireside.assistant.text_model import TextModel
from fireside.server.accounts.tables import User
from fireside.server.chat import conversations
from fireside.server.chat.choice import Choice
from fireside.server.chat.conversations import not_found
from fireside.server.chat.instructions import system_of
from fireside.server.chat.runs.answering import sampled_by
from fireside.server.chat.runs.plan import Plan, Turn
from fireside.server.chat.runs.titles import first_words
from fireside.server.chat.schemas import Answering, Edit, NewMessage, Parameters
from fireside.server.chat.tables import Conversation, Message, Role, Run, Status
from fireside.server.chat.tree import path_to
from fireside.server.chat.writers import writers_before
from fireside.server.db.base import new_id, now
from fireside.server.errors import ApiError, invalid

_NODES = select(Message.id, Message.parent_id, Message.role, Message.status, Message.content).where(
    Message.conversation_id == bindparam("conversation_id")
)


@dataclass(kw_only=True)
class Begun:
    """What was made. plan: what the run is to do once this is committed; None where there is nothing to run."""

    message: Message | None = None
    answer: Message | None = None
    run: Run | None = None
    plan: Plan | None = None


@dataclass(frozen=True)
class _Nodes:
    rows: Sequence[Any] = field(repr=False)  # id, parent_id, role, status, content

    def get(self, message_id: str) -> Any:
        """Raises `ApiError` 404."""
        if (row := next((row for row in self.rows if row.id == message_id), None)) is None:
            raise not_found("message")
        return row

    def turns_to(self, message_id: str | None) -> list[Turn]:
        return [Turn(row.role, row.content) for row in path_to(self.rows, message_id)]


async def send(session: AsyncSession, user: User, conversation: Conversation, new: NewMessage, choice: Choice) -> Begun:
    """A question and the message that will answer it.

    Raises `ApiError`: 404 for a parent or model that is not there, 400 for a parent that is a question, 409 for one
    that is still written or no longer the end that the person took it for, or for an id that is taken.
    """
    if new.id is not None and (repeated := await _already_sent(session, conversation, new.id)) is not None:
        return repeated
    nodes = await _nodes(session, conversation)
    if new.parent_id is not None:
        parent = nodes.get(new.parent_id)
        if parent.role != Role.ASSISTANT:
            raise invalid(
                "parent_id", "is a question; what follows an answer, or nothing, can be asked", "invalid_value"
            )
        _check_written(parent)
    if new.is_end and any(row.parent_id == new.parent_id for row in nodes.rows):
        raise ApiError(409, "it has gone on elsewhere: load it again, and ask then", param="parent_id", code="gone_on")
    is_first = not nodes.rows
    if is_first and not conversation.has_own_title:
        named = update(Conversation).where(Conversation.id == conversation.id, Conversation.has_own_title.is_(False))
        named = named.values(title=first_words(new.content))
        await session.execute(named.execution_options(synchronize_session=False))
    question = _add(
        session, conversation, parent_id=new.parent_id, role=Role.USER, content=new.content, id=new.id or new_id()
    )
    turns = [*nodes.turns_to(new.parent_id), Turn(Role.USER, new.content)]
    begun = await _answer(session, user, conversation, question.id, turns, new, choice)
    begun.message = question
    if is_first and not conversation.has_own_title and begun.plan is not None:
        begun.plan = replace(begun.plan, question=new.content)
    return begun


async def answer_again(
    session: AsyncSession,
    user: User,
    message_id: str,
    hows: Sequence[Answering],
    choice: Choice,
    *,
    is_blind: bool = False,
) -> list[Begun]:
    """More answers to the same question, beside the one given. Raises `ApiError` as `send` does.

    One model alone is asked for something else than it said already.
    """
    conversation, message = await find(session, user, message_id)
    if message.role != Role.ASSISTANT:
        raise _wrong_role("only an answer can be given again; edit the question instead")
    if len({choice.chosen(conversation, how)[0].name for how in hows}) == 1:
        hows = [choice.drawing(conversation, how) for how in hows]
    nodes = await _nodes(session, conversation)
    turns = nodes.turns_to(message.parent_id)
    return [
        await _answer(session, user, conversation, message.parent_id, turns, how, choice, is_blind=is_blind)
        for how in hows
    ]


async def edit(session: AsyncSession, user: User, message_id: str, new: Edit, choice: Choice) -> Begun:
    """The message with other words, beside the one there is; a question is answered anew if `run` is set."""
    conversation, message = await find(session, user, message_id)
    _check_told(message)
    shown = {"system": message.system, "left_out": message.left_out, "is_copied": message.is_copied}
    sibling = _add(session, conversation, parent_id=message.parent_id, role=message.role, content=new.content, **shown)
    if message.role == Role.USER and new.run:
        nodes = await _nodes(session, conversation)
        turns = [*nodes.turns_to(message.parent_id), Turn(Role.USER, new.content)]
        begun = await _answer(session, user, conversation, sibling.id, turns, new, choice)
        begun.message = sibling
        return begun
    conversation.current_leaf_id = sibling.id
    conversation.updated_at = now()
    await session.flush()
    return Begun(message=sibling)


async def go_on(session: AsyncSession, user: User, message_id: str, how: Answering, choice: Choice) -> Begun:
    """An answer that was cut is written on, in the same message. Raises `ApiError` 409 while it is written anyway."""
    conversation, message = await find(session, user, message_id)
    if message.role != Role.ASSISTANT:
        raise _wrong_role("only an answer can be continued")
    _check_written(message)
    _check_told(message)
    if not message.content:  # it was cut while it thought, or before: it begins again
        message.reasoning = None
    nodes = await _nodes(session, conversation)
    turns = nodes.turns_to(message.parent_id)
    continues = bool(message.content)
    if continues:
        turns.append(Turn(Role.ASSISTANT, message.content))
    model, parameters = choice.chosen(conversation, how)
    system = await system_of(session, user, conversation, parameters)
    run = _add_run(session, user, conversation, message, new_id())
    taken = await session.execute(
        update(Message)
        .where(
            Message.id == message.id,
            Message.status != Status.RUNNING,
            Message.run_id.is_not_distinct_from(message.run_id),  # or it has grown since it was read
        )
        .values(
            status=Status.RUNNING,
            error=None,
            finish_reason=None,
            reasoning=message.reasoning,
            model=model.name,
            model_version=model.version,
            parameters=sampled_by(parameters, model),
            earlier_writers=writers_before(message, model),
            run_id=run.id,
            system=system if not continues or message.system == system else None,
        )
        .execution_options(synchronize_session=False)
    )
    if taken.rowcount == 0:  # type: ignore[attr-defined]  # another tab was faster
        raise _being_written()
    await session.refresh(message)
    conversation.current_leaf_id = conversation.current_leaf_id or message.id
    conversation.updated_at = now()
    await session.flush()
    held = {"content": message.content, "reasoning": message.reasoning or "", "left_out": message.left_out}
    plan = _plan(run, turns, model, parameters, system, **held)
    return Begun(answer=message, run=run, plan=plan)


async def _already_sent(session: AsyncSession, conversation: Conversation, message_id: str) -> Begun | None:
    message = (await session.scalars(select(Message).where(Message.id == message_id))).one_or_none()
    if message is None:
        return None
    if message.conversation_id != conversation.id or message.role != Role.USER:
        raise ApiError(409, "this id is taken; make up another", param="id", code="id_taken")
    answers = select(Message).where(Message.parent_id == message.id).order_by(Message.number).limit(1)
    answer = (await session.scalars(answers)).one_or_none()
    run = None
    if answer is not None:
        run = (await session.scalars(select(Run).where(Run.id == answer.run_id))).one_or_none()
    return Begun(message=message, answer=answer, run=run)


async def find(session: AsyncSession, user: User, message_id: str) -> tuple[Conversation, Message]:
    """A message of the person's own. Raises `ApiError` 404."""
    wanted = select(Message).where(Message.id == message_id).options(undefer(Message.system))
    if (message := (await session.scalars(wanted)).one_or_none()) is None:
        raise not_found("message")
    try:
        return await conversations.get(session, user.id, message.conversation_id), message
    except ApiError:
        raise not_found("message") from None


async def _nodes(session: AsyncSession, conversation: Conversation) -> _Nodes:
    return _Nodes((await session.execute(_NODES, {"conversation_id": conversation.id})).all())


async def _answer(
    session: AsyncSession,
    user: User,
    conversation: Conversation,
    parent_id: str | None,
    turns: Sequence[Turn],
    how: Answering,
    choice: Choice,
    *,
    is_blind: bool = False,
) -> Begun:
    model, parameters = choice.chosen(conversation, how)
    system = await system_of(session, user, conversation, parameters)
    run_id = new_id()
    answer = _add(
        session,
        conversation,
        parent_id=parent_id,
        role=Role.ASSISTANT,
        content="",
        status=Status.RUNNING,
        model=model.name,
        model_version=model.version,
        parameters=sampled_by(parameters, model),
        run_id=run_id,
        is_blind=is_blind,
        system=system,
    )
    run = _add_run(session, user, conversation, answer, run_id)
    conversation.current_leaf_id = answer.id
    conversation.updated_at = now()
    await session.flush()
    return Begun(answer=answer, run=run, plan=_plan(run, turns, model, parameters, system, is_blind=is_blind))


def _add(session: AsyncSession, conversation: Conversation, **values: Any) -> Message:
    message = Message(conversation_id=conversation.id, **({"id": new_id()} | values))
    session.add(message)
    return message


def _add_run(session: AsyncSession, user: User, conversation: Conversation, message: Message, run_id: str) -> Run:
    run = Run(
        id=run_id,
        created_at=now(),
        user_id=user.id,
        conversation_id=conversation.id,
        message_id=message.id,
        status=Status.RUNNING,
    )
    session.add(run)
    return run


def _plan(run: Run, turns: Sequence[Turn], model: TextModel, parameters: Parameters, system: str, **more: Any) -> Plan:
    return Plan(
        run_id=run.id,
        user_id=run.user_id,
        conversation_id=run.conversation_id,
        message_id=run.message_id,
        model=model,
        turns=turns,
        system=system,
        parameters=parameters,
        **more,
    )


def _check_written(message: Any) -> None:
    if message.status == Status.RUNNING:
        raise _being_written()


def _check_told(message: Message) -> None:
    if message.is_blind:
        raise ApiError(409, "this answer is being compared; choose between the two first", code="comparison_open")


def _being_written() -> ApiError:
    return ApiError(409, "this answer is still being written; stop it first", code="still_running")


def _wrong_role(message: str) -> ApiError:
    return ApiError(400, message, code="wrong_role")
