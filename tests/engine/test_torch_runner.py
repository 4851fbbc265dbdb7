"""The paged runner against transformers, under chunked prefill, mixed batches and scattered blocks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from fireside.engine.runner import ForwardBatch
from fireside.engine.torch_runner import TorchRunner
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from tests.engine.paged_rows import Row, rows_for, run_step
from tests.models.families import FAMILIES, ours, random_ids, reference, reference_logits

BLOCK_SIZE = 4


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
