"""`/api/admin/models`: what is loaded, what could be, and how they answer. For administrators alone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from fireside.server.accounts import audit
from fireside.server.accounts.deps import Admin, Client, CurrentClient, require_admin
from fireside.server.accounts.tables import User
from fireside.server.body import BoundedRoute
from fireside.server.deps import Context, CurrentContext
from fireside.server.serving.schemas import ModelChange, Restart, ServedModelsView, Unload

router = APIRouter(
    prefix="/api/admin/models",
    route_class=BoundedRoute,
    tags=["administration"],
    dependencies=[Depends(require_admin)],
)

Name = Annotated[str, Path(max_length=255)]


@router.get("")
async def list_served_models(context: CurrentContext) -> ServedModelsView:
    """All that are on this machine or served, the default first."""
    return await context.served.view()


@router.post("/{name}/load", status_code=202)
async def load_model(name: Name, admin: Admin, context: CurrentContext, client: CurrentClient) -> ServedModelsView:
    """Begins to. It can answer once its state is `ready`."""
    await context.served.load(name)
    return await _noted(context, admin, client, "model_loaded", name)


@router.post("/{name}/restart", status_code=202)
async def restart_model(
    name: Name, body: Restart, admin: Admin, context: CurrentContext, client: CurrentClient
) -> ServedModelsView:
    """In a new process; 409 `answers_running` where it is not said that those being written may be interrupted."""
    await context.served.restart(name, body.when)
    return await _noted(context, admin, client, "model_loaded", name)


@router.post("/{name}/unload", status_code=202)
async def unload_model(
    name: Name, body: Unload, admin: Admin, context: CurrentContext, client: CurrentClient
) -> ServedModelsView:
    """From now on nobody gets it; 409 `answers_running` where it is not said what becomes of those being written.

    One that could not be loaded as it was before is not tried again at the next start.
    """
    await context.served.unload(name, body.when)
    return await _noted(context, admin, client, "model_unloaded", name)


@router.patch("/{name}")
async def change_model(
    name: Name, body: ModelChange, admin: Admin, context: CurrentContext, client: CurrentClient
) -> ServedModelsView:
    if body.parameters is not None:
        await context.served.set_parameters(name, body.parameters)
    if body.is_default:
        await context.served.make_default(name)
    return await _noted(context, admin, client, "model_default" if body.is_default else "model_changed", name)


async def _noted(context: Context, admin: User, client: Client, action: str, name: str) -> ServedModelsView:
    async with context.database.session() as session:
        audit.note(session, action, by=admin.id, address=client.address, model=name)
    return await context.served.view()
