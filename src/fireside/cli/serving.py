"""What `fireside serve` does: bind, have the model, start its engine, run the web server, say when it is ready.

The engine's process comes first and takes the longest, mostly to import PyTorch; FastAPI and our routes are imported
beside it.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import logging
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from fireside.cli.preparing import find_or_fetch, prepare_home
from fireside.engine.client import EngineClient
from fireside.engine.messages import EngineInfo
from fireside.engine.supervisor import WorkerClient
from fireside.errors import FiresideError, ModelError
from fireside.models.local import DEFAULT_ALIAS, LocalModel, resolve_model
from fireside.models.names import is_model_name
from fireside.server.serving.remembered import remembered_default
from fireside.settings import Settings

if sys.platform != "win32":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop

if TYPE_CHECKING:
    import uvicorn

    from fireside.server.deps import Context

_BACKLOG = 2048
_FILES = 8192


def run_server(settings: Settings) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises `FiresideError` if it cannot begin to."""
    # Both ways of being told to stop are one, from the beginning. What a script starts in the background ignores SIGINT
    # until somebody asks for it, as uvicorn does later.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    _allow_many_files()
    with bind(settings.host, settings.port) as listener:  # first: a taken port is no reason to fetch and load a model
        prepare_home(settings)
        model = _first_model(settings)
        typer.echo(f"loading {model.name} …", err=True)
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(_serve(model, settings, listener))
        except KeyboardInterrupt:  # uvicorn passes the signal on once it has shut down
            typer.echo("Fireside has stopped.", err=True)


def _allow_many_files() -> None:
    """A connection is a file, and shells give 1,024."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _first_model(settings: Settings) -> LocalModel:
    """The default: that which an administrator chose in the app, or else the settings'."""
    if (chosen := remembered_default(settings)) is not None and is_model_name(chosen):
        try:
            return resolve_model(chosen, settings)
        except ModelError as error:
            typer.echo(f"the default model that was chosen in the app cannot be used: {error}", err=True)
    return find_or_fetch(DEFAULT_ALIAS, settings)


async def _serve(model: LocalModel, settings: Settings, listener: socket.socket) -> None:
    # A draft model has the tokenizer of the model that the settings name.
    own = settings if model.name == settings.model else settings.model_copy(update={"draft_model": None})
    engine = WorkerClient.for_model(model, own)
    await engine.start()  # the app's own start finds it started
    try:
        server, context = await asyncio.to_thread(_build_server, model, engine, settings)
        # The app's own start finds it open and taken; here a failure is one sentence.
        await context.database.open(apart=True)
        await context.database.take()
    except BaseException:
        await engine.close()
        raise
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ready = asyncio.create_task(engine.wait_ready())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():  # stopped, or failed, before there was an engine
        ready.cancel()
        await serving
        return
    if ready.exception() is None:
        # What a server is made of stays: full collections, in which every answer waits, look at the rest alone.
        gc.freeze()
        _give_back_memory()
        _announce(listener, ready.result(), await context.accounts.new_setup_token())
    else:
        server.should_exit = True
    await serving
    ready.result()  # the reason why there is no engine ends the command


def _give_back_memory() -> None:
    """What starting needed for a moment, 10 MB, goes back to the system: glibc keeps what is freed. Elsewhere it does
    nothing."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def _build_server(model: LocalModel, engine: EngineClient, settings: Settings) -> tuple[uvicorn.Server, Context]:
    from fireside.cli.web_server import build_server  # here and not above, because FastAPI comes with it

    return build_server(model, engine, settings)


def _announce(listener: socket.socket, info: EngineInfo, setup_token: str | None) -> None:
    typer.echo(f"Fireside is ready on {address_of(listener)}")
    kind = f"{info.dtype} on {info.device}, {info.max_context:,} tokens of context"
    typer.echo(f"It serves {info.model} ({kind}). Ctrl-C stops it.")
    if setup_token is not None:
        # Behind the #, where it is in no request and so in nobody's log.
        typer.echo(f"Make the administrator's account: {address_of(listener)}/setup#{setup_token}")
    sys.stdout.flush()  # who started this in a pipe waits for the line


def address_of(listener: socket.socket) -> str:
    """The URL to open on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `FiresideError` saying what stands in the way.

    It listens at once, so that the port is ours from here on: who connects while the model loads waits for it.
    """
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise FiresideError(f"host {host!r} is not an address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # where it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise FiresideError(_bind_failure(error, host, port)) from error
    return listener


def _bind_failure(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken, perhaps by another fireside serve: choose one with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to bind port {port}: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host!r} is not an address of this machine"
    return f"{host}:{port} cannot be bound: {error.strerror or error}"
