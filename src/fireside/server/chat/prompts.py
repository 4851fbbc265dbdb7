"""`/api/prompts`: texts under a name, for the composer's slash commands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import StringConstraints
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.deps import CurrentUser
from fireside.server.api.schemas.common import Request
from fireside.server.body import BoundedRoute
from fireside.server.chat.conversations import not_found
from fireside.server.chat.schemas import FromRow, Text
from fireside.server.chat.tables import Prompt
from fireside.server.deps import DatabaseSession
from fireside.server.errors import ApiError
from fireside.server.paging import Id, Page, Paging, newest_first

router = APIRouter(prefix="/api/prompts", route_class=BoundedRoute, tags=["prompts"])

PromptName = Annotated[str, StringConstraints(pattern=r"^[\w-]{1,64}$")]
PromptText = Annotated[Text, StringConstraints(min_length=1, max_length=32_000)]


class PromptOut(FromRow):
    id: str
    created_at: datetime
    name: str
    content: str


class NewPrompt(Request):
    name: PromptName
    content: PromptText


class PromptChange(Request):
    name: PromptName | None = None
    content: PromptText | None = None


async def _get(session: AsyncSession, user_id: str, prompt_id: str) -> Prompt:
    own = select(Prompt).where(Prompt.id == prompt_id, Prompt.user_id == user_id)
    if (prompt := (await session.scalars(own)).one_or_none()) is None:
        raise not_found("prompt")
    return prompt


async def _flush(session: AsyncSession, name: str) -> None:
    try:
        await session.flush()
    except IntegrityError:
        raise ApiError(409, f"you have a prompt called {name!r} already", param="name", code="name_taken") from None


@router.get("")
async def list_prompts(user: CurrentUser, session: DatabaseSession, page: Paging) -> Page[PromptOut]:
    """The newest first."""
    rows, next_cursor = await newest_first(session, select(Prompt).where(Prompt.user_id == user.id), Prompt, page)
    return Page(items=[PromptOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.post("", status_code=201)
async def create_prompt(body: NewPrompt, user: CurrentUser, session: DatabaseSession) -> PromptOut:
    prompt = Prompt(user_id=user.id, **body.model_dump())
    session.add(prompt)
    await _flush(session, body.name)
    return PromptOut.model_validate(prompt)


@router.get("/{prompt_id}")
async def get_prompt(prompt_id: Id, user: CurrentUser, session: DatabaseSession) -> PromptOut:
    return PromptOut.model_validate(await _get(session, user.id, prompt_id))


@router.patch("/{prompt_id}")
async def change_prompt(prompt_id: Id, body: PromptChange, user: CurrentUser, session: DatabaseSession) -> PromptOut:
    prompt = await _get(session, user.id, prompt_id)
    for field, value in body.model_dump(exclude_none=True).items():
        setattr(prompt, field, value)
    await _flush(session, prompt.name)
    return PromptOut.model_validate(prompt)


@router.delete("/{prompt_id}", status_code=204)
async def delete_prompt(prompt_id: Id, user: CurrentUser, session: DatabaseSession) -> None:
    await _get(session, user.id, prompt_id)
    await session.execute(delete(Prompt).where(Prompt.id == prompt_id))
