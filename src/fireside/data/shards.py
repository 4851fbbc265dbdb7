"""Shards: token ids of many documents in memory-mapped arrays, and reading them document by document."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireside.data.documents import DataError
from fireside.data.manifest import Manifest, ShardRecord, Split, file_record, read_manifest

Array = NDArray[Any]


class Flag(IntFlag):
    """What is noted of each token of a conversation. uint8."""

    TARGET = 1  # loss is taken of it
    MESSAGE_START = 2  # a message begins with it
    TURN_START = 4  # a user's message does
    PREAMBLE = 8  # it stands before a later turn as well, when a conversation begins with that: system message, tools


@dataclass(frozen=True)
class TokenizedDocument:
    """ids: uint16 or uint32 [tokens]. flags: uint8 [tokens] of a conversation. bytes: of its text."""

    ids: Array
    flags: Array | None
    bytes: int

    @property
    def targets(self) -> int:
        if self.flags is None:
            return len(self.ids) - 1  # the first is predicted from nothing
        return int(np.count_nonzero(self.flags[1:] & Flag.TARGET))


class ShardWriter:
    """Writes the documents of one source and split into shards of about `shard_tokens`.

    A document is never divided. A shard is written under a temporary name, flushed and renamed.
    """

    def __init__(self, folder: Path, source: str, split: Split, *, shard_tokens: int) -> None:
        self.records: list[ShardRecord] = []
        self._folder = folder
        self._source = source
        self._split: Split = split
        self._shard_tokens = shard_tokens
        self._held: list[TokenizedDocument] = []
        self._tokens = 0

    def add(self, document: TokenizedDocument) -> None:
        self._held.append(document)
        self._tokens += len(document.ids)
        if self._tokens >= self._shard_tokens:
            self.finish()

    def finish(self) -> None:
        """Writes what is held. Raises `DataError`, with the disk as it was."""
        if not self._held:
            return
        arrays = {
            "tokens": np.concatenate([document.ids for document in self._held]),
            "ends": np.cumsum([len(document.ids) for document in self._held], dtype=np.int64),
        }
        flags = [document.flags for document in self._held if document.flags is not None]
        if flags:
            arrays["flags"] = np.concatenate(flags)
        name = f"{self._split}-{self._source}-{len(self.records):05}"
        record = ShardRecord(
            name=name,
            source=self._source,
            split=self._split,
            documents=len(self._held),
            tokens=self._tokens,
            sha256={kind: _write(self._folder / f"{name}.{kind}.npy", array) for kind, array in arrays.items()},
        )
        self.records.append(record)
        self._held, self._tokens = [], 0


class SourceTokens:
    """The documents of one source and split, by number. Nothing is in memory but their lengths.

    Attributes:
        name: of the source. weight: its share, None for its size. lengths: int64 [documents], in tokens.
        has_flags: whether it holds conversations.
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[tuple[Array, Array, Array | None]],
        *,
        weight: float | None = None,
    ) -> None:
        """shards: tokens, ends, and flags or None, of each."""
        self.name = name
        self.weight = weight
        self._shards = shards
        self.has_flags = bool(shards) and shards[0][2] is not None
        lengths = [np.diff(ends, prepend=0) for _, ends, _ in shards]
        self.lengths: NDArray[np.int64] = np.concatenate(lengths) if lengths else np.empty(0, np.int64)
        self._first = np.cumsum([0, *(len(ends) for _, ends, _ in shards)])

    @classmethod
    def from_documents(
        cls, name: str, documents: Sequence[tuple[Array, Array | None]], *, weight: float | None = None
    ) -> SourceTokens:
        """Of ids and flags in memory: for a few conversations, and for tests."""
        if not documents:
            return cls(name, [], weight=weight)
        flags = [flags for _, flags in documents if flags is not None]
        ends = np.cumsum([len(ids) for ids, _ in documents], dtype=np.int64)
        tokens = np.concatenate([ids for ids, _ in documents])
        return cls(name, [(tokens, ends, np.concatenate(flags) if flags else None)], weight=weight)

    def ids(self, document: int, start: int = 0, stop: int | None = None) -> Array:
        """Token ids `start` to `stop` of a document, as a view."""
        shard, begin, end = self._place(document)
        return self._shards[shard][0][begin + start : end if stop is None else begin + stop]

    def flags(self, document: int, start: int = 0, stop: int | None = None) -> Array:
        shard, begin, end = self._place(document)
        flags = self._shards[shard][2]
        if flags is None:
            raise DataError(f"source {self.name} holds plain documents, not conversations")
        return flags[begin + start : end if stop is None else begin + stop]

    def targets(self) -> NDArray[np.int64]:
        """Tokens of each conversation that loss is taken of. int64 [documents]; reads all flags once."""
        counts = []
        for _, ends, flags in self._shards:
            if flags is None:
                raise DataError(f"source {self.name} holds plain documents, not conversations")
            starts = np.concatenate([[0], ends[:-1]])
            wanted = (flags & Flag.TARGET) > 0
            counts.append(np.add.reduceat(wanted, starts, dtype=np.int64) - wanted[starts])  # the first is only read
        return np.concatenate(counts) if counts else np.empty(0, np.int64)

    def _place(self, document: int) -> tuple[int, int, int]:
        shard = int(np.searchsorted(self._first, document, side="right")) - 1
        ends = self._shards[shard][1]
        index = document - int(self._first[shard])
        return shard, int(ends[index - 1]) if index else 0, int(ends[index])


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, opened."""

    folder: Path
    manifest: Manifest

    def sources(self, split: Split) -> list[SourceTokens]:
        """The sources that have documents in `split`, in the manifest's order. Raises `DataError` for damage."""
        found = []
        for source in self.manifest.sources:
            records = [shard for shard in self.manifest.shards if (shard.source, shard.split) == (source.name, split)]
            if records:
                shards = [self._open(record) for record in records]
                found.append(SourceTokens(source.name, shards, weight=source.weight))
        return found

    def verify(self) -> None:
        """Compares every byte with the manifest's hashes. Raises `DataError` naming the file that differs."""
        for record in self.manifest.shards:
            for kind, expected in record.sha256.items():
                path = self._path(record, kind)
                if file_record(path).sha256 != expected:
                    raise DataError(f"{path} is not what was prepared: prepare the dataset again")

    def _path(self, record: ShardRecord, kind: str) -> Path:
        return self.folder / f"{record.name}.{kind}.npy"

    def _open(self, record: ShardRecord) -> tuple[Array, Array, Array | None]:
        arrays = {}
        for kind in record.sha256:
            path = self._path(record, kind)
            try:
                arrays[kind] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} is missing or damaged: {error}; prepare the dataset again") from error
        sizes = {kind: array.shape for kind, array in arrays.items()}
        expected = {kind: (record.documents if kind == "ends" else record.tokens,) for kind in record.sha256}
        if sizes != expected:
            raise DataError(f"shard {record.name} has arrays of {sizes}, not {expected}: prepare the dataset again")
        return arrays["tokens"], np.asarray(arrays["ends"]), arrays.get("flags")


def open_dataset(folder: Path) -> Dataset:
    """A dataset that `prepare` made. Raises `DataError` if it is not there or not whole."""
    return Dataset(folder, read_manifest(folder))


def flush_folder(folder: Path) -> None:
    """Brings the folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, array: Array) -> str:
    """Writes an array and returns its SHA-256."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb+") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error}") from error
    return digest
