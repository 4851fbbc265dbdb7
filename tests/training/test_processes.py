"""Stopping and failing of processes that train together; two of them are in `test_train.py` and `test_sharding.py`."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from lightning_fabric import Fabric

from fireside.data.documents import DataError
from fireside.training.processes import Processes, Stopped, signals_held, take_signals


def alone(*, asked: bool) -> Processes:
    return Processes(Fabric(accelerator="cpu", devices=1), lambda: asked)


def test_a_failure_after_the_wish_to_stop_is_the_stop() -> None:
    """A signal to the group of processes ends those that clean and tokenise, which is an error otherwise."""

    def broken() -> None:
        raise DataError("a process died")

    with pytest.raises(DataError):
        alone(asked=False).first(broken)
    with pytest.raises(Stopped):
        alone(asked=True).first(broken)


def test_work_that_was_done_is_not_gone_on_with_when_asked_to_stop() -> None:
    assert alone(asked=False).first(lambda: 7) == 7
    with pytest.raises(Stopped):
        alone(asked=True).first(lambda: 7)


def test_a_process_that_is_only_starting_holds_its_signals() -> None:
    """Until it takes them: by default it would die of the one that it is sent before."""
    asked = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    with signals_held():
        child = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == str([signal.SIGINT, signal.SIGTERM])
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    take_signals()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
