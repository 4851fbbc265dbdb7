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
    """documents, starts, lengths, preambles: int64 [segments]; a segment's document, its first token there, its
    positions, and how many of these are the document's preamble, carried again before that token.

    dropped, dropped_targets: tokens that are in no segment, and those of them that loss would be taken of.
    bare: segments of conversations with a preamble that had no room for it.
    """

    documents: Integers
    starts: Integers
    lengths: Integers
    preambles: Integers
    dropped: int = 0
    dropped_targets: int = 0
    bare: int = 0

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
    lengths = np.minimum(length, positions[documents] - starts)
    return Segments(documents, starts, lengths, np.zeros_like(lengths))


def segment_conversations(source: SourceTokens, length: int) -> Segments:
    """Conversations whole where they fit, else cut where a user's message begins, or at least any message.

    A piece begins with the conversation's preamble (system message, tools), as whatever is asked when the model is
    served does, unless not one turn has room beside it. A turn whose question alone fills a row is left out, and one
    whose first answer does not fit beside its question loses the end: no answer is learned without its question. What
    holds no target is left out. Raises `DataError` for a source without conversations.
    """
    if not source.has_flags:
        raise DataError(f"source {source.name} holds plain documents, not conversations")
    targets = source.targets()
    is_whole = (source.lengths - 1 <= length) & (targets > 0)
    whole = np.flatnonzero(is_whole)
    table = [np.stack([whole, np.zeros_like(whole), source.lengths[whole] - 1, np.zeros_like(whole)], axis=1)]
    dropped, dropped_targets = int(source.lengths[~is_whole].sum()), int(targets[~is_whole].sum())
    bare = 0
    for document in np.flatnonzero(source.lengths - 1 > length).tolist():
        flags = source.flags(document)
        preamble = int(np.count_nonzero(flags & Flag.PREAMBLE))
        pieces = []
        for start, stop, carried in _cuts(flags, length, preamble):
            learned = int(np.count_nonzero(flags[start + 1 : stop] & Flag.TARGET))
            if learned:
                pieces.append((document, start, carried + stop - start - 1, carried))
                dropped -= stop - start
                dropped_targets -= learned
                bare += start > 0 and carried < preamble
        if pieces and pieces[0][1] and any(carried for *_, carried in pieces):
            dropped -= preamble  # which no first piece has, and others do
        table.append(np.array(pieces, np.int64).reshape(-1, 4))
    rows = np.concatenate(table)
    columns = np.ascontiguousarray(rows[np.argsort(rows[:, 0], kind="stable")].T)
    return Segments(columns[0], columns[1], columns[2], columns[3], dropped, dropped_targets, bare)


def _cuts(flags: NDArray[np.uint8], length: int, preamble: int) -> list[tuple[int, int, int]]:
    """Pieces of at most `length` + 1 tokens: start, stop and the tokens of the preamble before. The first token of
    each is only read."""
    tokens = len(flags)
    turns = np.append(np.flatnonzero(flags & Flag.TURN_START), tokens)
    messages = np.append(np.flatnonzero(flags & Flag.MESSAGE_START), tokens)
    pieces = []
    start = 0
    while start < tokens:
        for carried in (preamble, 0) if start else (0,):
            stop = _last_within(turns, start, length - carried)
            if stop is None:
                stop = _last_within(messages, start, length - carried)
                if stop is not None and not np.any(flags[start + 1 : stop] & Flag.TARGET):
                    stop = None  # a question, which its answer needs
            if stop is not None:
                break
        if stop is not None:
            pieces.append((start, stop, carried))
            start = stop
        else:
            pieces.append((start, min(start + length + 1, tokens), 0))
            start = int(turns[np.searchsorted(turns, start, side="right")])
    return pieces


def _last_within(borders: Integers, start: int, length: int) -> int | None:
    index = int(np.searchsorted(borders, start + length + 1, side="right")) - 1
    return int(borders[index]) if index >= 0 and borders[index] > start else None
