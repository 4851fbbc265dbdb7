"""`/api/projects`: folders of conversations, with instructions of their own."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.deps import CurrentUser
from fireside.server.api.schemas.common import Request
from fireside.server.body import BoundedRoute
from fireside.server.chat.conversations import not_found
from fireside.server.chat.schemas import FromRow, Instructions, Name
from fireside.server.chat.tables import Project
from fireside.server.deps import DatabaseSession
from fireside.server.paging import Id, Page, Paging, newest_first

router = APIRouter(prefix="/api/projects", route_class=BoundedRoute, tags=["projects"])


class ProjectOut(FromRow):
    id: str
    created_at: datetime
    name: str
    instructions: str


class NewProject(Request):
    name: Name
    instructions: Instructions = ""


class ProjectChange(Request):
    name: Name | None = None
    instructions: Instructions | None = None


async def _get(session: AsyncSession, user_id: str, project_id: str) -> Project:
    own = select(Project).where(Project.id == project_id, Project.user_id == user_id)
    if (project := (await session.scalars(own)).one_or_none()) is None:
        raise not_found("project")
    return project


@router.get("")
async def list_projects(user: CurrentUser, session: DatabaseSession, page: Paging) -> Page[ProjectOut]:
    """The newest first."""
    rows, next_cursor = await newest_first(session, select(Project).where(Project.user_id == user.id), Project, page)
    return Page(items=[ProjectOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.post("", status_code=201)
async def create_project(body: NewProject, user: CurrentUser, session: DatabaseSession) -> ProjectOut:
    project = Project(user_id=user.id, **body.model_dump())
    session.add(project)
    await session.flush()
    return ProjectOut.model_validate(project)


@router.get("/{project_id}")
async def get_project(project_id: Id, user: CurrentUser, session: DatabaseSession) -> ProjectOut:
    return ProjectOut.model_validate(await _get(session, user.id, project_id))


@router.patch("/{project_id}")
async def change_project(
    project_id: Id, body: ProjectChange, user: CurrentUser, session: DatabaseSession
) -> ProjectOut:
    project = await _get(session, user.id, project_id)
    for field, value in body.model_dump(exclude_none=True).items():
        setattr(project, field, value)
    await session.flush()
    return ProjectOut.model_validate(project)


@router.delete("/{project_id}", status_code=204)
async def delete_project(project_id: Id, user: CurrentUser, session: DatabaseSession) -> None:
    """Its conversations stay, outside of any project."""
    await _get(session, user.id, project_id)
    await session.execute(delete(Project).where(Project.id == project_id))
