"""What an export holds, whoever wrote it: conversations as trees of messages, and what could not be taken over."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

MAX_MESSAGE = 1_000_000  # characters; more than any model reads
MAX_MESSAGES = 20_000  # in one conversation
MAX_TITLE = 200
MAX_SOURCE_ID = 128

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 4_102_444_800  # seconds: 2100
# Seconds have at most ten digits until the year 2286, so what has more counts something smaller.
_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))


class Reason(StrEnum):
    """Why something is not, or not quite, as it was where it came from. The app has the words."""

    # of a file
    NOT_JSON = "not_json"
    UNKNOWN_FORMAT = "unknown_format"
    OTHER_FILE = "other_file"
    NESTED_ARCHIVE = "nested_archive"
    UNSAFE_NAME = "unsafe_name"
    ENCRYPTED = "encrypted"
    COMPRESSION = "compression"
    BOMB = "bomb"
    DUPLICATE = "duplicate"
    DAMAGED = "damaged"
    # of a conversation
    TOO_LARGE = "too_large"
    NO_MESSAGES = "no_messages"
    REFUSED = "refused"
    # of a message, which is left out
    HIDDEN = "hidden"
    EMPTY = "empty"
    TOOL = "tool"
    MALFORMED = "malformed"
    # of a message, which is there all the same
    ATTACHMENT = "attachment"
    TOO_LONG = "too_long"
    CHARACTERS = "characters"
    TIME = "time"
    CIRCLE = "circle"
    NO_PARENT = "no_parent"


@dataclass(frozen=True)
class Skipped:
    """where: the file. title: the conversation, if it is not about the whole file."""

    reason: Reason
    where: str = ""
    title: str = ""
    count: int = 1
    detail: str = ""


@dataclass
class Message:
    """source_id: what it was called there. parent: the source_id of the message before it; None at the beginning.

    pieces: what else it was made of, in order. An export of an earlier day may end with one of them.
    """

    source_id: str
    parent: str | None
    role: str
    content: str
    created_at: datetime | None = None
    reasoning: str | None = None
    status: str = "complete"
    model: str | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    earlier_writers: list[dict[str, Any]] | None = None
    pieces: tuple[str, ...] = ()


@dataclass
class Conversation:
    """messages: every one behind its parent. current: the source_id at the end of the branch that was shown."""

    source: str
    source_id: str
    title: str
    created_at: datetime | None
    updated_at: datetime | None
    messages: list[Message]
    current: str | None = None
    has_own_title: bool = True
    model: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    is_pinned: bool = False
    is_archived: bool = False
    project: tuple[str, str] | None = None  # its name and instructions
    notes: Notes = field(default_factory=lambda: Notes())


class Notes:
    """What is lost of one conversation, counted."""

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()

    def add(self, reason: Reason, count: int = 1) -> None:
        self._counts[reason] += count

    def skipped(self, where: str, title: str) -> Iterator[Skipped]:
        for reason, count in sorted(self._counts.items()):
            yield Skipped(reason, where, title, count)

    # Values of any type come in below; what is not what it should be is taken for missing.

    def text(self, value: object, limit: int = MAX_MESSAGE) -> str:
        """Without what no database keeps, and not longer than `limit`."""
        if not isinstance(value, str):
            return ""
        if _UNSTORABLE.search(value):
            self.add(Reason.CHARACTERS)
            value = _UNSTORABLE.sub(lambda match: "" if match[0] == "\0" else "\ufffd", value)
        if len(value) > limit:
            self.add(Reason.TOO_LONG)
            value = value[:limit]
        return value

    def time(self, value: object) -> datetime | None:
        """Of seconds, milliseconds or less since 1970, or of RFC 3339; None if there is none, or none that can be."""
        try:
            return _time(value)
        except (ValueError, ArithmeticError):
            self.add(Reason.TIME)
            return None


_DIGEST = "sha256:"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _time(value: object) -> datetime | None:
    """Raises ValueError, ArithmeticError."""
    if isinstance(value, str) and value:
        if re.fullmatch(r"\d{1,20}(\.\d{1,20})?", value):
            value = Decimal(value)
        else:
            time = datetime.fromisoformat(value[:64])
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
            if not _EPOCH <= time < _EPOCH + timedelta(seconds=_LATEST):
                raise ValueError("out of range")
            return time
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or value == 0:
        return None
    if not 0 < value < 10**20:  # and before any arithmetic: a number of a few bytes may have a billion digits
        raise ValueError("out of range")
    unit = next((unit for least, unit in _UNITS if value >= least), 1)
    seconds = Decimal(value) / unit
    if seconds >= _LATEST:
        raise ValueError("out of range")
    return _EPOCH + timedelta(microseconds=round(seconds * 1_000_000))


def source_id(value: object) -> str | None:
    """An id as it can be kept, another one for each; None for what is none."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = f"{value:.40}" if isinstance(value, Decimal) else str(value) if abs(value) < 10**40 else None
    if not isinstance(value, str) or not value:
        return None
    if len(value) <= MAX_SOURCE_ID and not _UNSTORABLE.search(value) and not value.startswith(_DIGEST):
        return value
    return _DIGEST + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def string(value: object) -> str:
    return value if isinstance(value, str) else ""
