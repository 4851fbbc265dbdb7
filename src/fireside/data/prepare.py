"""`prepare`: sources to a dataset, in one pass, in many processes, whole or not at all."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from fireside.data.cleaning.decontamination import evaluation_runs
from fireside.data.cleaning.deduplication import Deduplicator
from fireside.data.cleaning.outcome import Reason
from fireside.data.config import DataConfig, SourceConfig
from fireside.data.documents import Conversation, DataError, Document, Malformed
from fireside.data.inputs import Stamps, find_existing, record_inputs, write_stamps
from fireside.data.manifest import MANIFEST_FILE, SPLITS, TOKENIZER_FILE, Manifest, SourceRecord
from fireside.data.parallel import Pool
from fireside.data.shards import ShardWriter, flush_folder
from fireside.data.sources import read_source
from fireside.data.split import split_of
from fireside.data.tokenizing import Prepared, WorkerSetup
from fireside.tokenizers.chat_template import ChatTemplate
from fireside.tokenizers.tokenizer import Tokenizer

EXAMPLES = 10  # of malformed rows that the manifest shows
_CHANGES = frozenset({Reason.UNICODE, Reason.PII, Reason.FOLDED})


@dataclass(frozen=True)
class Progress:
    """How far a preparation is. bytes: of text kept. share: of the sources' files, where these are all to be read."""

    source: str
    documents: int
    kept: int
    tokens: int
    bytes: int
    share: float | None = None

    def __str__(self) -> str:
        share = "" if self.share is None else f", {self.share:.0%} of all"
        return f"{self.source}: {self.documents:,} documents, {self.tokens:,} tokens{share}"


