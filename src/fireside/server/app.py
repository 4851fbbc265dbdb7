"""`create_app`: the web process, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fireside import __version__
from fireside.server import errors, openapi, page
from fireside.server.access import AccessMiddleware
from fireside.server.accounts import admin_routes, profile_routes
from fireside.server.accounts import routes as accounts
from fireside.server.api import chat, completions, health, models, tokenization
from fireside.server.api.schemas.chat import ChatCompletionChunk
from fireside.server.api.schemas.completions import CompletionChunk
from fireside.server.chat import models as chat_models
from fireside.server.chat import projects, prompts
from fireside.server.chat.routes import conversations, messages, runs
from fireside.server.chat.schemas import RunEventOut
from fireside.server.deps import Context
from fireside.server.feedback import admin_routes as feedback_admin
from fireside.server.feedback import routes as feedback
from fireside.server.metrics import MetricsMiddleware
from fireside.server.moving import routes as moving
from fireside.server.operation import routes as operation
from fireside.server.registry import ModelRegistry, open_models
from fireside.server.serving import routes as serving
from fireside.server.serving.library import Library
from fireside.server.sharing import routes as sharing
from fireside.settings import Settings


def create_app(settings: Settings, *, registry: ModelRegistry | None = None, library: Library | None = None) -> FastAPI:
    """The ASGI application. Its lifespan opens the database and starts the engines, without waiting for them.

    `registry` defaults to the models that `settings` name, each with a worker process of its own; `library` to the
    models in the home folder, which administrators can load as well.
    Raises `ModelError` if the default model cannot be used, `DatabaseError` for an unusable `database_url`.
    """
    context = Context(settings, registry or open_models(settings), library)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(context.database.close)
            await context.database.open()
            stack.push_async_callback(context.watch.close)
            stack.push_async_callback(context.models.close)
            await context.models.start()
            # Engines that are being unloaded last as long as the runs, whose answers would fail without them.
            stack.push_async_callback(context.served.close)
            stack.push_async_callback(context.runs.close)
            await context.runs.start()
            await context.served.start()
            await stack.enter_async_context(context.accounts.pruned())
            stack.callback(context.exports.close)
            stack.push_async_callback(context.imports.close)
            await context.imports.start()
            yield

    app = FastAPI(
        title="Fireside",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # both fetch scripts from another host
        redoc_url=None,
        responses={"default": {"model": errors.ErrorResponse, "description": "The error envelope"}},
        middleware=[
            Middleware(MetricsMiddleware, metrics=context.metrics),
            Middleware(_HeadersMiddleware),
            Middleware(AccessMiddleware, context=context),
        ],
    )
    app.state.context = context
    app.state.max_body_bytes = settings.max_body_bytes
    for router in (
        chat.router,
        completions.router,
        models.router,
        tokenization.router,
        health.router,
        accounts.router,
        profile_routes.router,
        admin_routes.router,
        conversations.router,
        messages.router,
        runs.router,
        projects.router,
        prompts.router,
        chat_models.router,
        serving.router,
        operation.router,
        feedback.router,
        feedback_admin.router,
        sharing.router,
        sharing.page_router,
        moving.router,
        page.router,
    ):
        app.include_router(router)
    errors.install(app)
    openapi.describe(app, extra_models=[ChatCompletionChunk, CompletionChunk, RunEventOut])
    return app


class _HeadersMiddleware:
    """Pure ASGI. Tells browsers to guess nothing, keep nothing and tell nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: MutableMapping[str, Any] | Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)
