"""What comes in and goes out: `/api/imports`, `/api/conversations/{id}/export`, `/api/me/export`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import StringConstraints
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer
from sqlalchemy.sql.base import ExecutableOption
from starlette.requests import ClientDisconnect

from fireside.server.accounts.deps import CurrentUser, Member
from fireside.server.body import BoundedRoute
from fireside.server.chat import conversations
from fireside.server.chat.conversations import not_found
from fireside.server.db.base import now
from fireside.server.deps import CurrentContext, DatabaseSession
from fireside.server.documents.words import words_for
from fireside.server.errors import ClientDisconnected
from fireside.server.moving import account, export
from fireside.server.moving.exporter import AccountResponse
from fireside.server.moving.schemas import ImportOut
from fireside.server.moving.tables import Import
from fireside.server.paging import Id, Page, Paging, newest_first
from fireside.server.sharing.snapshots import branch

router = APIRouter(prefix="/api", route_class=BoundedRoute, tags=["moving"])

_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, as a download.",
        "content": {kind: {} for kind in ("application/json", "text/markdown", "text/html")},
    }
}


@router.post("/imports", status_code=201, openapi_extra=_UPLOAD)
async def begin_import(
    request: Request,
    user: Member,
    context: CurrentContext,
    name: Annotated[str, Query(max_length=200), StringConstraints(pattern=r"^[^\x00]*$")] = "",
) -> ImportOut:
    """Takes a file, as the body: an export of ChatGPT, Open WebUI, LibreChat or Fireside. It is read while one waits,
    or does something else."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() and len(declared) < 20 else None
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    try:
        return await context.imports.receive(user.id, shown, size, request.stream())
    except ClientDisconnect as error:
        raise ClientDisconnected from error


@router.get("/imports")
async def list_imports(
    user: CurrentUser, session: DatabaseSession, context: CurrentContext, page: Paging
) -> Page[ImportOut]:
    """The newest first, without what each had to leave out."""
    rows, next_cursor = await newest_first(session, select(Import).where(Import.user_id == user.id), Import, page)
    return Page(items=[context.imports.view(row) for row in rows], next_cursor=next_cursor)


@router.get("/imports/{import_id}")
async def get_import(import_id: Id, user: CurrentUser, session: DatabaseSession, context: CurrentContext) -> ImportOut:
    """How far it is; once it is over, with all that was left out and why."""
    return context.imports.view(await _get(session, user.id, import_id, undefer(Import.skipped)), whole=True)


@router.post("/imports/{import_id}/cancel", status_code=204)
async def cancel_import(import_id: Id, user: CurrentUser, session: DatabaseSession, context: CurrentContext) -> None:
    """What was imported stays: every conversation is there as a whole or not at all."""
    row = await _get(session, user.id, import_id)
    if job := context.imports.running(user.id, row.id):
        job.is_cancelled = True


@router.get("/conversations/{conversation_id}/export", responses=_FILE, response_class=Response)
async def export_conversation(
    conversation_id: Id,
    request: Request,
    user: CurrentUser,
    session: DatabaseSession,
    context: CurrentContext,
    format: Annotated[Literal["markdown", "json", "html"], Query(description="json has all branches.")] = "json",
    leaf: Annotated[Id | None, Query(description="Any message: the branch last written below it.")] = None,
    reasoning: Annotated[bool, Query(description="With what the model thought; json always has it.")] = False,
) -> Response:
    """A conversation as a file. The page (html) needs nothing but itself, and prints well."""
    conversation = await conversations.get(session, user.id, conversation_id)
    words = words_for(request.headers.get("accept-language", ""))
    path = await branch(session, conversation, leaf)
    if format == "json":
        data, kind, extension = await export.to_json(session, conversation), "application/json", "json"
    elif format == "markdown":
        text = export.to_markdown(words, conversation, path, reasoning=reasoning)
        data, kind, extension = text.encode("utf-8", "replace"), "text/markdown; charset=utf-8", "md"
    else:
        await session.commit()  # the connection is not held while it is rendered
        with context.exports.turn("file", user.id):
            page = await context.exports.run(partial(export.to_page, words, conversation, path, reasoning=reasoning))
        data, kind, extension = page.encode("utf-8", "replace"), "text/html; charset=utf-8", "html"
    name = export.file_name(conversation.title or words.untitled, extension)
    return Response(data, media_type=kind, headers={"Content-Disposition": export.disposition(name)})


@router.get(
    "/me/export",
    responses={200: {"description": "A zip file.", "content": {"application/zip": {}}}},
    response_class=Response,
)
async def export_account(request: Request, user: CurrentUser, context: CurrentContext) -> Response:
    """All that is one's own: profile, conversations as JSON and Markdown, prompts, projects, feedback, which links."""
    words = words_for(request.headers.get("accept-language", ""))
    name = export.disposition(f"fireside {now():%Y-%m-%d}.zip")
    return AccountResponse(
        context.exports,
        user.id,
        account.account_zip(context.database, context.exports, user, words),
        media_type="application/zip",
        headers={"Content-Disposition": name},
    )


async def _get(session: AsyncSession, user_id: str, import_id: str, *options: ExecutableOption) -> Import:
    own = select(Import).where(Import.id == import_id, Import.user_id == user_id).options(*options)
    if (row := (await session.scalars(own)).one_or_none()) is None:
        raise not_found("import")
    return row
