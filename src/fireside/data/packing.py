"""Packed batches from prepared sources: mixed by weight, in a random order, from any position on.

The stream is planned window by window. A window takes segments from the sources in turn until they fill so many rows,
packs them (`row_packing`) and shuffles the rows. How it comes out depends only on how many segments each source had
given when it began: those few integers and the row within the window are the whole position.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from fireside.data.batch import IGNORED, Batch
from fireside.data.config import PackingConfig
from fireside.data.documents import DataError
from fireside.data.mixing import shares
from fireside.data.order import order_key, shuffled
from fireside.data.row_packing import Piece, pack_rows
from fireside.data.segments import Segments, segment_conversations, segment_documents
from fireside.data.shards import Flag, SourceTokens

_VERSION = 2  # of how segments and rows are made: a position of another version means other batches
_REPORTED = 64  # windows: resuming should not wait for all of a large dataset to be packed
_AHEAD = 4096  # numbers of a source's order that are worked out at once


@dataclass(frozen=True, slots=True)
class _Place:
    """A segment of one of the sources."""

    source: int
    segment: int


@dataclass(frozen=True)
class PackingReport:
    """One pass over the data.

    dropped: share of tokens that are in no row. dropped_targets: tokens among them that loss would be taken of.
    padding: share of the rows' positions. cuts: to fill a row, per document; cuts that length forces do not count.
    repeated: share of the rows' positions that carry the system message and tools of a conversation again, for a later
    piece of it. bare: pieces that had no room for these.
    """

    rows: int
    tokens: int
    dropped: float
    dropped_targets: int
    padding: float
    cuts: float
    repeated: float
    bare: int


class PackedBatches:
    """The stream that both kinds of batches share. A `BatchSource`. Each call of `next_batch` takes its next `rows`."""

    _segment: Callable[[SourceTokens, int], Segments]  # how a source's documents are cut to rows at most
    _may_cut: bool  # segments, to fill a row
    _only_targets: bool  # have a label

    def __init__(self, sources: Sequence[SourceTokens], config: PackingConfig, *, rows: int) -> None:
        """rows: of a batch. Raises `DataError` for sources that hold nothing to learn."""
        if rows < 1:
            raise ValueError(f"a batch of {rows} rows")
        self._config = config
        self._rows = rows
        self._largest_gap = int(config.padding_tolerance * config.sequence_length) if self._may_cut else None
        pairs = [(source, self._segment(source, config.sequence_length)) for source in sources]
        self._sources = [source for source, segments in pairs if len(segments)]
        self._segments = [segments for _, segments in pairs if len(segments)]
        self._documents = sum(len(source.lengths) for source in sources)
        self._tokens_in_all = sum(int(source.lengths.sum()) for source in sources)
        self._dropped = sum(segments.dropped for _, segments in pairs)
        self._dropped_targets = sum(segments.dropped_targets for _, segments in pairs)
        if not self._sources:
            raise DataError("there is nothing to train on: no source has a document with a token to learn")
        try:
            sizes = [segments.positions for segments in self._segments]
            self._weights = shares([source.weight for source in self._sources], sizes)
        except ValueError as error:
            raise DataError(str(error)) from error
        self._fingerprint = self._identity()
        self._orders = [
            _Order(source.name, len(s), config.seed) for source, s in zip(self._sources, self._segments, strict=True)
        ]
        self._window = 0
        self._drawn = [0] * len(self._sources)  # segments that each source gave before this window
        self._positions = [0] * len(self._sources)  # and the positions in them
        self._row = 0
        self._plan_window()

    def next_batch(self) -> Batch:
        rows: list[list[tuple[_Place, Piece]]] = []
        for _ in range(self._rows):
            if self._row == len(self._planned):
                self._window += 1
                self._drawn, self._positions, self._row = self._next_drawn, self._next_positions, 0
                self._plan_window()
            rows.append(self._planned[self._row])
            self._row += 1
        return self._assemble(rows)

    def state(self) -> dict[str, int]:
        state = {"fingerprint": self._fingerprint, "window": self._window, "row": self._row}
        for source, drawn, positions in zip(self._sources, self._drawn, self._positions, strict=True):
            state[f"segments.{source.name}"] = drawn
            state[f"positions.{source.name}"] = positions
        return state

    def restore(self, state: Mapping[str, int]) -> None:
        """As `BatchSource`. Raises `DataError` if `state` is that of other data or another packing."""
        if state.get("fingerprint") != self._fingerprint or state.keys() != self.state().keys():
            raise DataError(
                "the saved position belongs to other data or another packing: sources, their weights, sequence_length, "
                "seed, padding_tolerance and window_rows must be those of the run that is resumed"
            )
        self._window = state["window"]
        self._drawn = [state[f"segments.{source.name}"] for source in self._sources]
        self._positions = [state[f"positions.{source.name}"] for source in self._sources]
        self._plan_window()
        self._row = state["row"]

    def one_pass(self) -> Iterator[Batch]:
        """Every segment of every source once, those of a source as they are stored; the last batch may have fewer rows.

        For held-out data: no weights, no shuffling, and the position of the stream stays where it is.
        """
        rows = (row for window in self._all_windows() for row in window)
        while batch := list(islice(rows, self._rows)):
            yield self._assemble(batch)

    def report(self) -> PackingReport:
        """What packing costs, worked out from lengths alone; of much data, from its first `_REPORTED` windows."""
        length = self._config.sequence_length
        rows = cuts = held = segments = 0
        for window in itertools.islice(self._all_windows(), _REPORTED):
            rows += len(window)
            for row in window:
                held += sum(piece.length for _, piece in row)
                cuts += sum(piece.offset > 0 for _, piece in row)
                segments += sum(piece.offset == 0 for _, piece in row)
        positions, every = (
            sum(values) for values in zip(*((s.positions, len(s)) for s in self._segments), strict=True)
        )
        if segments < every:
            rows, cuts = round(rows * positions / held), round(cuts * every / segments)
        return PackingReport(
            rows=rows,
            tokens=self._tokens_in_all,
            dropped=self._dropped / self._tokens_in_all,
            dropped_targets=self._dropped_targets,
            padding=1 - positions / (rows * length),
            cuts=cuts / self._documents,
            repeated=sum(int(s.preambles.sum()) for s in self._segments) / (rows * length),
            bare=sum(s.bare for s in self._segments),
        )

    def _identity(self) -> int:
        """63 bits that change with anything that changes the stream."""
        sources = [
            (source.name, weight, len(segments), hashlib.sha256(segments.lengths.tobytes()).hexdigest())
            for source, segments, weight in zip(self._sources, self._segments, self._weights, strict=True)
        ]
        return order_key(repr((_VERSION, sources, self._config.model_dump(), self._may_cut))) >> 1

    def _plan_window(self) -> None:
        """Sets the rows of the window that begins where `_drawn` says, and what was drawn at its end."""
        # At most one pass: of little data a window would hold every document many times, the like in rows of their own,
        # and a run over a few of its rows would never meet some.
        one_pass = sum(segments.positions for segments in self._segments)
        wanted = min(self._config.window_rows * self._config.sequence_length, one_pass)
        drawn, positions = list(self._drawn), list(self._positions)
        places: list[_Place] = []
        while wanted > 0:
            number = min(range(len(drawn)), key=lambda n: positions[n] / self._weights[n])
            segment = self._orders[number][drawn[number]]
            length = int(self._segments[number].lengths[segment])
            places.append(_Place(number, segment))
            drawn[number] += 1
            positions[number] += length
            wanted -= length
        self._next_drawn, self._next_positions = drawn, positions
        rows = self._pack(places)
        order = shuffled(np.arange(len(rows)), len(rows), order_key(self._config.seed, "rows", self._window))
        self._planned = [rows[index] for index in order]

    def _pack(self, places: Sequence[_Place]) -> list[list[tuple[_Place, Piece]]]:
        lengths = [int(self._segments[place.source].lengths[place.segment]) for place in places]
        rows = pack_rows(lengths, self._config.sequence_length, largest_gap=self._largest_gap)
        return [[(places[piece.segment], piece) for piece in row] for row in rows]

    def _all_windows(self) -> Iterator[list[list[tuple[_Place, Piece]]]]:
        """Every segment once; of the sources in turn, by size, so that their rows are filled as in the stream."""
        places: list[_Place] = []
        held, full = 0, self._config.window_rows * self._config.sequence_length
        sources = [
            zip(itertools.repeat(number), range(len(s)), s.lengths, (np.arange(len(s)) + 1) / len(s), strict=False)
            for number, s in enumerate(self._segments)
        ]
        for number, segment, length, _ in heapq.merge(*sources, key=lambda item: item[3]):
            places.append(_Place(number, segment))
            held += int(length)
            if held >= full:
                yield self._pack(places)
                places, held = [], 0
        if places:
            yield self._pack(places)

    def _assemble(self, rows: Sequence[Sequence[tuple[_Place, Piece]]]) -> Batch:
        shape = (len(rows), self._config.sequence_length)
        inputs, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        labels, documents = np.full(shape, IGNORED, np.int64), np.full(shape, -1, np.int64)
        for row, pieces in enumerate(rows):
            at = 0
            for document, (place, piece) in enumerate(pieces):
                span = slice(at, at + piece.length)
                ids, wanted = self._tokens(place, piece)
                inputs[row, span] = ids[:-1]
                labels[row, span] = (
                    ids[1:] if wanted is None else np.where(wanted[1:], ids[1:].astype(np.int64), IGNORED)
                )
                documents[row, span] = document
                positions[row, span] = np.arange(piece.length)
                at += piece.length
        return Batch(*map(torch.from_numpy, (inputs, labels, documents, positions)))

    def _tokens(self, place: _Place, piece: Piece) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """Ids of a piece, one more than its positions, and which of them are targets; None: all."""
        source, segments = self._sources[place.source], self._segments[place.source]
        document = int(segments.documents[place.segment])
        carried = int(segments.preambles[place.segment])
        start = int(segments.starts[place.segment]) + piece.offset
        stop = start + piece.length - carried + 1
        ids = source.ids(document, start, stop)
        wanted = (source.flags(document, start, stop) & Flag.TARGET) > 0 if self._only_targets else None
        if carried and wanted is not None:  # only conversations have one, and they are not cut to fill a row
            ids = np.concatenate([source.ids(document, 0, carried), ids])
            wanted = np.concatenate([np.zeros(carried, bool), wanted])
            # the first token of a piece is only read, unless another stands before it
            wanted[carried] = False
        return ids, wanted


class PretrainingBatches(PackedBatches):
    """Documents, every token of them learned. Conversations among the sources count as documents."""

    _segment = staticmethod(segment_documents)
    _may_cut = True
    _only_targets = False


class ConversationBatches(PackedBatches):
    """Conversations, with loss on the assistant's tokens. Every row has a target; none is cut but between messages."""

    _segment = staticmethod(segment_conversations)
    _may_cut = False
    _only_targets = True


class _Order:
    """The random order of a source's segments, epoch after epoch."""

    def __init__(self, name: str, count: int, seed: int) -> None:
        self._name, self._count, self._seed = name, count, seed
        self._block = -1
        self._known: list[int] = []

    def __getitem__(self, number: int) -> int:
        epoch, index = divmod(number, self._count)
        block, offset = divmod(index, _AHEAD)
        wanted = epoch * (self._count // _AHEAD + 1) + block
        if wanted != self._block:
            indices = np.arange(block * _AHEAD, min((block + 1) * _AHEAD, self._count), dtype=np.int64)
            self._known = shuffled(indices, self._count, order_key(self._seed, self._name, epoch)).tolist()
            self._block = wanted
        return self._known[offset]
