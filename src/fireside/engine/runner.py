"""`Runner`: one forward pass over a mixed batch of prefill chunks and decode steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class ForwardBatch:
    """S sequences, T tokens laid end to end; all tensors int32 on the CPU, contiguous.

    token_ids, positions: [T]. query_starts: [S + 1], the first token of each sequence in the flat order.
    context_lengths: [S], tokens of each sequence whose keys and values exist after this step
    (cached before, plus those in this batch). block_tables: [S, max_blocks], the physical block of each
    `block_size` positions, padded with -1. logit_indices: [L], flat token indices whose logits are wanted, ascending.
    """

    token_ids: Tensor
    positions: Tensor
    query_starts: Tensor
    context_lengths: Tensor
    block_tables: Tensor
    logit_indices: Tensor


class Runner(Protocol):
    """Owns the weights and the paged keys and values of one model on one device.

    A token's logits depend on its own sequence alone, to the bit, where the runner says `batch_invariant`.
    """

    backend: str  # "native" or "torch"
    dtype: str
    device: str
    batch_invariant: bool
    vocab_size: int
    block_size: int
    num_blocks: int
    numerics: str  # what decides the bits besides weights and settings: compiled kernels, PyTorch's version

    @property
    def cache_tensors(self) -> dict[str, Tensor]:
        """All that a token leaves behind for later ones, by name; each [layers, num_blocks, ...], and no copy."""

    def forward(self, batch: ForwardBatch) -> Tensor:
        """Writes the batch's keys and values into their blocks, returns logits [L, vocab] in float32 on the CPU
        (or on the runner's device)."""
