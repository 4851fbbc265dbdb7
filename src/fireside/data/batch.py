"""`Batch`: what a training step eats. `BatchSource`: where batches come from, with a position that can be saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

IGNORED = -100  # a label that no loss is taken of


@dataclass(frozen=True)
class Batch:
    """Packed token ids. All int64 [rows, length].

    labels: the token that follows each, or `IGNORED`. document_ids: which document of its row a token belongs to, from
    0; padding has -1. positions: of each token within its document.
    """

    input_ids: Tensor
    labels: Tensor
    document_ids: Tensor
    positions: Tensor

    @property
    def num_targets(self) -> int:
        return int((self.labels != IGNORED).sum())


class BatchSource(Protocol):
    """An endless stream of batches, the same in every run."""

    def next_batch(self) -> Batch: ...

    def state(self) -> dict[str, int]:
        """The position: a few integers, whatever the number of workers."""

    def restore(self, state: dict[str, int]) -> None:
        """Goes to where `state` was taken: the next batch is the one that would have come next."""
