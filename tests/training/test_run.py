"""A run's folder: what is kept, and what damage costs."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any, Never

import pytest
from filelock import FileLock

from fireside.errors import RunError
from fireside.settings import Settings
from fireside.training import run as run_module
from fireside.training import train as train_module
from fireside.training.loop import Outcome
from fireside.training.recipe import Recipe
from fireside.training.run import Run, RunStatus, create_run, list_runs

RECIPE: dict[str, Any] = {
    "name": "small",
    "model": {"depth": 1, "hidden_size": 16},
    "tokenizer": {"vocab_size": 320},
    "pretrain": {"data": {"sources": [{"name": "text", "path": __file__, "format": "text"}]}},
}


class Quiet:
    def message(self, text: str) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path, Recipe.model_validate(RECIPE))


def test_a_damaged_record_costs_no_other_run(tmp_path: Path, run: Run) -> None:
    other = create_run(tmp_path, run.recipe)
    (run.folder / "run.json").write_bytes(b"")  # what a power cut leaves of a file that was not flushed
    assert {found.name: found.status for found in list_runs(tmp_path)} == {
        "small-1": RunStatus.DAMAGED,
        "small-2": RunStatus.STOPPED,
    }
    run.update(status=RunStatus.FINISHED)
    assert run.record == {"stages": {}, "status": "finished"} and other.record["created"]


def test_the_record_is_on_the_disk_before_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(run_module, "flush", lambda path: flushed.append(path.name))
    run.update(model="x")
    assert flushed == [".run.json.partial"]


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0c", "\r"])
def test_a_sample_may_hold_what_ends_lines_elsewhere(run: Run, mark: str) -> None:
    run.log("sample", "sft", step=1, text=f"one{mark}two")
    run.log("step", "sft", step=2)
    run.forget_after("sft", 1)
    assert [line["text"] for line in run.log_lines()] == [f"one{mark}two"]


def test_looking_at_a_run_does_not_keep_it_from_being_resumed(run: Run) -> None:
    lock = FileLock(run.folder / ".lock", thread_local=False)
    lock.acquire()
    looking = threading.Timer(0.2, lock.release)
    looking.start()
    with run.locked():
        pass
    looking.join()


def test_a_stop_ends_the_preparation(run: Run, tmp_path: Path) -> None:
    result = train_module.train(run, Settings(home=tmp_path), Quiet(), stop=lambda: True)  # type: ignore[arg-type]
    assert result.outcome is Outcome.STOPPED and run.status is RunStatus.STOPPED
    assert not (run.folder / "tokenizer").exists()


def test_a_full_disk_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Never:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(session: object) -> Never:
        monkeypatch.setattr(run_module, "write_json", full)
        raise RunError("no checkpoint could be written")

    monkeypatch.setattr(train_module._Session, "run", fail)
    with pytest.raises(RunError, match="no checkpoint could be written"):
        train_module.train(run, Settings(home=tmp_path), Quiet())  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"small-1 cannot be written: No space left"):
        run.update(model="x")


def test_an_error_that_nobody_expected_is_a_failure(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(session: object) -> Never:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(train_module._Session, "run", fail)
    with pytest.raises(RuntimeError):
        train_module.train(run, Settings(home=tmp_path), Quiet())  # type: ignore[arg-type]
    assert run.status is RunStatus.FAILED and run.record["error"] == "RuntimeError: CUDA out of memory"
    assert (run.folder / "report.md").is_file()
