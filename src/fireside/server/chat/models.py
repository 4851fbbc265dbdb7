"""`GET /api/models`: what the app's picker shows. Programs ask `/v1/models`."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fireside.server.accounts.deps import CurrentUser
from fireside.server.body import BoundedRoute
from fireside.server.deps import CurrentContext
from fireside.server.paging import Page

router = APIRouter(route_class=BoundedRoute, tags=["models"])


class ModelOut(BaseModel):
    id: str
    is_default: bool
    context_length: int = Field(description="Tokens of prompt and answer together.")
    state: str = Field(description="Of its engine: starting, ready, restarting, failed or closed.")
    reason: str = Field(description="Why it cannot answer just now; empty while it can.")
    temperature: float | None = Field(description="As its authors want it; null where they say nothing.")
    top_p: float | None


@router.get("/api/models")
async def list_models(user: CurrentUser, context: CurrentContext) -> Page[ModelOut]:
    """All of them, on one page."""
    items = [
        ModelOut(
            id=model.name,
            is_default=model is context.models.default,
            context_length=model.context_length,
            state=model.engine.state,
            reason=model.engine.reason,
            temperature=model.defaults.temperature,
            top_p=model.defaults.top_p,
        )
        for model in context.models
    ]
    return Page[ModelOut](items=items, next_cursor=None)
