"""`WorkerClient`: an engine in a process of its own, which is started again when it dies or gets stuck."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fireside.engine.client import EngineState, EngineUnavailable, RequestRejected
from fireside.engine.framing import FrameError
from fireside.engine.messages import (
    EngineInfo,
    EngineStats,
    Fatal,
    FromWorker,
    GenerationOutput,
    GenerationRequest,
    Heartbeat,
    Ready,
    ToWorker,
    WorkerConfig,
)
from fireside.engine.streams import Streams
from fireside.engine.worker_process import WorkerProcess
from fireside.models.local import LocalModel, resolve_model

if TYPE_CHECKING:
    from fireside.settings import Settings

_LOG = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-m", "fireside.engine.worker")


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When a dead worker is started again. Delays in seconds; each is twice the one before, up to `max_delay`.

    A worker that was ready for `stable_after` seconds starts the count anew; after `max_deaths` in a row that
    were not, the engine has failed.
    """

    first_delay: float = 0.5
    max_delay: float = 30.0
    stable_after: float = 60.0
    max_deaths: int = 5

    def delay(self, deaths: int) -> float:
        """Before the next start, after so many deaths in a row (at least one)."""
        return min(self.first_delay * 2.0 ** (deaths - 1), self.max_delay)


class WorkerClient:
    """Implements `EngineClient`. Belongs to the event loop that calls `start`.

    heartbeat_timeout: a ready worker that is silent for so many seconds is stuck and is killed. It is silent while
    one step lasts, so that this must exceed the longest step. start_timeout: the same for one that is loading.
    log_path: where the worker's stderr goes; None: to this process's.
    command: what to run instead of `fireside.engine.worker`, to which `--fd N` is added.
    """

    def __init__(
        self,
        config: WorkerConfig,
        *,
        heartbeat_timeout: float = 30.0,
        start_timeout: float = 900.0,
        restart_policy: RestartPolicy | None = None,
        log_path: Path | None = None,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._config = config
        self._heartbeat_timeout = heartbeat_timeout
        self._start_timeout = start_timeout
        self._policy = restart_policy or RestartPolicy()
        self._log_path = log_path
        self._command = command
        self._state = EngineState.STARTING
        self._changed = asyncio.Event()
        self._reason = "it is starting"
        self._info: EngineInfo | None = None
        self._stats = EngineStats()
        self._streams = Streams()
        self._worker: WorkerProcess | None = None
        self._fatal: str | None = None
        self._ready_since: float | None = None
        self._supervision: asyncio.Task[None] | None = None

    @classmethod
    def for_model(cls, model: LocalModel, settings: Settings) -> WorkerClient:
        """An engine, not started, for `model` as `settings` want it. Raises `ModelError` if there is no such draft."""
        draft = None if settings.draft_model is None else resolve_model(settings.draft_model, settings)
        config = WorkerConfig(
            model=str(model.path),
            name=model.name,
            models_dir=str(settings.models_dir),
            device=settings.device,
            dtype=settings.dtype,
            max_context=settings.max_context,
            kv_cache_dtype=settings.kv_cache_dtype,
            kv_cache_memory=settings.kv_cache_memory,
            max_batch_tokens=settings.max_batch_tokens,
            max_running=settings.max_running,
            max_waiting=settings.max_waiting,
            threads=settings.threads,
            speculative_tokens=settings.speculative_tokens,
            speculative_recent=settings.speculative_recent,
            draft_model=None if draft is None else str(draft.path),
            grammar_timeout=settings.grammar_timeout,
            prefix_folder=str(settings.prefixes_dir),
            saved_prefix_tokens=settings.saved_prefix_tokens,
        )
        log_path = settings.logs_dir / f"{model.name}.log"
        return cls(config, heartbeat_timeout=settings.heartbeat_timeout, log_path=log_path)

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def info(self) -> EngineInfo | None:
        return self._info

    @property
    def stats(self) -> EngineStats:
        """Of the last heartbeat; zeros from the death of a worker to the first heartbeat of the next."""
        return self._stats

    @property
    def worker_pid(self) -> int | None:
        """The process id of the worker, if there is one."""
        return None if self._worker is None else self._worker.pid

    async def start(self) -> None:
        if self._supervision is None and self._state is EngineState.STARTING:
            self._supervision = asyncio.create_task(self._supervise(), name=f"engine worker {self._config.name}")

    async def wait_ready(self) -> EngineInfo:
        while self._state is not EngineState.READY:
            if self._state in (EngineState.FAILED, EngineState.CLOSED):
                raise EngineUnavailable(f"The engine cannot serve {self._config.name}: {self._reason}.")
            await self._changed.wait()
        assert self._info is not None
        return self._info

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationOutput, None]:
        return self._streams.run(request, self._send)

    async def close(self) -> None:
        if self._state is EngineState.CLOSED:
            return
        self._set_state(EngineState.CLOSED, "it was closed")
        if self._worker is not None:
            await self._worker.stop()
        if self._supervision is not None:
            self._supervision.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervision

    def _send(self, message: ToWorker) -> None:
        if self._state is not EngineState.READY or self._worker is None:
            raise EngineUnavailable(
                f"The engine cannot answer just now: {self._reason}."
                + ("" if self._state in (EngineState.FAILED, EngineState.CLOSED) else " Try again shortly.")
            )
        try:
            self._worker.send(message)
        except FrameError as error:
            raise RequestRejected(f"The request cannot be sent to the engine: {error}.", "invalid") from error

    async def _supervise(self) -> None:
        try:
            await self._live_again_and_again()
        except Exception as error:  # an error of ours; without this, requests would wait for ever
            self._set_state(EngineState.FAILED, f"its supervisor failed ({type(error).__name__}: {error})")
            raise

    async def _live_again_and_again(self) -> None:
        deaths = 0
        while True:
            reason = await self._live()
            if self._state is EngineState.CLOSED:
                return
            if self._fatal is not None:
                self._set_state(EngineState.FAILED, self._fatal)
                _LOG.error("The engine cannot serve %s: %s", self._config.name, self._fatal)
                return
            now = asyncio.get_running_loop().time()
            was_stable = self._ready_since is not None and now - self._ready_since >= self._policy.stable_after
            self._ready_since = None
            deaths = 1 if was_stable else deaths + 1
            if deaths >= self._policy.max_deaths:
                self._set_state(EngineState.FAILED, f"its worker died {deaths} times in a row, the last time {reason}")
                _LOG.error("The engine has failed: %s", self._reason)
                return
            delay = self._policy.delay(deaths)
            _LOG.warning("The engine's worker died: %s. Starting it again in %.1f s.", reason, delay)
            self._set_state(EngineState.RESTARTING, f"its worker died ({reason}) and is being restarted")
            await asyncio.sleep(delay)

    async def _live(self) -> str:
        """One life of a worker; returns why it ended."""
        self._worker = worker = WorkerProcess(self._receive)
        try:
            await worker.spawn(self._command, self._config, self._log_path)
            return await worker.watch(self._start_timeout, self._heartbeat_timeout)
        except OSError as error:
            return f"it could not be started: {error}"
        finally:
            worker.abandon()
            self._worker = None
            self._stats = EngineStats()

    def _receive(self, message: FromWorker) -> None:
        if self._state is EngineState.CLOSED:
            return
        if isinstance(message, Heartbeat):
            self._stats = message.stats
        elif isinstance(message, Ready):
            self._info = message.info
            self._ready_since = asyncio.get_running_loop().time()
            self._set_state(EngineState.READY, "")
        elif isinstance(message, Fatal):
            self._fatal = message.reason
        else:
            self._streams.receive(message)

    def _set_state(self, state: EngineState, reason: str) -> None:
        """Every change of state. Requests in flight survive none of them (there are none before READY)."""
        self._state = state
        self._reason = reason.rstrip(".")
        if state is EngineState.RESTARTING:
            self._streams.fail_all(
                f"The engine was restarted while it was answering: {reason}. The same request may be sent again."
            )
        else:
            self._streams.fail_all(f"The engine stopped while it was answering: {self._reason}.")
        self._changed.set()
        self._changed = asyncio.Event()
