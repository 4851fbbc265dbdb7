"""A stage's batches: the stream to train on, and what is held out."""

from __future__ import annotations

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
    """Batches of `rows` rows from the validation split: all of it, or so much as `tokens` allow, none if it is empty.

    Which rows are taken does not depend on `rows`: they are drawn at random from all sources, by size.
    """
    sources = dataset.sources("validation")
    for source in sources:
        source.weight = None  # a small source with a large one would come up twice
    if not sources:
        return []
    kind = ConversationBatches if are_chats else PretrainingBatches
    wanted = max(1, tokens // packing.sequence_length)
    whole = kind(sources, packing, rows=rows)
    report = whole.report()
    if report.rows <= wanted:
        return list(whole.one_pass())
    # A window larger than one pass would have documents twice.
    window = min(packing.window_rows, max(1, int(report.rows * (1 - report.padding))))
    packing = packing.model_copy(update={"window_rows": window})
    drawn = kind(sources, packing, rows=wanted).next_batch()
    parts = (drawn.input_ids, drawn.labels, drawn.document_ids, drawn.positions)
    return [Batch(*(part[start : start + rows] for part in parts)) for start in range(0, wanted, rows)]
