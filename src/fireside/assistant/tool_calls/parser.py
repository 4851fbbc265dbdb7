"""`ToolCallParser`: takes tool calls out of an answer while it is being written.

What comes out does not depend on how the text was cut into pieces. A call that is malformed, or names a tool that was
not offered, comes out as plain text, so nothing a model wrote is lost. Only where an answer must be calls, and is cut
off, what there is of a marker or of a call without a name yet is dropped: it was never to be read.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import NoReturn

from fireside.assistant.stop_strings import held_back
from fireside.assistant.text import ToolCallDelta
from fireside.tokenizers.tool_call_format import ToolCallFormat

_WHITESPACE = " \t\r\n"
_ARGUMENT_KEYS = ("arguments", "parameters")  # models taught one of them write the other now and then
_KEYS = frozenset({"name", *_ARGUMENT_KEYS, "type", "id"})
_STRING = r'"(?:[^"\\\x00-\x1f]|\\.)*"'
_GAP = rf"[{_WHITESPACE}]*"
_FIRST_KEY = re.compile(rf"{_GAP}\{{{_GAP}({_STRING})")
_HEADER = re.compile(
    rf'{_GAP}\{{{_GAP}"name"{_GAP}:{_GAP}({_STRING}){_GAP},{_GAP}"(?:{"|".join(_ARGUMENT_KEYS)})"{_GAP}:{_GAP}(?=\{{)'
)


@dataclass(frozen=True)
class Parsed:
    """What a piece of text gave: text that belongs to no call, and pieces of calls."""

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class _State(Enum):
    START = auto()  # nothing but whitespace so far; a bare call may begin
    TEXT = auto()
    CALL = auto()  # inside a call's JSON object, or right before it
    AFTER = auto()  # behind a call, before its end marker or the next call


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class ToolCallParser:
    """Parses one answer.

    names: the tools on offer. enforced: a grammar guarantees that calls are well formed, so arguments stream out
    as they come; otherwise a call comes out whole once it is known to be one. required: and that there is nothing but
    calls. max_calls: text after so many is dropped
    and `is_done` says so.
    """

    def __init__(
        self,
        spelling: ToolCallFormat,
        names: Collection[str],
        *,
        enforced: bool = False,
        required: bool = False,
        max_calls: int | None = None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._format = spelling
        self._names = frozenset(names)
        self._enforced = enforced
        self._required = required
        self._max_calls = max_calls
        self._new_id = new_id
        self._state = _State.START if spelling.bare else _State.TEXT
        self._buffer = ""  # not decided yet; inside a call, the object from its beginning
        self._opening = ""  # what stood before the object: whitespace and marker, for the case that it is no call
        self._scanner = _ObjectScanner()
        self._sent: int | None = None  # inside a call that streams: how much of the buffer is out
        self._text_since_call = True
        self._text: list[str] = []
        self._calls: list[ToolCallDelta] = []
        self.num_calls = 0

    @property
    def is_done(self) -> bool:
        """As many calls as wanted are complete."""
        return self._max_calls is not None and self.num_calls >= self._max_calls and self._state is not _State.CALL

    def push(self, text: str) -> Parsed:
        """What is certain now that `text` came."""
        self._buffer += text
        return self._run(final=False)

    def finish(self) -> Parsed:
        """The rest, once no text follows."""
        return self._run(final=True)

    def _run(self, *, final: bool) -> Parsed:
        steps = {
            _State.START: self._start,
            _State.TEXT: self._plain,
            _State.CALL: self._call,
            _State.AFTER: self._after,
        }
        while not self.is_done and steps[self._state](final):
            pass
        parsed = Parsed("".join(self._text), tuple(self._calls))
        self._text, self._calls = [], []
        return parsed

    # Each step returns whether the next may follow at once; False waits for more text.

    def _start(self, final: bool) -> bool:
        body = self._buffer.lstrip(_WHITESPACE)
        if not body and not final:
            return False
        if body.startswith("{"):
            self._open(self._buffer[: len(self._buffer) - len(body)], body)
        else:
            self._state = _State.TEXT
        return True

    def _plain(self, final: bool) -> bool:
        """Text up to the next marker. Whitespace before a call belongs to the call."""
        buffer, marker = self._buffer, self._format.begin
        start = buffer.find(marker)
        if start >= 0:
            kept = len(buffer[:start].rstrip(_WHITESPACE))
            self._emit(buffer[:kept])
            end = start + len(marker)
            self._open(buffer[kept:end], buffer[end:])
            return True
        if not final:
            kept = len(buffer[: len(buffer) - held_back(buffer, (marker,))].rstrip(_WHITESPACE))
            self._emit(buffer[:kept])
            self._buffer = buffer[kept:]
        else:
            if self._required:
                buffer = buffer[: len(buffer) - held_back(buffer, (marker,))].rstrip(_WHITESPACE)
            if self._text_since_call or buffer.strip(_WHITESPACE):
                self._emit(buffer)
            self._buffer = ""
        return False

    def _call(self, final: bool) -> bool:
        first_key = _FIRST_KEY.match(self._buffer)
        if first_key and _loads(first_key[1]) not in _KEYS:
            return self._give_up(first_key.end())
        if self._enforced and self._sent is None and (header := _HEADER.match(self._buffer)):
            name = _loads(header[1])
            if not isinstance(name, str) or name not in self._names:
                return self._give_up(header.end())
            self._calls.append(ToolCallDelta(index=self.num_calls, id=self._new_id(), name=name))
            self.num_calls += 1
            self._sent = header.end()
        end = broken = None
        try:
            end = self._scanner.scan(self._buffer)
        except _NotJSON as error:
            broken = error.position
        if self._sent is not None:
            upto = self._scanner.position if self._scanner.inner_end is None else self._scanner.inner_end
            if upto > self._sent:
                self._calls.append(ToolCallDelta(index=self.num_calls - 1, arguments=self._buffer[self._sent : upto]))
                self._sent = upto
        if broken is not None:
            return self._give_up(broken)
        if end is None:
            if final and self._sent is None and not self._required:
                return self._give_up(len(self._buffer))
            return False
        if self._sent is None:
            call = _parse_call(self._buffer[:end], arguments_needed=self._format.bare)
            if call is None or call[0] not in self._names:
                return self._give_up(end)
            name, arguments = call
            self._calls.append(ToolCallDelta(index=self.num_calls, id=self._new_id(), name=name, arguments=arguments))
            self.num_calls += 1
        self._buffer = self._buffer[end:]
        self._text_since_call = False
        self._state = _State.AFTER
        return True

    def _after(self, final: bool) -> bool:
        """Drops the end marker, which some models forget, and finds the next bare call."""
        body = self._buffer.lstrip(_WHITESPACE)
        if self._format.bare:
            body = body.removeprefix(";").lstrip(_WHITESPACE)
            if not body and not final:
                return False
            if body.startswith("{"):
                self._open(self._buffer[: len(self._buffer) - len(body)], body)
                return True
        elif body.startswith(self._format.end):
            self._buffer = body[len(self._format.end) :]
        elif self._format.end.startswith(body) and (self._required or not final):
            return False
        self._state = _State.TEXT
        return True

    def _open(self, opening: str, body: str) -> None:
        self._opening, self._buffer = opening, body
        self._scanner = _ObjectScanner()
        self._sent = None
        self._state = _State.CALL

    def _give_up(self, position: int) -> bool:
        """This is no call: all of it up to `position` that is not out yet is text, and there may be calls behind."""
        sent = self._sent
        self._emit(self._opening + self._buffer[:position] if sent is None else self._buffer[sent:position])
        self._buffer = self._buffer[position:]
        self._sent = None
        self._state = _State.TEXT
        return True

    def _emit(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._text_since_call = True


class _NotJSON(Exception):
    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class _ObjectScanner:
    """Finds the end of a JSON object in a growing text, in time linear in its length.

    It follows strings and brackets, and refuses characters that JSON has no place for (the `<` of a marker outside of
    a string, line ends inside). `position`: how far it is. `inner_end`: where the first object inside ended.
    """

    _STRUCTURE = re.compile(r'[{}\[\]"]|[^ \t\r\nA-Za-z0-9:,+\-.]')
    _IN_STRING = re.compile(r'["\\\x00-\x1f]')

    def __init__(self) -> None:
        self.position = 0
        self.inner_end: int | None = None
        self._depth = 0
        self._in_string = False

    def scan(self, text: str) -> int | None:
        """Where the object that begins `text` ends, None if it does not yet. Raises `_NotJSON`."""
        while self.position < len(text):
            pattern = self._IN_STRING if self._in_string else self._STRUCTURE
            found = pattern.search(text, self.position)
            if not self._depth and text[self.position : found.start() if found else None].strip(_WHITESPACE):
                self._refuse(text)
            if found is None:
                self.position = len(text)
                return None
            self.position = found.start()
            character = found[0]
            if character == "\\":
                if self.position + 1 == len(text):
                    return None
                self.position += 2
                continue
            if character < " " or character not in '{}[]"' or (not self._depth and character != "{"):
                raise _NotJSON(self.position)
            self.position += 1
            if character == '"':
                self._in_string = not self._in_string
            elif character in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 1 and self.inner_end is None:
                    self.inner_end = self.position
                if self._depth == 0:
                    return self.position
        return None

    def _refuse(self, text: str) -> NoReturn:
        while text[self.position] in _WHITESPACE:
            self.position += 1
        raise _NotJSON(self.position)


def _parse_call(text: str, *, arguments_needed: bool) -> tuple[str, str] | None:
    """Name and arguments (as the model wrote them) of a call's JSON object, None if it is not a call."""
    members = _members(text)
    if members is None or not members.keys() <= _KEYS:
        return None
    name = _loads(members.get("name", "null"))
    written = [members[key] for key in _ARGUMENT_KEYS if key in members]
    if not isinstance(name, str) or len(written) > 1 or (arguments_needed and not written):
        return None
    arguments = written[0] if written else "{}"
    value = _loads(arguments)
    if isinstance(value, str):  # an object inside a string, as OpenAI's API has it
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            return None  # half a character, which no UTF-8 can carry
        arguments, value = value, _loads(value)
    return (name, arguments) if isinstance(value, dict) else None


def _members(text: str) -> dict[str, str] | None:
    """The members of a JSON object, values as they are written. None if it is not JSON, or a key occurs twice."""
    if not isinstance(_loads(text), dict):
        return None
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    position = text.index("{") + 1
    while (position := _skip(text, position, ",")) < len(text) and text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        start = _skip(text, position, ":")
        _, position = decoder.raw_decode(text, start)
        if key in members:
            return None
        members[key] = text[start:position]
    return members


def _skip(text: str, position: int, separator: str) -> int:
    while position < len(text) and text[position] in _WHITESPACE + separator:
        position += 1
    return position


def _loads(text: str) -> object:
    """The value of a JSON text, `...` if it is not strict JSON."""
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return ...
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
