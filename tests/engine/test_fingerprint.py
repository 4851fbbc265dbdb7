"""What counts as the same numbers: any change of a model's files, of how they are computed with, or of the code."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from fireside.engine import fingerprint as module
from fireside.engine.fingerprint import fingerprint, model_fingerprint
from fireside.engine.torch_runner import TorchRunner
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from tests.engine.fake_runner import FakeRunner
from tests.engine.tiny_model import write_tiny_model
from tests.models.test_adapter import edit, write_adapter


def test_a_byte_changed_in_place_is_noticed_though_size_and_date_stay(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(10_000_000))
    before, stat = model_fingerprint(path), path.stat()
    assert model_fingerprint(path) == before
    time.sleep(0.02)  # file systems count time in a few milliseconds
    with path.open("r+b") as file:
        file.seek(100_000)  # between two samples
        file.write(b"\1")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert model_fingerprint(path) != before


@pytest.mark.parametrize("position", [0, 9_999_999])
def test_samples_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    """Where a file system keeps no times: here, of a file whose status stays that of another."""
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(10_000_000))
    stat = path.stat()
    monkeypatch.setattr(Path, "stat", lambda self, **_: stat)
    before = model_fingerprint(path)
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"\1")
    assert model_fingerprint(path) != before


def test_of_an_adapter_its_base_counts(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    write_adapter(base, tmp_path / "tuned")
    edit(tmp_path / "tuned", base_model_name_or_path="base")
    before = model_fingerprint(tmp_path / "tuned", tmp_path)
    edit(tmp_path / "tuned", lora_alpha=7)
    changed = model_fingerprint(tmp_path / "tuned", tmp_path)
    write_tiny_model(tmp_path / "base", "llama3")
    assert len({before, changed, model_fingerprint(tmp_path / "tuned", tmp_path)}) == 3


def test_of_a_folder_config_and_weights_count_and_nothing_else(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    before = model_fingerprint(folder)
    (folder / "notes.txt").write_text("nothing that a number depends on")
    (folder / "tokenizer.json").unlink()
    assert model_fingerprint(folder) == before
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    changed = model_fingerprint(folder)
    assert changed != before
    shutil.copy(folder / "model.safetensors", folder / "model-2.safetensors")
    assert model_fingerprint(folder) not in (before, changed)


@pytest.mark.parametrize("change", ["model", "dtype", "numerics", "device", "backend", "block_size", "layers", "code"])
def test_everything_that_decides_a_bit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    config = open_checkpoint(write_tiny_model(tmp_path)).config
    runner: Any = FakeRunner()
    before = fingerprint("model", config, runner)
    assert before == fingerprint("model", config, FakeRunner(num_blocks=9)), "how many blocks there are does not"
    if change == "layers":
        runner.cache_tensors = {name: tensor.expand(2, -1, -1) for name, tensor in runner.cache_tensors.items()}
    elif change == "code":
        monkeypatch.setattr(module, "_CODE", ("engine", "kernels"))
    elif change != "model":
        setattr(runner, change, "other")
    assert fingerprint("other" if change == "model" else "model", config, runner) != before


def test_cache_tensors_are_the_torch_runners_own_memory(tmp_path: Path) -> None:
    runner = TorchRunner(load_decoder(open_checkpoint(write_tiny_model(tmp_path))), num_blocks=3)
    for name, tensor in runner.cache_tensors.items():
        tensor[1, 2].fill_(5.0)
        stored = getattr(runner, name)[1]
        assert (stored[2 * 16 :] == 5.0).all() and (stored[: 2 * 16] == 0).all()
