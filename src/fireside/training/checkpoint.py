"""Checkpoints of a stage: safetensors and JSON, whole or not at all; the last ones and the best stay.

    step-00000400/
        weights.safetensors     what trains, by parameter name, in float32
        optimizer.safetensors   exp_avg.NAME, exp_avg_sq.NAME, ...
        average.safetensors     the exponential average of the weights, where there is one
        state.json              step, data position, counters, and the identity of what was trained on what

The schedule is a function of the step, and random numbers one of seed, step and process: both are restored with it.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fireside.errors import RunError
from fireside.models.saving import flush
from fireside.training.recipe_file import differences

STATE_FILE = "state.json"
TENSOR_FILES = ("weights", "optimizer", "average")
_NAME = re.compile(r"step-(\d{8})")

Tensors = Mapping[str, Mapping[str, Tensor]]  # by file, then by name


@dataclass(frozen=True)
class SavedState:
    """What `state.json` says. position: of the data source, before the next batch. seconds: spent until then."""

    step: int
    tokens: int
    seconds: float
    position: dict[str, int]
    bits_per_byte: float | None


class CheckpointStore:
    """The checkpoints of one stage of one run.

    identity: what must not change between saving and resuming (recipe, tokenizer, data), as plain JSON values.
    """

    def __init__(self, folder: Path, *, keep: int, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._keep = keep
        for left in folder.glob(".step-*.removed"):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        self._identity = json.loads(json.dumps(identity))  # as it will be read back

    def save(self, state: SavedState, tensors: Tensors) -> Path:
        """Writes and flushes a folder beside the others, then renames it; then removes those that need not stay.

        Raises `RunError` when the disk is full or cannot be written. Whatever was there before is then intact.
        """
        target = self.folder / f"step-{state.step:08}"
        partial = self.folder / f".{target.name}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name, content in tensors.items():
                save_file({key: tensor.contiguous() for key, tensor in content.items()}, partial / _file(name))
            text = json.dumps(vars(state) | {"identity": self._identity}, indent=2)
            (partial / STATE_FILE).write_text(text + "\n", encoding="utf-8")
            for path in partial.iterdir():
                flush(path)
            if target.exists():  # the same step once more, after a resume
                _remove(target)
            partial.rename(target)
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            last = self.latest()
            kept = f"the last good one is {last.name}" if last else "there is none yet"
            raise RunError(f"no checkpoint could be written to {self.folder}: {_reason(error)}; {kept}") from error
        self._remove_old()
        return target

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def latest(self) -> Path | None:
        """None before the first."""
        return next(reversed(self.all()), None)

    def read_state(self, checkpoint: Path) -> SavedState:
        """Raises `RunError` if it is damaged, or was made from another recipe, tokenizer or dataset, which it names."""
        raw = _read_json(checkpoint / STATE_FILE)
        try:
            identity = raw.pop("identity")
            state = SavedState(**raw)
        except (KeyError, TypeError) as error:
            raise RunError(f"{checkpoint / STATE_FILE} is damaged: remove {checkpoint} and resume again") from error
        changed = differences(identity, self._identity)
        if changed:
            raise RunError(
                f"{checkpoint} cannot be gone on from, because something changed since: {'; '.join(changed[:5])}. "
                "Put it back as it was, or start a new run"
            )
        return state

    def read_tensors(self, checkpoint: Path) -> dict[str, dict[str, Tensor]]:
        """On the CPU. Raises `RunError`."""
        try:
            files = [name for name in TENSOR_FILES if (checkpoint / _file(name)).is_file()]
            return {name: load_file(checkpoint / _file(name)) for name in files}
        except (OSError, SafetensorError) as error:
            raise RunError(f"{checkpoint} is damaged ({error}): remove it and resume again") from error

    def best(self) -> Path | None:
        """The one with the fewest bits per byte, of those that were evaluated."""
        scored = [(_read_json(path / STATE_FILE).get("bits_per_byte"), path) for path in self.all()]
        found = [(score, path) for score, path in scored if isinstance(score, float)]
        return min(found)[1] if found else None

    def _remove_old(self) -> None:
        keep = {*self.all()[-self._keep :], self.best()}
        for path in self.all():
            if path not in keep:
                _remove(path)


def _remove(checkpoint: Path) -> None:
    """At once, as it is seen: a checkpoint is whole or not there."""
    removed = checkpoint.with_name(f".{checkpoint.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    checkpoint.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _file(name: str) -> str:
    return f"{name}.safetensors"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): remove {path.parent} and resume again") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: remove {path.parent} and resume again")
    return value


def _reason(error: Exception) -> str:
    is_full = (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space" in str(error)
    return "the disk is full; free some space and resume" if is_full else str(error)
