"""Training, seen by a person: a progress bar, Ctrl-C that saves, and what to do next."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fireside.errors import FiresideError
from fireside.settings import Settings

if TYPE_CHECKING:
    from fireside.training.loop import StepRecord
    from fireside.training.recipe import Recipe
    from fireside.training.run import Run
    from fireside.training.scaling import Plan

_LINES = 20  # of a stage, where there is no terminal for a bar


def begin_training(recipe: Recipe, settings: Settings) -> None:
    """Checks what can be checked, so that what cannot be leaves no run behind; then as `run_training`."""
    from fireside.training.run import create_run

    try:
        from fireside.training.checks import check_recipe, pin_datasets
    except ImportError as error:
        raise _missing(error) from error
    check_recipe(recipe, settings)
    run_training(create_run(settings.runs_dir, pin_datasets(recipe)), settings)


def run_training(run: Run, settings: Settings) -> None:
    """Trains `run`; says what came out, or how to go on. Exits with 130 or 143 if it was stopped and saved.

    Raises `FiresideError`; its exit codes are 2 for a recipe that cannot be, 3 for a loss that is not finite, 4 for too
    little memory, 1 for all else.
    """
    try:
        from fireside.training.loop import Outcome
        from fireside.training.processes import is_helper, take_signals
        from fireside.training.train import train
    except ImportError as error:
        raise _missing(error) from error
    # What several processes are started with: they go on with this run rather than begin one each.
    sys.argv[1:] = ["train", "--resume", str(run.folder)]
    display = Display(is_quiet=is_helper())
    signals = _Signals(display)
    try:
        with display, signals:
            take_signals()
            result = train(run, settings, display, stop=signals.came.is_set)
    except KeyboardInterrupt:
        typer.echo(
            f"Stopped at once. Go on from the last checkpoint with: fireside train --resume {run.name}", err=True
        )
        raise typer.Exit(130) from None
    if is_helper():
        return
    if result.outcome is Outcome.STOPPED:
        typer.echo(f"Stopped and saved. Go on with: fireside train --resume {run.name}", err=True)
        # Ctrl-C reaches every process of a terminal: if this one was not asked, another got a SIGTERM.
        raise typer.Exit(130 if signals.number == signal.SIGINT else 143)
    typer.echo(f"{run.recipe.name} is trained. Talk to it: fireside chat --model {run.recipe.name}")
    typer.echo(f"Report: {run.folder / 'report.html'}")


def _missing(error: ImportError) -> FiresideError:
    return FiresideError(f"training needs more packages ({error.name}): pip install 'fireside[train]'")


class _Signals:
    """The first Ctrl-C or SIGTERM asks to stop and save; a second one ends at once."""

    def __init__(self, display: Display) -> None:
        self.came = threading.Event()
        self.number = 0
        self._display = display
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.came.is_set():
            raise KeyboardInterrupt
        self.number = number
        self.came.set()
        self._display.message("stopping after this step, and saving; once more ends at once")


class Display:
    """A bar with tokens per second, loss and time left on a terminal; now and then a line elsewhere."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, quiet=is_quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._name = ""
        self._score = ""
        self._said = 0  # twentieths of the stage that a line told of

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        self._console.print(text)

    def stage(self, name: str, plan: Plan, done: int) -> None:
        self._name, self._score, self._said = name, "", done * _LINES // plan.steps
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._task = self._progress.add_task(name, total=plan.steps, completed=done, numbers="")
        begun = f", going on after step {done:,}" if done else ""
        self.message(f"{name}: {plan.steps:,} steps of {plan.tokens_per_step:,} tokens{begun}")

    def step(self, record: StepRecord) -> None:
        numbers = f"loss {record.loss:.3f}{self._score} {record.tokens_per_second:,.0f} tokens/s"
        self._progress.update(self._task, completed=record.step, numbers=numbers)
        part = record.step * _LINES // record.steps
        if part > self._said and not self._console.is_terminal:
            self._said = part
            self.message(f"{self._name} {record.step:,}/{record.steps:,}: {numbers}")

    def evaluation(self, step: int, bits_per_byte: float) -> None:
        self._score = f", {bits_per_byte:.3f} bits per byte"

    def sample(self, prompt: str, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(
                f"  {prompt} ▸ {' '.join(text.split())}",
                style="dim",
                soft_wrap=False,
                overflow="ellipsis",
                no_wrap=True,
            )
