"""Rows of files: text, JSON lines and Parquet, in bounded memory, whatever the files hold."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from fireside.data.documents import DataError, Malformed, Problem

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20
PARQUET_ROWS = 64  # read at once; a row may be a whole book
FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

OnRead = Callable[[int], None]  # hears how many bytes more of a file have been read
Row = tuple[str, Any]  # where it stands in its file, and what it holds


def format_of(path: Path) -> str | None:
    """How a file is read, by its ending; None for one that is not known."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def expand(pattern: str) -> list[Path]:
    """The files that a file, folder or glob names, in the order of their names. Raises `DataError` if there are none.

    Of a folder, only files of a known ending; hidden ones are passed over.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if _is_visible(file, path) and format_of(file)]
        kinds = ", ".join(FORMATS)
        what = f"{path} holds no file ending in {kinds} (or one of these and .gz)"
    else:
        fixed = next((n for n, part in enumerate(path.parts) if any(c in part for c in "*?[")), len(path.parts))
        base = Path(*path.parts[:fixed]) if fixed else Path()
        rest = "/".join(path.parts[fixed:])
        files = [file for file in base.glob(rest) if _is_visible(file, base)] if rest else []
        what = f"no file is named {pattern}"
    if not files:
        raise DataError(f"{what}: check the source's path")
    return sorted(files)


def _nothing(count: int) -> None:
    pass


def read_text(
    path: Path, *, encoding: str, separator: str | None, max_bytes: int, on_read: OnRead = _nothing
) -> Iterator[Row | Malformed]:
    """The documents of a text file: one, or those between separators. One of more than `max_bytes` is cut at a line."""
    where = str(path)
    try:
        with _opened(path, on_read) as file:
            head = file.read(BLOCK)
            if not head:
                yield Malformed(Problem.EMPTY, where, "the file is empty")
                return
            encoding = next((name for bom, name in _BOMS if head.startswith(bom)), encoding)
            if b"\0" in head and not encoding.startswith(("utf-16", "utf-32")):
                yield Malformed(Problem.BINARY, where, "the file is binary: it holds NUL bytes")
                return
            texts = _documents(_decoded(file, head, encoding), separator, max_bytes)
            count = 0
            for text in texts:
                if text.strip():
                    count += 1
                    yield f"{where}:{count}" if separator or count > 1 else where, text
            if not count:
                yield Malformed(Problem.EMPTY, where, "the file holds only blanks")
    except UnicodeDecodeError as error:
        yield Malformed(
            Problem.WRONG_ENCODING, where, f"the file is not {encoding} (near byte {error.start:,}): set its encoding"
        )
    except (OSError, EOFError, zlib.error) as error:
        yield Malformed(Problem.UNREADABLE, where, f"the file cannot be read: {error}")


def read_jsonl(path: Path, *, max_bytes: int, on_read: OnRead = _nothing) -> Iterator[Row | Malformed]:
    """The rows of a file with one JSON value a line, or with one JSON list."""
    where = str(path)
    try:
        with _opened(path, on_read) as file:
            seen = False
            for number, line in _lines(file, max_bytes):
                place = f"{where}:{number}"
                if line is None:
                    yield Malformed(Problem.TOO_LONG, place, f"the line is longer than {max_bytes:,} bytes")
                elif not seen and line.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                    yield from _json_list(path, line + file.read(max_bytes + 1), max_bytes)
                    return
                elif line.strip():
                    seen = True
                    yield _parsed(place, line)
            if not seen:
                yield Malformed(Problem.EMPTY, where, "the file holds no rows")
    except (OSError, EOFError, zlib.error) as error:
        yield Malformed(Problem.UNREADABLE, where, f"the file cannot be read: {error}")


def read_parquet(
    path: Path, *, columns: Sequence[str] | None = None, on_read: OnRead = _nothing
) -> Iterator[Row | Malformed]:
    """The rows of a Parquet file as objects; with `columns`, only those that are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            row_bytes = path.stat().st_size / max(file.metadata.num_rows, 1)
            wanted = [name for name in columns if name in file.schema_arrow.names] if columns is not None else None
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=wanted):
                on_read(round(row_bytes * batch.num_rows))
                for value in batch.to_pylist():
                    row += 1
                    yield f"{path}:{row}", value
        if not row:
            yield Malformed(Problem.EMPTY, str(path), "the file holds no rows")
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # of values too: text, times
        yield Malformed(Problem.UNREADABLE, str(path), f"not a readable Parquet file (after row {row:,}): {error}")


