"""Checkpoints: whole or not at all, the last and the best."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fireside.errors import RunError
from fireside.training import checkpoint
from fireside.training.checkpoint import CheckpointStore, SavedState

TENSORS = {"weights": {"a": torch.arange(4.0)}, "optimizer": {"exp_avg.a": torch.ones(4)}}


def state(step: int, bits_per_byte: float | None = None) -> SavedState:
    return SavedState(step=step, tokens=step, seconds=0.5, position={"row": step}, bits_per_byte=bits_per_byte)


def test_the_last_ones_and_the_best_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, identity={})
    for step, score in ((1, 2.0), (2, 1.0), (3, None), (4, 1.5), (5, 1.2)):
        store.save(state(step, score), TENSORS)
    assert [path.name for path in store.all()] == ["step-00000002", "step-00000004", "step-00000005"]
    assert store.latest() == store.all()[-1] and store.best() == store.all()[0]
    assert store.read_state(store.all()[-1]) == state(5, 1.2)
    found = store.read_tensors(store.all()[-1])
    assert torch.equal(found["weights"]["a"], TENSORS["weights"]["a"]) and found.keys() == TENSORS.keys()


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, keep=2, identity={})
    store.save(state(1), TENSORS)
    real = checkpoint.save_file

    def full(tensors: Any, path: Path) -> None:
        if "optimizer" in path.name:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match="the disk is full; free some space and resume; the last good one is step-0"):
        store.save(state(2), TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert store.read_tensors(tmp_path / "step-00000001")["optimizer"]


def test_damage_is_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, identity={"recipe": {"lr": 1}})
    folder = store.save(state(1), TENSORS)
    (folder / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"step-00000001 is damaged .*: remove it and resume again"):
        store.read_tensors(folder)
    (folder / "state.json").write_text(json.dumps({"identity": {"recipe": {"lr": 1}}, "step": 1}))
    with pytest.raises(RunError, match=r"state.json is damaged: remove"):
        store.read_state(folder)
    (folder / "state.json").write_text("{")
    with pytest.raises(RunError, match=r"state.json cannot be read"):
        store.read_state(folder)


def test_a_kill_while_old_ones_are_removed_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, keep=1, identity={})
    store.save(state(1), TENSORS)

    def killed(path: Path, **_: object) -> None:
        if path.exists():
            (path / checkpoint.STATE_FILE).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.save(state(2), TENSORS)
    again = CheckpointStore(tmp_path, keep=1, identity={})
    assert again.latest() == tmp_path / "step-00000002" and again.best() is None
    again.save(state(3), TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
