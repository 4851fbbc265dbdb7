"""What a tokenizer is trained on: the texts that are trained on later, all sources in turn."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np

from fireside.data.chat_formats import canonical
from fireside.data.cleaning.decontamination import drop_contaminated, evaluation_runs
from fireside.data.cleaning.deduplication import text_hash
from fireside.data.cleaning.outcome import Block
from fireside.data.cleaning.pipeline import build_blocks, clean, clean_conversation
from fireside.data.config import DataConfig, SourceConfig
from fireside.data.documents import Conversation, Document
from fireside.data.hub import resolved
from fireside.data.mixing import shares
from fireside.data.sources import read_source, source_files
from fireside.data.split import split_of


def training_texts(datasets: Sequence[DataConfig]) -> Iterator[str]:
    """The texts of all documents and messages of `datasets` that are not held out, cleaned; only duplicates are there.

    Sources take turns, each with its share by weight or by the size of its files, so that the first bytes of the stream
    are a sample of the whole. Of a dataset of the hub the size is not known: it counts as the others do on average. A
    stream, the same every time. Raises `DataError`.
    """
    turns: list[tuple[float, int, Iterator[str], float]] = []
    sizes = [[_size(source) for source in _trained(config)] for config in datasets]
    average = fmean([size for row in sizes for size in row if size is not None] or [1.0])
    for config, row in zip(datasets, sizes, strict=True):
        known = [average if size is None else size for size in row]
        parts = shares([source.weight for source in _trained(config)], known)
        for source, part in zip(_trained(config), parts, strict=True):
            share = max(part / sum(parts) * sum(known), 1)  # weights compare sources of one dataset only
            turns.append((0.0, len(turns), _texts(config, source), share))
    heapq.heapify(turns)
    while turns:
        given, number, texts, share = turns[0]
        text = next(texts, None)
        if text is None:
            heapq.heappop(turns)
        else:
            yield text
            given += len(text.encode("utf-8", "replace")) / share
            heapq.heapreplace(turns, (given, number, texts, share))


def _trained(config: DataConfig) -> list[SourceConfig]:
    return [source for source in config.sources if source.use != "validation"]


def _size(source: SourceConfig) -> float | None:
    return sum(path.stat().st_size for path in source_files(source)) or None


def _texts(config: DataConfig, source: SourceConfig) -> Iterator[str]:
    cleaning = config.cleaning
    runs = np.empty(0, np.uint64)
    if cleaning.decontaminate:
        runs = evaluation_runs(cleaning.decontaminate, cleaning.decontamination_ngram, repair=cleaning.unicode)
    blocks = build_blocks(cleaning, runs)
    decontaminate = drop_contaminated(runs, cleaning.decontamination_ngram)
    for item in read_source(resolved(source)):
        if isinstance(item, Document):
            document, _ = clean(item, blocks)
            if document is not None and split_of(config, source, text_hash(document.text)) == "train":
                yield document.text
        elif isinstance(item, Conversation):
            yield from _messages(config, source, item, decontaminate)


def _messages(
    config: DataConfig, source: SourceConfig, conversation: Conversation, decontaminate: Block
) -> Iterator[str]:
    try:
        cleaned, _ = clean_conversation(conversation, config.cleaning, decontaminate)
        text = "" if cleaned is None else canonical(cleaned.messages, cleaned.tools)
    except (TypeError, RecursionError):  # arguments of calls that no template can render either
        return
    if cleaned is not None and split_of(config, source, text_hash(text)) == "train":
        yield from (message["content"] for message in cleaned.messages)
