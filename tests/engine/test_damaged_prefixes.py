"""No file of saved prefixes, and no place for one, changes an answer or stops an engine: one line in the log tells."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fireside.engine import saved_prefixes
from tests.engine.saving_engines import PREAMBLE, SIZE, VOCAB, ask, save, saved_paths, start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prefixes" / "fake.safetensors"


def partial(path: Path) -> Path:
    """Where the file is written before it appears."""
    return path.with_name(f".{path.name}.partial")


def answers_cold(path: Path, caplog: pytest.LogCaptureFixture, **values: Any) -> list[str]:
    """Checks that an engine starts and answers as if there were no file; returns what it had to say about it."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        engine = start(path, **values)
    assert engine.stats.blocks_cached == 0
    assert ask(engine).cached_tokens == 0
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def is_damaged(path: Path, caplog: pytest.LogCaptureFixture, reason: str = "") -> bool:
    (line,) = answers_cold(path, caplog)
    return (
        line.startswith("WARNING") and "damaged" in line and str(path) in line and reason in line and not path.exists()
    )


def test_a_file_cut_short_is_one_warning_and_gone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(path)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert is_damaged(path, caplog), length
    path.write_bytes(whole + b"\0")
    assert is_damaged(path, caplog)


def test_no_flipped_bit_is_taken_for_good(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(path)
    whole = path.read_bytes()
    damaged = 0
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 7
        path.write_bytes(changed)
        (line,) = answers_cold(path, caplog)
        damaged += line.startswith("WARNING")
    assert damaged > len(whole) - 150, "all but format and fingerprint, by which it may be another engine's"


def change(path: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    """Changes a file's tensors, and the checksum with them: what only a bug, or somebody on purpose, could write."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata | {"sha256": saved_prefixes._checksum(tensors)})


def put(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, value)


EDITS = {
    "a token beyond the vocabulary": (lambda t: t["tokens"].__setitem__((1, 2), VOCAB), "vocabulary"),
    "a negative token": (lambda t: t["tokens"].__setitem__((0, 0), -1), "vocabulary"),
    "a parent that comes later": (lambda t: t["parents"].__setitem__(0, 2), "before its parent"),
    "a block that is its own parent": (lambda t: t["parents"].__setitem__(1, 1), "before its parent"),
    "a parent beyond the root": (lambda t: t["parents"].__setitem__(1, -2), "before its parent"),
    "the same block twice": (lambda t: (t["tokens"].fill_(5), t["parents"].fill_(-1)), "twice"),
    "no blocks": (lambda t: t.update({n: v[:0] if n != "cache.tokens" else v[:, :0] for n, v in t.items()}), "shapes"),
    "tokens without a shape": (put("tokens", torch.tensor(1, dtype=torch.int32)), "shapes"),
    "parents without a shape": (put("parents", torch.tensor(1, dtype=torch.int32)), "shapes"),
    "blocks of another size": (put("tokens", torch.zeros(3, SIZE + 1, dtype=torch.int32)), "shapes"),
    "tokens of another type": (put("tokens", torch.zeros(3, SIZE, dtype=torch.int64)), "types"),
    "fewer blocks in the cache": (put("cache.tokens", torch.zeros(1, 2, SIZE, dtype=torch.int32)), "shapes"),
    "more layers": (put("cache.tokens", torch.zeros(2, 3, SIZE, dtype=torch.int32)), "shapes"),
    "a cache of another type": (put("cache.tokens", torch.zeros(1, 3, SIZE)), "types"),
    "a tensor too many": (put("cache.scales", torch.zeros(1, 3)), "names"),
    "a tensor too few": (lambda t: t.pop("cache.tokens"), "names"),
    "no tokens": (lambda t: t.pop("tokens"), "names"),
    "no parents": (lambda t: t.pop("parents"), "names"),
}


@pytest.mark.parametrize(("edit", "reason"), EDITS.values(), ids=EDITS)
def test_contents_that_make_no_sense_are_refused(
    path: Path, caplog: pytest.LogCaptureFixture, edit: Callable[[dict[str, Tensor]], None], reason: str
) -> None:
    save(path)
    change(path, edit)
    assert is_damaged(path, caplog, reason)


HUGE = b'{"tokens":{"dtype":"I32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
ABSURD = {
    "header": (1 << 60).to_bytes(8, "little") + b"{}",
    "shape": len(HUGE).to_bytes(8, "little") + HUGE,
    "empty": (2).to_bytes(8, "little") + b"{}",
    "noise": b"not safetensors at all, but long enough to hold a header's length",
}


@pytest.mark.parametrize("raw", ABSURD.values(), ids=ABSURD)
def test_absurd_files(path: Path, caplog: pytest.LogCaptureFixture, raw: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(raw)
    (line,) = answers_cold(path, caplog)
    assert "damaged" in line or "another model, settings or version" in line


def test_anothers_file_is_let_be_and_then_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(path, fingerprint="old")
    before = path.read_bytes()
    (line,) = answers_cold(path, caplog, fingerprint="new")
    assert line.startswith("INFO") and "another model, settings or version" in line
    assert path.read_bytes() == before
    save(path, (5, 6, 7, 8, 9), fingerprint="new")
    assert saved_paths(path) == [(5, 6, 7, 8)]


def test_more_than_the_setting_allows_is_let_be(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(path)
    (line,) = answers_cold(path, caplog, max_tokens=2 * SIZE)
    assert line.startswith("INFO") and "saved_prefix_tokens" in line and path.exists()


# Places that cannot be written, and others that write.


def warns_once(path: Path, caplog: pytest.LogCaptureFixture) -> bool:
    """A whole life, its start included: one warning, which names the path."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        save(path)
    (record,) = caplog.records
    return record.levelno == logging.WARNING and str(path) in record.getMessage() and "cold" in record.getMessage()


def test_a_place_that_cannot_be_written_is_one_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.write_text("a file where the folder should be")
    assert warns_once(path, caplog)
    path.parent.unlink()
    path.parent.mkdir(mode=0o700)
    path.mkdir()
    assert warns_once(path, caplog)
    assert [file.name for file in path.parent.iterdir() if file != path] == [f".{path.name}.lock"]
    path.rmdir()
    partial(path).write_text("a file where the folder should be")
    assert warns_once(path, caplog)


def test_a_folder_that_others_can_write_is_neither_read_nor_written(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o770)
    assert warns_once(path, caplog) and "chmod 700" in caplog.text
    assert list(path.parent.iterdir()) == []
    path.parent.chmod(0o700)
    save(path)
    path.parent.chmod(0o777)
    (line,) = answers_cold(path, caplog)
    assert line.startswith("WARNING") and "chmod 700" in line and path.exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_a_full_disk_is_one_warning_and_leaves_what_was_there(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save(path)
    before = path.read_bytes()

    def fail(tensors: object, partial: Path, metadata: object) -> None:
        partial.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(saved_prefixes, "save_file", fail)
    engine = start(path)
    ask(engine, (5, 6, 7, 8, 9), preamble=SIZE)
    with caplog.at_level(logging.INFO):
        engine.close()
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(path) in record.getMessage()
    assert path.read_bytes() == before
    assert not partial(path).exists()


def test_what_one_who_died_left_half_written_is_no_trouble(path: Path) -> None:
    left = partial(path) / ".tmpXXXXXX"
    path.parent.mkdir(mode=0o700)
    left.parent.mkdir()
    left.write_bytes(b"x" * 100_000)
    save(path)
    assert ask(start(path)).cached_tokens == len(PREAMBLE)
    assert not partial(path).exists()


def test_one_saves_a_file_at_a_time(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who saves another model's waits for nobody."""
    monkeypatch.setattr(saved_prefixes, "_LOCK_SECONDS", 0.05)
    path.parent.mkdir(mode=0o700)
    partial(path).mkdir()
    other = path.with_name("other.safetensors")
    with FileLock(path.parent / f".{path.name}.lock"):
        save(other)
        assert saved_paths(other) and partial(path).exists()
        with caplog.at_level(logging.INFO):
            save(path)
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "another process" in caplog.text and not path.exists()


def test_many_who_save_and_load_at_once_never_meet_half_a_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def live(number: int) -> None:
        engine = start(path)
        ask(engine, [number, *range(1000, 1000 + 5 * SIZE)], preamble=5 * SIZE)
        engine.close()

    with ThreadPoolExecutor(8) as pool:
        for life in [pool.submit(live, number) for number in range(40)]:
            life.result()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], caplog.text
    assert start(path).stats.blocks_cached == len(saved_paths(path)) >= 5
    assert not partial(path).exists()
