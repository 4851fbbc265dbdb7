"""How a model is asked where a person does not say, and what it is told before a conversation."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.tables import User
from fireside.server.chat.schemas import Parameters
from fireside.server.chat.tables import Conversation, Project
from fireside.server.registry import ModelRegistry


def models_own(models: ModelRegistry, name: str) -> Parameters:
    """How an administrator wants it asked where neither person nor conversation says."""
    return Parameters.model_validate(models.parameters.get(name, {}))


async def system_of(session: AsyncSession, user: User, conversation: Conversation, parameters: Parameters) -> str:
    """What the model is told before a conversation: by the conversation, its project and its owner."""
    project = ""
    if conversation.project_id is not None:
        wanted = select(Project.instructions).where(Project.id == conversation.project_id)
        project = (await session.scalars(wanted)).one_or_none() or ""
    return system_prompt(parameters.system or "", project, user.instructions)


def system_prompt(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip())
