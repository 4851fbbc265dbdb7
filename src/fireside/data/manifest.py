"""The manifest of a prepared dataset: what is in it, where it came from, what was left out and why."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fireside.data.config import DataConfig
from fireside.data.documents import DataError

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
VERSION: Literal[1] = 1

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FileRecord(_Record):
    """A file that was read."""

    path: str
    bytes: int
    sha256: str


class SplitRecord(_Record):
    """What one source gave to one split. bytes: of the text as UTF-8, for bits per byte; targets: tokens with loss."""

    documents: int = 0
    tokens: int = 0
    targets: int = 0
    bytes: int = 0


class SourceRecord(_Record):
    """One source's part. read = kept documents + dropped; malformed rows and files come beside."""

    name: str
    kind: str
    licence: str
    note: str
    weight: float | None
    files: list[FileRecord] = Field(default_factory=list)
    revision: str | None = None  # of a Hugging Face dataset: the commit that was read
    read: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    changed: dict[str, int] = Field(default_factory=dict)
    malformed: dict[str, int] = Field(default_factory=dict)
    examples: list[str] = Field(default_factory=list)  # the first malformed rows, each with its place
    train: SplitRecord = Field(default_factory=SplitRecord)
    validation: SplitRecord = Field(default_factory=SplitRecord)


class ShardRecord(_Record):
    """One shard: arrays beside each other, `NAME.tokens.npy`, `NAME.ends.npy` and, of conversations, `NAME.flags.npy`.

    sha256: by the array's name.
    """

    name: str
    source: str
    split: Split
    documents: int
    tokens: int
    sha256: dict[str, str]


class Manifest(_Record):
    """Of a whole dataset. Holds no time and no machine: the same inputs give the same manifest, byte for byte."""

    version: Literal[1] = VERSION
    config: DataConfig
    tokenizer_sha256: str
    template_sha256: str | None
    vocab_size: int
    dtype: Literal["uint16", "uint32"]
    document_end: int
    sources: list[SourceRecord]
    other_files: list[FileRecord] = Field(default_factory=list)  # evaluation files, and the classifier
    forgotten: int = 0  # hashes that deduplication had no memory for
    shards: list[ShardRecord]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which has the hash of every token: two datasets are the same if these are."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def split(self, split: Split) -> SplitRecord:
        """A split's sums over the sources."""
        records = [source.train if split == "train" else source.validation for source in self.sources]
        return SplitRecord(
            documents=sum(record.documents for record in records),
            tokens=sum(record.tokens for record in records),
            targets=sum(record.targets for record in records),
            bytes=sum(record.bytes for record in records),
        )

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Raises `DataError`."""
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{folder} is not a prepared dataset: it has no {MANIFEST_FILE}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} is damaged, or of another version of Fireside: {place}: {first['msg']}") from error


def file_record(path: Path) -> FileRecord:
    """Reads the whole file. Raises `DataError`."""
    try:
        with path.open("rb") as file:
            return FileRecord(
                path=str(path), bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest()
            )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
