"""Sources: what a `SourceConfig` names, as a stream of documents or conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from fireside.data.chat_formats import BadConversation, Kind, detect, to_openai
from fireside.data.config import HUGGING_FACE, SourceConfig
from fireside.data.documents import Conversation, DataError, Document, Malformed, Problem
from fireside.data.files import Row, expand, first_row, format_of, read_jsonl, read_parquet, read_text

Item = Document | Conversation | Malformed


def read_source(config: SourceConfig) -> Iterator[Item]:
    """The source's items in an order that does not vary. What cannot be used is `Malformed`, and passed over or, with
    `on_error="fail"`, raised as `DataError`. Raises `DataError` also for a path that names nothing."""
    items = _items(config)
    if config.limit is None:
        yield from _checked(items, config)
        return
    taken = 0
    for item in _checked(items, config):
        yield item
        taken += not isinstance(item, Malformed)
        if taken >= config.limit:
            return


def source_files(config: SourceConfig) -> list[Path]:
    """The files of a source, sorted; none for a Hugging Face dataset. Raises `DataError`."""
    return [] if config.path.startswith(HUGGING_FACE) else expand(config.path)


def source_kind(config: SourceConfig) -> Kind:
    """What the source holds: by its config, or by the first row of its first file. Raises `DataError`."""
    if config.kind != "auto":
        return config.kind
    if config.path.startswith(HUGGING_FACE):
        row: Mapping[str, Any] | None = first_row(_hugging_face(config))
    else:
        path = source_files(config)[0]
        row = None if _format(path, config) == "text" else first_row(_rows(path, config, None))
    return "documents" if row is None else detect(row)


def _checked(items: Iterator[Item], config: SourceConfig) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Malformed) and config.on_error == "fail":
            raise DataError(f'source {config.name}: {item}; on_error = "skip" passes over such rows and counts them')
        yield item


def _items(config: SourceConfig) -> Iterator[Item]:
    kind = source_kind(config)
    columns = [config.text_field, *([config.id_field] if config.id_field else [])] if kind == "documents" else None
    if config.path.startswith(HUGGING_FACE):
        yield from (_item(row, kind, config) for row in _hugging_face(config))
        return
    for path in source_files(config):
        for row in _rows(path, config, columns):
            yield _item(row, kind, config)


def _rows(path: Path, config: SourceConfig, columns: list[str] | None) -> Iterator[Row | Malformed]:
    match _format(path, config):
        case "text":
            return read_text(
                path, encoding=config.encoding, separator=config.separator, max_bytes=config.max_document_bytes
            )
        case "jsonl":
            return read_jsonl(path, max_bytes=config.max_document_bytes)
        case _:
            return read_parquet(path, columns=columns)


def _format(path: Path, config: SourceConfig) -> str:
    found = format_of(path) if config.format == "auto" else config.format
    if found is None:
        raise DataError(f"{path}: how to read it does not show in its ending; set the source's format")
    return found


def _item(row: Row | Malformed, kind: Kind, config: SourceConfig) -> Item:
    if isinstance(row, Malformed):
        return row
    where, value = row
    if isinstance(value, str):
        return _document(value, where, where, config)
    if not isinstance(value, Mapping):
        return Malformed(Problem.MALFORMED, where, "the row is not a JSON object")
    name = value.get(config.id_field) if config.id_field else None
    identity = where if name is None else str(name)
    if kind != "documents":
        try:
            messages, tools = to_openai(value, kind)
        except BadConversation as error:
            return Malformed(error.problem, where, str(error))
        return Conversation(messages=messages, tools=tools, id=identity, source=config.name)
    text = value.get(config.text_field)
    if not isinstance(text, str):
        keys = ", ".join(sorted(map(str, value))[:8])
        return Malformed(Problem.NO_TEXT, where, f"there is no text under {config.text_field!r}; there is: {keys}")
    return _document(text, identity, where, config)


def _document(text: str, identity: str, where: str, config: SourceConfig) -> Document | Malformed:
    if not text or text.isspace():
        return Malformed(Problem.EMPTY, where, "the document is empty")
    if len(text) > config.max_document_bytes:
        return Malformed(Problem.TOO_LONG, where, f"the text is longer than {config.max_document_bytes:,} bytes")
    return Document(text=text, id=identity, source=config.name)


def _hugging_face(config: SourceConfig) -> Iterator[Row | Malformed]:
    """Rows of a dataset of the hub, streamed: nothing is kept on disk."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"source {config.name} is a Hugging Face dataset: pip install datasets, to read it") from error
    name = config.path.removeprefix(HUGGING_FACE)
    try:
        rows = datasets.load_dataset(name, config.subset, split=config.hf_split, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield f"{config.path}:{number}", row
    except DataError:
        raise
    except Exception as error:  # whatever the hub, the network or the dataset's files bring
        raise DataError(f"source {config.name}: the dataset {name} cannot be read: {error}") from error


def read_texts(configs: tuple[SourceConfig, ...]) -> Iterator[str]:
    """Every text of the sources, those of messages included, but none that is only for validation: what a tokenizer
    is trained on."""
    for item in chain.from_iterable(read_source(config) for config in configs if config.use != "validation"):
        if isinstance(item, Document):
            yield item.text
        elif isinstance(item, Conversation):
            yield from (message["content"] for message in item.messages)
