"""What sources yield: documents, conversations, and what could be made neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fireside.errors import FiresideError


class DataError(FiresideError):
    """Data cannot be read, prepared or opened. The message says what and where."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text. id: unique within its source. language: ISO 639-1, once a block has found it."""

    text: str
    id: str
    source: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """messages and tools are in OpenAI's form, with at least one message of the assistant's."""

    messages: Sequence[Mapping[str, Any]]
    id: str
    source: str
    tools: Sequence[Mapping[str, Any]] = field(default=())


class Problem(StrEnum):
    """Why a file or row gave nothing."""

    UNREADABLE = "unreadable"
    EMPTY = "empty"
    BINARY = "binary"
    WRONG_ENCODING = "wrong encoding"
    TOO_LONG = "too long"
    MALFORMED = "malformed"
    NO_TEXT = "no text"
    BAD_CONVERSATION = "bad conversation"
    NO_ASSISTANT = "no assistant"


@dataclass(frozen=True, slots=True)
class Malformed:
    """where: file, and line or row. detail: what was wrong, in a few words."""

    problem: Problem
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}"
