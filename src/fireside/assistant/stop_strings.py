"""`StopStrings`: ends a text at the first of several strings, however the text is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence


def held_back(text: str, strings: Sequence[str]) -> int:
    """Length of the longest end of `text` with which one of `strings` could begin; 0 if none could.

    A whole occurrence does not count: look for those first.
    """
    longest = min(max((len(string) for string in strings), default=0) - 1, len(text))
    for length in range(longest, 0, -1):
        end = text[-length:]
        if any(len(string) > length and string.startswith(end) for string in strings):
            return length
    return 0


class StopStrings:
    """Lets text through until one of `strings` is complete, then nothing more.

    The stop string that is complete first ends the text; if several end at the same character, the longest.
    `hit` is that string. It is cut off unless `include` is set. What could be the beginning of one is held back.
    """

    def __init__(self, strings: Sequence[str], *, include: bool = False) -> None:
        self._strings = tuple(strings)
        self._include = include
        self._pending = ""
        self.hit: str | None = None

    def push(self, text: str) -> str:
        """The text that can no longer become part of a stop string."""
        if self.hit is not None:
            return ""
        if not self._strings:
            return text
        self._pending += text
        found = [(start + len(s), start, s) for s in self._strings if (start := self._pending.find(s)) >= 0]
        if found:
            end, start, self.hit = min(found)
            return self._release(end if self._include else start, drop_rest=True)
        return self._release(len(self._pending) - held_back(self._pending, self._strings))

    def finish(self) -> str:
        """What was held back, once no text follows."""
        return self._release(len(self._pending))

    def _release(self, length: int, *, drop_rest: bool = False) -> str:
        text = self._pending[:length]
        self._pending = "" if drop_rest else self._pending[length:]
        return text
