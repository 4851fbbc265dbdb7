"""The conversations of a JSON file, one at a time, whatever its size: no more than one is in memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

CHUNK = 65_536
MAX_CHARACTERS = 32 << 20  # of text in one conversation
MAX_VALUES = 500_000  # in one conversation, names of fields included
MAX_DEPTH = 10_000  # LibreChat's recursive exports nest every answer two deeper than its question
_MAX_SILENCE = 40 << 20  # bytes without the end of a value: a text longer than any conversation may be

_HEX = "[0-9a-fA-F]"
# Each escape in turn, so that a backslash that is itself escaped begins none. What may go on in the next chunk is
# matched at the end of this one only.
_ESCAPE = re.compile(
    rf"\\(?:u[dD][89abAB]{_HEX}{{2}}(?:\\u[dD][c-fC-F]{_HEX}{{2}}|(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?\Z)?"
    rf"|u{_HEX}{{4}}|[^u]|(?:u{_HEX}{{0,3}})?\Z)"
)
# An integer of more digits than Python reads (4,300), which the parser does not survive, is one with a fraction.
_ENDLESS = 4_000
_INTEGER = re.compile(rf"(?<![.\d])\d{{{_ENDLESS},}}(?=[\s,\]}}])", re.ASCII)
_DIGITS = re.compile(r"\d*", re.ASCII)
_LONE = re.compile(rf"\\u[dD][89a-fA-F]{_HEX}{{2}}\Z")


class Malformed(ValueError):
    """Not JSON, from some place on; the message says where."""


class TooLarge:
    """Stands for a conversation that is larger than one may be. title: if it was told before that."""

    def __init__(self, title: str) -> None:
        self.title = title


class Stopped(Exception):
    """Somebody wants no more of it."""


class _Text:
    """The file as JSON parsers take it: in UTF-8, without a mark of byte order, surrogates in pairs.

    The parser takes lone surrogates for an error that ends the file.
    """

    def __init__(self, raw: IO[bytes], progress: Callable[[int], None]) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._held = ""
        self._is_over = False
        self._progress = progress
        self._end = 0
        self._digits = 0  # that the last piece ended with
        self.silence = 0

    def read(self, size: int = CHUNK) -> bytes:
        """Some of it, however much is asked for; nothing for 0, by which the parser finds out what a file gives."""
        while size and not self._is_over:
            data = self._raw.read(CHUNK)
            self._progress(len(data))
            self._is_over = not data
            self.silence += len(data)
            if self.silence > _MAX_SILENCE:
                raise Malformed("it holds a text that is longer than a conversation may be")
            text = self._held + self._decoder.decode(data, final=self._is_over)
            self._held = ""
            self._end = len(text)
            if text := _ESCAPE.sub(self._whole, text):
                return self._tame(text).encode()
        return b""

    def _tame(self, text: str) -> str:
        begin = _DIGITS.match(text).end()  # type: ignore[union-attr]  # it always matches
        if begin == len(text):
            self._digits += begin
            return text
        is_endless = self._digits + begin >= _ENDLESS and text[begin] in " \t\r\n,]}"
        self._digits = len(text) - len(text.rstrip("0123456789"))
        return (text[:begin] + ".0" if is_endless else text[:begin]) + _INTEGER.sub(r"\g<0>.0", text[begin:])

    def _whole(self, match: re.Match[str]) -> str:
        escape = match[0]
        is_lone = len(escape) < 12 and _LONE.match(escape[:6]) is not None
        is_partial = len(escape) not in (2, 6, 12) or escape == "\\u"
        if (is_partial or is_lone) and match.end() == self._end and not self._is_over:
            self._held = escape
            return ""
        return "\\ufffd" + escape[6:] if is_lone else escape


def items(raw: IO[bytes], progress: Callable[[int], None]) -> Iterator[Any]:
    """The elements of a list, or the one value that there is, each as Python's own types and `TooLarge` instead of
    those that are. Numbers with a fraction are `Decimal`.

    progress: is told how many bytes were read, now and then; what it raises goes through. Raises `Malformed` behind the
    last whole item.
    """
    import ijson  # an import that only imports need

    text = _Text(raw, progress)
    events = iter(ijson.basic_parse(text, buf_size=CHUNK))
    try:
        first = next(events, None)
        if first is None:
            raise Malformed("it is empty")
        if first[0] != "start_array":
            yield _build(first, events, text)
            if next(events, None) is not None:
                raise Malformed("something comes behind its end")
            return
        for event in events:
            if event[0] == "end_array":
                break
            yield _build(event, events, text)
        for _ in events:
            pass
    except (ijson.JSONError, UnicodeDecodeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise Malformed(lines[0][:200]) from error


def _build(event: tuple[str, Any], events: Iterator[tuple[str, Any]], text: _Text) -> Any:
    """The value that begins with `event`."""
    stack: list[Any] = []  # what is open, from the outside in
    keys: list[str] = []
    root: Any = None
    depth = characters = values = 0
    is_too_large = False
    while True:
        kind, value = event
        text.silence = 0
        values += 1
        if isinstance(value, str):
            characters += len(value)
        if not is_too_large and (characters > MAX_CHARACTERS or values > MAX_VALUES or depth > MAX_DEPTH):
            is_too_large = True
            title = root.get("title") if isinstance(root, dict) else None
            root = TooLarge(title[:200] if isinstance(title, str) else "")
            stack.clear()
        if kind in ("end_map", "end_array"):
            depth -= 1
            if not is_too_large:
                stack.pop()
                keys.pop()
        elif kind == "map_key":
            if not is_too_large:
                keys[-1] = value
        else:
            is_container = kind in ("start_map", "start_array")
            if not is_too_large:
                made = {} if kind == "start_map" else [] if kind == "start_array" else value
                if not stack:
                    root = made
                elif isinstance(stack[-1], dict):
                    stack[-1][keys[-1]] = made
                else:
                    stack[-1].append(made)
                if is_container:
                    stack.append(made)
                    keys.append("")
            depth += is_container
        if depth == 0:
            return root
        try:
            event = next(events)
        except StopIteration:
            raise Malformed("it ends in the middle of something") from None
