"""`WorkerProcess`: one life of a worker, from its start to the reason of its end, seen from the server."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import IO, cast

import msgspec

from fireside.engine.framing import FrameError, FrameSplitter, decode_payload, encode_frame
from fireside.engine.messages import SHUTDOWN_SECONDS, FromWorker, Ready, Shutdown, ToWorker, WorkerConfig

_EXIT_SECONDS = 1.0  # what a process that closed its connection gets to end by itself
_GRACE_SECONDS = 0.1
_STDERR = 2


class WorkerProcess(asyncio.Protocol):
    """A subprocess and the socket to it. `receive` is called with every message, in order."""

    def __init__(self, receive: Callable[[FromWorker], None]) -> None:
        self._receive = receive
        self._decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
        self._splitter = FrameSplitter()
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._last_frame = self._loop.time()
        self._problem: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None

    async def spawn(self, command: Sequence[str], config: WorkerConfig, log_path: Path | None) -> None:
        """Starts `command --fd N` and sends it the config. Its output goes to the end of the file `log_path`, or
        where this process's stderr goes. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, _open_log(log_path) as log:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    "--fd",
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a terminal's Ctrl-C is not for the worker
                )
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        self.send(config)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def send(self, message: ToWorker | WorkerConfig) -> None:
        """Raises `FrameError` if it does not fit a frame. To a worker that is gone, nothing is sent."""
        frame = encode_frame(message)
        if self._transport is not None:
            self._transport.write(frame)

    async def watch(self, start_timeout: float, heartbeat_timeout: float) -> str:
        """Returns, once the process has ended, why. Kills it if it is silent for longer than `start_timeout` seconds
        before it is ready, or `heartbeat_timeout` seconds afterwards."""
        while not self._closed.done():
            allowed = heartbeat_timeout if self._ready.done() else start_timeout
            silence = self._loop.time() - self._last_frame
            if silence < allowed:
                awaited = [self._closed] if self._ready.done() else [self._closed, self._ready]
                await asyncio.wait(awaited, timeout=allowed - silence, return_when=asyncio.FIRST_COMPLETED)
                continue
            # If it was this process that stood still, frames lie unread in the socket: read them first.
            await asyncio.sleep(_GRACE_SECONDS)
            if self._loop.time() - self._last_frame >= allowed:
                self._problem = f"it gave no sign of life for {allowed:g} s"
                self._signal(signal.SIGKILL)
                break
        if not await self._exits_within(_EXIT_SECONDS):
            self._problem = self._problem or "it closed its connection and went on"
            self._signal(signal.SIGKILL)
        return self._problem or _describe_exit(await self._exit_status())

    async def stop(self) -> None:
        """Ends the process: once it serves, by asking it first."""
        if self._ready.done():
            self.send(Shutdown())
            await self._exits_within(SHUTDOWN_SECONDS)
        self._signal(signal.SIGKILL)
        await self._exit_status()

    def abandon(self) -> None:
        """Ends the process without waiting for its end."""
        self._signal(signal.SIGKILL)
        if self._transport is not None:
            self._transport.abort()

    async def _exit_status(self) -> int:
        status = 0 if self._process is None else await self._process.wait()
        if self._transport is not None:
            self._transport.abort()
        return status

    async def _exits_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it ended a moment ago
                self._process.send_signal(number)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        self._last_frame = self._loop.time()
        try:
            for payload in self._splitter.feed(data):
                message = decode_payload(payload, self._decoder)
                if isinstance(message, Ready) and not self._ready.done():
                    self._ready.set_result(None)
                self._receive(message)
        except FrameError as error:
            self._problem = f"it sent something else than frames: {error}"
            self.abandon()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self._closed.done():
            self._closed.set_result(None)


def _open_log(path: Path | None) -> AbstractContextManager[IO[bytes] | int]:
    if path is None:
        return nullcontext(_STDERR)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"it exited with status {status}"
    if status == -signal.SIGKILL:
        return "it was killed (SIGKILL), as the system does where memory runs out"
    return f"it was ended by {signal.Signals(-status).name}"
