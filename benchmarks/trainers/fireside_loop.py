"""Fireside's loop, on the hardware settings that a recipe would give it."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import torch
from benchmarks.trainers.stopwatch import LENGTH, ROWS, SHAPE, Stopwatch, random_row, serve

from fireside.data.batch import Batch
from fireside.models.config import config_from_hf
from fireside.models.decoder import Decoder
from fireside.training.checkpoint import CheckpointStore, SavedState
from fireside.training.hardware import make_fabric
from fireside.training.loop import Loop, StepRecord
from fireside.training.objectives import next_token
from fireside.training.recipe import HardwareConfig, TrainingConfig
from fireside.training.scaling import Plan


class Rows:
    def __init__(self) -> None:
        self._index = count()

    def next_batch(self) -> Batch:
        ids = torch.stack([random_row(next(self._index), LENGTH + 1) for _ in range(ROWS)])
        zeros = torch.zeros((ROWS, LENGTH), dtype=torch.int64)
        return Batch(ids[:, :-1], ids[:, 1:], zeros, torch.arange(LENGTH).expand(ROWS, -1))

    def state(self) -> dict[str, int]:
        return {}

    def restore(self, state: dict[str, int]) -> None: ...


class Marks:
    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_step(self, record: StepRecord) -> None:
        self._watch.mark()

    def on_evaluation(self, step: int, bits_per_byte: float) -> None: ...

    def on_checkpoint(self, state: SavedState) -> None: ...


def train(precision: str, steps: int, watch: Stopwatch) -> None:
    decoder = Decoder(config_from_hf({"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, **SHAPE}))
    plan = Plan(steps, ROWS, ROWS, LENGTH, 1e-3, 1, steps + 1, steps + 1)
    hardware = {"accelerator": "cpu", "precision": precision, "threads": torch.get_num_threads()}
    fabric = make_fabric(HardwareConfig.model_validate(hardware))
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), keep=1, identity={})
        Loop(
            fabric, decoder, next_token, Rows(), TrainingConfig(), plan, store, seed=0, observer=Marks(watch)
        ).run()  # fmt: skip


if __name__ == "__main__":
    serve(train)
