"""From scheduled chunks to the tensors of one forward pass."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import accumulate

import torch
from torch import Tensor

from fireside.engine.runner import ForwardBatch
from fireside.engine.scheduler import Chunk


def int32(values: Iterable[int]) -> Tensor:
    """A one-dimensional int32 tensor. Through `array`, which torch shares: many times faster than from a list."""
    buffer = values if isinstance(values, array) else array("i", values)
    return torch.frombuffer(buffer, dtype=torch.int32) if buffer else torch.empty(0, dtype=torch.int32)


def build_batch(chunks: list[Chunk], logit_indices: list[int]) -> ForwardBatch:
    """Lays the chunks end to end. See `ForwardBatch` for the shapes."""
    token_ids = array("i")
    positions = array("i")
    for sequence, start, end in chunks:
        if end - start == 1 and len(sequence.prompt_ids) <= start < sequence.num_tokens:
            token_ids.append(sequence.output_ids[start - len(sequence.prompt_ids)])
            positions.append(start)
        else:
            token_ids.extend(sequence.tokens(start, end))
            positions.extend(range(start, end))

    width = max(len(chunk.sequence.block_table) for chunk in chunks)
    tables = array("i", [-1]) * (width * len(chunks))
    for row, chunk in enumerate(chunks):
        table = chunk.sequence.block_table
        tables[row * width : row * width + len(table)] = table

    return ForwardBatch(
        token_ids=int32(token_ids),
        positions=int32(positions),
        query_starts=int32(accumulate((chunk.end - chunk.start for chunk in chunks), initial=0)),
        context_lengths=int32(chunk.end for chunk in chunks),
        block_tables=int32(tables).view(len(chunks), width),
        logit_indices=int32(logit_indices),
    )
