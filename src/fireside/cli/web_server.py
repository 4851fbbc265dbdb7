"""The web process' server: our app in uvicorn, as `fireside serve` runs it."""

from __future__ import annotations

import uvicorn

from fireside.engine.client import EngineClient
from fireside.models.local import LocalModel
from fireside.server.app import create_app
from fireside.server.deps import Context
from fireside.server.http_protocol import BoundedHttpProtocol
from fireside.server.registry import registry_of
from fireside.settings import Settings

_GRACE_SECONDS = 3  # that streams in flight get to end after Ctrl-C


def build_server(model: LocalModel, engine: EngineClient, settings: Settings) -> tuple[uvicorn.Server, Context]:
    """Serves `model`, answered for by `engine`.

    Raises `ModelError` or `TemplateError` if its files are unusable, `DatabaseError` for an unusable `database_url`.
    """
    is_debug = settings.log_level == "debug"
    app = create_app(settings, registry=registry_of(model, engine, settings))
    config = uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        ws="none",  # there are no websockets here
        lifespan="on",
        log_config=None,
        log_level="debug" if is_debug else "warning",  # what it says at the start `serve` says, once it is true
        access_log=is_debug,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    context: Context = app.state.context

    def end() -> None:
        server.should_exit = True

    context.runs.on_taken_over = end
    return server, context
