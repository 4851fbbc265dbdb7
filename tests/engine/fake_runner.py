"""A `Runner` without a model, for tests of everything around it.

It stores tokens in the blocks where a model would store keys and values, and makes its logits from what it reads back
through the block table. A wrong table, position or shared block therefore changes the output, or is refused outright.
"""

from __future__ import annotations

from array import array
from itertools import pairwise

import torch
from torch import Tensor

from fireside.engine.runner import ForwardBatch

EMPTY = -1


def reference_logits(tokens: tuple[int, ...], vocab_size: int) -> Tensor:
    """The logits after `tokens`, float32 [vocab_size]: random, but always the same for the same tokens."""
    generator = torch.Generator().manual_seed(hash(tokens) & 0x7FFF_FFFF)
    return torch.randn(vocab_size, generator=generator)


def greedy_reference(prompt: tuple[int, ...], num_tokens: int, vocab_size: int) -> tuple[int, ...]:
    """What a greedy request must give, without any engine."""
    tokens = tuple(prompt)
    for _ in range(num_tokens):
        tokens += (int(reference_logits(tokens, vocab_size).argmax()),)
    return tokens[len(prompt) :]


class FakeRunner:
    """Counts what it is asked to do: `num_passes`, `num_tokens`, and the token counts of each pass in `passes`."""

    backend = "fake"
    dtype = "float32"
    device = "cpu"
    batch_invariant = True
    numerics = "none"

    def __init__(self, num_blocks: int = 64, block_size: int = 4, vocab_size: int = 48) -> None:
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.num_blocks = num_blocks
        slots = array("i", [EMPTY]) * (num_blocks * block_size)
        self.memory = [memoryview(slots)[start : start + block_size] for start in range(0, len(slots), block_size)]
        self.cache_tensors = {"tokens": torch.frombuffer(slots, dtype=torch.int32).view(1, num_blocks, block_size)}
        self.passes: list[list[int]] = []

    @property
    def num_passes(self) -> int:
        return len(self.passes)

    @property
    def num_tokens(self) -> int:
        return sum(map(sum, self.passes))

    def forward(self, batch: ForwardBatch) -> Tensor:
        self._check(batch)
        starts = batch.query_starts.tolist()
        token_ids, positions = batch.token_ids.tolist(), batch.positions.tolist()
        tables, lengths = batch.block_tables.tolist(), batch.context_lengths.tolist()
        owner = [row for row in range(len(lengths)) for _ in range(starts[row], starts[row + 1])]
        for flat, row in enumerate(owner):
            block = tables[row][positions[flat] // self.block_size]
            assert 0 <= block < self.num_blocks, "a position without a block"
            self.memory[block][positions[flat] % self.block_size] = token_ids[flat]
        rows = []
        for flat in batch.logit_indices.tolist():
            tokens = self._read(tables[owner[flat]], positions[flat] + 1)
            rows.append(reference_logits(tokens, self.vocab_size))
        self.passes.append([end - start for start, end in pairwise(starts)])
        return torch.stack(rows) if rows else torch.empty(0, self.vocab_size)

    def _read(self, table: list[int], length: int) -> tuple[int, ...]:
        tokens = tuple(self.memory[table[i // self.block_size]][i % self.block_size] for i in range(length))
        assert EMPTY not in tokens, "a position was read that nobody wrote"
        return tokens

    def _check(self, batch: ForwardBatch) -> None:
        for name in ("token_ids", "positions", "query_starts", "context_lengths", "block_tables", "logit_indices"):
            tensor = getattr(batch, name)
            assert tensor.dtype == torch.int32 and tensor.is_contiguous() and tensor.device.type == "cpu", name
        starts, lengths = batch.query_starts, batch.context_lengths
        assert starts[0] == 0 and starts[-1] == len(batch.token_ids) == len(batch.positions)
        assert (starts[1:] > starts[:-1]).all(), "a sequence without tokens"
        assert len(lengths) == len(starts) - 1 == len(batch.block_tables)
        for row in range(len(lengths)):
            expected = torch.arange(lengths[row] - (starts[row + 1] - starts[row]), lengths[row])
            assert torch.equal(batch.positions[starts[row] : starts[row + 1]].long(), expected)
            used = -(-int(lengths[row]) // self.block_size)
            table = batch.block_tables[row]
            assert (table[:used] >= 0).all()  # a guess may have reserved more
