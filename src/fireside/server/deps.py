"""What endpoints ask for, as FastAPI dependencies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from fireside.server.metrics import Metrics
from fireside.server.registry import ModelRegistry
from fireside.settings import Settings


class Context:
    """What every endpoint may need; one per app."""

    def __init__(self, settings: Settings, models: ModelRegistry) -> None:
        self.settings = settings
        self.models = models
        self.metrics = Metrics(models)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


CurrentContext = Annotated[Context, Depends(_context)]
