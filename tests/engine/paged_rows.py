"""Sequences in a runner's paged cache, moved on by hand: what the tests of every runner drive it with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fireside.engine.runner import ForwardBatch, Runner


@dataclass
class Row:
    """One sequence on its way through the runner: `done` of its tokens are in the cache."""

    ids: list[int]
    blocks: list[int]
    done: int = 0
    logits: list[Tensor] = field(default_factory=list)


def run_step(runner: Runner, work: Sequence[tuple[Row, int]]) -> None:
    """One forward pass that advances each row by so many tokens, and keeps the logits of all of them."""
    starts, tokens, positions = [0], [], []
    for row, count in work:
        tokens += row.ids[row.done : row.done + count]
        positions += range(row.done, row.done + count)
        starts.append(len(tokens))
        row.done += count
    used = [row.blocks[: -(-row.done // runner.block_size)] for row, _ in work]
    widest = max(map(len, used))

    def tensor(values: list[int] | list[list[int]] | range) -> Tensor:
        return torch.tensor(values, dtype=torch.int32)

    logits = runner.forward(
        ForwardBatch(
            token_ids=tensor(tokens),
            positions=tensor(positions),
            query_starts=tensor(starts),
            context_lengths=tensor([row.done for row, _ in work]),
            block_tables=tensor([blocks + [-1] * (widest - len(blocks)) for blocks in used]),
            logit_indices=tensor(range(len(tokens))),
        )
    )
    assert logits.shape == (len(tokens), runner.vocab_size)
    assert logits.dtype == torch.float32
    for (row, _), part in zip(work, logits.split([count for _, count in work]), strict=True):
        row.logits.append(part)


def rows_for(runner: Runner, sequences: Tensor, seed: int = 0) -> list[Row]:
    """Sequences with blocks of their own, dealt out in no order."""
    per_row = -(-sequences.shape[1] // runner.block_size)
    blocks = random.Random(seed).sample(range(runner.num_blocks), per_row * len(sequences))
    return [
        Row(ids, blocks[start : start + per_row])
        for ids, start in zip(sequences.tolist(), range(0, len(blocks), per_row), strict=True)
    ]
