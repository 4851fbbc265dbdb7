"""A stage's batches: the stream to train on, and what is held out."""

from __future__ import annotations

from itertools import islice

from fireside.data.batch import Batch
from fireside.data.config import PackingConfig
from fireside.data.packing import ConversationBatches, PackedBatches, PretrainingBatches
from fireside.data.shards import Dataset


def training_batches(dataset: Dataset, packing: PackingConfig, *, rows: int, are_chats: bool) -> PackedBatches:
    """Whole steps of `rows` rows. are_chats: only what the assistant says is a target. Raises `DataError`."""
    kind = ConversationBatches if are_chats else PretrainingBatches
    return kind(dataset.sources("train"), packing, rows=rows)


def held_out_batches(
    dataset: Dataset, packing: PackingConfig, *, rows: int, tokens: int, are_chats: bool
) -> list[Batch]:
    """Batches of `rows` rows from the validation split, always the same: `tokens` at most, none if it is empty."""
    sources = dataset.sources("validation")
    if not sources:
        return []
    kind = ConversationBatches if are_chats else PretrainingBatches
    wanted = max(1, tokens // (rows * packing.sequence_length))
    return list(islice(kind(sources, packing, rows=rows).one_pass(), wanted))
