"""The paged runner against transformers, under chunked prefill, mixed batches and scattered blocks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fireside.engine.runner import ForwardBatch, Runner
from fireside.engine.torch_runner import TorchRunner
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from tests.models.families import FAMILIES, ours, random_ids, reference, reference_logits

BLOCK_SIZE = 4


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


def rows_for(runner: TorchRunner, sequences: Tensor, seed: int = 0) -> list[Row]:
    """Sequences with blocks of their own, dealt out in no order."""
    per_row = -(-sequences.shape[1] // runner.block_size)
    blocks = random.Random(seed).sample(range(runner.num_blocks), per_row * len(sequences))
    return [
        Row(ids, blocks[start : start + per_row])
        for ids, start in zip(sequences.tolist(), range(0, len(blocks), per_row), strict=True)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Prompts in chunks of several sizes beside rows that already decode, token by token to the end."""
    model = reference(family)
    sequences = random_ids(rows=4)
    runner = TorchRunner(ours(model, tmp_path), num_blocks=64, block_size=BLOCK_SIZE)
    rows = rows_for(runner, sequences)
    chunks = random.Random(1)
    while unfinished := [row for row in rows if row.done < len(row.ids)]:
        work = []
        for row in unfinished:
            prefill = chunks.choice([0, 3, 7, 9])  # crosses blocks and windows; 0: nothing for this row this time
            count = min(prefill, 30 - row.done) if row.done < 30 else 1
            if count:
                work.append((row, count))
        if work:
            run_step(runner, work)
    actual = torch.stack([torch.cat(row.logits) for row in rows])
    torch.testing.assert_close(actual, reference_logits(model, sequences), rtol=1e-4, atol=1e-4)


def test_rows_can_share_the_blocks_of_a_prefix(tmp_path: Path) -> None:
    model = reference("smollm2")
    first, second = random_ids(rows=2, tokens=20)
    shared = 12
    second[:shared] = first[:shared]
    runner = TorchRunner(ours(model, tmp_path), num_blocks=12, block_size=BLOCK_SIZE)
    original = Row(first.tolist(), [7, 2, 9, 4, 0])
    run_step(runner, [(original, 20)])
    fork = Row(second.tolist(), [7, 2, 9, 11, 5], done=shared)
    run_step(runner, [(fork, 5)])
    run_step(runner, [(fork, 3), (Row(first.tolist(), original.blocks, done=19), 1)])
    expected = reference_logits(model, second[None])[0, shared:]
    torch.testing.assert_close(torch.cat(fork.logits), expected, rtol=1e-4, atol=1e-4)


def test_only_the_wanted_logits_are_computed(tmp_path: Path) -> None:
    model = reference("qwen2")
    sequence = random_ids(rows=1, tokens=8)
    runner = TorchRunner(ours(model, tmp_path), num_blocks=2, block_size=BLOCK_SIZE)
    logits = runner.forward(
        ForwardBatch(
            token_ids=sequence[0].int(),
            positions=torch.arange(8, dtype=torch.int32),
            query_starts=torch.tensor([0, 8], dtype=torch.int32),
            context_lengths=torch.tensor([8], dtype=torch.int32),
            block_tables=torch.tensor([[1, 0]], dtype=torch.int32),
            logit_indices=torch.tensor([7, 2], dtype=torch.int32),
        )
    )
    torch.testing.assert_close(logits, reference_logits(model, sequence)[0, [7, 2]], rtol=1e-4, atol=1e-4)


def test_bfloat16_cache_gives_the_decoders_own_logits(tmp_path: Path) -> None:
    model = reference("qwen3")
    model.save_pretrained(tmp_path)
    decoder = load_decoder(open_checkpoint(tmp_path), torch.bfloat16)
    runner = TorchRunner(decoder, num_blocks=32, block_size=BLOCK_SIZE)
    assert (runner.dtype, runner.keys.dtype) == ("bfloat16", torch.bfloat16)
    sequences = random_ids()
    rows = rows_for(runner, sequences)
    run_step(runner, [(row, 29) for row in rows])
    while rows[0].done < len(rows[0].ids):
        run_step(runner, [(row, 1) for row in rows])
    cached = torch.stack([torch.cat(row.logits) for row in rows])
    with torch.no_grad():
        whole = decoder(sequences).float()
    exact = reference_logits(model, sequences)
    assert (cached - exact).square().mean() < 1.5 * (whole - exact).square().mean()
