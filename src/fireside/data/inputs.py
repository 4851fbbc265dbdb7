"""What a dataset was made of: noted when it is made, and compared when it is asked for again, mostly unread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fireside.data.config import CleaningConfig, DataConfig
from fireside.data.documents import DataError
from fireside.data.files import expand
from fireside.data.hub import resolved
from fireside.data.manifest import FileRecord, Manifest, SourceRecord, file_record
from fireside.data.shards import open_dataset
from fireside.data.sources import source_files, source_kind
from fireside.data.tokenizing import document_borders, token_dtype
from fireside.tokenizers.chat_template import ChatTemplate
from fireside.tokenizers.tokenizer import Tokenizer

STAMPS_FILE = "stamps.json"  # beside the manifest, which holds no time

Stamps = dict[str, list[int]]  # of files: size and times, which change when they do


def record_inputs(config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate | None, stamps: Stamps) -> Manifest:
    """The manifest before anything was read: what the dataset is a function of. Adds the files' stamps to `stamps`.
    Raises `DataError`."""
    sources = []
    for wanted in config.sources:
        source = resolved(wanted)
        kind = source_kind(source)
        if kind != "documents" and template is None:
            raise DataError(
                f"source {source.name} holds conversations ({kind}), and the tokenizer has no chat template"
            )
        sources.append(
            SourceRecord(
                name=source.name,
                kind=kind,
                licence=source.licence,
                note=source.note,
                weight=source.weight,
                files=[_recorded(path, stamps) for path in source_files(source)],
                revision=source.revision,
            )
        )
    return Manifest(
        **_identity(config, tokenizer, template),
        vocab_size=tokenizer.vocab_size,
        dtype="uint16" if token_dtype(tokenizer.vocab_size).itemsize == 2 else "uint32",
        document_end=document_borders(tokenizer)[1],
        sources=sources,
        other_files=[_recorded(path, stamps) for path in _other_files(config.cleaning)],
        shards=[],
    )


def find_existing(folder: Path, config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate | None) -> Manifest:
    """The manifest in `folder`, if it came of these inputs. Raises `DataError` naming what differs, or is damaged.

    A file is hashed only if its size or times are not those that it had. The hub is not asked: what was prepared is
    the commit in the manifest.
    """
    dataset = open_dataset(folder)
    found = dataset.manifest
    for name, now in _identity(config, tokenizer, template).items():
        before = getattr(found, name)
        if before != now:
            what = {"tokenizer_sha256": "another tokenizer", "template_sha256": "another template"}.get(name)
            what = what or f"other settings ({_difference(before.model_dump(), now.model_dump())})"
            raise DataError(f"{folder} was prepared with {what}: choose another folder, or remove it first")
    known, known_shards = _read_stamps(folder)
    stamps: Stamps = {}
    pairs = [(record.files, source_files(source)) for record, source in zip(found.sources, config.sources, strict=True)]
    for records, paths in [*pairs, (found.other_files, _other_files(config.cleaning))]:
        if change := _change(records, paths, known, stamps):
            raise DataError(f"{folder} was prepared from other data ({change}): choose another folder, or remove it")
    if _shard_stamps(folder) != known_shards:
        dataset.verify()
    elif stamps == known:
        return found
    write_stamps(folder, stamps)
    return found


def write_stamps(folder: Path, stamps: Stamps) -> None:
    """Notes the stamps of the files that a dataset was read from, and of its own. A folder that cannot be written to is
    no error: without stamps all is hashed again."""
    with suppress(OSError):
        partial = folder / f".{STAMPS_FILE}.partial"
        partial.write_text(json.dumps({"read": stamps, "shards": _shard_stamps(folder)}, indent=1), encoding="utf-8")
        partial.replace(folder / STAMPS_FILE)


def _read_stamps(folder: Path) -> tuple[Stamps, Stamps]:
    try:
        known = json.loads((folder / STAMPS_FILE).read_text(encoding="utf-8"))
        return dict(known["read"]), dict(known["shards"])
    except (OSError, ValueError, TypeError, KeyError):  # not there or damaged: all is hashed
        return {}, {}


def _shard_stamps(folder: Path) -> Stamps:
    return {path.name: _stamp(path) for path in sorted(folder.glob("*.npy"))}


def _stamp(path: Path) -> list[int]:
    """The time of the last change of the file's entry is there because the other can be set, and copies set it."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _recorded(path: Path, stamps: Stamps) -> FileRecord:
    stamps[str(path)] = _stamp(path)  # first: what changes it while it is hashed shows the next time
    return file_record(path)


def _change(records: Sequence[FileRecord], paths: Iterable[Path], known: Stamps, stamps: Stamps) -> str | None:
    """What differs between files as they were read and as they are, if anything does. Adds their stamps to `stamps`."""
    before = {record.path: record for record in records}
    now = {str(path): path for path in paths}
    for name, path in now.items():
        if name not in before:
            return f"{name} is new"
        stamps[name] = _stamp(path)
        if known.get(name) != stamps[name] and file_record(path) != before[name]:
            return f"{name} has changed"
    return next((f"{name} is gone" for name in before if name not in now), None)


def _other_files(cleaning: CleaningConfig) -> list[Path]:
    evaluations = [path for pattern in cleaning.decontaminate for path in expand(pattern)]
    return evaluations if cleaning.classifier is None else [*evaluations, cleaning.classifier.path.expanduser()]


def _identity(config: DataConfig, tokenizer: Tokenizer, template: ChatTemplate | None) -> dict[str, Any]:
    return {
        "config": config.model_copy(update={"processes": 0}),  # which changes nothing
        "tokenizer_sha256": hashlib.sha256(tokenizer.to_json().encode()).hexdigest(),
        "template_sha256": None if template is None else hashlib.sha256(template.source.encode()).hexdigest(),
    }


def _difference(before: Any, now: Any, place: str = "") -> str:
    """The first key whose values differ."""
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(before, dict):
        pairs = [(key, before[key], now.get(key)) for key in before] if isinstance(now, dict) else []
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        pairs = [(index, *values) for index, values in enumerate(zip(before, now, strict=True))]
    for key, old, new in pairs:
        if old != new:
            return _difference(old, new, f"{place}.{key}".lstrip("."))
    return f"{place} was {before!r} and is {now!r}"
