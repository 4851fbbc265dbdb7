"""Progress of long work, on stderr, where that is a terminal."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Status:
    """A line that says how far work is. Use as a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("")

    def __enter__(self) -> Status:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    @property
    def seconds(self) -> float:
        return self._progress.tasks[0].elapsed or 1e-9


def time_left(share: float | None, seconds: float) -> str:
    """ ", 34%, 0:12:05 left" after `seconds` in which `share` of the work was done; nothing where that is not known."""
    if not share:
        return ""
    return f", {share:.0%}, {timedelta(seconds=round(seconds * (1 - share) / share))} left"
