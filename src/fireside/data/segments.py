"""Segments: what a source's documents become before they are packed, each no longer than a row.

A segment of n positions is n + 1 tokens: every token but the last is an input, every one but the first a label. So the
segments of a divided document share a token at each cut, and every token of the document is learned once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireside.data.documents import DataError
from fireside.data.shards import Flag, SourceTokens

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Segments:
    """documents, starts, lengths: int64 [segments]; a segment's document, its first token there, its positions.

    dropped, dropped_targets: tokens that are in no segment, and those of them that loss would be taken of.
    """

    documents: Integers
    starts: Integers
    lengths: Integers
    dropped: int = 0
    dropped_targets: int = 0

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def positions(self) -> int:
        return int(self.lengths.sum())


def segment_documents(source: SourceTokens, length: int) -> Segments:
    """Documents in as few segments as they need; all but a document's last are full rows. Nothing is dropped."""
    positions = np.maximum(source.lengths - 1, 0)
    counts = -(-positions // length)
    documents = np.repeat(np.arange(len(positions), dtype=np.int64), counts)
    firsts = np.cumsum(counts) - counts
    starts = (np.arange(len(documents), dtype=np.int64) - np.repeat(firsts, counts)) * length
    return Segments(documents, starts, np.minimum(length, positions[documents] - starts))


def segment_conversations(source: SourceTokens, length: int) -> Segments:
    """Conversations whole where they fit, else cut where a user's message begins, or at least any message.

    A turn whose question alone fills a row is left out, and one whose first answer does not fit beside its question
    loses the end: no answer is learned without its question. What holds no target is left out. Raises `DataError` for
    a source without conversations.
    """
    if not source.has_flags:
        raise DataError(f"source {source.name} holds plain documents, not conversations")
    found: list[tuple[int, int, int]] = []
    dropped = dropped_targets = 0
    for document, tokens in enumerate(source.lengths.tolist()):
        flags = source.flags(document)
        for start, stop in [(0, tokens)] if tokens - 1 <= length else _cuts(flags, length):
            targets = int(np.count_nonzero(flags[start + 1 : stop] & Flag.TARGET))
            if targets:
                found.append((document, start, stop - start - 1))
                dropped -= stop - start
                dropped_targets -= targets
        dropped += tokens
        dropped_targets += int(np.count_nonzero(flags[1:] & Flag.TARGET))
    table = np.array(found, np.int64).reshape(-1, 3)
    return Segments(table[:, 0], table[:, 1], table[:, 2], dropped, dropped_targets)


def _cuts(flags: NDArray[np.uint8], length: int) -> list[tuple[int, int]]:
    """Pieces of at most `length` + 1 tokens; the first token of each is only read."""
    tokens = len(flags)
    turns = np.append(np.flatnonzero(flags & Flag.TURN_START), tokens)
    messages = np.append(np.flatnonzero(flags & Flag.MESSAGE_START), tokens)
    pieces = []
    start = 0
    while start < tokens:
        stop = _last_within(turns, start, length)
        if stop is None:
            stop = _last_within(messages, start, length)
            if stop is not None and not np.any(flags[start + 1 : stop] & Flag.TARGET):
                stop = None  # a question, which its answer needs
        if stop is not None:
            pieces.append((start, stop))
            start = stop
        else:
            pieces.append((start, min(start + length + 1, tokens)))
            start = int(turns[np.searchsorted(turns, start, side="right")])
    return pieces


def _last_within(borders: Integers, start: int, length: int) -> int | None:
    index = int(np.searchsorted(borders, start + length + 1, side="right")) - 1
    return int(borders[index]) if index >= 0 and borders[index] > start else None
