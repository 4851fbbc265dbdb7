"""Fetching models with a progress bar, for the verbs that need one."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from fireside.models.download import pull
from fireside.models.fetching import PullObserver
from fireside.models.local import LocalModel
from fireside.settings import Settings


class ProgressBar(PullObserver):
    """A line per message on stderr, and a bar from the first byte on where stderr is a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._progress = Progress(
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def progress(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total, visible=True)


def fetch(request: str, settings: Settings, *, name: str | None = None) -> LocalModel:
    """`models.download.pull`, seen by a person. Raises what it raises."""
    with ProgressBar() as observer:
        return pull(request, settings.models_dir, name=name, observer=observer)