def first_row(rows: Iterator[Row | Malformed]) -> Mapping[str, Any] | None:
    """The first row that is an object."""
    return next((row[1] for row in rows if isinstance(row, tuple) and isinstance(row[1], Mapping)), None)


class _Counted(io.FileIO):
    """Tells of every read."""

    def __init__(self, path: Path, on_read: OnRead) -> None:
        super().__init__(path)
        self._on_read = on_read

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        count = super().readinto(buffer)
        self._on_read(count or 0)
        return count


@contextmanager
def _opened(path: Path, on_read: OnRead) -> Iterator[BinaryIO]:
    with io.BufferedReader(_Counted(path, on_read), BLOCK) as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw, "rb") as file:
                yield cast(BinaryIO, file)
        else:
            yield raw


def _decoded(file: BinaryIO, head: bytes, encoding: str) -> Iterator[str]:
    try:
        decoder = codecs.getincrementaldecoder(encoding)("strict")
    except LookupError as error:
        raise DataError(f"{encoding!r} is not an encoding that Python knows") from error
    block, read = head, 0
    while block:
        try:
            yield decoder.decode(block)
        except UnicodeDecodeError as error:
            error.start += read
            raise
        read += len(block)
        block = file.read(BLOCK)
    yield decoder.decode(b"", final=True)


def _documents(blocks: Iterator[str], separator: str | None, max_bytes: int) -> Iterator[str]:
    held = io.StringIO()
    size = 0  # in characters: an upper bound of memory is what matters
    for block in blocks:
        held.write(block)
        size += len(block)
        if not (separator or size > max_bytes):
            continue
        text = held.getvalue()
        if separator:
            *whole, text = text.split(separator)
            yield from whole
        while len(text) > max_bytes:
            cut = text.rfind("\n", 0, max_bytes) + 1 or max_bytes
            yield text[:cut]
            text = text[cut:]
        held = io.StringIO()
        held.write(text)
        size = len(text)
    yield held.getvalue()


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None stands for one that is too long."""
    number = 0
    while line := file.readline(max_bytes + 1):
        number += 1
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(BLOCK)
        yield number, None


def _parsed(place: str, line: bytes) -> Row | Malformed:
    if b"\0" in line:
        return Malformed(Problem.BINARY, place, "the line holds NUL bytes: the file is binary, or was cut short")
    try:
        return place, msgspec.json.decode(line.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError as error:
        return Malformed(Problem.WRONG_ENCODING, place, f"the line is not UTF-8 (byte {error.start:,})")
    except (msgspec.DecodeError, RecursionError) as error:
        return Malformed(Problem.MALFORMED, place, f"the line is not JSON: {error}")


def _json_list(path: Path, content: bytes, max_bytes: int) -> Iterator[Row | Malformed]:
    if len(content) > max_bytes:
        detail = f"one JSON list of more than {max_bytes:,} bytes: write one row a line instead"
        yield Malformed(Problem.TOO_LONG, str(path), detail)
        return
    parsed = _parsed(str(path), content)
    if isinstance(parsed, Malformed):
        yield parsed
        return
    for number, value in enumerate(parsed[1], start=1):
        yield f"{path}[{number}]", value


def _is_visible(file: Path, base: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(base).parts)
