"""`LiveRun`: a generation in progress, with all that it said so far, for as many listeners as there are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from fireside.server.chat.tables import Status
from fireside.server.db.base import now

Event = dict[str, Any]

_json = msgspec.json.Encoder()
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL refuses the first, UTF-8 has no way to write the others
_ADDITIVE = frozenset({"text", "reasoning"})  # types whose events add a piece of text, in the field of that name


def encode(event: Event) -> str:
    return _json.encode(event).decode()


def frame(sequence: int, data: str) -> bytes:
    """As a server-sent event. JSON has no line breaks."""
    return f"id: {sequence}\ndata: {data}\n\n".encode()


def coalesced(events: Iterable[Event]) -> list[Event]:
    """The same text in fewer events: pieces that follow each other become one."""
    result: list[Event] = []
    for event in events:
        kind = event["type"]
        if result and kind in _ADDITIVE and result[-1]["type"] == kind:
            result[-1] = {"type": kind, kind: result[-1][kind] + event[kind]}
        else:
            result.append(event)
    return result


def text_of(events: Iterable[Event], kind: str) -> str:
    return "".join(event[kind] for event in events if event["type"] == kind)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What becomes of a run and of its message."""

    status: Status
    error: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None

    @property
    def event(self) -> Event:
        return {
            "type": "done",
            "status": self.status,
            "finish_reason": self.finish_reason,
            "error": self.error,
            "is_pruned": False,
        }


@dataclass(eq=False, kw_only=True)
class LiveRun:
    """message_id: what it writes into; None for a temporary one, which touches no disk.

    pending: events that no listener was given yet. lines: the others, as JSON, line i with sequence number i + 1.
    """

    id: str
    user_id: str
    model: str = ""  # that it is written with
    conversation_id: str | None = None
    message_id: str | None = None
    base_content: str = ""  # what the message held before, which `said` continues
    base_reasoning: str = ""
    is_blind: bool = False  # as in its plan
    left_out: int | None = None  # how many messages all that it writes was given without
    pending: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    ending: Ending | None = None
    stopped_as: Status | None = None  # what it was told to end as, before it did
    stopped_because: dict[str, Any] | None = None  # its error then
    is_over: bool = False  # and all of it has been delivered
    task: asyncio.Task[Any] | None = None  # what generates
    created_at: datetime = field(default_factory=now)
    finished_at: datetime | None = None
    _said: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _ADDITIVE})
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_temporary(self) -> bool:
        return self.message_id is None

    @property
    def status(self) -> Status:
        return self.ending.status if self.ending else Status.RUNNING

    @property
    def content(self) -> str:
        return self.base_content + "".join(self._said["text"])

    @property
    def reasoning(self) -> str:
        return self.base_reasoning + "".join(self._said["reasoning"])

    def say(self, event: Event) -> None:
        """What `content` and `reasoning` hold from now on, and listeners hear once it is durable."""
        kind = event["type"]
        if kind in _ADDITIVE:
            self._said[kind].append(event[kind])
        self.pending.append(event)

    def take_back(self) -> None:
        """What nobody has heard yet, as if it had never been said; the rest in characters that every database keeps."""
        self.pending.clear()
        durable = [msgspec.json.decode(line) for line in self.lines]
        for kind, pieces in self._said.items():
            pieces[:] = [_UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text_of(durable, kind))]
        self.base_content = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", self.base_content)
        self.base_reasoning = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", self.base_reasoning)

    def deliver(self, lines: Sequence[str]) -> None:
        """What is durable now, to whoever listens."""
        self.lines.extend(lines)
        self._announce()

    def close(self) -> None:
        """No more will come."""
        self.is_over = True
        self._over.set()
        self._announce()

    async def wait_over(self) -> None:
        await self._over.wait()

    async def listen(self, after: int) -> AsyncGenerator[bytes]:
        """Every event behind the one numbered `after`, as they are delivered, several at once for a slow reader."""
        position = min(after, len(self.lines))
        while True:
            changed = self._changed
            if position < len(self.lines):
                new = self.lines[position:]
                yield b"".join(frame(n, line) for n, line in enumerate(new, position + 1))
                position += len(new)
            elif self.is_over:
                return
            else:
                await changed.wait()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
