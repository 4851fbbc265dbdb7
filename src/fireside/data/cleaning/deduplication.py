"""Exact and near duplicates: what has a document in common with those before it. In memory of a fixed size."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fireside.data.cleaning.outcome import Reason
from fireside.data.cleaning.words import Hashes, mixed, run_hashes, word_hashes
from fireside.data.config import DeduplicationConfig

_WAYS = 8  # places that a hash can have in a table
_RUNS = 256  # whose hashes are made at once: they stay in the processor's cache


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b over the text, whitespace and case aside."""
    return int.from_bytes(
        hashlib.blake2b(" ".join(text.lower().split()).encode("utf-8", "replace"), digest_size=8).digest()
    )


def signature(text: str, config: DeduplicationConfig) -> Hashes:
    """MinHash over runs of words, folded into one hash for each band. uint64 [bands], or [0] for a text without runs.

    Source: Broder 1997; banding as in Leskovec et al., Mining of Massive Datasets, 3.4.
    """
    runs = np.unique(run_hashes(word_hashes(text), config.ngram))
    if not len(runs):
        return np.empty(0, np.uint64)
    count = config.bands * config.rows
    multipliers = mixed(np.arange(1, count + 1, dtype=np.uint64)) | np.uint64(1)
    minima = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(runs), _RUNS):
        np.minimum(minima, (runs[start : start + _RUNS] * multipliers[:, None]).min(axis=1), out=minima)
    bands = minima.reshape(config.bands, config.rows)
    folded = np.zeros(config.bands, np.uint64)
    for row in range(config.rows):
        folded = mixed(folded * np.uint64(31) + bands[:, row])
    return folded


class Seen:
    """Sets of hashes in a table of a fixed size. When a place is full, one that stands there is forgotten.

    Attributes:
        forgotten: how many were.
    """

    def __init__(self, sets: int, memory_bytes: int) -> None:
        self._buckets = max(memory_bytes // (8 * _WAYS * sets), 1)
        self._table: NDArray[np.uint64] = np.zeros((sets, self._buckets, _WAYS), np.uint64)
        self._index = np.arange(sets)
        self.forgotten = 0

    def find(self, hashes: Hashes) -> bool:
        """Whether the first hash is in the first set, or the second in the second, and so on."""
        hashes = np.maximum(hashes, 1)  # 0 means free
        return bool((self._table[self._index, self._places(hashes)] == hashes[:, None]).any())

    def add(self, hashes: Hashes) -> None:
        hashes = np.maximum(hashes, 1)
        places = self._places(hashes)
        ways = self._table[self._index, places]
        free = ways == 0
        self.forgotten += int(np.count_nonzero(~free.any(axis=1)))
        way = np.where(free.any(axis=1), free.argmax(axis=1), (hashes >> np.uint64(32)) % np.uint64(_WAYS))
        self._table[self._index, places, way.astype(np.int64)] = hashes

    def _places(self, hashes: Hashes) -> NDArray[np.int64]:
        return (mixed(hashes) % np.uint64(self._buckets)).astype(np.int64)


class Deduplicator:
    """Tells which documents repeat an earlier one. Its answers depend on the order of the documents alone."""

    def __init__(self, config: DeduplicationConfig) -> None:
        sets = config.exact + config.near * config.bands
        per_set = config.memory_mb * 1_000_000 // max(sets, 1)
        self._exact = Seen(1, per_set) if config.exact else None
        self._near = Seen(config.bands, per_set * config.bands) if config.near else None

    @property
    def forgotten(self) -> int:
        """Hashes of earlier texts that there was no memory for; a text has one, and one for each band."""
        return sum(seen.forgotten for seen in (self._exact, self._near) if seen is not None)

    def check(self, exact: int, near: Hashes) -> Reason | None:
        """Why the document goes, or None, and then it counts as seen. `near` may be empty: no near duplicates."""
        own = np.array([exact], np.uint64)
        if self._exact is not None and self._exact.find(own):
            return Reason.EXACT_DUPLICATE
        if self._near is not None and len(near) and self._near.find(near):
            return Reason.NEAR_DUPLICATE
        if self._exact is not None:
            self._exact.add(own)
        if self._near is not None and len(near):
            self._near.add(near)
        return None