def prepare(
    config: DataConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    template: ChatTemplate | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Makes the dataset that `config` describes in `folder`, and returns its manifest.

    A folder that already holds just that dataset is left as it is; one with another is refused. Files are hashed for
    this only if their sizes or times are others, and a dataset of the hub stays the commit that it was. The folder
    appears at once, when all is written: an end at any moment leaves nothing that could be taken for a dataset.
    Results depend neither on the number of processes nor on the time.

    `template` renders conversations; without one they are an error. Raises `DataError`.
    """
    if folder.exists():
        return find_existing(folder, config, tokenizer, template)
    try:
        with _alone(folder):
            if folder.exists():  # another has made it meanwhile
                return find_existing(folder, config, tokenizer, template)
            stamps: Stamps = {}
            inputs = record_inputs(config, tokenizer, template, stamps)
            partial = folder.with_name(f".{folder.name}.partial")
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                manifest = _Preparation(config, tokenizer, template, partial, inputs, on_progress).run()
                write_stamps(partial, stamps)
                partial.rename(folder)
                flush_folder(folder.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(f"the dataset cannot be written to {folder}: {error}") from error
    return manifest


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other preparations away from `folder`. Raises `DataError` if there is one, and `OSError`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder.with_name(f".{folder.name}.lock")
    try:
        with FileLock(place, timeout=0):
            try:
                yield
            finally:
                place.unlink(missing_ok=True)  # filelock notices if the file it got is no longer there
    except Timeout as error:
        raise DataError(f"another preparation is writing {folder}: wait for it, or choose another folder") from error


class _Preparation:
    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        folder: Path,
        manifest: Manifest,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._template = template
        self._folder = folder
        self._manifest = manifest
        self._on_progress = on_progress
        deduplication = config.cleaning.deduplication
        self._deduplicator = Deduplicator(deduplication) if deduplication else None
        self._read = 0  # bytes of the sources' files
        self._places: deque[int] = deque()  # how many had been read when each item came that is being prepared
        reads_all = all(record.files for record in manifest.sources) and all(s.limit is None for s in config.sources)
        self._to_read = sum(file.bytes for record in manifest.sources for file in record.files) if reads_all else None

    def run(self) -> Manifest:
        (self._folder / TOKENIZER_FILE).write_text(self._tokenizer.to_json(), encoding="utf-8")
        evaluation = self._folder / "evaluation.npy"
        if self._config.cleaning.decontaminate:
            cleaning = self._config.cleaning
            length = cleaning.decontamination_ngram
            np.save(evaluation, evaluation_runs(cleaning.decontaminate, length, repair=cleaning.unicode))
        with Pool(self._setup(evaluation), self._config.processes) as pool:
            for source, record in zip(self._config.sources, self._manifest.sources, strict=True):
                self._prepare_source(source, record, pool)
        evaluation.unlink(missing_ok=True)
        if self._deduplicator is not None:
            self._manifest.forgotten = self._deduplicator.forgotten
        if not self._manifest.split("train").documents:
            raise DataError(f"no document is left to train on: {_summary(self._manifest)}")
        (self._folder / MANIFEST_FILE).write_text(self._manifest.to_json(), encoding="utf-8")
        for path in (self._folder / MANIFEST_FILE, self._folder / TOKENIZER_FILE, self._folder):
            flush_folder(path)
        return self._manifest

    def _setup(self, evaluation: Path) -> WorkerSetup:
        bos, eos = (self._spelling(i) for i in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id))
        return WorkerSetup(
            tokenizer=self._folder / TOKENIZER_FILE,
            bos_token=bos,
            eos_token=eos,
            add_bos=self._tokenizer.add_bos,
            template=None if self._template is None else self._template.source,
            cleaning=self._config.cleaning,
            evaluation=evaluation if evaluation.exists() else None,
        )

    def _spelling(self, token_id: int | None) -> str | None:
        return None if token_id is None else self._tokenizer.decode([token_id], skip_special_tokens=False)

    def _prepare_source(self, source: SourceConfig, record: SourceRecord, pool: Pool) -> None:
        writers = {
            split: ShardWriter(self._folder, source.name, split, shard_tokens=self._config.shard_tokens)
            for split in SPLITS
        }
        for prepared in pool.map(self._usable(source, record)):
            reason = prepared.reasons[-1] if prepared.tokenized is None else self._duplicate(prepared)
            for change in prepared.reasons:
                if change in _CHANGES:
                    record.changed[change] = record.changed.get(change, 0) + 1
            if reason is not None:
                record.dropped[reason] = record.dropped.get(reason, 0) + 1
            elif prepared.tokenized is not None:
                split = split_of(self._config, source, prepared.exact)
                writers[split].add(prepared.tokenized)
                sums = record.train if split == "train" else record.validation
                sums.documents += 1
                sums.tokens += len(prepared.tokenized.ids)
                sums.targets += prepared.tokenized.targets
                sums.bytes += prepared.tokenized.bytes
            self._report(record, self._places.popleft())
        for writer in writers.values():
            writer.finish()
            self._manifest.shards += writer.records
        for counts in (record.dropped, record.changed, record.malformed):
            ordered = sorted(counts.items())
            counts.clear()
            counts.update(ordered)

    def _usable(self, source: SourceConfig, record: SourceRecord) -> Iterator[Document | Conversation]:
        as_recorded = source.model_copy(update={"revision": record.revision, "kind": record.kind})
        for item in read_source(as_recorded, self._count):
            if isinstance(item, Malformed):
                record.malformed[item.problem] = record.malformed.get(item.problem, 0) + 1
                if len(record.examples) < EXAMPLES:
                    record.examples.append(str(item))
            else:
                record.read += 1
                self._places.append(self._read)
                yield item

    def _count(self, read: int) -> None:
        self._read += read

    def _duplicate(self, prepared: Prepared) -> Reason | None:
        return None if self._deduplicator is None else self._deduplicator.check(prepared.exact, prepared.near)

    def _report(self, record: SourceRecord, read: int) -> None:
        train, validation = record.train, record.validation
        kept = train.documents + validation.documents
        self._on_progress(
            Progress(
                source=record.name,
                documents=kept + sum(record.dropped.values()),
                kept=kept,
                tokens=train.tokens + validation.tokens,
                bytes=train.bytes + validation.bytes,
                share=min(read / self._to_read, 1) if self._to_read else None,
            )
        )


def _summary(manifest: Manifest) -> str:
    parts = []
    for source in manifest.sources:
        lost = {**source.dropped, **source.malformed}
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(lost.items(), key=lambda item: -item[1]))
        parts.append(f"{source.name} had {source.read:,} documents ({reasons or 'all in the validation split'})")
    return "; ".join(parts)
