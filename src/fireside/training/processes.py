"""Processes that train together: they stop together, and an error of one ends all.

The first one prepares what all need, for hours maybe. The others cannot wait for it in a collective, which has a time
limit and is deaf to signals; they look into the store that the processes met by.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from fireside.errors import FiresideError

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOKS_EVERY = 0.1  # seconds
_GRACE = 5.0  # seconds that a helper gives the first process to fail of the same error
_STOP = "fireside/stop"

T = TypeVar("T")


class Stopped(Exception):
    """Raised in all processes when one of them was asked to stop."""


class Processes:
    """This process among those that train together. stop: whether it was asked to stop; a signal may reach any."""

    def __init__(self, fabric: Fabric, stop: Callable[[], bool]) -> None:
        self._fabric = fabric
        self._stop = stop
        group = distributed.group.WORLD if fabric.world_size > 1 else None
        self._store = None if group is None else group.get_group_store()
        self._firsts = 0

    def check(self) -> None:
        """What the work of `first` calls, often. Raises `Stopped` if any process was asked to stop."""
        if not self._fabric.is_global_zero:
            return  # all is there already: the others would wait for this process
        if self._stop() or (self._store is not None and self._store.check([_STOP])):
            raise Stopped

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives, called by the first process, and then by the others, for whom all is there.

        Raises `Stopped` in all of them.
        """
        self._firsts += 1
        done = f"fireside/{self._firsts}"
        found: T | None = None
        is_stopped = False
        if self._fabric.is_global_zero:
            try:
                found = work()
            except Stopped:
                is_stopped = True
            except FiresideError:
                if not self._stop():
                    raise
                is_stopped = True  # a signal to a group of processes ends those that the work had begun, too
            if self._store is not None:
                self._store.set(done, "")
        else:
            assert self._store is not None  # where there are others
            while not self._store.check([done]):
                if self._stop():
                    self._store.set(_STOP, "")
                time.sleep(_LOOKS_EVERY)
        self.stop_if_asked(is_stopped)
        return cast(T, found) if self._fabric.is_global_zero else work()

    def stop_if_asked(self, is_stopped: bool = False) -> None:
        """Raises `Stopped` in all processes if one was asked to. All must call it."""
        if anyone(self._fabric, is_stopped or self._stop()):
            raise Stopped


def anyone(fabric: Fabric, wish: bool) -> bool:
    """Whether any process wishes so. All must call it: what each decides alone would part them."""
    if fabric.world_size == 1:
        return wish
    wishes = fabric.all_reduce(torch.tensor(float(wish), device=fabric.device), reduce_op="sum")
    return float(cast(Tensor, wishes)) > 0


def is_helper() -> bool:
    """Whether this is not the first of the processes that train together."""
    return os.environ.get("LOCAL_RANK", "0") != "0" or os.environ.get("NODE_RANK", "0") != "0"


def end_together(fabric: Fabric, error: BaseException) -> None:
    """After `error`, of this process or of all: ends the processes that wait for this one.

    The first process ends those that it started, and alone speaks; a helper gives it time to, and then fails: Fabric
    ends all when it sees a helper fail. On a second Ctrl-C nobody waits for anybody.
    """
    if is_helper():
        if not isinstance(error, KeyboardInterrupt):
            time.sleep(_GRACE)
        return
    started = getattr(fabric.strategy.launcher, "procs", [])
    helpers = list(started)
    started.clear()  # or Fabric, which watches over them, would kill this process as well
    for helper in helpers:
        helper.kill()


@contextmanager
def signals_held() -> Iterator[None]:
    """Processes started within it hold signals that ask to stop until they call `take_signals`.

    While they import PyTorch they know no better than to die of them, and Fabric would kill all others.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def take_signals() -> None:
    """Lets signals through, once there are handlers for them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
