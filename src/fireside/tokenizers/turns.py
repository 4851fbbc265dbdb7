"""Where each message lies in a rendered conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fireside.errors import FiresideError

_WINDOW = 8  # messages; beyond, a place is looked for in what follows a later turn, not in the whole


class TemplateError(FiresideError):
    """A chat template is broken, or cannot render the conversation it was given."""


class Render(Protocol):
    def __call__(self, first: int, count: int, *, opening: bool = False) -> str:
        """Messages `first` to `count` behind the system messages that the conversation begins with; with `opening`, up
        to where the assistant's next words begin. Raises `TemplateError`."""


@dataclass(frozen=True)
class Turns:
    """A rendered conversation and where each message lies in it.

    text: with `mark` before what only looks like a control token (`Tokenizer.encode_marked`). ends: where each message
    ends and the next begins. openings: where the assistant's own words begin, for its messages. None where the
    template writes a beginning of the conversation otherwise than in the whole.
    preamble: where the first message behind the system messages begins, as far as the text before it (bos, system
    messages, tools) is also what stands before a later turn alone; 0 where it is not, or there is no later turn.
    """

    text: str
    mark: str
    ends: tuple[int | None, ...]
    openings: tuple[int | None, ...]
    preamble: int = 0


def find_turns(render: Render, roles: Sequence[str], mark: str) -> Turns:
    """Renders the whole once, and what leads up to each message to find its place, so that it holds for any template.

    In a long conversation, what leads up to a message is rendered from a user's message shortly before on, behind the
    preamble, where that is found in the whole just so: the time is then linear in the messages. Else all is rendered.
    Raises `TemplateError`.
    """
    finder = _Finder(render, roles)
    ends: list[int | None] = []
    openings: list[int | None] = []
    for index, role in enumerate(roles):
        finder.enter(index, ends[-1] if ends else 0)
        openings.append(finder.place(index, opening=True) if role == "assistant" else None)
        ends.append(len(finder.text) if index == len(roles) - 1 else finder.place(index + 1))
    return Turns(finder.text, mark, tuple(ends), tuple(openings), len(finder.preamble or ""))


class _Finder:
    def __init__(self, render: Render, roles: Sequence[str]) -> None:
        self._render = render
        self._roles = roles
        self._lead = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
        self._first = self._at = 0  # what is rendered begins with this message, which stands here in the text
        self.text = render(0, len(roles))
        self.preamble: str | None = None  # not known
        self._has_tried = False

    def enter(self, index: int, start: int | None) -> None:
        """Message `index` is next. start: where it stands."""
        if start is None or index <= self._lead or self._roles[index] != "user":
            return
        if not self._has_tried:
            self._has_tried = True
            self.preamble = self._before(index, start)
        if self.preamble is not None and index - self._first >= _WINDOW:
            self._first, self._at = index, start

    def _before(self, index: int, start: int) -> str | None:
        """What stands before message `index` where all between it and the system messages is left out."""
        try:
            alone, rest = self._render(index, len(self._roles)), self.text[start:]
        except TemplateError:
            return None
        before = alone[: len(alone) - len(rest)]
        return before if alone.endswith(rest) and self.text.startswith(before) else None

    def place(self, count: int, *, opening: bool = False) -> int | None:
        """Where the first `count` messages end."""
        if self._first:
            found = self._place(self._first, count, opening, self.preamble or "", self._at)
            if found is not None:
                return found
        return self._place(0, count, opening, "", 0)

    def _place(self, first: int, count: int, opening: bool, before: str, at: int) -> int | None:
        try:
            part = self._render(first, count, opening=opening)
        except TemplateError:  # some refuse a conversation that ends with this message
            return None
        if not part.startswith(before):
            return None
        own = part[len(before) :]
        return at + len(own) if self.text.startswith(own, at) else None
