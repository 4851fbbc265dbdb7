"""Run folders: all that one execution of a recipe was told, did and left.

recipe.json     the recipe with every value it has
run.json        status, times, environment, git revision, what each stage came to
log.jsonl       a JSON object per logged step, evaluation and sample
tokenizer/      trained for this run, unless the base model brought one
data/STAGE/     the prepared dataset and its manifest
checkpoints/STAGE/
report.md, report.html
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fireside import __version__
from fireside.errors import RunError
from fireside.models.saving import flush
from fireside.training.recipe import Recipe
from fireside.training.recipe_file import parse_recipe, recipe_to_json

_PATIENCE = 2  # seconds: whoever only looks whether a run is locked holds its lock for a moment
RECIPE_FILE, RECORD_FILE, LOG_FILE = "recipe.json", "run.json", "log.jsonl"


class RunStatus(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    STOPPED = "stopped"  # and saved
    FAILED = "failed"
    FINISHED = "finished"
    DAMAGED = "damaged"  # its record cannot be read; resuming it begins a new one


@dataclass(frozen=True)
class Run:
    """A run's folder. Reading it raises `RunError` that names the file."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def recipe(self) -> Recipe:
        return parse_recipe(_read(self.folder / RECIPE_FILE), str(self.folder / RECIPE_FILE))

    @property
    def record(self) -> dict[str, Any]:
        """Empty if it cannot be read: checkpoints do not depend on it."""
        try:
            return _read(self.folder / RECORD_FILE)
        except RunError:
            return {"stages": {}}

    @property
    def status(self) -> RunStatus:
        """A run that says it is running while nobody holds its lock was killed: it counts as stopped."""
        try:
            status = RunStatus(_read(self.folder / RECORD_FILE)["status"])
        except (RunError, KeyError, ValueError):
            return RunStatus.DAMAGED
        if status is RunStatus.RUNNING and not self.is_locked():
            return RunStatus.STOPPED
        return status

    def update(self, **values: Any) -> None:
        """Adds to the record. Raises `RunError` if it cannot be written."""
        with _writing(self.folder):
            write_json(self.folder / RECORD_FILE, self.record | values)

    def log(self, kind: str, stage: str, **values: Any) -> None:
        """Adds a line to the log. Raises `RunError` if it cannot be written."""
        line = json.dumps({"kind": kind, "stage": stage, **values}, ensure_ascii=False)
        with _writing(self.folder), (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """What was logged. A last line that a kill cut short is left out."""
        path = self.folder / LOG_FILE
        if not path.is_file():
            return
        for line in path.read_text(encoding="utf-8").split("\n"):  # what ends a line elsewhere may be in a text
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def forget_after(self, stage: str, step: int) -> None:
        """Removes lines of `stage` beyond `step`: they will be written again. Raises `RunError` if it cannot."""
        kept = [line for line in self.log_lines() if line["stage"] != stage or line["step"] <= step]
        partial = self.folder / f".{LOG_FILE}.partial"
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
        with _writing(self.folder):
            partial.write_text(text, encoding="utf-8")
            flush(partial)
            partial.replace(self.folder / LOG_FILE)

    def checkpoints(self, stage: str) -> Path:
        return self.folder / "checkpoints" / stage

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises `RunError` if another process trains this run."""
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            raise RunError(f"{self.name} is being trained by another process") from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False


def create_run(runs_dir: Path, recipe: Recipe) -> Run:
    """A new folder `NAME-N` below `runs_dir`. Raises `RunError` if it cannot be made."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = runs_dir / f"{recipe.name}-{number}"
            try:
                folder.mkdir()
                break
            except FileExistsError:
                number += 1
        (folder / RECIPE_FILE).write_text(recipe_to_json(recipe), encoding="utf-8")
        write_json(
            folder / RECORD_FILE,
            {
                "status": RunStatus.RUNNING,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": sys.argv,
                "environment": environment(),
                "git": git_revision(),
                "stages": {},
            },
        )
    except OSError as error:
        raise RunError(f"no run can be kept in {runs_dir}: {error.strerror or error}") from error
    return Run(folder)


def open_run(name_or_path: str, runs_dir: Path) -> Run:
    """Raises `RunError` if there is none."""
    for folder in (runs_dir / name_or_path, Path(name_or_path).expanduser()):
        if (folder / RECIPE_FILE).is_file():
            return Run(folder)
    raise RunError(f"there is no run {name_or_path!r} in {runs_dir}: fireside runs lists those that are there")


def list_runs(runs_dir: Path) -> list[Run]:
    """Oldest first."""
    if not runs_dir.is_dir():
        return []
    found = [folder for folder in runs_dir.iterdir() if (folder / RECIPE_FILE).is_file()]
    return [Run(folder) for folder in sorted(found, key=lambda folder: (folder / RECIPE_FILE).stat().st_mtime)]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    flush(partial)
    partial.replace(path)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}") from error


def environment() -> dict[str, Any]:
    """What a result may depend on beside the recipe."""
    packages: dict[str, str | None] = {}
    for name in ("torch", "lightning-fabric", "tokenizers", "safetensors"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "fireside": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        **packages,
    }


def git_revision() -> str | None:
    """Of the sources that run, with "+changes" if they are not as committed; None outside a clone."""
    folder = Path(__file__).parent
    try:
        head, changes = (
            subprocess.run(  # noqa: S603 - no part of it comes from outside
                ["git", "-C", str(folder), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+changes" if changes else head


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} must hold a JSON object")
    return value
