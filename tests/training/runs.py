"""Small decoders, random batches with a position, and loops over them: what the tests of training stand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from fireside.data.batch import IGNORED, Batch
from fireside.models.config import Architecture, ModelConfig
from fireside.models.decoder import Decoder
from fireside.training.checkpoint import CheckpointStore
from fireside.training.loop import Loop
from fireside.training.objectives import Objective, next_token
from fireside.training.recipe import TrainingConfig
from fireside.training.scaling import Plan

VOCAB = 61
SHAPE = ModelConfig(
    architecture=Architecture.LLAMA,
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)
PLAN = Plan(steps=8, rows=6, micro_rows=2, length=12, lr=1e-2, warmup_steps=2, evaluate_every=4, save_every=3)


def decoder(seed: int = 0, **changes: Any) -> Decoder:
    torch.manual_seed(seed)
    made = Decoder(replace(SHAPE, **changes))
    made.reset_parameters(std=0.3)
    return made


def random_batch(rows: int = 6, length: int = 12, seed: int = 0) -> Batch:
    """Rows of two or three documents, with padding at the end of some, and labels of which a third is ignored."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCAB, (rows, length), generator=generator)
    documents = torch.zeros((rows, length), dtype=torch.int64)
    for row in range(rows):
        cuts = torch.randperm(length - 1, generator=generator)[: 1 + row % 2] + 1
        for cut in cuts.tolist():
            documents[row, cut:] += 1
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    index = torch.arange(length).expand(rows, -1)
    positions = index - torch.where(starts, index, 0).cummax(1).values
    labels = torch.roll(ids, -1, 1)
    labels[torch.rand((rows, length), generator=generator) < 0.33] = IGNORED
    documents[::3, -2:] = -1
    labels[::3, -3:] = IGNORED
    labels[:, -1] = IGNORED
    return Batch(ids, labels, documents, positions)


class RandomSource:
    """A `BatchSource` whose batch is a function of its position."""

    def __init__(self, rows: int = 6, length: int = 12) -> None:
        self.rows, self.length, self.position = rows, length, 0

    def next_batch(self) -> Batch:
        self.position += 1
        return random_batch(self.rows, self.length, seed=self.position)

    def state(self) -> dict[str, int]:
        return {"position": self.position}

    def restore(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def loop(
    model: Decoder,
    folder: Path,
    *,
    config: TrainingConfig | None = None,
    plan: Plan = PLAN,
    objective: Objective = next_token,
    precision: Any = "32-true",
    identity: dict[str, Any] | None = None,
    **more: Any,
) -> Loop:
    config = config or TrainingConfig()
    store = CheckpointStore(folder, keep=config.keep, identity=identity or {"recipe": "one"})
    fabric = more.pop("fabric", None) or Fabric(accelerator="cpu", devices=1, precision=precision)
    source = more.pop("source", RandomSource(plan.rows, plan.length))
    return Loop(fabric, model, objective, source, config, plan, store, seed=0, **more)


def stop_after(steps: int) -> Callable[[], bool]:
    """Asked once a step, it wants to stop at the `steps`th."""
    asked = iter(range(1, steps + 1))
    return lambda: next(asked, steps) >= steps
