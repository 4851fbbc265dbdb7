"""`/healthz`, `/readyz`, `/version` and `/metrics`: what those who run the server ask."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from fireside import __version__
from fireside.engine.client import EngineState, EngineUnavailable
from fireside.server.body import BoundedRoute
from fireside.server.deps import CurrentContext

router = APIRouter(route_class=BoundedRoute, tags=["operation"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready"] = "ready"


class Version(BaseModel):
    version: str


@router.get("/healthz")
async def healthz() -> Health:
    """The server itself is alive, whatever its engine does."""
    return Health()


@router.get("/readyz")
async def readyz(context: CurrentContext) -> Readiness:
    """The default model can answer; 503 while it cannot, with the reason in the envelope where only this machine asks:
    this route is open to everybody, and a reason may name files."""
    model = context.models.default
    state = model.engine.state
    if state is not EngineState.READY:
        yet = "" if state in (EngineState.FAILED, EngineState.CLOSED) else " yet"
        reason = f": {model.engine.reason}" if await context.accounts.is_private() else ""
        raise EngineUnavailable(f"{model.name} cannot answer{yet}{reason}")
    return Readiness()


@router.get("/version")
async def version() -> Version:
    return Version(version=__version__)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: CurrentContext) -> Response:
    """Prometheus' text format."""
    return Response(context.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
