"""Sources: what a `SourceConfig` names, as a stream of documents or conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from fireside.data.chat_formats import BadConversation, Kind, detect, to_openai
from fireside.data.config import SourceConfig
from fireside.data.documents import Conversation, DataError, Document, Malformed, Problem
from fireside.data.files import OnRead, Row, expand, first_row, format_of, read_jsonl, read_parquet, read_text
from fireside.data.hub import hub_rows, is_on_hub

Item = Document | Conversation | Malformed


def read_source(config: SourceConfig, on_read: OnRead = lambda count: None) -> Iterator[Item]:
    """The source's items in an order that does not vary. What cannot be used is `Malformed`, and passed over or, with
    `on_error="fail"`, raised as `DataError`. Raises `DataError` also for a path that names nothing.

    `on_read` hears of bytes of the source's files as they are read."""
    items = _items(config, on_read)
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
    return [] if is_on_hub(config) else expand(config.path)


def source_kind(config: SourceConfig) -> Kind:
    """What the source holds: by its config, or by the first row of its first file, in which a `text_field` that was set
    comes before the keys of conversations. Raises `DataError`."""
    if config.kind != "auto":
        return config.kind
    if is_on_hub(config):
        row: Mapping[str, Any] | None = first_row(hub_rows(config))
    else:
        path = source_files(config)[0]
        row = None if _format(path, config) == "text" else first_row(_rows(path, config, None, lambda count: None))
    if row is None or ("text_field" in config.model_fields_set and config.text_field in row):
        return "documents"
    return detect(row)


def _checked(items: Iterator[Item], config: SourceConfig) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Malformed) and config.on_error == "fail":
            raise DataError(f'source {config.name}: {item}; on_error = "skip" passes over such rows and counts them')
        yield item


def _items(config: SourceConfig, on_read: OnRead) -> Iterator[Item]:
    kind = source_kind(config)
    columns = [config.text_field, *([config.id_field] if config.id_field else [])] if kind == "documents" else None
    if is_on_hub(config):
        yield from (_item(row, kind, config) for row in hub_rows(config))
        return
    for path in source_files(config):
        for row in _rows(path, config, columns, on_read):
            yield _item(row, kind, config)


def _rows(path: Path, config: SourceConfig, columns: list[str] | None, on_read: OnRead) -> Iterator[Row | Malformed]:
    match _format(path, config):
        case "text":
            return read_text(
                path,
                encoding=config.encoding,
                separator=config.separator,
                max_bytes=config.max_document_bytes,
                on_read=on_read,
            )
        case "jsonl":
            return read_jsonl(path, max_bytes=config.max_document_bytes, on_read=on_read)
        case _:
            return read_parquet(path, columns=columns, on_read=on_read)


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


def read_texts(configs: tuple[SourceConfig, ...]) -> Iterator[str]:
    """Every text of the sources, those of messages included, but none that is only for validation."""
    for item in chain.from_iterable(read_source(config) for config in configs if config.use != "validation"):
        if isinstance(item, Document):
            yield item.text
        elif isinstance(item, Conversation):
            yield from (message["content"] for message in item.messages)
