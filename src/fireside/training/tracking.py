"""Telling the trackers: each in a thread of its own, so that training neither waits for one nor ends by one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any

from fireside.training.run import Run
from fireside.training.trackers import UPLOAD_SECONDS, MLflow, Samples, TensorBoard, Tracker, WeightsAndBiases

_PATIENCE = UPLOAD_SECONDS + 15  # seconds that a run's end waits for the trackers'
_QUIET = 2.0  # seconds of it of which nothing is said

Order = Callable[[Tracker], None]


class Trackers:
    """Those that the recipe of `run` asks for, for as long as it is trained once. They begin when there is something to
    tell: a run that fails before leaves no trace with them.

    warn: told, once for each, of one that failed; nothing more goes to it.
    """

    def __init__(self, run: Run, warn: Callable[[str], None]) -> None:
        self._run = run
        self._warn = warn
        self._channels: list[_Channel] | None = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """step: counted over all stages."""
        self._tell(lambda tracker: tracker.scalars(step, values))

    def samples(self, step: int, name: str, samples: Samples) -> None:
        self._tell(lambda tracker: tracker.samples(step, name, samples))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Says how the run ended, and waits a while for what is under way; not if it ended by a second Ctrl-C."""
        status, summary = self._run.status, _summary(self._run.record)
        channels = self._channels or []
        for channel in channels:
            channel.close(lambda tracker: tracker.close(status, summary))
        if isinstance(error, KeyboardInterrupt):
            return
        deadline = time.monotonic() + _PATIENCE
        for channel in channels:
            channel.join(deadline)

    def _tell(self, order: Order) -> None:
        if self._channels is None:
            self._channels = self._open()
        for channel in self._channels:
            channel.tell(order)

    def _open(self) -> list[_Channel]:
        run, record, config = self._run, self._run.record, self._run.recipe.tracking
        makers: dict[str, Callable[[], Tracker]] = {}
        if config.tensorboard:
            makers["TensorBoard"] = partial(TensorBoard, run.folder / "tensorboard")
        if config.wandb is not None or config.mlflow is not None:
            identifier = record.get("tracking_id")
            if identifier is None:
                identifier = secrets.token_hex(8)
                run.update(tracking_id=identifier)
            told = run.recipe.model_dump(mode="json", exclude={"tracking"})  # an address may hold a password
            told |= {key: record[key] for key in ("environment", "git") if key in record}
            if config.wandb is not None:
                makers["Weights & Biases"] = partial(WeightsAndBiases, config, run.folder, run.name, identifier, told)
            if config.mlflow is not None:
                makers["MLflow"] = partial(MLflow, config, run.name, identifier, told)
        return [_Channel(name, make, self._warn) for name, make in makers.items()]


class _Channel:
    """One tracker, from the thread that makes it."""

    def __init__(self, name: str, make: Callable[[], Tracker], warn: Callable[[str], None]) -> None:
        self._name = name
        self._make = make
        self._warn = warn
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def tell(self, order: Order) -> None:
        if self._thread.is_alive():
            self._orders.put(order)

    def close(self, order: Order) -> None:
        self._orders.put(order)
        self._orders.put(None)

    def join(self, deadline: float) -> None:
        """Until all is told, or until `deadline`, by the monotonic clock."""
        self._thread.join(_QUIET)
        if self._thread.is_alive():
            self._warn(f"waiting for {self._name} to take the last of this run")
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn(f"{self._name} did not take all of this run in time")

    def _work(self) -> None:
        try:
            tracker = self._make()
            while (order := self._orders.get()) is not None:
                order(tracker)
        except Exception as error:  # whatever a library or a network may come up with
            reason = " ".join(str(error).split()) or type(error).__name__
            self._warn(f"{self._name} gets no more of this run, which goes on without it: {reason}")


def _summary(record: Mapping[str, Any]) -> dict[str, float]:
    """What each stage came to."""
    return {
        f"{name}/{key}": stage[key]
        for name, stage in record["stages"].items()
        for key in ("steps", "tokens", "seconds", "loss", "bits_per_byte", "peak_memory")
        if stage.get(key) is not None
    }
