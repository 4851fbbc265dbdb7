"""`/api/admin`: health, settings, backups. For administrators alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as InPath
from starlette.responses import FileResponse

from fireside.server.accounts import audit
from fireside.server.accounts.deps import Admin, Client, CurrentClient, require_admin
from fireside.server.accounts.tables import User
from fireside.server.body import BoundedRoute
from fireside.server.db.backups import KEPT_BACKUPS
from fireside.server.db.database import DatabaseError
from fireside.server.deps import Context, CurrentContext
from fireside.server.errors import ApiError, not_found
from fireside.server.operation.effective_settings import effective_settings
from fireside.server.operation.health import health
from fireside.server.operation.schemas import BackupsView, BackupView, HealthView, SettingsView

router = APIRouter(
    prefix="/api/admin", route_class=BoundedRoute, tags=["administration"], dependencies=[Depends(require_admin)]
)

Name = Annotated[str, InPath(max_length=255)]


@router.get("/health")
async def get_health(context: CurrentContext) -> HealthView:
    return await health(context)


@router.get("/settings")
async def get_settings(context: CurrentContext) -> SettingsView:
    """They are read once, at the start."""
    return effective_settings(context.settings, context.database.where)


@router.get("/backups")
async def list_backups(context: CurrentContext) -> BackupsView:
    database = context.database
    return BackupsView(
        items=[
            BackupView(name=path.name, created_at=datetime.fromtimestamp(told.st_mtime, UTC), size_bytes=told.st_size)
            for path, told in await database.backups()
        ],
        is_possible=database.is_sqlite,
        kept=KEPT_BACKUPS,
        folder=str(database.backup_folder) if database.is_sqlite else None,
        database=database.where,
    )


@router.post("/backups", status_code=201)
async def back_up(admin: Admin, context: CurrentContext, client: CurrentClient) -> BackupView:
    """A copy of the database in `backups` beside it."""
    try:
        path = await context.database.back_up()
    except DatabaseError as error:
        raise ApiError(409, str(error), code="no_backup") from error
    await _note(context, admin, client, "backup", path.name)
    told = path.stat()
    return BackupView(name=path.name, created_at=datetime.fromtimestamp(told.st_mtime, UTC), size_bytes=told.st_size)


@router.get("/backups/{name}", response_class=FileResponse)
async def download_backup(name: Name, admin: Admin, context: CurrentContext, client: CurrentClient) -> FileResponse:
    """Everything that everybody wrote: that it was taken is written down first."""
    path = next((path for path, _ in await context.database.backups() if path.name == name), None)
    if path is None:
        raise not_found("backup")
    await _note(context, admin, client, "backup_downloaded", name)
    return FileResponse(path, media_type="application/vnd.sqlite3", filename=name)


@router.delete("/backups/{name}", status_code=204)
async def delete_backup(name: Name, admin: Admin, context: CurrentContext, client: CurrentClient) -> None:
    path = next((path for path, _ in await context.database.backups() if path.name == name), None)
    if path is None:
        raise not_found("backup")
    path.unlink(missing_ok=True)
    await _note(context, admin, client, "backup_deleted", name)


async def _note(context: Context, admin: User, client: Client, action: str, file: str) -> None:
    async with context.database.session() as session:
        audit.note(session, action, by=admin.id, address=client.address, file=file)
