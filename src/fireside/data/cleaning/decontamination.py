"""Decontamination: documents that hold a run of words of an evaluation file go (Brown et al. 2020, appendix C)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fireside.data.cleaning.outcome import Block, Outcome, Reason, dropped
from fireside.data.cleaning.unicode import repaired
from fireside.data.cleaning.words import Hashes, run_hashes, word_hashes
from fireside.data.documents import DataError, Document, Malformed
from fireside.data.files import expand, format_of, read_jsonl, read_parquet, read_text

_MAX_BYTES = 256_000_000


def evaluation_runs(patterns: Iterable[str], length: int, *, repair: bool = True) -> Hashes:
    """Hashes of all runs of `length` words in the texts of evaluation files, sorted. uint64 [runs].

    `repair`: of Unicode, as of the documents that are compared with them. A text with fewer words has no run and
    catches nothing. Raises `DataError` for a file that cannot be read.
    """
    texts = (repaired(text) if repair else text for pattern in patterns for text in _texts(pattern))
    found = [run_hashes(word_hashes(text), length) for text in texts]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def drop_contaminated(runs: Hashes, length: int) -> Block:
    """A block that drops what shares a run of `length` words with `runs`, which is sorted."""

    def check(document: Document) -> Outcome:
        own = run_hashes(word_hashes(document.text), length)
        places = np.minimum(np.searchsorted(runs, own), len(runs) - 1)
        return dropped(Reason.CONTAMINATED) if (runs[places] == own).any() else Outcome(document)

    return check if len(runs) else Outcome


def _texts(pattern: str) -> Iterator[str]:
    for path in expand(pattern):
        match format_of(path):
            case "jsonl":
                rows = read_jsonl(path, max_bytes=_MAX_BYTES)
            case "parquet":
                rows = read_parquet(path)
            case _:
                rows = read_text(path, encoding="utf-8", separator=None, max_bytes=_MAX_BYTES)
        for row in rows:
            if isinstance(row, Malformed):
                raise DataError(f"evaluation file {row}")
            yield from _strings(row[1])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
