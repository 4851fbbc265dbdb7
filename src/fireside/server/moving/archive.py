"""What somebody uploads, a zip or one JSON file, as conversations. Nothing of it is ever written to a disk."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import IO, Any

from fireside.server.moving import chatgpt, json_stream, librechat, native, openwebui
from fireside.server.moving.json_stream import Malformed, TooLarge
from fireside.server.moving.parsed import Conversation, Reason, Skipped, string
from fireside.server.moving.trees import TooManyMessages

MAX_EXPANSION = 8  # times the largest upload: what all of a zip may come to
MAX_ENTRIES = 50_000
_MAX_AT_ONCE = 8 << 20  # bytes of a zip that are read in one piece, the list of what is in it above all
_MAX_RATIO = 200  # of a large file; text of JSON comes to a tenth or twentieth
_LARGE = 10 << 20

# Of ChatGPT's and our own exports; they hold JSON that is no conversation.
_OTHER_JSON = re.compile(
    r"(user|user_settings|message_feedback|model_comparisons|shared_conversations|group_chats|shopping|sora|"
    r"tool_messages|export_manifest|library_files|conversation_asset_file_names|profile|prompts|projects|feedback|shared-links)"
    r"(-\d+)?\.json"
)


_UNSAFE = re.compile(r"/|[A-Za-z]:|.*\\")


class Unreadable(ValueError):
    """The upload as a whole; the message says why."""


def read(
    file: IO[bytes], name: str, max_bytes: int, progress: Callable[[int, int], None]
) -> Iterator[Conversation | Skipped]:
    """Every conversation in it, and everything else with the reason why it is left out.

    progress: how many bytes of all were read; what it raises goes through. Raises `Unreadable`.
    """
    if file.read(4)[:2] == b"PK":
        yield from _zip(file, max_bytes, progress)
        return
    total = file.seek(0, io.SEEK_END)
    file.seek(0)
    counter = _Counter(total, progress)
    yield from _json(file, name, counter)


class _Counter:
    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = 0, max(total, 1), progress

    def __call__(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)


class _Careful(io.BufferedIOBase):
    """A zip of which nobody reads too much at once: the list of its files, which zipfile reads in one piece and takes
    ten times the memory for, is as long as the zip says."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > _MAX_AT_ONCE:
            size = _MAX_AT_ONCE + 1
        data = self._file.read(size)
        if len(data) > _MAX_AT_ONCE or _entries(data) > MAX_ENTRIES:
            raise Unreadable("there are too many files in it")
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _entries(data: bytes) -> int:
    """How many a zip's list of files has, or 0 if `data` is none (APPNOTE.TXT, 4.3.12): what the zip itself says of
    their number may be a lie."""
    at = count = 0
    while at + 46 <= len(data) and data.startswith(b"PK\1\2", at):
        at += 46 + sum(struct.unpack_from("<HHH", data, at + 28))
        count += 1
    return count


def _zip(file: IO[bytes], max_bytes: int, progress: Callable[[int, int], None]) -> Iterator[Conversation | Skipped]:
    try:
        archive = zipfile.ZipFile(_Careful(file))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("it is a damaged zip file, or not all of one") from error
    with archive:
        chosen: list[zipfile.ZipInfo] = []
        seen: set[str] = set()
        others = 0
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            if entry.is_dir() or entry.filename.startswith("__MACOSX/"):
                continue
            reason = _reason_against(entry)
            if reason is None and entry.filename in seen:
                reason = Reason.DUPLICATE
            seen.add(entry.filename)
            if reason is Reason.OTHER_FILE:
                others += 1
            elif reason is not None:
                yield Skipped(reason, _shown(entry.filename))
            else:
                chosen.append(entry)
        if others:
            yield Skipped(Reason.OTHER_FILE, count=others)
        total = sum(entry.file_size for entry in chosen)
        if total > MAX_EXPANSION * max_bytes:
            raise Unreadable(f"unpacked it would come to more than {MAX_EXPANSION * max_bytes:,} bytes")
        counter = _Counter(total, progress)
        for entry in chosen:
            yield from _entry(archive, entry, counter)


def _reason_against(entry: zipfile.ZipInfo) -> Reason | None:
    name = entry.filename
    path = PurePosixPath(name)
    if _UNSAFE.match(name) or ".." in path.parts or not name.isprintable():
        return Reason.UNSAFE_NAME  # it would do no harm, since nothing is unpacked; but nobody's export has any
    if path.suffix.lower() == ".zip":
        return Reason.NESTED_ARCHIVE
    if path.suffix.lower() != ".json" or _OTHER_JSON.fullmatch(path.name.lower()):
        return Reason.OTHER_FILE
    if entry.flag_bits & 0x1:
        return Reason.ENCRYPTED
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Reason.COMPRESSION  # others may ask for gigabytes of memory
    if entry.file_size > _LARGE and entry.file_size > _MAX_RATIO * max(entry.compress_size, 1):
        return Reason.BOMB
    return None


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in name)[-200:]


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, counter: _Counter) -> Iterator[Conversation | Skipped]:
    where = _shown(entry.filename)
    try:
        with archive.open(entry) as file:
            yield from _json(file, where, counter)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        yield Skipped(Reason.DAMAGED, where, detail=str(error)[:200])


def _json(file: IO[bytes], where: str, counter: _Counter) -> Iterator[Conversation | Skipped]:
    with closing(json_stream.items(file, counter)) as items:  # type: ignore[type-var]  # a generator
        try:
            for item in items:
                yield from _conversation(item, where)
        except Malformed as error:
            yield Skipped(Reason.NOT_JSON, where, detail=str(error))


def _conversation(item: Any, where: str) -> Iterator[Conversation | Skipped]:
    if isinstance(item, TooLarge):
        yield Skipped(Reason.TOO_LARGE, where, item.title)
        return
    if not isinstance(item, dict):
        yield Skipped(Reason.UNKNOWN_FORMAT, where)
        return
    title = string(item.get("title"))[:200]
    reader: Any = next((one for one in (chatgpt, openwebui, librechat, native) if one.fits(item)), None)
    if reader is None or (reader is native and native.is_newer(item)):
        yield Skipped(Reason.UNKNOWN_FORMAT, where, title)
        return
    try:
        conversation: Conversation = reader.parse(item)
    except TooManyMessages:
        yield Skipped(Reason.TOO_LARGE, where, title)
        return
    yield from conversation.notes.skipped(where, conversation.title[:200])
    if conversation.messages:
        yield conversation
    else:
        yield Skipped(Reason.NO_MESSAGES, where, conversation.title[:200])
