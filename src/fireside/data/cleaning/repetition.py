"""Gopher's rules on repetition (Rae et al. 2021, table A1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fireside.data.cleaning.outcome import Block, Outcome, Reason, dropped
from fireside.data.cleaning.words import Hashes, run_hashes, word_hashes
from fireside.data.config import RepetitionConfig
from fireside.data.documents import Document

SLICE = 5000  # words: the limits are meant for pages, and a book repeats more the longer it is


def judge_repetition(config: RepetitionConfig) -> Block:
    """A block that drops what repeats its lines, paragraphs or runs of words. A text of over three slices of 5,000
    words is judged by runs within its first, middle and last slice."""

    def judge(document: Document) -> Outcome:
        reason = next(_failures(document.text, config), None)
        return Outcome(document) if reason is None else dropped(reason)

    return judge


def _failures(text: str, config: RepetitionConfig) -> Iterator[Reason]:
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    count, characters = _repeated(lines)
    if lines:
        if config.max_duplicate_lines is not None and count / len(lines) > config.max_duplicate_lines:
            yield Reason.DUPLICATE_LINES
        limit = config.max_duplicate_line_characters
        if limit is not None and characters / sum(map(len, lines)) > limit:
            yield Reason.DUPLICATE_LINES
    paragraphs = [paragraph for raw in text.split("\n\n") if (paragraph := raw.strip())]
    limit = config.max_duplicate_paragraphs
    if paragraphs and limit is not None and _repeated(paragraphs)[0] / len(paragraphs) > limit:
        yield Reason.DUPLICATE_PARAGRAPHS
    if config.max_top_ngram is not None or config.max_duplicate_ngrams is not None:
        for words in _slices(word_hashes(text)):
            yield from _run_failures(words, config)


def _run_failures(words: Hashes, config: RepetitionConfig) -> Iterator[Reason]:
    for length, limit in enumerate(config.max_top_ngram or (), start=2):
        runs = run_hashes(words, length)
        if len(runs):
            most = int(np.unique(runs, return_counts=True)[1].max())
            if most > 1 and most * length / len(words) > limit:
                yield Reason.TOP_NGRAM
    for length, limit in enumerate(config.max_duplicate_ngrams or (), start=5):
        share = repeated_share(words, length)
        if share > limit:
            yield Reason.DUPLICATE_NGRAMS
        if not share:  # then no longer run is repeated either
            return


def repeated_share(words: Hashes, length: int) -> float:
    """The share of words that lie in a run of `length` words that occurred before."""
    runs = run_hashes(words, length)
    if not len(runs):
        return 0.0
    again = np.ones(len(runs), bool)
    again[np.unique(runs, return_index=True)[1]] = False  # the first of each is no repetition
    if not again.any():
        return 0.0
    edges = np.zeros(len(words) + 1, np.int64)
    np.add.at(edges, np.flatnonzero(again), 1)
    np.add.at(edges, np.flatnonzero(again) + length, -1)
    return float((np.cumsum(edges[:-1]) > 0).mean())


def _slices(words: Hashes) -> list[Hashes]:
    if len(words) <= 3 * SLICE:
        return [words]
    middle = (len(words) - SLICE) // 2
    return [words[:SLICE], words[middle : middle + SLICE], words[-SLICE:]]


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """How many of `parts` occurred before, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count, characters
