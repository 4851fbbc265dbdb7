"""What a shared link shows: one branch of a conversation, as it was when it was shared."""

from __future__ import annotations

from typing import TypedDict

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.tables import User
from fireside.server.chat.conversations import not_found
from fireside.server.chat.instructions import system_prompt
from fireside.server.chat.tables import Conversation, Message, Project, Status
from fireside.server.chat.tree import latest_leaf, path_to
from fireside.server.documents.page import Turn
from fireside.server.errors import ApiError

MAX_CHARACTERS = 1_000_000  # of one link; whoever follows it has the server render as many


class Options(TypedDict):
    """What is shared beside questions and answers."""

    reasoning: bool
    instructions: bool


class KeptTurn(Turn):
    """With what tells whether an answer is whole."""

    status: str
    finish_reason: str | None


class Snapshot(TypedDict):
    turns: list[KeptTurn]
    instructions: str


async def branch(session: AsyncSession, conversation: Conversation, leaf_id: str | None) -> list[Message]:
    """The messages of the branch that was last written at or below `leaf_id`; None: of the one that is shown.

    Raises `ApiError` 404 for a message that is not there.
    """
    rows = (
        await session.scalars(
            select(Message).where(Message.conversation_id == conversation.id).order_by(Message.number)
        )
    ).all()
    try:
        if leaf_id is not None:
            return path_to(rows, latest_leaf(rows, leaf_id))
        return path_to(rows, conversation.current_leaf_id or (rows[-1].id if rows else None))
    except KeyError:
        raise not_found("message") from None


async def take(
    session: AsyncSession, user: User, conversation: Conversation, path: list[Message], options: Options
) -> Snapshot:
    """Raises `ApiError` 409 where there is nothing to share, or too much."""
    turns = [
        KeptTurn(
            role=message.role,
            content=message.content,
            reasoning=message.reasoning if options["reasoning"] else None,
            model=message.told_model,
            # Nobody writes on here.
            status=Status.INTERRUPTED if message.status == Status.RUNNING else message.status,
            finish_reason=message.finish_reason,
        )
        for message in path
        if message.content
    ]
    if not turns:
        raise ApiError(409, "nothing was said yet that could be shared", code="nothing_to_share")
    instructions = await _instructions(session, user, conversation) if options["instructions"] else ""
    size = len(instructions) + sum(len(turn["content"]) + len(turn["reasoning"] or "") for turn in turns)
    if size > MAX_CHARACTERS:
        raise ApiError(
            409,
            f"this branch has {size:,} characters, and a link shows at most {MAX_CHARACTERS:,}; export it instead",
            code="too_long_to_share",
        )
    return Snapshot(turns=turns, instructions=instructions)


async def _instructions(session: AsyncSession, user: User, conversation: Conversation) -> str:
    project = None
    if conversation.project_id is not None:
        project = await session.scalar(select(Project.instructions).where(Project.id == conversation.project_id))
    return system_prompt(str(conversation.parameters.get("system") or ""), project or "", user.instructions)
