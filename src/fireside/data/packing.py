"""Packed batches from prepared sources: mixed by weight, in a random order, from any position on.

The stream is planned window by window. A window takes segments from the sources in turn until they fill so many rows,
packs them (`row_packing`) and shuffles the rows. How it comes out depends only on how many segments each source had
given when it began: those few integers and the row within the window are the whole position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fireside.data.batch import IGNORED, Batch
from fireside.data.config import PackingConfig
from fireside.data.documents import DataError
from fireside.data.order import order_key, shuffled
from fireside.data.row_packing import Piece, pack_rows
from fireside.data.segments import Segments, segment_conversations, segment_documents
from fireside.data.shards import Flag, SourceTokens

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
    """

    rows: int
    tokens: int
    dropped: float
    dropped_targets: int
    padding: float
    cuts: float


class PackedBatches:
    """The stream that both kinds of batches share. A `BatchSource`.

    Each call of `next_batch` takes the next `rows` * `world_size` rows of one stream, of which rank r gets the r-th
    part; so the position is the same on every rank, and may be restored under another `world_size`.
    """

    _segment: Callable[[SourceTokens, int], Segments]  # how a source's documents are cut to rows at most
    _may_cut: bool  # segments, to fill a row
    _only_targets: bool  # have a label

    def __init__(
        self,
        sources: Sequence[SourceTokens],
        config: PackingConfig,
        *,
        rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """rows: of a batch, on each rank. Raises `DataError` for sources that hold nothing to learn."""
        if not 0 <= rank < world_size or rows < 1:
            raise ValueError(f"rank {rank} of {world_size} with {rows} rows")
        self._config = config
        self._rows, self._rank, self._world_size = rows, rank, world_size
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
        self._weights = [
            float(segments.positions) if source.weight is None else source.weight
            for source, segments in zip(self._sources, self._segments, strict=True)
        ]
        if any(source.weight is None for source in sources) != all(source.weight is None for source in sources):
            raise DataError("some sources have a weight and some have none: give all of them one, or none")
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
        for number in range(self._rows * self._world_size):
            if self._row == len(self._planned):
                self._window += 1
                self._drawn, self._positions, self._row = self._next_drawn, self._next_positions, 0
                self._plan_window()
            if number // self._rows == self._rank:
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
        """Every segment of every source once, in the order they are stored; the last batch may have fewer rows.

        For held-out data: no weights, no shuffling, and the position of the stream stays where it is.
        """
        batch: list[list[tuple[_Place, Piece]]] = []
        for number, row in enumerate(row for window in self._all_windows() for row in window):
            if number // self._rows % self._world_size == self._rank:
                batch.append(row)
                if len(batch) == self._rows:
                    yield self._assemble(batch)
                    batch = []
        if batch:
            yield self._assemble(batch)

    def report(self) -> PackingReport:
        """What packing costs, worked out from lengths alone."""
        rows = cuts = 0
        for window in self._all_windows():
            rows += len(window)
            cuts += sum(piece.offset > 0 for row in window for _, piece in row)
        positions = sum(segments.positions for segments in self._segments)
        return PackingReport(
            rows=rows,
            tokens=self._tokens_in_all,
            dropped=self._dropped / self._tokens_in_all,
            dropped_targets=self._dropped_targets,
            padding=1 - positions / (rows * self._config.sequence_length),
            cuts=cuts / self._documents,
        )

    def _identity(self) -> int:
        """63 bits that change with anything that changes the stream."""
        sources = [
            (source.name, weight, len(segments), hashlib.sha256(segments.lengths.tobytes()).hexdigest())
            for source, segments, weight in zip(self._sources, self._segments, self._weights, strict=True)
        ]
        return order_key(repr((sources, self._config.model_dump(), self._may_cut))) >> 1

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
        places: list[_Place] = []
        held, full = 0, self._config.window_rows * self._config.sequence_length
        for number, segments in enumerate(self._segments):
            for segment, length in enumerate(segments.lengths.tolist()):
                places.append(_Place(number, segment))
                held += length
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
        start = int(segments.starts[place.segment]) + piece.offset
        stop = start + piece.length + 1
        ids = source.ids(document, start, stop)
        return ids, (source.flags(document, start, stop) & Flag.TARGET) > 0 if self._only_targets else None


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
